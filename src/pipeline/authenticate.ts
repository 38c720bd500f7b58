import { advance, type Authenticated, type Received } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/** Who is calling, and that they may call models: one authority for every surface. @throws Problem */
export async function authenticate(platform: Platform, received: Received): Promise<Authenticated> {
  const recognising = platform.authenticate(received.caller.credential, received.call.origin);
  const principal = recognising instanceof Promise ? await recognising : recognising;
  received.caller.belongsTo(principal);
  return advance(received, { principal, allowed: platform.allow(principal, "models:call", principal.tenant) });
}
