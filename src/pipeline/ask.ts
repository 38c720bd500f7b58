import { Problem } from "../kernel/problem.ts";
import { advance, type Asked, type Resolved } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/** What the caller asks for. @throws Problem for a body that is malformed, too large, late, or lacks what its project requires, or of a caller who lost access while it arrived */
export async function ask(platform: Platform, call: Resolved): Promise<Asked> {
  const startedAt = platform.clock.monotonic();
  const request = await call.caller.read(call.tenant.record.id);
  if (platform.clock.monotonic() - startedAt > UNCHECKED_MS) await checkAgain(platform, call);
  const { attribution } = request;
  for (const tag of call.tenant.project?.require ?? []) {
    const given = tag === "feature" || tag === "user" || tag === "session" ? attribution[tag] : null;
    if (given === null)
      throw new Problem("invalid_request", {
        param: `metadata.${tag}`,
        message: `This project requires '${tag}' on every call: send it as the header x-atrium-${tag} or in 'metadata'.`,
      });
  }
  return advance(call, { request });
}

/** A body may take a minute to arrive: who lost the key, the permission or the tenant meanwhile is not served. */
export async function checkAgain(platform: Platform, { caller, call }: Resolved): Promise<void> {
  const principal = await platform.authenticate(caller.credential, call.origin);
  platform.allow(principal, "models:call", principal.tenant);
  platform.resolve(principal);
}

/** A revocation takes effect within a second, of which this is a small part. */
const UNCHECKED_MS = 100;
