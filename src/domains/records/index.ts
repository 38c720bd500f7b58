import type { TenantId } from "../../kernel/ids.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import type { SnapshotStore } from "../../storage/snapshot/index.ts";
import { recordsRoutes } from "./routes.ts";
import { type AuditVerbs, createAuditVerbs } from "./service.ts";

export type { AuditRow } from "./model.ts";
export { type AuditVerbs, writeAudit } from "./service.ts";

export interface RecordsNeeds {
  readonly snapshot: SnapshotStore<{ readonly keyring: TenantKeyring }>;
}

export interface Records {
  readonly audit: AuditVerbs;
  readonly routes: ReturnType<typeof recordsRoutes>;
}

export function createRecords({ snapshot }: RecordsNeeds): Records {
  const audit = createAuditVerbs((tenant: TenantId) => {
    const parts = snapshot.current.tenants.get(tenant);
    if (parts === undefined) throw new Error("an action on a tenant that the snapshot does not hold");
    return parts.keyring;
  });
  return { audit, routes: recordsRoutes(audit) };
}
