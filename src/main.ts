import { createHmac } from "node:crypto";
import type { AddressInfo } from "node:net";
import path from "node:path";
import type { FastifyInstance } from "fastify";
import { type Config, ConfigError, databaseSettings, readConfig } from "./config.ts";
import { createCatalog, createCatalogSource, type Deployment } from "./domains/catalog/index.ts";
import { createIdentity, identitySource, KEY_INDEX, mintAdminKey, pepperOf } from "./domains/identity/index.ts";
import { createMetering } from "./domains/metering/index.ts";
import { createLocalProvider, createProviders } from "./domains/providers/index.ts";
import { createRecords, writeAudit } from "./domains/records/index.ts";
import { createTenants, NAME_INDEX, readRevisions, tenantsSource } from "./domains/tenants/index.ts";
import { systemClock as clock } from "./kernel/clock.ts";
import { createIdMaker, PLATFORM_TENANT, type TenantId } from "./kernel/ids.ts";
import { systemRandom as random } from "./kernel/random.ts";
import type { Platform } from "./pipeline/platform.ts";
import { serve } from "./pipeline/serve.ts";
import { bumpConfig, DatabaseRefusal, DatabaseUnavailable, openDatabase } from "./storage/database/index.ts";
import { JournalLocked, openJournal } from "./storage/journal/index.ts";
import { derive, loadMasterKey, MasterKeyProblem, type TenantKeyring } from "./storage/secrets/index.ts";
import { createSnapshot } from "./storage/snapshot/index.ts";
import { mountRoutes } from "./surfaces/admin/index.ts";
import { type AdminCall, createDemo, type Demo } from "./surfaces/cli/first-start.ts";
import { welcome } from "./surfaces/cli/welcome.ts";
import { createBodyReader } from "./surfaces/http/body.ts";
import { mountCall } from "./surfaces/http/calls.ts";
import { createDrain, type Drain } from "./surfaces/http/drain.ts";
import { mountHealth } from "./surfaces/http/health.ts";
import { createHttpServer } from "./surfaces/http/server.ts";
import { chatCompletions } from "./surfaces/openai/chat.ts";
import { mountModels } from "./surfaces/openai/models.ts";
import { createLog, createMetrics, type Log, type ProcessLog } from "./telemetry/index.ts";

// The only place that wires: config → storage → domains → pipeline → surfaces → listen.

/** A running Atrium. */
export interface Atrium {
  readonly url: string;
  /** Minted by this start because no platform key existed; null otherwise. */
  readonly adminKey: string | null;
  /** The demo tenant, where this start made it. */
  readonly demo: Demo | null;
  /** Stops taking calls, lets those in flight end within the grace, settles, ships, and ends everything it started. */
  close(): Promise<void>;
}

const newId = createIdMaker(clock, random);
/** Between two looks at the configuration's version, ms. */
const SNAPSHOT_POLL_MS = 500;
/** Between two looks for missing monthly partitions, ms. */
const PARTITION_UPKEEP_MS = 6 * 60 * 60 * 1000;

/** @throws ConfigError, MasterKeyProblem, DatabaseRefusal, JournalLocked with a sentence for the operator */
export async function startAtrium(config: Config): Promise<Atrium> {
  const log = createLog(config.ATRIUM_LOG_LEVEL ?? (process.stderr.isTTY ? "warn" : "info"));
  const storage = await openStorage(config, log);
  const domains = createDomains(config, storage, log);
  const lost = await domains.metering.recover();
  if (lost > 0) log.warn({ attempts: lost }, "attempts that an earlier process left open were charged");
  const drain = createDrain();
  const app = createSurfaces(config, storage, domains, drain, log);
  const isFirstStart = storage.snapshot.current.version === 0;
  await listen(app, config);
  // Once it listens: a start that fails before must not have minted keys that nobody was told.
  const first = await prepareFirstUse(config, storage, app, isFirstStart);
  const { address, port, family } = app.server.address() as AddressInfo;
  return {
    url: `http://${family === "IPv6" ? `[${address}]` : address}:${port}`,
    ...first,
    async close() {
      // Until calls in flight have ended it still listens, so that probes and new calls get their 503.
      await drain.drain(config.ATRIUM_DRAIN_SECONDS * 1000);
      const closing = app.close();
      app.server.closeAllConnections();
      await closing;
      await storage.providers.close();
      await domains.metering.close();
      await storage.close();
      log.close();
    },
  };
}

