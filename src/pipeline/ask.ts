import { Problem } from "../kernel/problem.ts";
import { advance, type Asked, type Resolved } from "./evidence.ts";

/** What the caller asks for. @throws Problem for a body that is malformed, too large, late, or lacks what its project requires */
export async function ask(call: Resolved): Promise<Asked> {
  const request = await call.caller.read(call.tenant.record.id);
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
