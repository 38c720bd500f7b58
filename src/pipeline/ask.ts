import { Problem } from "../kernel/problem.ts";
import { advance, type Asked, type Resolved } from "./evidence.ts";

/** What the caller asks for. @throws Problem for a body that is malformed, too large, late, or lacks what its project requires */
export async function ask(call: Resolved): Promise<Asked> {
  const request = await call.caller.read(call.tenant.record.id);
  const attribution = request.attribution;
  const missing = call.tenant.project?.require.find((tag) => (tag === "user" ? attribution.user : tag === "feature" ? attribution.feature : (attribution.tags[tag] ?? null)) === null);
  if (missing !== undefined) throw new Problem("invalid_request", { param: `metadata.${missing}`, message: `This project requires '${missing}' on every call: send it as the header x-atrium-${missing} or in 'metadata'.` });
  return advance(call, { request });
}
