import { Kysely, PostgresDialect, sql, type Transaction, type TransactionBuilder } from "kysely";
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import type { TenantId } from "../../kernel/ids.ts";
import { asRole, createPool, DatabaseUnavailable, guarded, parseDatabaseUrl, withClient } from "./connection.ts";
import { type EmbeddedServer, startEmbedded, urlOfRunning } from "./embedded/index.ts";
import type { Database, DatabaseOptions, SystemJob, SystemTransaction, TenantTransaction } from "./index.ts";
import { openListener } from "./listen.ts";
import { addPartitions, type Installation, migrate, repairPasswords, type SchemaStatus, schemaStatus } from "./migrate.ts";
import { DatabaseRefusal } from "./refusal.ts";
import type { Tables } from "./schema.ts";
import type { PredicateOmission } from "./tenant-predicate.ts";
import { asSystem, bindTenant } from "./tenant-transaction.ts";

/**
 * Starts the embedded server where no URL is given, migrates as the owner, and connects as the two request roles.
 * Throws DatabaseRefusal with a sentence for the operator, DatabaseUnavailable where there is no server to talk to.
 */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  return openDatabaseWith(options, undefined);
}

/**
 * For a command beside a running server: the embedded server that another process runs on the data directory is used where
 * it is; otherwise as {@link openDatabase}.
 */
export async function openBeside(options: DatabaseOptions): Promise<Database> {
  try {
    return await openDatabase(options);
  } catch (error) {
    const running = runningBeside(error, options.dataDirectory);
    if (running === null) throw error;
    return openDatabase({ ...options, databaseUrl: running });
  }
}

/** The whole database, for a command that works below rows and roles: nothing in it is migrated by opening it. */
export interface DatabaseServer {
  /** Of the owner, or of someone above it. */
  readonly ownerUrl: string;
  /** What the request roles connect through. */
  readonly requestUrl: string;
  /** Stops the embedded server, where this started it. */
  close(): Promise<void>;
}

export type DatabaseServerOptions = Pick<DatabaseOptions, "dataDirectory" | "databaseUrl" | "migrationUrl" | "random" | "log">;

/**
 * As {@link openBeside}, without a connection. Throws DatabaseRefusal; `exclusively` also where another process runs the
 * embedded server.
 */
export async function openServer(options: DatabaseServerOptions, exclusively = false): Promise<DatabaseServer> {
  for (const url of [options.databaseUrl, options.migrationUrl]) if (url !== undefined) parseDatabaseUrl(url);
  const { databaseUrl } = options;
  if (databaseUrl !== undefined) return { ownerUrl: options.migrationUrl ?? databaseUrl, requestUrl: databaseUrl, close: async () => {} };
  let server: EmbeddedServer;
  try {
    server = await startEmbedded(options);
  } catch (error) {
    const running = exclusively ? null : runningBeside(error, options.dataDirectory);
    if (running === null) throw error;
    return { ownerUrl: running, requestUrl: running, close: async () => {} };
  }
  const url = server.url(EMBEDDED_DATABASE);
  try {
    await createMissingDatabase(server);
  } catch (error) {
    await server.stop();
    throw error;
  }
  return { ownerUrl: url, requestUrl: url, close: () => server.stop() };
}

/** Brings the schema to this release, and opens nothing. Throws DatabaseRefusal. */
export async function migrateDatabase(options: DatabaseServerOptions & Pick<DatabaseOptions, "masterKey" | "clock">): Promise<void> {
  const server = await openServer(options);
  try {
    await guarded(() => migrate({ ...options, url: server.ownerUrl }));
  } finally {
    await server.close();
  }
}

/** How far the schema is from this release; changes nothing. Throws DatabaseRefusal where this release cannot run on it. */
export async function readSchemaStatus(options: DatabaseServerOptions & Pick<DatabaseOptions, "masterKey">): Promise<SchemaStatus> {
  const server = await openServer(options);
  try {
    return await guarded(() => withClient(server.ownerUrl, "check", (client) => schemaStatus(client, options.masterKey)));
  } finally {
    await server.close();
  }
}

/** The URL of the embedded server that another process runs; null where `error` says something else. */
function runningBeside(error: unknown, dataDirectory: string): string | null {
  const inUse = error instanceof DatabaseRefusal && error.code === "data_directory_in_use";
  return inUse ? urlOfRunning(dataDirectory, EMBEDDED_DATABASE) : null;
}

/** `omits` takes predicates out, one wall of two: for the mutation test, which proves that the other one holds. */
export async function openDatabaseWith(options: DatabaseOptions, omits: PredicateOmission | undefined): Promise<Database> {
  for (const url of [options.databaseUrl, options.migrationUrl, options.listenUrl]) if (url !== undefined) parseDatabaseUrl(url);
  const server = options.databaseUrl === undefined ? await startEmbedded(options) : null;
  try {
    if (server !== null) await createMissingDatabase(server);
    return await connect(options, server, omits);
  } catch (error) {
    await server?.stop();
    throw error;
  }
}

