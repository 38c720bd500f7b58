import { after, type TestContext } from "node:test";
import type pg from "pg";
import { withClient } from "../../src/storage/database/connection.ts";
import { type Database, type DatabaseOptions, openDatabase } from "../../src/storage/database/index.ts";
import { type BackendKind, BACKENDS, databaseOptions, startTestServer, type TestServer } from "./postgres-server.ts";

export { type BackendKind, silentLog, TEST_MASTER_KEY } from "./postgres-server.ts";

export interface TestDatabase {
  readonly backend: BackendKind;
  /** The superuser's: for looking behind the walls. */
  readonly url: string;
  /** For openDatabase; `dataDirectory` is never touched. */
  readonly options: DatabaseOptions;
  /** Opened through the front door; closed with the test. */
  open(): Promise<Database>;
  /** Runs as the superuser, to whom row security does not apply. */
  asSuperuser<T>(work: (client: pg.Client) => Promise<T>): Promise<T>;
}

/** Runs the test once on each backend, each time with a fresh, migrated database. Says what it skips. */
export async function withDatabases(t: TestContext, work: (database: TestDatabase, t: TestContext) => Promise<void>): Promise<void> {
  for (const backend of BACKENDS) {
    await t.test(backend.title, async (t) => {
      if (backend.unavailable !== null) {
        t.diagnostic(backend.unavailable);
        t.skip(backend.unavailable);
        return;
      }
      await work(await freshDatabase(t, backend.kind), t);
    });
  }
}

/** One fresh, migrated database, dropped after the test. */
export async function freshDatabase(t: TestContext, kind: BackendKind): Promise<TestDatabase> {
  return scopedDatabase(t, await startBackend(kind), (server) => server.createDatabase());
}

/** One database with nothing in it, for tests of the first start. */
export async function emptyDatabase(t: TestContext, kind: BackendKind): Promise<TestDatabase> {
  return scopedDatabase(t, await startBackend(kind), (server) => server.createEmptyDatabase());
}

async function scopedDatabase(t: TestContext, server: TestServer, create: (server: TestServer) => Promise<string>): Promise<TestDatabase> {
  const name = await create(server);
  const opened: Database[] = [];
  t.after(async () => {
    await Promise.all(opened.map((database) => database.close()));
    await server.dropDatabase(name);
  });
  const url = server.url(name);
  const options = databaseOptions(url);
  return {
    backend: server.kind,
    url,
    options,
    async open() {
      const database = await openDatabase(options);
      opened.push(database);
      return database;
    },
    asSuperuser: (work) => withClient(url, "test", work),
  };
}

const servers = new Map<BackendKind, Promise<TestServer>>();

/** The server of this process's tests, started at first use and stopped when the file's tests are over. */
function startBackend(kind: BackendKind): Promise<TestServer> {
  let server = servers.get(kind);
  if (server === undefined) {
    server = startTestServer(kind);
    servers.set(kind, server);
  }
  return server;
}

after(async () => {
  for (const server of servers.values()) await (await server).stop();
});
