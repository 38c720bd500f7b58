import { createHmac } from "node:crypto";
import type { AddressInfo } from "node:net";
import path from "node:path";
import type { FastifyInstance } from "fastify";
import { type Config, ConfigError, databaseSettings, readConfig } from "./config.ts";
import { capacitySource, createCapacity } from "./domains/capacity/index.ts";
import { createCatalog, createCatalogSource } from "./domains/catalog/index.ts";
import {
  AUDIENCE_INDEX,
  createIdentity,
  createSso,
  identitySource,
  KEY_INDEX,
  mintAdminKey,
  pepperOf,
  ssoSource,
} from "./domains/identity/index.ts";
import { budgetsSource, createBudgets, createMetering, namesIn } from "./domains/metering/index.ts";
import { createLocalProvider, createProviders } from "./domains/providers/index.ts";
import { createRecords, type Refusal, startRecordKeeping, writeAudit } from "./domains/records/index.ts";
import { createTenants, NAME_INDEX, readRevisions, tenantsSource } from "./domains/tenants/index.ts";
import { createWebhooks } from "./domains/webhooks/index.ts";
import { createEgress } from "./egress/index.ts";
import { systemClock as clock } from "./kernel/clock.ts";
import { createIdMaker, PLATFORM_TENANT, type TenantId } from "./kernel/ids.ts";
import { systemRandom as random } from "./kernel/random.ts";
import type { Authenticated, Received } from "./pipeline/evidence.ts";
import type { Outcome } from "./pipeline/outcome.ts";
import type { Platform } from "./pipeline/platform.ts";
import { serve } from "./pipeline/serve.ts";
import { bumpConfig, DatabaseRefusal, DatabaseUnavailable, openDatabase } from "./storage/database/index.ts";
import { JournalLocked, openJournal } from "./storage/journal/index.ts";
import { derive, loadMasterKey, MasterKeyProblem, type TenantKeyring } from "./storage/secrets/index.ts";
import { createSnapshot } from "./storage/snapshot/index.ts";
import { mountRoutes, type RunnerNeeds } from "./surfaces/admin/index.ts";
import { countTokens } from "./surfaces/anthropic/count-tokens.ts";
import { messages } from "./surfaces/anthropic/messages.ts";
import { type AdminCall, createDemo, type Demo } from "./surfaces/cli/first-start.ts";
import { welcome } from "./surfaces/cli/welcome.ts";
import { createSignedIn, mountConsole } from "./surfaces/console/index.ts";
import { createBodyReader } from "./surfaces/http/body.ts";
import { mountCall } from "./surfaces/http/calls.ts";
import { createDrain, type Drain } from "./surfaces/http/drain.ts";
import { mountMetrics, mountProbes } from "./surfaces/http/health.ts";
import { createRevocation } from "./surfaces/http/revocation.ts";
import { createHttpServer } from "./surfaces/http/server.ts";
import { type Certificate, CertificateProblem, openCertificate } from "./surfaces/http/tls.ts";
import { chatCompletions } from "./surfaces/openai/chat.ts";
import { mountModels } from "./surfaces/openai/models.ts";
import { createLog, createMetrics, type Log, type ProcessLog } from "./telemetry/index.ts";

// The only place that wires: config → storage → domains → pipeline → surfaces → listen.

/** A running Atrium. */
export interface Atrium {
  /** Where it listens, with the base path. */
  readonly url: string;
  /** Where administration and metrics listen, when they have an address of their own. */
  readonly managementUrl: string | null;
  /** Minted by this start because no platform key existed; null otherwise. */
  readonly adminKey: string | null;
  /** The demo tenant, where this start made it. */
  readonly demo: Demo | null;
  /** Stops taking calls, lets those in flight end within the grace, settles, ships, and ends everything it started. */
  close(): Promise<void>;
}

