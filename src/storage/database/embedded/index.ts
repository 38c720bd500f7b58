import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { RandomBytes } from "../../../kernel/random.ts";
import type { DatabaseLog } from "../index.ts";
import { embeddedBinaries } from "./binaries.ts";
import { openCluster } from "./cluster.ts";
import { lockDataDirectory } from "./data-lock.ts";
import { chooseLauncher } from "./launcher.ts";
import { stopOrphan } from "./orphan.ts";
import { type Server, startServer } from "./server.ts";
import { type SocketDirectory, socketDirectory } from "./socket-directory.ts";

/** A PostgreSQL of our own on a private unix socket. */
export interface EmbeddedServer {
  /** Of its superuser, who only migrates. The database named need not exist. */
  url(database: string): string;
  /** The server's process; null while it is down. */
  readonly pid: number | null;
  stop(): Promise<void>;
}

/** Starts the server of `<data>/postgres`, making the cluster at first. Throws DatabaseRefusal. */
export async function startEmbedded(options: { dataDirectory: string; random: RandomBytes; log: DatabaseLog }): Promise<EmbeddedServer> {
  const dataDirectory = resolve(options.dataDirectory);
  const root = join(dataDirectory, "postgres");
  const lock = lockDataDirectory(dataDirectory);
  try {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    const binaries = embeddedBinaries(join(root, "lib"));
    const launcher = chooseLauncher({ executable: binaries.postgres, dataDirectory, directory: root });
    const cluster = await openCluster(root, binaries, launcher, options.random);
    await stopOrphan(cluster.directory, options.log);
    const sockets = socketDirectory(root, launcher);
    const server = await startServer({
      binaries,
      launcher,
      directory: cluster.directory,
      socketDirectory: sockets.path,
      logFile: join(root, "server.log"),
      settings: SETTINGS,
      log: options.log,
    });
    options.log.info({ pid: server.pid, directory: cluster.directory, as: launcher.kind }, "embedded PostgreSQL started");
    return embeddedServer(server, sockets, cluster.superuserPassword, lock.release);
  } catch (error) {
    lock.release();
    throw error;
  }
}

function embeddedServer(server: Server, sockets: SocketDirectory, password: string, release: () => void): EmbeddedServer {
  return {
    url: (database) => `postgres://postgres:${password}@localhost/${database}?host=${encodeURIComponent(sockets.path)}`,
    get pid() {
      return server.pid;
    },
    async stop() {
      await server.stop();
      sockets.remove();
      release();
    },
  };
}

/**
 * The URL of the server that another process runs on this data directory, for a command beside it; null where none runs.
 * PostgreSQL's own pid file says where its socket is.
 */
export function urlOfRunning(dataDirectory: string, database: string): string | null {
  const root = join(resolve(dataDirectory), "postgres");
  const [major] = existsSync(root) ? readdirSync(root).filter((name) => existsSync(join(root, name, "postmaster.pid"))) : [];
  if (major === undefined) return null;
  const socketDirectory =
    readFileSync(join(root, major, "postmaster.pid"), "utf8")
      .split("\n")[4]
      ?.trim() ?? "";
  const password = readFileSync(join(root, "superuser.password"), "utf8");
  return `postgres://postgres:${password}@localhost/${database}?host=${encodeURIComponent(socketDirectory)}`;
}

/**
 * One process's worth of connections and memory; fsync and synchronous_commit stay as PostgreSQL has them. `log` sorts
 * above `error` here: what the server says of itself is kept, while a failed statement, which could carry values, is not.
 */
const SETTINGS: Readonly<Record<string, string>> = {
  cluster_name: "atrium",
  max_connections: "60",
  shared_buffers: "64MB",
  work_mem: "4MB",
  maintenance_work_mem: "32MB",
  max_wal_size: "256MB",
  max_wal_senders: "0",
  wal_level: "minimal",
  io_method: "sync",
  jit: "off",
  max_parallel_workers_per_gather: "0",
  unix_socket_permissions: "0700",
  log_min_messages: "log",
  log_min_error_statement: "panic",
  log_checkpoints: "off",
  TimeZone: "UTC",
};
