import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type pg from "pg";
import { systemClock } from "../../src/kernel/clock.ts";
import { systemRandom } from "../../src/kernel/random.ts";
import { withClient } from "../../src/storage/database/connection.ts";
import { type Binaries, embeddedBinaries } from "../../src/storage/database/embedded/binaries.ts";
import { openCluster } from "../../src/storage/database/embedded/cluster.ts";
import { chooseLauncher } from "../../src/storage/database/embedded/launcher.ts";
import { startServer } from "../../src/storage/database/embedded/server.ts";
import { socketDirectory } from "../../src/storage/database/embedded/socket-directory.ts";
import type { DatabaseLog, DatabaseOptions } from "../../src/storage/database/index.ts";
import { migrate, readMigrations } from "../../src/storage/database/migrate.ts";
import { masterKeyFrom } from "../../src/storage/secrets/index.ts";

/** The two PostgreSQLs that every storage suite runs on: the newest we bring, and the oldest we accept. */
export interface Backend {
  readonly kind: BackendKind;
  readonly title: string;
  /** Why this one cannot run here; null when it can. */
  readonly unavailable: string | null;
}

export type BackendKind = "embedded" | "debian";

const DEBIAN_BIN = "/usr/lib/postgresql/15/bin";
/** Superuser URLs of servers that a runner shares among test files (test/support/with-postgres.ts). */
export const SHARED_SERVER: Readonly<Record<BackendKind, string>> = {
  embedded: "ATRIUM_TEST_EMBEDDED_URL",
  debian: "ATRIUM_TEST_DATABASE_URL",
};

export const BACKENDS: readonly Backend[] = [
  { kind: "embedded", title: "embedded PostgreSQL 18", unavailable: null },
  {
    kind: "debian",
    title: "Debian PostgreSQL 15",
    unavailable:
      process.env[SHARED_SERVER.debian] !== undefined || existsSync(join(DEBIAN_BIN, "initdb"))
        ? null
        : `skipped: neither ${SHARED_SERVER.debian} nor ${DEBIAN_BIN}/initdb (apt-get install postgresql)`,
  },
];

/** Every database of the tests belongs to this key, so that files can share a template. */
export const TEST_MASTER_KEY = masterKeyFrom("a7".repeat(32));

export const silentLog: DatabaseLog = { info: () => {}, warn: () => {}, error: () => {} };

export interface TestServer {
  readonly kind: BackendKind;
  /** Of the superuser. */
  url(database: string): string;
  /** Copies the migrated template: about 50 ms. Returns its name. */
  createDatabase(): Promise<string>;
  createEmptyDatabase(): Promise<string>;
  dropDatabase(name: string): Promise<void>;
  stop(): Promise<void>;
}

/** A server of its own, or the shared one the environment names. The caller stops it. */
export async function startTestServer(kind: BackendKind): Promise<TestServer> {
  const shared = process.env[SHARED_SERVER[kind]];
  const running = shared === undefined ? await startThrowAway(kind) : { url: shared, stop: async () => {} };
  const url = (database: string) => {
    const target = new URL(running.url);
    target.pathname = `/${database}`;
    return target.href;
  };
  const admin = <T>(work: (client: pg.Client) => Promise<T>) => withClient(url("postgres"), "test", work);
  const template = await admin((client) => ensureTemplate(client, url));
  const create = async (source: string) => {
    const name = `test_${randomBytes(8).toString("hex")}`;
    await admin((client) => client.query(`CREATE DATABASE ${name} TEMPLATE ${source}`));
    return name;
  };
  return {
    kind,
    url,
    createDatabase: () => create(template),
    createEmptyDatabase: () => create("template0"),
    dropDatabase: async (name) => {
      await admin((client) => client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`));
    },
    stop: running.stop,
  };
}

/** Named after the migrations' text, made by whoever comes first, marked as a template only when it is whole. */
async function ensureTemplate(client: pg.Client, url: (database: string) => string): Promise<string> {
  const digest = createHash("sha256");
  for (const migration of readMigrations()) digest.update(migration.sql);
  const name = `atrium_template_${digest.digest("hex").slice(0, 12)}`;
  await client.query("SELECT pg_advisory_lock(7)");
  const { rows } = await client.query<{ datistemplate: boolean }>("SELECT datistemplate FROM pg_database WHERE datname = $1", [name]);
  if (rows[0]?.datistemplate !== true) {
    await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    await client.query(`CREATE DATABASE ${name} TEMPLATE template0`);
    await migrate({ ...databaseOptions(url(name)), url: url(name) });
    await client.query(`ALTER DATABASE ${name} IS_TEMPLATE true`);
  }
  await client.query("SELECT pg_advisory_unlock(7)");
  return name;
}

/** A private cluster in a temporary directory on a unix socket. What it holds is not worth an fsync. */
async function startThrowAway(kind: BackendKind): Promise<{ url: string; stop(): Promise<void> }> {
  const root = mkdtempSync(join(tmpdir(), "atrium-test-"));
  const binaries = kind === "embedded" ? embeddedBinaries(join(root, "lib")) : debianBinaries();
  const launcher = chooseLauncher({ executable: binaries.postgres, dataDirectory: root, directory: root });
  const cluster = await openCluster(root, binaries, launcher, systemRandom);
  const sockets = socketDirectory(root, launcher);
  const server = await startServer({
    binaries,
    launcher,
    directory: cluster.directory,
    socketDirectory: sockets.path,
    logFile: join(root, "server.log"),
    settings: { fsync: "off", full_page_writes: "off", max_connections: "300", shared_buffers: "64MB", jit: "off", TimeZone: "UTC" },
    log: silentLog,
  });
  return {
    url: `postgres://postgres:${cluster.superuserPassword}@localhost/postgres?host=${encodeURIComponent(sockets.path)}`,
    async stop() {
      await server.stop();
      sockets.remove();
      rmSync(root, { recursive: true, force: true });
    },
  };
}

function debianBinaries(): Binaries {
  return { major: 15, initdb: join(DEBIAN_BIN, "initdb"), postgres: join(DEBIAN_BIN, "postgres"), libraryPath: null };
}

/** As the front door wants them; `dataDirectory` is never touched. */
export function databaseOptions(url: string): DatabaseOptions {
  return {
    dataDirectory: "unused",
    databaseUrl: url,
    masterKey: TEST_MASTER_KEY,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
  };
}