async function listen(app: FastifyInstance, { PORT: port, HOST: host }: Config): Promise<void> {
  try {
    await app.listen({ port, host });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EADDRINUSE") throw new ConfigError([`Something else listens on ${host}:${port}: stop it, or set PORT to another port.`]);
    if (code === "EACCES" || code === "EADDRNOTAVAIL")
      throw new ConfigError([`This user cannot listen on ${host}:${port} here (${code}): set HOST and PORT to what it may use.`]);
    throw error;
  }
}

async function openStorage(config: Config, log: Log) {
  const dataDirectory = config.ATRIUM_DATA_DIR;
  const masterKey = loadMasterKey({
    value: config.ATRIUM_MASTER_KEY ?? undefined,
    dataDirectory,
    mayGenerate: config.DATABASE_URL === null,
    random,
  });
  const database = await openDatabase({ ...databaseSettings(config), masterKey, clock, random, log });
  const { journal } = await openJournal({
    directory: path.join(dataDirectory, "journal"),
    durability: config.ATRIUM_DURABILITY,
    clock,
    makeId: newId,
    log,
  });
  const modelsDirectory = config.ATRIUM_MODELS_DIR ?? path.join(dataDirectory, "models");
  const providers = createProviders({ clock, more: [createLocalProvider({ modelsDirectory, clock, log })] });
  const snapshot = await createSnapshot({
    database,
    masterKey,
    clock,
    random,
    log,
    pollMs: SNAPSHOT_POLL_MS,
    listTenants: readRevisions,
    sources: { identity: identitySource, tenants: tenantsSource, catalog: createCatalogSource({ providers: providers }) },
    indexes: { [KEY_INDEX]: (parts) => parts.identity.keys.keys(), [NAME_INDEX]: (parts) => [parts.tenants.tenant.name] },
  });
  const upkeep = setInterval(
    () => database.ensurePartitions().catch((error: unknown) => log.error({ err: error }, "monthly partitions could not be made")),
    PARTITION_UPKEEP_MS,
  );
  upkeep.unref();
  return {
    masterKey,
    database,
    journal,
    providers,
    snapshot,
    modelsDirectory,
    async close() {
      clearInterval(upkeep);
      await snapshot.close();
      await journal.close();
      await database.close();
    },
  };
}

type Storage = Awaited<ReturnType<typeof openStorage>>;

function createDomains(config: Config, storage: Storage, log: Log) {
  const { masterKey, database, journal, snapshot, providers } = storage;
  const shared = { database, snapshot, masterKey, clock, random, makeId: newId };
  const identity = createIdentity({
    ...shared,
    pepper: pepperOf(masterKey),
    bootstrapKey: config.ATRIUM_BOOTSTRAP_KEY,
    stalenessBoundMs: stalenessBoundMs(config),
    projectOf: (tx, nameOrId) => tenants.projects.idOf(tx, nameOrId),
  });
  const tenants = createTenants({ ...shared, revokeProjectKeys: identity.keys.revokeProject });
  const catalog = createCatalog({ ...shared, providers: providers });
  const records = createRecords(shared);
  const metering = createMetering({
    database,
    journal,
    clock,
    random,
    log,
    tags: snapshot.keyringOf,
    cursorSecret: derive(masterKey, "usage-cursor", 1),
    names: {
      tenant: (id) => snapshot.current.tenants.get(id)?.tenants.tenant.name ?? null,
      project: (tenant, id) => snapshot.current.tenants.get(tenant)?.tenants.projects.get(id)?.name ?? null,
      deployment: (id) => platformDeployments(storage).find((deployment) => deployment.id === id)?.name ?? null,
      tenantNamed: (nameOrId) =>
        snapshot.ownerOf(NAME_INDEX, nameOrId) ?? (snapshot.current.tenants.has(nameOrId as TenantId) ? (nameOrId as TenantId) : null),
    },
  });
  return { identity, tenants, catalog, records, metering };
}

