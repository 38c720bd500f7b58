import { PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import type { Snapshot } from "../../storage/snapshot/index.ts";
import type { Principal } from "../identity/index.ts";
import type { Tenant, TenantPart } from "./model.ts";

/** What this domain reads of the configuration snapshot. */
export interface TenantsParts {
  readonly tenants: TenantPart;
}

/**
 * The tenant the principal calls for: the one place that mints it. Throws Problem tenant_suspended, and invalid_api_key where
 * the tenant or the project ended after the key was looked up. Asked again after any wait, with the snapshot of that moment.
 */
export function resolve(principal: Principal, snapshot: Snapshot<TenantsParts>): Tenant {
  const part = snapshot.tenants.get(principal.tenant)?.tenants;
  if (part === undefined) throw new Problem("invalid_api_key");
  if (part.tenant.status === "suspended") throw new Problem("tenant_suspended");
  const project = principal.project === null ? null : part.projects.get(principal.project);
  if (project === undefined) throw new Problem("invalid_api_key");
  return { record: part.tenant, project } as Tenant;
}

/** The live tenant a path names; null where there is none, and for the platform, which no path names. */
export function findTenant(
  snapshot: Snapshot<TenantsParts>,
  ownerOfName: (name: string) => TenantId | undefined,
  nameOrId: string,
): TenantId | null {
  const id = snapshot.tenants.has(nameOrId as TenantId) ? (nameOrId as TenantId) : ownerOfName(nameOrId);
  return id === undefined || id === PLATFORM_TENANT ? null : id;
}
