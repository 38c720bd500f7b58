import type { Clock } from "../../kernel/clock.ts";
import { PLATFORM_TENANT, type TenantId, type Uuid } from "../../kernel/ids.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { notFound, type SnapshotStore } from "../../storage/snapshot/index.ts";
import type { CatalogPart, Model } from "../catalog/index.ts";
import type { IdentityPart } from "../identity/index.ts";
import type { TenantPart } from "../tenants/index.ts";
import { type CallFacts, Limiter, NO_PART, type Verdict } from "./limiter.ts";
import { createLimitVerbs } from "./limits.ts";
import type { CapacityPart } from "./model.ts";
import type { CapacityVerbsNeeds } from "./needs.ts";
import { capacityRoutes } from "./routes.ts";
import { createRateLimitVerbs } from "./rate-limits.ts";
import { createTierVerbs } from "./tiers.ts";

export type { CallFacts, Permit, Used, Verdict } from "./limiter.ts";
export type { CapacityPart, LimitFigure, LimitFigures, Refusal } from "./model.ts";
export { capacitySource } from "./source.ts";

/** What this domain reads of the configuration snapshot. */
export interface CapacityParts {
  readonly capacity: CapacityPart;
  readonly catalog: CatalogPart;
  readonly identity: IdentityPart;
  readonly tenants: TenantPart;
  readonly keyring: TenantKeyring;
}

export interface CapacityNeeds extends Pick<CapacityVerbsNeeds, "projectOf"> {
  /** What the tenant's keys may call, as this process knows it. */
  readonly modelsOf: (tenant: TenantId) => readonly Model[];
  readonly snapshot: SnapshotStore<CapacityParts>;
  readonly clock: Clock;
  readonly makeId: <Id extends Uuid>() => Id;
}

export interface Capacity {
  /** As `Limiter.permit`. */
  permit(facts: CallFacts): Verdict | Promise<Verdict>;
  /** Levels that this process keeps now, for metrics. */
  levels(): number;
  readonly routes: ReturnType<typeof capacityRoutes>;
}

export function createCapacity(needs: CapacityNeeds): Capacity {
  const { snapshot } = needs;
  const partsOf = (tenant: TenantId): CapacityParts | undefined => snapshot.current.tenants.get(tenant);
  const keyring = (tenant: TenantId): TenantKeyring => {
    const parts = partsOf(tenant);
    if (parts === undefined) throw notFound();
    return parts.keyring;
  };
  const limiter = new Limiter({
    ...needs,
    partOf: (tenant) => partsOf(tenant)?.capacity,
    prefixSecret: (tenant) => keyring(tenant).secret("cache"),
  });
  const verbsNeeds: CapacityVerbsNeeds = {
    ...needs,
    keyring,
    async hasKey(tenant, id) {
      await snapshot.refresh();
      return partsOf(tenant)?.identity.keys.has(id) === true;
    },
    async model(tenant, nameOrId) {
      await snapshot.refresh();
      return modelOf(partsOf(tenant), nameOrId) ?? modelOf(partsOf(PLATFORM_TENANT), nameOrId);
    },
    names: {
      project: (tenant, id) => partsOf(tenant)?.tenants.projects.get(id)?.name,
      model: (tenant, id) => modelOf(partsOf(tenant), id) ?? modelOf(partsOf(PLATFORM_TENANT), id),
    },
  };
  const rateLimits = createRateLimitVerbs({
    ...verbsNeeds,
    modelsOf: needs.modelsOf,
    limits: createLimitVerbs(verbsNeeds),
    tierOf: (tenant) => partsOf(tenant)?.tenants.tenant.tier ?? null,
    platformPart: () => partsOf(PLATFORM_TENANT)?.capacity ?? NO_PART,
  });
  return {
    permit: (facts) => limiter.permit(facts),
    levels: () => limiter.levels,
    routes: capacityRoutes({
      tiers: createTierVerbs(verbsNeeds),
      tenantLimits: createLimitVerbs(verbsNeeds),
      platformLimits: createLimitVerbs(verbsNeeds),
      rateLimits,
      projectOf: needs.projectOf,
    }),
  };
}

function modelOf(parts: CapacityParts | undefined, nameOrId: string): Model | undefined {
  const models = parts?.catalog.models;
  return models?.get(nameOrId) ?? models?.values().find((model) => model.id === nameOrId);
}