type Domains = ReturnType<typeof createDomains>;

function createSurfaces(config: Config, storage: Storage, domains: Domains, drain: Drain, log: ProcessLog): FastifyInstance {
  const { database, journal, snapshot } = storage;
  const { identity, tenants, catalog, records, metering } = domains;
  const { authenticate, allow } = identity;
  const metrics = createMetrics();
  metrics.watch({
    callsInFlight: () => drain.inFlight,
    unshippedRecords: () => metering.figures().records,
    configurationAgeSeconds: () => snapshot.stalenessMs() / 1000,
  });
  const platform = createPlatform(storage, domains, (event) => {
    metrics.call(event);
    log.call(event);
  });

  const app = createHttpServer({ newId, log });
  mountHealth(app, {
    authenticate,
    allow,
    metrics,
    stalenessBoundMs: stalenessBoundMs(config),
    readiness: () => ({ draining: drain.draining, journal: journal.health, configurationAgeMs: snapshot.stalenessMs() }),
  });
  mountCall(app, "/v1/chat/completions", chatCompletions, {
    clock,
    drain,
    takeBody: createBodyReader(),
    serve: (received) => serve(platform, received),
  });
  mountModels(app, {
    authenticate,
    allow,
    modelsFor: (principal) => catalog.modelsFor(snapshot.current, platform.resolve(principal), principal),
    modelFor: (principal, name) => catalog.modelFor(snapshot.current, platform.resolve(principal), principal, name),
  });
  mountRoutes(app, [...tenants.routes, ...identity.routes, ...catalog.routes, ...metering.routes, ...records.routes], {
    clock,
    makeId: newId,
    forTenant: database.forTenant,
    authenticate,
    allow,
    findTenant: tenants.find,
    writeAudit: records.audit.write,
    async bumpConfig(tx) {
      const version = await bumpConfig(tx);
      await snapshot.catchUp(version - 1);
      return version;
    },
    catchUp: snapshot.catchUp,
    keyringOf: (tenant) => keyringOf(storage, tenant),
  });
  return app;
}

/** The verbs of the domains that a call needs. */
function createPlatform(
  { providers, snapshot }: Storage,
  { identity, tenants, catalog, metering }: Domains,
  emit: Platform["emit"],
): Platform {
  const salts = new WeakMap<TenantKeyring, string>();
  return {
    clock,
    newId,
    emit,
    authenticate: identity.authenticate,
    allow: identity.allow,
    resolve: (principal) => tenants.resolve(principal, snapshot.current),
    openSession: (principal, named) => identity.openSession(principal, named, keyringOf({ snapshot }, principal.tenant).secret("session")),
    modelFor: (tenant, principal, name) => catalog.modelFor(snapshot.current, tenant, principal, name),
    cacheSalt(tenant) {
      const keyring = keyringOf({ snapshot }, tenant);
      let salt = salts.get(keyring);
      if (salt === undefined)
        salts.set(keyring, (salt = createHmac("sha256", keyring.secret("salt")).update("tenant").digest("base64url")));
      return salt;
    },
    provider(id) {
      const provider = providers.get(id);
      if (provider === undefined) throw new Error(`the catalog names a provider that does not exist: ${id}`);
      return provider;
    },
    dispatch: providers.dispatch,
    hold: metering.hold,
    sent: metering.sent,
    meter: metering.meter,
    settleFailed: metering.settleFailed,
  };
}

