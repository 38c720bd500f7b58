import type { Clock } from "../../kernel/clock.ts";
import type { KeyId, ModelId, ProjectId, TenantId, Uuid } from "../../kernel/ids.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import type { Model } from "../catalog/index.ts";

/** What this domain's verbs ask of the rest of the house. */
export interface CapacityVerbsNeeds {
  readonly clock: Clock;
  readonly makeId: <Id extends Uuid>() => Id;
  /** Of a tenant that the snapshot holds. */
  readonly keyring: (tenant: TenantId) => TenantKeyring;
  /** The live project of this name or id, which lives on until the transaction ends. Throws not_found. */
  readonly projectOf: (tx: TenantTransaction, nameOrId: string) => Promise<ProjectId>;
  /** Whether the tenant has this live key; as the database has it now. */
  readonly hasKey: (tenant: TenantId, id: KeyId) => Promise<boolean>;
  /** The live model of this name or id, the tenant's own or the platform's; as the database has it now. */
  readonly model: (tenant: TenantId, nameOrId: string) => Promise<Model | undefined>;
  /** As this process knows them. */
  readonly names: {
    readonly project: (tenant: TenantId, id: ProjectId) => string | undefined;
    readonly model: (tenant: TenantId, id: ModelId) => Model | undefined;
  };
}
