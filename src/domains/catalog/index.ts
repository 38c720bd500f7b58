import type { Clock } from "../../kernel/clock.ts";
import { PLATFORM_TENANT, type TenantId, type Uuid } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { notFound, type Snapshot, type SnapshotStore } from "../../storage/snapshot/index.ts";
import type { Principal } from "../identity/index.ts";
import type { Tenant } from "../tenants/index.ts";
import { createCredentialVerbs } from "./credentials.ts";
import { findModel, listModels, type ProviderFacts } from "./decide.ts";
import { createDeploymentVerbs } from "./deployments.ts";
import type { CatalogPart, Model } from "./model.ts";
import { createGrantVerbs, createModelVerbs } from "./models.ts";
import { catalogRoutes } from "./routes.ts";

export { priceAt, type ProviderFacts } from "./decide.ts";
export type { CatalogPart, Deployment, DeploymentOptions, Model, Price, Transport } from "./model.ts";
export { createCatalogSource } from "./source.ts";

/** What this domain reads of the configuration snapshot. */
export interface CatalogParts {
  readonly catalog: CatalogPart;
}

export interface CatalogNeeds {
  readonly snapshot: SnapshotStore<CatalogParts & { readonly keyring: TenantKeyring }>;
  readonly clock: Clock;
  readonly makeId: <Id extends Uuid>() => Id;
  readonly providers: { get(id: string): ProviderFacts | undefined; list(): readonly ProviderFacts[] };
}

export interface Catalog {
  /** What the principal may call by this name. Throws Problem model_not_found: one answer for unknown and not allowed. */
  modelFor(snapshot: Snapshot<CatalogParts>, tenant: Tenant, principal: Principal, name: string): Model;
  /** Everything the principal may call, oldest first. */
  modelsFor(snapshot: Snapshot<CatalogParts>, tenant: Tenant, principal: Principal): readonly Model[];
  /** Everything that a key of the tenant may be for, oldest first, as this process knows it. */
  modelsOf(tenant: TenantId): readonly Model[];
  readonly routes: ReturnType<typeof catalogRoutes>;
}

export function createCatalog(needs: CatalogNeeds): Catalog {
  const { snapshot } = needs;
  const verbsNeeds = {
    ...needs,
    keyring(tenant: Parameters<typeof snapshot.current.tenants.get>[0]): TenantKeyring {
      const parts = snapshot.current.tenants.get(tenant);
      if (parts === undefined) throw notFound();
      return parts.keyring;
    },
    platformModels: () => snapshot.current.tenants.get(PLATFORM_TENANT)?.catalog.models ?? NO_MODELS,
    refresh: () => snapshot.refresh(),
  };
  const secretFields = new Set(needs.providers.list().flatMap((provider) => provider.secretField ?? []));
  return {
    modelFor(at, tenant, principal, name) {
      const model = findModel(at.tenants.get(tenant.record.id)?.catalog, at.tenants.get(PLATFORM_TENANT)?.catalog, principal.models, name);
      if (model === undefined) throw new Problem("model_not_found");
      return model;
    },
    modelsFor: (at, tenant, principal) =>
      listModels(at.tenants.get(tenant.record.id)?.catalog, at.tenants.get(PLATFORM_TENANT)?.catalog, principal.models),
    modelsOf: (tenant) =>
      listModels(snapshot.current.tenants.get(tenant)?.catalog, snapshot.current.tenants.get(PLATFORM_TENANT)?.catalog, null),
    routes: catalogRoutes({
      credentials: createCredentialVerbs(verbsNeeds),
      models: createModelVerbs(verbsNeeds),
      deployments: createDeploymentVerbs(verbsNeeds),
      grants: createGrantVerbs(verbsNeeds),
      secretFields: [...secretFields],
    }),
  };
}

const NO_MODELS: ReadonlyMap<string, Model> = new Map();
