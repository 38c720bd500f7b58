import type { Clock } from "../../kernel/clock.ts";
import type { TenantId } from "../../kernel/ids.ts";
import type { Database } from "../../storage/database/index.ts";
import type { MasterKey, TenantKeyring } from "../../storage/secrets/index.ts";
import type { SnapshotStore } from "../../storage/snapshot/index.ts";
import { type CheckpointSigner, createCheckpointSigner } from "./checkpoint.ts";
import { recordsRoutes } from "./routes.ts";
import { type AuditVerbs, createAuditVerbs } from "./service.ts";

export { type Checkpoint, type CheckpointSigner, checkpointSchema, createCheckpointSigner } from "./checkpoint.ts";
export { CHECKPOINT_FILE } from "./checkpoint-log.ts";
export { startRecordKeeping } from "./keeping.ts";
export type { AuditRow } from "./model.ts";
export type { Refusal } from "./refusals.ts";
export { type AuditVerbs, writeAudit } from "./service.ts";
export { tenantsWithTrails } from "./store.ts";
export { readTrails, type TrailEntry, trailEntry } from "./trail.ts";
export { type Verdict, verifyTrails } from "./verify.ts";

export interface RecordsNeeds {
  readonly snapshot: SnapshotStore<{ readonly keyring: TenantKeyring }>;
  readonly database: Pick<Database, "installationId">;
  readonly masterKey: MasterKey;
  readonly clock: Clock;
}

export interface Records {
  readonly audit: AuditVerbs;
  readonly signer: CheckpointSigner;
  readonly routes: ReturnType<typeof recordsRoutes>;
}

export function createRecords({ snapshot, database, masterKey, clock }: RecordsNeeds): Records {
  const signer = createCheckpointSigner(masterKey, database.installationId, clock);
  const keyring = (tenant: TenantId): TenantKeyring => {
    const parts = snapshot.current.tenants.get(tenant);
    if (parts === undefined) throw new Error("an action on a tenant that the snapshot does not hold");
    return parts.keyring;
  };
  const audit = createAuditVerbs(keyring, signer);
  return { audit, signer, routes: recordsRoutes(audit) };
}
