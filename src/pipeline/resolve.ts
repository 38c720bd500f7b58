import { advance, type Authenticated, type Resolved } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/** The tenant the call runs for, from the principal alone. @throws Problem tenant_suspended */
export function resolve(platform: Platform, call: Authenticated): Resolved {
  return advance(call, { tenant: platform.resolve(call.principal) });
}