const newId = createIdMaker(clock, random);
/** Where models are called. Problems on these paths, and below them, are told in their dialect. */
const MODEL_ENDPOINTS = [
  { path: "/v1/chat/completions", wire: chatCompletions },
  { path: "/v1/messages", wire: messages },
  { path: "/v1/messages/count_tokens", wire: countTokens },
];
/** Between two looks at the configuration's version, ms. */
const SNAPSHOT_POLL_MS = 500;
/** How long what is no call may go on after the end of all calls, ms. */
const LAST_ANSWERS_MS = 1_000;
/** Between two looks for missing monthly partitions, ms. */
const PARTITION_UPKEEP_MS = 6 * 60 * 60 * 1000;

/**
 * A start that fails ends what it had begun: the database's processes above all, which would outlive this one.
 * @throws ConfigError, CertificateProblem, MasterKeyProblem, DatabaseRefusal, JournalLocked with a sentence for the operator
 */
export async function startAtrium(config: Config): Promise<Atrium> {
  const started = new AsyncDisposableStack();
  try {
    return await start(config, started);
  } catch (error) {
    // Why it could not start is what there is to say, also where something then does not end well.
    await started.disposeAsync().catch(() => {});
    throw error;
  }
}

/** What it starts is ended in reverse order: first what takes calls, then what calls need to be settled and shipped. */
async function start(config: Config, started: AsyncDisposableStack): Promise<Atrium> {
  const log = createLog(config.ATRIUM_LOG_LEVEL ?? (process.stderr.isTTY ? "warn" : "info"));
  started.defer(() => log.close());
  const certificate = await openTls(config, log);
  started.defer(() => certificate?.close());
  const storage = await openStorage(config, log, started);
  const domains = createDomains(config, storage, log);
  started.defer(() => domains.keeping.close());
  started.defer(() => domains.metering.close());
  started.defer(() => storage.providers.close());
  domains.webhooks.outbox.start();
  started.defer(() => domains.webhooks.outbox.close());
  const lost = await domains.metering.recover();
  if (lost > 0) log.warn({ attempts: lost }, "attempts that an earlier process left open were charged");
  const drain = createDrain();
  const servers = createSurfaces(config, certificate, storage, domains, drain, log);
  started.defer(async () => void (await Promise.all([...new Set([servers.app, servers.management])].map(hangUp))));
  const isFirstStart = storage.snapshot.current.version === 0;
  const [url, managementUrl] = await listen(servers, config);
  // Once it listens: a start that fails before must not have minted keys that nobody was told.
  const first = await prepareFirstUse(config, storage, servers.management, isFirstStart);
  return {
    url,
    managementUrl,
    ...first,
    async close() {
      // Until calls in flight have ended it still listens, so that probes and new calls get their 503.
      await drain.drain(config.ATRIUM_DRAIN_SECONDS * 1000);
      await started.disposeAsync();
    },
  };
}

/** What the process answers on. */
interface Servers {
  readonly app: FastifyInstance;
  /** Administration and metrics: the same server, unless they have an address of their own. */
  readonly management: FastifyInstance;
}

function openTls({ TLS_CERT: certFile, TLS_KEY: keyFile }: Config, log: Log): Promise<Certificate | null> {
  return certFile === null || keyFile === null ? Promise.resolve(null) : openCertificate({ certFile, keyFile, log });
}

/** Resolves to the URLs, with the base path; the second is null without a management address. */
async function listen({ app, management }: Servers, config: Config): Promise<[url: string, managementUrl: string | null]> {
  const { HOST: host, PORT: port, ATRIUM_MANAGEMENT_ADDRESS: apart } = config;
  const url = await listenAt(app, { host, port }, "HOST and PORT", config);
  return [url, apart === null ? null : await listenAt(management, apart, "ATRIUM_MANAGEMENT_ADDRESS", config)];
}

