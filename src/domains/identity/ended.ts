import type { KeyId, MemberId, ProjectId, TenantId } from "../../kernel/ids.ts";
import type { ProblemCode } from "../../kernel/problem.ts";
import type { KeyRecord, MemberRecord, Principal } from "./model.ts";
import type { Permission } from "./permissions.ts";
import { permissionsIn } from "./source.ts";

export interface EndedNeeds {
  /** All from the snapshot; undefined for what is no more. */
  readonly statusOf: (tenant: TenantId) => "active" | "suspended" | undefined;
  readonly knownKey: (id: KeyId) => KeyRecord | undefined;
  readonly memberOf: (tenant: TenantId, id: MemberId) => MemberRecord | undefined;
  readonly isProject: (tenant: TenantId, project: ProjectId) => boolean;
}

/**
 * Why what a principal began may not go on: its tenant is suspended, its project, key or membership has ended, or what it is now lacks
 * the permission; null where it may. A key that has merely expired since ends no call that it began.
 */
export type Ended = (principal: Principal, permission: Permission) => EndedBy | null;

export type EndedBy = Extract<ProblemCode, "tenant_suspended" | "invalid_api_key" | "permission_denied">;

export function createEnded(needs: EndedNeeds): Ended {
  return ({ tenant, project, key, member, kind }, permission) => {
    if (kind === "bootstrap") return null;
    const status = needs.statusOf(tenant);
    if (status === "suspended") return "tenant_suspended";
    if (status === undefined || (project !== null && !needs.isProject(tenant, project))) return "invalid_api_key";
    const held = key === null ? heldBy(member, project) : needs.knownKey(key.id)?.permissions;
    if (held === undefined) return "invalid_api_key";
    return held.has(permission) ? null : "permission_denied";
  };

  function heldBy(member: MemberRecord | null, project: ProjectId | null): ReadonlySet<Permission> | undefined {
    const now = member === null ? undefined : needs.memberOf(member.tenant, member.id);
    return now === undefined ? undefined : permissionsIn(now, project);
  }
}
