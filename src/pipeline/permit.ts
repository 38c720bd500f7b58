import type { Brand } from "../kernel/brand.ts";
import { advance, type Opened, type Permitted } from "./evidence.ts";

/** Room under every rate and concurrency limit of the call. Released when the call is over. */
export type Permit = Brand<{ release(): void }, "Permit">;

const UNLIMITED = { release() {} } as Permit;

/** Takes the call's place under its limits, all or none. No limit exists yet that could refuse one. */
export function permit(call: Opened): Permitted {
  return advance(call, { permit: UNLIMITED });
}