async function listenAt(
  app: FastifyInstance,
  { host, port }: { host: string; port: number },
  settings: string,
  config: Config,
): Promise<string> {
  try {
    await app.listen({ port, host });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EADDRINUSE") throw new ConfigError([`Something else listens on ${host}:${port}: stop it, or change ${settings}.`]);
    if (code === "EACCES" || code === "EADDRNOTAVAIL")
      throw new ConfigError([`This user cannot listen on ${host}:${port} here (${code}): set ${settings} to what it may use.`]);
    throw error;
  }
  const bound = app.server.address() as AddressInfo;
  const shown = bound.family === "IPv6" ? `[${bound.address}]` : bound.address;
  return `${config.TLS_CERT === null ? "http" : "https"}://${shown}:${bound.port}${config.BASE_PATH}`;
}

/** Takes no more connections. What administration has begun is answered; who then stays connected is cut. */
async function hangUp(app: FastifyInstance): Promise<void> {
  const cut = setTimeout(() => app.server.closeAllConnections(), LAST_ANSWERS_MS);
  await app.close();
  clearTimeout(cut);
}

async function openStorage(config: Config, log: Log, started: AsyncDisposableStack) {
  const dataDirectory = config.ATRIUM_DATA_DIR;
  const masterKey = loadMasterKey({
    value: config.ATRIUM_MASTER_KEY ?? undefined,
    dataDirectory,
    mayGenerate: config.DATABASE_URL === null,
    random,
  });
  const database = await openDatabase({ ...databaseSettings(config), masterKey, clock, random, log });
  started.defer(() => database.close());
  const { journal } = await openJournal({
    directory: path.join(dataDirectory, "journal"),
    durability: config.ATRIUM_DURABILITY,
    clock,
    makeId: newId,
    log,
  });
  started.defer(() => journal.close());
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
    sources: {
      identity: identitySource,
      sso: ssoSource,
      tenants: tenantsSource,
      catalog: createCatalogSource({ providers: providers }),
      capacity: capacitySource,
      budgets: budgetsSource,
    },
    indexes: {
      [KEY_INDEX]: (parts) => parts.identity.keys.keys(),
      [NAME_INDEX]: (parts) => [parts.tenants.tenant.name],
      [AUDIENCE_INDEX]: (parts) => parts.sso.byAudience.keys(),
    },
  });
  started.defer(() => snapshot.close());
  const upkeep = setInterval(
    () => database.ensurePartitions().catch((error: unknown) => log.error({ err: error }, "monthly partitions could not be made")),
    PARTITION_UPKEEP_MS,
  );
  upkeep.unref();
  started.defer(() => clearInterval(upkeep));
  return { masterKey, database, journal, providers, snapshot, modelsDirectory };
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
  const capacity = createCapacity({ ...shared, projectOf: tenants.projects.idOf, modelsOf: catalog.modelsOf });
  const records = createRecords(shared);
  const keeping = startRecordKeeping({
    ...shared,
    log,
    directory: path.join(config.ATRIUM_DATA_DIR, "audit"),
    signer: records.signer,
    presented: identity.presented.of,
    ownersOf: identity.presented.owners,
  });
  const egress = createEgress({ allow: config.ATRIUM_EGRESS_ALLOW ?? [] });
  const sso = createSso({
    ...shared,
    egress,
    pepper: pepperOf(masterKey),
    bootstrapKey: config.ATRIUM_BOOTSTRAP_KEY,
    stalenessBoundMs: stalenessBoundMs(config),
    authenticateKey: identity.authenticate,
    signIn: identity.members.signIn,
    principalOfMember: identity.members.principal,
    describeMember: identity.members.describe,
    writeAudit: records.audit.write,
    bumpConfig,
    projectOf: tenants.projects.idOf,
    tenantNamed: (name) => snapshot.ownerOf(NAME_INDEX, name),
  });
  const webhooks = createWebhooks({ ...shared, egress, log });
  const metering = createMetering({
    database,
    journal,
    clock,
    random,
    log,
    tags: snapshot.keyringOf,
    budgetsOf: (owner) => snapshot.current.tenants.get(owner)?.budgets.budgets ?? [],
    refresh: snapshot.refresh,
    writeEvent: webhooks.writeEvent,
    cursorSecret: derive(masterKey, "usage-cursor", 1),
    names: namesIn(snapshot, NAME_INDEX),
    counter: providers.tokenizer,
  });
  const budgets = createBudgets({ ...shared, projectOf: tenants.projects.idOf, findTenant: tenants.find, means: metering.budgets });
  return { identity, sso, tenants, catalog, capacity, records, keeping, webhooks, metering, budgets };
}