async function connect(options: DatabaseOptions, server: EmbeddedServer | null, omits: PredicateOmission | undefined): Promise<Database> {
  const requestUrl = options.databaseUrl ?? (server as EmbeddedServer).url(EMBEDDED_DATABASE);
  const ownerUrl = options.migrationUrl ?? requestUrl;
  const migration = { url: ownerUrl, masterKey: options.masterKey, clock: options.clock, random: options.random, log: options.log };
  const installation = await guarded(() => migrate(migration));
  const { app, system } = installation.roles;
  const urls = { app: asRole(requestUrl, app.name, app.password), system: asRole(requestUrl, system.name, system.password) };
  if (!(await passwordsWork(urls))) await repairPasswords(migration, installation.roles);

  const pools = {
    app: createPool(urls.app, "app", MAX_APP_CONNECTIONS, APP_STATEMENT_TIMEOUT_MS + ANSWER_GRACE_MS, options.log),
    system: createPool(urls.system, "system", MAX_SYSTEM_CONNECTIONS, SYSTEM_STATEMENT_TIMEOUT_MS + ANSWER_GRACE_MS, options.log),
  };
  return {
    ...transactions(pools, omits),
    ...upkeep(options, installation, ownerUrl),
    async ping() {
      await Promise.race([guarded(() => pools.app.query("SELECT 1")), unavailableAfter(PING_TIMEOUT_MS)]);
    },
    async close() {
      // A pool waits for its busy clients, and a server that hangs keeps them busy.
      const ended = Promise.all([pools.app.end(), pools.system.end()]);
      await Promise.race([ended, sleep(CLOSE_TIMEOUT_MS, undefined, { ref: false })]);
      await server?.stop();
    },
  };
}

/** A server that is frozen, not gone, never answers. */
async function unavailableAfter(timeoutMs: number): Promise<never> {
  await sleep(timeoutMs, undefined, { ref: false });
  throw new DatabaseUnavailable(`the database did not answer within ${timeoutMs} ms`);
}

type Pools = { readonly app: pg.Pool; readonly system: pg.Pool };

function transactions(pools: Pools, omits: PredicateOmission | undefined): Pick<Database, "forTenant" | "forSystem"> {
  const app = new Kysely<Tables>({ dialect: new PostgresDialect({ pool: pools.app }) });
  const system = new Kysely<Tables>({ dialect: new PostgresDialect({ pool: pools.system }) });
  return {
    forTenant<T>(tenant: TenantId, work: (tx: TenantTransaction) => Promise<T>): Promise<T> {
      return begin(pools.app, app.transaction(), "tenant", APP_STATEMENT_TIMEOUT_MS, async (tx) =>
        work(await bindTenant(tx, tenant, omits)),
      );
    },
    forSystem<T>(job: SystemJob, work: (tx: SystemTransaction) => Promise<T>): Promise<T> {
      const transaction = READING_JOBS.has(job)
        ? system.transaction().setIsolationLevel("repeatable read").setAccessMode("read only")
        : system.transaction();
      return begin(pools.system, transaction, job, SYSTEM_STATEMENT_TIMEOUT_MS, (tx) => work(asSystem(tx)));
    },
  };
}

/** Limits are set in the transaction, not on the connection: a transaction pooler would share them out. */
async function begin<T>(
  pool: pg.Pool,
  transaction: TransactionBuilder<Tables>,
  name: string,
  statementTimeoutMs: number,
  work: (tx: Transaction<Tables>) => Promise<T>,
): Promise<T> {
  if (pool.waitingCount >= MAX_WAITING_TRANSACTIONS) throw new DatabaseUnavailable("too many transactions wait for a connection");
  return guarded(() =>
    transaction.execute(async (tx) => {
      await sql`SELECT set_config('application_name', ${`atrium ${name}`}, true),
        set_config('statement_timeout', ${String(statementTimeoutMs)}, true),
        set_config('idle_in_transaction_session_timeout', ${String(IDLE_TRANSACTION_TIMEOUT_MS)}, true)`.execute(tx);
      return work(tx);
    }),
  );
}

function upkeep(
  options: DatabaseOptions,
  installation: Installation,
  ownerUrl: string,
): Pick<Database, "listen" | "ensurePartitions" | "installationId"> {
  const { system } = installation.roles;
  const listenUrl = asRole(options.listenUrl ?? options.databaseUrl ?? ownerUrl, system.name, system.password);
  return {
    installationId: installation.id,
    listen: (channel, onNotice, onLost) => openListener(listenUrl, channel, onNotice, onLost),
    ensurePartitions: () => guarded(() => addPartitions(ownerUrl, options.clock)),
  };
}

async function passwordsWork(urls: { app: string; system: string }): Promise<boolean> {
  for (const url of [urls.app, urls.system]) {
    try {
      await guarded(() => withClient(url, "start", async (client) => client.query("SELECT 1")));
    } catch (error) {
      if ((error as { code?: string }).code !== INVALID_PASSWORD) throw error;
      return false;
    }
  }
  return true;
}

async function createMissingDatabase(server: EmbeddedServer): Promise<void> {
  await withClient(server.url("postgres"), "start", async (client) => {
    const { rowCount } = await client.query("SELECT 1 FROM pg_database WHERE datname = $1", [EMBEDDED_DATABASE]);
    if (rowCount === 0) await client.query(`CREATE DATABASE ${EMBEDDED_DATABASE}`);
  });
}

/** They read many tables that must agree: one snapshot of the database for the whole transaction. */
const READING_JOBS: ReadonlySet<SystemJob> = new Set(["snapshot", "report", "key-lookup"]);
const EMBEDDED_DATABASE = "atrium";
const MAX_APP_CONNECTIONS = 10;
const MAX_SYSTEM_CONNECTIONS = 4;
/** How long stopping waits for transactions in flight. */
const CLOSE_TIMEOUT_MS = 5_000;
const MAX_WAITING_TRANSACTIONS = 1_000;
const APP_STATEMENT_TIMEOUT_MS = 15_000;
const SYSTEM_STATEMENT_TIMEOUT_MS = 60_000;
/** Past its own statement timeout a server that still answers has answered. */
const ANSWER_GRACE_MS = 5_000;
const IDLE_TRANSACTION_TIMEOUT_MS = 60_000;
const PING_TIMEOUT_MS = 2_000;
const INVALID_PASSWORD = "28P01";
