import { createHmac } from "node:crypto";
import type { TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { authorize } from "./decide.ts";
import type { Allowed, Principal, Session } from "./model.ts";
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

/**
 * The session of this principal and the id it names, under its tenant's secret: no other tenant, and no other principal,
 * comes to the same one whatever it names. The one place that mints a session.
 */
export function openSession(principal: Principal, callerSession: string | null, tenantSecret: Buffer): Session {
  const named = callerSession === null ? "0" : `1${callerSession}`;
  const id = createHmac("sha256", tenantSecret).update(`session/${principal.id.length}/${principal.id}/${named}`).digest("base64url");
  return { id } as Session;
}