type Domains = ReturnType<typeof createDomains>;

function createSurfaces(
  config: Config,
  certificate: Certificate | null,
  storage: Storage,
  domains: Domains,
  drain: Drain,
  log: ProcessLog,
): Servers {
  const { database, journal, snapshot } = storage;
  const { identity, sso, tenants, catalog, capacity, records, keeping, webhooks, metering, budgets } = domains;
  const { allow } = identity;
  const { authenticate } = sso;
  const metrics = createMetrics();
  const refused = (refusal: Refusal): void => {
    const code = keeping.note(refusal);
    if (code !== null) metrics.refused(code);
  };
  metrics.watch({
    callsInFlight: () => drain.inFlight,
    unshippedRecords: () => metering.figures().records,
    configurationAgeSeconds: () => snapshot.stalenessMs() / 1000,
    limitLevels: capacity.levels,
  });
  const platform = createPlatform(storage, domains, (event) => {
    metrics.call(event);
    log.call(event);
  });

  const { BASE_PATH: basePath, TRUSTED_PROXIES: trustedProxies, ATRIUM_MANAGEMENT_ADDRESS: apart, PUBLIC_URL: publicUrl } = config;
  const create = () =>
    createHttpServer({ newId, log, certificate, basePath, trustedProxies: trustedProxies ?? [], dialects: MODEL_ENDPOINTS });
  const app = create();
  const management = apart === null ? app : create();
  for (const each of new Set([app, management]))
    mountProbes(each, {
      stalenessBoundMs: stalenessBoundMs(config),
      readiness: () => ({ draining: drain.draining, journal: journal.health, configurationAgeMs: snapshot.stalenessMs() }),
    });
  mountMetrics(management, { authenticate, allow, metrics });
  const calls = {
    clock,
    drain,
    takeBody: createBodyReader(),
    parseLarge: storage.providers.parseLarge,
    serve: (received: Received) => serve(platform, received).then((outcome) => noteRefusal(received, outcome, refused)),
  };
  for (const { path, wire } of MODEL_ENDPOINTS) mountCall(app, path, wire, calls);
  snapshot.watch(createRevocation(drain, identity.ended));
  mountModels(app, {
    authenticate,
    allow,
    refused,
    modelsFor: (principal) => catalog.modelsFor(snapshot.current, platform.resolve(principal), principal),
    modelFor: (principal, name) => catalog.modelFor(snapshot.current, platform.resolve(principal), principal, name),
  });
  const routes = [
    ...tenants.routes,
    ...identity.routes,
    ...sso.routes,
    ...catalog.routes,
    ...capacity.routes,
    ...metering.routes,
    ...budgets.routes,
    ...records.routes,
    ...webhooks.routes,
  ];
  const consoleAt = { publicUrl: apart === null ? publicUrl : null, secure: certificate !== null, basePath, console: sso.console };
  mountConsole(management, { ...consoleAt, random, log, refused });
  const runner: RunnerNeeds = {
    clock,
    makeId: newId,
    forTenant: database.forTenant,
    authenticate,
    signedIn: createSignedIn(consoleAt),
    allow,
    findTenant: tenants.find,
    writeAudit: records.audit.write,
    async bumpConfig(tx, others) {
      const version = await bumpConfig(tx, others);
      await snapshot.catchUp(version - 1);
      return version;
    },
    catchUp: snapshot.catchUp,
    keyringOf: (tenant) => keyringOf(storage, tenant),
    refused,
  };
  const ofTenants = routes.filter((route) => route.path.startsWith("/v1/"));
  const ofPlatform = routes.filter((route) => !ofTenants.includes(route));
  mountRoutes(app, ofTenants, runner);
  // PUBLIC_URL is where models are called: it says nothing of a management address.
  mountRoutes(management, ofPlatform, { ...runner, publicUrl: (apart === null ? publicUrl : null) ?? (basePath || "/") });
  return { app, management };
}

