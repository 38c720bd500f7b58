import { advance, type Authenticated, type Received } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/** Who is calling, and that they may call models: one authority for every surface. @throws Problem */
export async function authenticate(platform: Platform, received: Received): Promise<Authenticated> {
  const recognising = platform.authenticate(received.caller.credential);
  const principal = recognising instanceof Promise ? await recognising : recognising;
  return advance(received, { principal, allowed: platform.allow(principal, "models:call", principal.tenant) });
}
