import { z } from "zod";
import { type Capacity, capacitySource, createCapacity } from "../../src/domains/capacity/index.ts";
import { type Catalog, createCatalog, createCatalogSource, type ProviderFacts } from "../../src/domains/catalog/index.ts";
import {
  createIdentity,
  type Identity,
  identitySource,
  KEY_INDEX,
  mintAdminKey,
  type Origin,
  pepperOf,
  type Permission,
  type Principal,
} from "../../src/domains/identity/index.ts";
import { createRecords, type Records, writeAudit } from "../../src/domains/records/index.ts";
import { createTenants, NAME_INDEX, readRevisions, type Tenants, tenantsSource } from "../../src/domains/tenants/index.ts";
import { createWebhooks, type Webhooks } from "../../src/domains/webhooks/index.ts";
import { createEgress, type EgressOptions } from "../../src/egress/index.ts";
import { type Clock, systemClock } from "../../src/kernel/clock.ts";
import { createIdMaker, PLATFORM_TENANT, type TenantId } from "../../src/kernel/ids.ts";
import { systemRandom } from "../../src/kernel/random.ts";
import type { Answer, RouteContext } from "../../src/kernel/route.ts";
import { bumpConfig, type Database, type DatabaseLog } from "../../src/storage/database/index.ts";
import { createSnapshot } from "../../src/storage/snapshot/index.ts";
import { silentLog, TEST_MASTER_KEY } from "./postgres.ts";

/** One process's configuration and the domains on it, over a database that other processes may share. */
export interface Configuration {
  readonly snapshot: Awaited<ReturnType<typeof openSnapshot>>;
  readonly identity: Identity;
  readonly tenants: Tenants;
  readonly catalog: Catalog;
  readonly capacity: Capacity;
  readonly records: Records;
  readonly webhooks: Webhooks;
  /** What the runner does with a route: allow, one transaction, the handler, the version, the snapshot. Rejects with Problem. */
  act(principal: Principal, id: string, request?: ActRequest): Promise<Answer<Record<string, unknown>>>;
  /** A platform admin, by a key of its own. */
  admin(): Promise<Principal>;
  /** The principal that this key makes. */
  principal(key: unknown, from?: Origin): Promise<Principal>;
}

export interface ActRequest {
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  readonly ifMatch?: number;
}

export interface ConfigurationOptions {
  readonly clock?: Clock;
  readonly pollMs?: number;
  readonly log?: DatabaseLog;
  readonly bootstrapKey?: string;
  readonly stalenessBoundMs?: number;
  /** Routes of domains that are made on these. */
  readonly more?: (on: Pick<Configuration, "snapshot" | "tenants" | "webhooks">) => readonly TestRoute[];
  /** What webhooks may lead to beside public space. */
  readonly egress?: EgressOptions;
}

/** One provider of each nature, and one whose prices the dataset has, as data: no upstream is called. */
const PROVIDERS: readonly ProviderFacts[] = [
  { id: "vendor", nature: "vendor", defaultBaseUrl: "https://vendor.example/v1", secretField: "api_key", freeByDefault: false },
  { id: "openai", nature: "vendor", defaultBaseUrl: "https://openai.example/v1", secretField: "api_key", freeByDefault: false },
  { id: "engine", nature: "engine", defaultBaseUrl: null, secretField: "api_key", freeByDefault: false },
  {
    id: "inside",
    nature: "inside",
    defaultBaseUrl: null,
    secretField: null,
    freeByDefault: true,
    options: z.strictObject({ delay_ms: z.number().int().min(0).default(5) }),
  },
];
const providers = { get: (id: string) => PROVIDERS.find((provider) => provider.id === id), list: () => PROVIDERS };

const makeId = createIdMaker(systemClock, systemRandom);

