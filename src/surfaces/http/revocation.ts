import type { Ended, EndedBy } from "../../domains/identity/index.ts";
import type { TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import type { Drain } from "./drain.ts";

/**
 * Stops the calls in flight of whoever has lost the right to them, when the configuration of their tenants has changed: what runs
 * costs nothing for it, and a change costs one look at each call of the tenants it names.
 */
export function createRevocation(drain: Pick<Drain, "each">, ended: Ended): (changed: ReadonlySet<TenantId>) => void {
  return (changed) =>
    drain.each((call) => {
      const { principal } = call;
      if (principal === null || !changed.has(principal.tenant)) return;
      const by = ended(principal, "models:call");
      if (by !== null) call.stop(new Problem(by, { message: MESSAGES[by] }));
    });
}

const MESSAGES: Readonly<Record<EndedBy, string>> = {
  tenant_suspended: "This organization was suspended, and the response was stopped. Ask the platform's administrator.",
  invalid_api_key: "This key was revoked, and the response was stopped.",
  permission_denied: "This key may not call models any more, and the response was stopped.",
};