/** Where no platform key exists, mints one; on the very first start of an embedded database, makes the demo tenant. */
async function prepareFirstUse(
  config: Config,
  storage: Storage,
  app: FastifyInstance,
  isFirstStart: boolean,
): Promise<Pick<Atrium, "adminKey" | "demo">> {
  const { database, masterKey, snapshot } = storage;
  const hasKey = config.ATRIUM_BOOTSTRAP_KEY !== null || snapshot.current.tenants.get(PLATFORM_TENANT)?.identity.keys.size !== 0;
  const adminKey = hasKey
    ? null
    : (await mintAdminKey({ database, masterKey, pepper: pepperOf(masterKey), clock, random, makeId: newId, writeAudit }, "first start"))
        .key;
  if (!isFirstStart || config.DATABASE_URL !== null) return { adminKey, demo: null };
  return {
    adminKey,
    demo: await createDemo(config, storage.modelsDirectory, adminCalls(app, adminKey ?? (config.ATRIUM_BOOTSTRAP_KEY as string))),
  };
}

/** The admin API of this process, without a socket. */
function adminCalls(app: FastifyInstance, key: string): AdminCall {
  return async (method, url, payload) => {
    const response = await app.inject({ method, url: `/admin/v1/${url}`, headers: { authorization: `Bearer ${key}` }, payload });
    const body = response.json<Record<string, unknown> & { error?: { message: string } }>();
    if (response.statusCode >= 400) throw new Error(body.error?.message ?? `${method} ${url} failed`);
    return body;
  };
}

/** At least three looks: between two of them the configuration is never confirmed, and 0 means "as soon as it is not". */
function stalenessBoundMs(config: Config): number {
  return Math.max(config.ATRIUM_STALENESS_SECONDS * 1000, 3 * SNAPSHOT_POLL_MS);
}

function keyringOf({ snapshot }: Pick<Storage, "snapshot">, tenant: TenantId): TenantKeyring {
  const parts = snapshot.current.tenants.get(tenant);
  if (parts === undefined) throw new Error("a tenant that the snapshot does not hold");
  return parts.keyring;
}

function platformDeployments({ snapshot }: Pick<Storage, "snapshot">): Deployment[] {
  return [...(snapshot.current.tenants.get(PLATFORM_TENANT)?.catalog.models.values() ?? [])].flatMap((model) => model.deployments);
}

/** Runs until a signal; prints where to begin. A signal during the start waits for it, so that nothing started is left behind. */
async function main(): Promise<void> {
  const config = readConfig(process.env);
  const starting = startAtrium(config);
  let stoppingSinceMs: number | null = null;
  const stop = (): void => {
    if (stoppingSinceMs === null) {
      stoppingSinceMs = clock.monotonic();
      starting.then((atrium) => atrium.close()).then(() => process.exit(0), fail);
    } else if (clock.monotonic() - stoppingSinceMs > SECOND_SIGNAL_MS) process.exit(1);
  };
  for (const signal of SIGNALS) process.on(signal, stop);
  const atrium = await starting;
  process.stdout.write(await welcome({ ...atrium, dataDirectory: config.ATRIUM_DATA_DIR, terminal: process.stdout.isTTY }));
}

const SIGNALS = ["SIGTERM", "SIGINT"] as const;
/** A terminal's Ctrl-C reaches this process twice, once through npm: only a signal later than this means "at once". */
const SECOND_SIGNAL_MS = 1_000;

/** What an operator can mend is a sentence; everything else is a bug, with its stack. */
function fail(error: unknown): never {
  const forOperator =
    error instanceof ConfigError ||
    error instanceof MasterKeyProblem ||
    error instanceof DatabaseRefusal ||
    error instanceof DatabaseUnavailable ||
    error instanceof JournalLocked;
  process.stderr.write(`${forOperator ? error.message : error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
}

if (import.meta.main) await main().catch(fail);
