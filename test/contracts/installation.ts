import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import type { FastifyInstance } from "fastify";
import { readConfig } from "../../src/config.ts";
import { startAtrium } from "../../src/main.ts";
import { freshDatabase, type TestDatabase } from "../support/postgres.ts";

export const ADMIN_KEY = "bootstrap-key-of-the-contracts-0123456789";

export interface Installation {
  readonly url: string;
  readonly database: TestDatabase;
  /** Every route of its HTTP server, as Fastify mounted it: `GET /v1/models/:model`. */
  readonly mounted: readonly string[];
  /** The server itself, for requests that need no socket. */
  readonly server: FastifyInstance;
}

/** Atrium as it ships, in this process, on a fresh database; stopped with the test. */
export async function startInstallation(t: TestContext): Promise<Installation> {
  const database = await freshDatabase(t, "embedded");
  const dataDirectory = await mkdtemp(path.join(tmpdir(), "atrium-contracts-"));
  const {
    result: atrium,
    mounted,
    server,
  } = await watchingRoutes(() =>
    startAtrium(
      readConfig({
        PORT: "0",
        DATABASE_URL: database.url,
        ATRIUM_MASTER_KEY: "a7".repeat(32),
        ATRIUM_DATA_DIR: dataDirectory,
        ATRIUM_BOOTSTRAP_KEY: ADMIN_KEY,
        ATRIUM_DURABILITY: "process",
        ATRIUM_LOG_LEVEL: "error",
      }),
    ),
  );
  t.after(async () => {
    await atrium.close();
    await rm(dataDirectory, { recursive: true, force: true });
  });
  return { url: atrium.url, database, mounted, server };
}

/** Fastify announces each server it makes before any route is mounted, so none is missed. */
async function watchingRoutes<T>(start: () => Promise<T>): Promise<{ result: T; mounted: string[]; server: FastifyInstance }> {
  const mounted: string[] = [];
  let server: FastifyInstance | null = null;
  const watch = (message: unknown) => {
    const { fastify } = message as { fastify: FastifyInstance };
    server ??= fastify;
    fastify.addHook("onRoute", ({ method, url }) => void mounted.push(...[method].flat().map((each) => `${each} ${url}`)));
  };
  subscribe("fastify.initialization", watch);
  try {
    const result = await start();
    if (server === null) throw new Error("no server was made");
    return { result, mounted, server };
  } finally {
    unsubscribe("fastify.initialization", watch);
  }
}
