import pg from "pg";
import type { DatabaseLog } from "./index.ts";
import { DatabaseRefusal } from "./refusal.ts";

/** PostgreSQL is away, or went away during the work: of a transaction that was committing, the outcome is not known. */
export class DatabaseUnavailable extends Error {
  override readonly name = "DatabaseUnavailable";
}

/** The same server and options for another role. */
export function asRole(url: string, user: string, password: string): string {
  const target = parseDatabaseUrl(url);
  if (target.hostname === "") target.hostname = "localhost";
  for (const name of ["user", "password"]) target.searchParams.delete(name);
  target.username = encodeURIComponent(user);
  target.password = encodeURIComponent(password);
  return target.href;
}

/** Throws `database_url_invalid`, without repeating the URL: it holds a password. */
export function parseDatabaseUrl(text: string): URL {
  const url = URL.parse(text) ?? URL.parse(text.replace("@/", "@localhost/"));
  if (url === null || !/^postgres(ql)?:$/.test(url.protocol)) {
    throw new DatabaseRefusal("database_url_invalid", "DATABASE_URL must look like postgres://user:password@host:5432/database.");
  }
  return url;
}

/** `answerTimeoutMs`: how long a query may go unanswered, for a server that froze and so cannot keep its own statement timeout. */
export function createPool(url: string, name: string, max: number, answerTimeoutMs: number, log: DatabaseLog): pg.Pool {
  const pool = new pg.Pool({ ...clientConfig(url, name), max, query_timeout: answerTimeoutMs, idleTimeoutMillis: IDLE_TIMEOUT_MS });
  // An idle connection that breaks is dropped by the pool; without a listener it would end the process.
  pool.on("error", (error) => {
    // While it closes, our own server may be quicker to end a connection than the connection's own goodbye.
    if (!pool.ending) log.warn({ error: error.message, pool: name }, "an idle database connection broke");
  });
  // So it would with one at work, whose query in flight rejects as well.
  pool.on("connect", (client) => client.on("error", () => {}));
  return pool;
}

export function createClient(url: string, name: string): pg.Client {
  return new pg.Client(clientConfig(url, name));
}

/** Runs the work on a connection of its own. */
export async function withClient<T>(url: string, name: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = createClient(url, name);
  // The failure also rejects the query in flight, which is where it is handled.
  client.on("error", () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** Turns the many faces of a lost connection into DatabaseUnavailable; everything else passes. */
export async function guarded<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!isConnectionFailure(error)) throw error;
    throw new DatabaseUnavailable(`The database is not available: ${(error as Error).message}`, { cause: error });
  }
}

function isConnectionFailure(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code, syscall } = error as { code?: unknown; syscall?: unknown };
  // Of a socket's path, and not of a file that a backup or a restore has at hand.
  if (code === "ENOENT") return syscall === "connect";
  if (typeof code === "string") return CONNECTION_CODES.has(code) || code.startsWith("08") || code.startsWith("57P");
  return CONNECTION_MESSAGES.test(error.message);
}

function clientConfig(url: string, name: string): pg.ClientConfig {
  return {
    connectionString: url,
    application_name: `atrium ${name}`,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    // The kernel then probes an idle peer every second and gives up after ten: a vanished server is noticed in 20 s.
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_DELAY_MS,
    types: { getTypeParser },
  };
}

const getTypeParser = ((oid: number, format?: "text" | "binary") => {
  if (oid === pg.types.builtins.NUMERIC) return BigInt;
  if (oid === pg.types.builtins.INT8) return safeInteger;
  return pg.types.getTypeParser(oid, format as "text");
}) as typeof pg.types.getTypeParser;

function safeInteger(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value)) throw new RangeError(`a bigint of the database is not a safe integer: ${text}`);
  return value;
}

const CONNECT_TIMEOUT_MS = 5_000;
const IDLE_TIMEOUT_MS = 30_000;
const KEEP_ALIVE_DELAY_MS = 10_000;
const CONNECTION_CODES: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  // Too many connections; not let in, or no such database, while an operator moves things; a standby, which only reads.
  "53300",
  "28000",
  "3D000",
  "25006",
]);
const CONNECTION_MESSAGES =
  /connection terminated|query read timeout|timeout exceeded when trying to connect|client has encountered a connection error|not queryable/i;
