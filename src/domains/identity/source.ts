import type { KeyId, TenantId } from "../../kernel/ids.ts";
import { groupByTenant, type Source } from "../../storage/snapshot/index.ts";
import { type KeyPlace, permissionsInPlace, placeOf } from "./decide.ts";
import type { IdentityPart, KeyRecord } from "./model.ts";
import type { Permission } from "./permissions.ts";
import { type KeyRow, readLiveKeys } from "./store.ts";

/** This domain's share of the configuration snapshot: each tenant's live keys. */
export const identitySource: Source<readonly KeyRow[], IdentityPart> = {
  read: async (tx, tenants) => groupByTenant(await readLiveKeys(tx, tenants)),
  build(tenant, rows = []) {
    return { keys: new Map(rows.map((row): [KeyId, KeyRecord] => [row.id, recordOf(tenant, row)])) };
  },
};

function recordOf(tenant: TenantId, row: KeyRow): KeyRecord {
  return {
    id: row.id,
    tenant,
    project: row.project_id,
    hash: row.hash.toString("latin1"),
    permissions: permissionsOf(row.permissions, placeOf(tenant, row.project_id)),
    models: row.models === null ? null : new Set(row.models),
    expiresAt: earlier(row.expires_at, row.grace_until),
  };
}

/** Most keys hold one of a few sets of permissions, and a set takes 250 bytes: keys of equal names and place share theirs. */
function permissionsOf(names: readonly string[], place: KeyPlace): ReadonlySet<Permission> {
  const key = JSON.stringify([place, names]);
  let permissions = shared.get(key);
  if (permissions === undefined) {
    permissions = permissionsInPlace(names, place);
    if (shared.size < MAX_SHARED_SETS) shared.set(key, permissions);
  }
  return permissions;
}

const shared = new Map<string, ReadonlySet<Permission>>();
const MAX_SHARED_SETS = 1_000;

/** A key whose grace after a rotation is over has expired, whatever it was made to last. */
function earlier(expires: Date | null, grace: Date | null): number | null {
  if (expires === null) return grace?.getTime() ?? null;
  return grace === null ? expires.getTime() : Math.min(expires.getTime(), grace.getTime());
}
