import type { Clock } from "../../kernel/clock.ts";
import type { ProjectId, TenantId, Uuid } from "../../kernel/ids.ts";
import type { RandomBytes } from "../../kernel/random.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import type { MasterKey, TenantKeyring } from "../../storage/secrets/index.ts";
import { makeTenantKey, notFound, type Snapshot, type SnapshotStore } from "../../storage/snapshot/index.ts";
import type { Principal } from "../identity/index.ts";
import type { Tenant, TenantPart } from "./model.ts";
import { findTenant, resolve, type TenantsParts } from "./resolve.ts";
import { tenantsRoutes } from "./routes.ts";
import { createProjectVerbs, createTenantVerbs, type ProjectVerbs, type TenantVerbs } from "./service.ts";

export type { Tenant, TenantPart } from "./model.ts";
export type { TenantsParts } from "./resolve.ts";
export type { ProjectVerbs, TenantVerbs } from "./service.ts";
export { tenantsSource } from "./source.ts";
export { readRevisions } from "./store.ts";

/** The snapshot's index of tenants' names. */
export const NAME_INDEX = "names";

export interface TenantsNeeds {
  readonly snapshot: SnapshotStore<TenantsParts & { readonly keyring: TenantKeyring }>;
  readonly masterKey: MasterKey;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly makeId: <Id extends Uuid>() => Id;
  /** Revokes every key of the project, in the transaction. */
  readonly revokeProjectKeys: (tx: TenantTransaction, project: ProjectId) => Promise<void>;
}

export interface Tenants {
  /** The tenant the principal calls for. Throws Problem. */
  resolve(principal: Principal, snapshot: Snapshot<{ readonly tenants: TenantPart }>): Tenant;
  /** The live tenant of this name or id; asks the database before it says there is none. */
  find(nameOrId: string): TenantId | null | Promise<TenantId | null>;
  readonly tenants: TenantVerbs;
  readonly projects: ProjectVerbs;
  readonly routes: ReturnType<typeof tenantsRoutes>;
}

export function createTenants(needs: TenantsNeeds): Tenants {
  const { snapshot } = needs;
  const known = (nameOrId: string): TenantId | null => findTenant(snapshot.current, (name) => snapshot.ownerOf(NAME_INDEX, name), nameOrId);
  const keyring = (tenant: TenantId): TenantKeyring => {
    const parts = snapshot.current.tenants.get(tenant);
    if (parts === undefined) throw notFound();
    return parts.keyring;
  };
  const verbsNeeds = {
    ...needs,
    keyring,
    makeTenantKey: (tx: TenantTransaction) => makeTenantKey(needs, tx),
    async awaitKeyring(tenant: TenantId): Promise<TenantKeyring> {
      await snapshot.ensureTenant(tenant);
      return keyring(tenant);
    },
  };
  const tenants = createTenantVerbs(verbsNeeds);
  const projects = createProjectVerbs(verbsNeeds);
  return {
    resolve,
    find: (nameOrId) => known(nameOrId) ?? snapshot.refresh().then(() => known(nameOrId)),
    tenants,
    projects,
    routes: tenantsRoutes({ tenants, projects, recordOf: (tenant) => snapshot.current.tenants.get(tenant)?.tenants.tenant }),
  };
}
