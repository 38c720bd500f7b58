import type { KeyId, TenantId } from "../../kernel/ids.ts";
import { groupByTenant, type Source } from "../../storage/snapshot/index.ts";
import { permissionsInPlace, placeOf } from "./decide.ts";
import type { IdentityPart, KeyRecord } from "./model.ts";
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
    hash: row.hash,
    permissions: permissionsInPlace(row.permissions, placeOf(tenant, row.project_id)),
    models: row.models === null ? null : new Set(row.models),
    expiresAt: earlier(row.expires_at, row.grace_until),
  };
}

/** A key whose grace after a rotation is over has expired, whatever it was made to last. */
function earlier(expires: Date | null, grace: Date | null): number | null {
  if (expires === null) return grace?.getTime() ?? null;
  return grace === null ? expires.getTime() : Math.min(expires.getTime(), grace.getTime());
}