function openSnapshot(database: Database, options: ConfigurationOptions) {
  return createSnapshot({
    database,
    masterKey: TEST_MASTER_KEY,
    clock: options.clock ?? systemClock,
    random: systemRandom,
    log: options.log ?? silentLog,
    pollMs: options.pollMs ?? 500,
    sources: { identity: identitySource, tenants: tenantsSource, catalog: createCatalogSource({ providers }), capacity: capacitySource },
    listTenants: readRevisions,
    indexes: { [KEY_INDEX]: (parts) => parts.identity.keys.keys(), [NAME_INDEX]: (parts) => [parts.tenants.tenant.name] },
  });
}

export async function openConfiguration(
  t: { after(work: () => Promise<void>): void },
  database: Database,
  options: ConfigurationOptions = {},
): Promise<Configuration> {
  const clock = options.clock ?? systemClock;
  const pepper = pepperOf(TEST_MASTER_KEY);
  const snapshot = await openSnapshot(database, options);
  t.after(() => snapshot.close());
  const common = { database, snapshot, masterKey: TEST_MASTER_KEY, pepper, clock, random: systemRandom, makeId };
  const identity: Identity = createIdentity({
    ...common,
    bootstrapKey: options.bootstrapKey ?? null,
    stalenessBoundMs: options.stalenessBoundMs ?? 900_000,
    projectOf: (tx, project) => tenants.projects.idOf(tx, project),
  });
  const tenants: Tenants = createTenants({ ...common, revokeProjectKeys: (tx, project) => identity.keys.revokeProject(tx, project) });
  const catalog = createCatalog({ ...common, providers });
  const capacity = createCapacity({ ...common, projectOf: tenants.projects.idOf, modelsOf: catalog.modelsOf });
  const records = createRecords(common);
  const egress = createEgress(options.egress ?? { allow: [] });
  const webhooks = createWebhooks({ ...common, egress, log: options.log ?? silentLog });
  const routes: readonly TestRoute[] = [
    ...identity.routes,
    ...tenants.routes,
    ...catalog.routes,
    ...capacity.routes,
    ...records.routes,
    ...webhooks.routes,
    ...(options.more?.({ snapshot, tenants, webhooks }) ?? []),
  ];
  return {
    snapshot,
    identity,
    tenants,
    catalog,
    capacity,
    records,
    webhooks,
    async act(principal, id, request = {}) {
      const route = routes.find((each) => each.id === id);
      if (route === undefined) throw new Error(`no route ${id}`);
      const target =
        route.reach === "platform"
          ? PLATFORM_TENANT
          : route.reach !== "path"
            ? principal.tenant
            : await tenants.find(request.params?.["tenant"] ?? "");
      const allowed = identity.allow(principal, route.permission as Permission, target ?? (crypto.randomUUID() as typeof PLATFORM_TENANT));
      const { answer, version } = await database.forTenant(allowed.tenant, async (transaction) => {
        const context: RouteContext<unknown, unknown, unknown, unknown, unknown> = {
          allowed,
          transaction,
          params: route.params.parse(request.params ?? {}),
          query: route.query.parse(request.query ?? {}),
          body: route.body === null ? undefined : route.body.parse(request.body ?? {}),
          ifMatch: request.ifMatch ?? null,
        };
        const done = await route.handler(context as RouteContext<never, never, never, never, never>);
        return {
          answer: done,
          version: done.configurationChanged === true ? await bumpConfig(transaction, done.tenantsChanged as readonly TenantId[]) : null,
        };
      });
      if (version !== null) await snapshot.catchUp(version);
      return { ...answer, body: route.result.parse(answer.body) as Record<string, unknown> };
    },
    async admin() {
      const { key } = await mintAdminKey({ ...common, writeAudit }, "test");
      return identity.authenticate(key, HERE);
    },
    principal: async (key, from = HERE) => identity.authenticate(String(key), from),
  };
}

const HERE: Origin = { family: "admin", address: "127.0.0.1" };

export interface TestRoute {
  readonly id: string;
  readonly permission: string;
  readonly reach: string;
  readonly params: z.ZodType;
  readonly query: z.ZodType;
  readonly body: z.ZodType | null;
  readonly result: z.ZodType;
  readonly handler: (context: RouteContext<never, never, never, never, never>) => Promise<Answer<unknown>>;
}
