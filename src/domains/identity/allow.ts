import type { TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { authorize } from "./decide.ts";
import type { Allowed, Principal } from "./model.ts";
import type { Permission } from "./permissions.ts";

/** The one place that mints `Allowed`. Throws Problem: not_found for what may not be seen, permission_denied, tenant_suspended. */
export type Allow = <P extends Permission>(principal: Principal, permission: P, tenant: TenantId) => Allowed<P>;

export function createAllow(statusOf: (tenant: TenantId) => "active" | "suspended" | undefined): Allow {
  return (principal, permission, tenant) => {
    const verdict = authorize(principal, permission, { id: tenant, status: statusOf(tenant) });
    switch (verdict) {
      case "allowed":
        return { permission, principal, tenant, project: principal.project } as unknown as Allowed<typeof permission>;
      case "foreign":
        throw new Problem("not_found");
      case "lacking":
        throw new Problem("permission_denied");
      case "suspended":
        throw new Problem("tenant_suspended");
      default:
        return verdict satisfies never;
    }
  };
}