/** A call that ended in a problem, for those who keep what authorization refused. */
function noteRefusal(
  { call, caller, principal }: Received & Partial<Authenticated>,
  outcome: Outcome,
  refused: (refusal: Refusal) => void,
): void {
  if (outcome.kind !== "problem") return;
  const { endpoint: route, origin } = call;
  const { address: remoteAddress } = origin;
  refused({ route, principal: principal ?? null, credential: caller.credential, remoteAddress, problem: outcome.problem });
}

/** The verbs of the domains that a call needs. */
function createPlatform(
  { providers, snapshot }: Storage,
  { identity, sso, tenants, catalog, capacity, metering }: Domains,
  emit: Platform["emit"],
): Platform {
  const salts = new WeakMap<TenantKeyring, string>();
  return {
    clock,
    newId,
    emit,
    authenticate: sso.authenticate,
    allow: identity.allow,
    resolve: (principal) => tenants.resolve(principal, snapshot.current),
    openSession: (principal, named) => identity.openSession(principal, named, keyringOf({ snapshot }, principal.tenant)),
    modelFor: (tenant, principal, name) => catalog.modelFor(snapshot.current, tenant, principal, name),
    permit: capacity.permit,
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
    accept: providers.accept,
    bound: providers.bound,
    countText: providers.countText,
    dispatch: providers.dispatch,
    peek: metering.peek,
    isBounded: metering.isBounded,
    hold: metering.hold,
    newTurn: metering.newTurn,
    waitTurn: metering.waitTurn,
    leaveLine: metering.leaveLine,
    sent: metering.sent,
    meter: metering.meter,
    countPrompt: providers.tokenizer.countPrompt,
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
    demo: await createDemo(
      config,
      storage.modelsDirectory,
      adminCalls(app, config.BASE_PATH, adminKey ?? (config.ATRIUM_BOOTSTRAP_KEY as string)),
    ),
  };
}

/** The admin API of this process, without a socket. */
function adminCalls(app: FastifyInstance, basePath: string, key: string): AdminCall {
  return async (method, url, payload) => {
    const response = await app.inject({ method, url: `${basePath}/admin/v1/${url}`, headers: { authorization: `Bearer ${key}` }, payload });
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
  const { ATRIUM_DATA_DIR: dataDirectory, PUBLIC_URL: publicUrl } = config;
  process.stdout.write(await welcome({ ...atrium, publicUrl: publicUrl ?? atrium.url, dataDirectory, terminal: process.stdout.isTTY }));
}

const SIGNALS = ["SIGTERM", "SIGINT"] as const;
/** A terminal's Ctrl-C reaches this process twice, once through npm: only a signal later than this means "at once". */
const SECOND_SIGNAL_MS = 1_000;

/** What an operator can mend is a sentence; everything else is a bug, with its stack. */
function fail(error: unknown): never {
  const forOperator =
    error instanceof ConfigError ||
    error instanceof CertificateProblem ||
    error instanceof MasterKeyProblem ||
    error instanceof DatabaseRefusal ||
    error instanceof DatabaseUnavailable ||
    error instanceof JournalLocked;
  process.stderr.write(`${forOperator ? error.message : error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
}

if (import.meta.main) await main().catch(fail);
