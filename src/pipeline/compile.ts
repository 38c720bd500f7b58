import type { Brand } from "../kernel/brand.ts";
import type { ModelRequest } from "../kernel/request.ts";
import { advance, type Compiled, type Permitted } from "./evidence.ts";

/** The request as a model will get it: what inbound guardrails let through. The only thing a `generate` hop takes. */
export type CompiledRequest = Brand<ModelRequest, "CompiledRequest">;

/** No tenant has templates or inbound guardrails: what was asked is what is sent. */
export function compile(call: Permitted): Compiled {
  const compiled = call.request as CompiledRequest;
  return advance(call, { compiled });
}
