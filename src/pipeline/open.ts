import { advance, type Asked, type Opened } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/** The session, derived from tenant and principal: a caller can name one of its own, never another's. */
export function open(platform: Platform, call: Asked): Opened {
  return advance(call, { session: platform.openSession(call.principal, call.request.attribution.session) });
}
