import type { Transaction } from "kysely";
import type { Brand } from "../../kernel/brand.ts";
import type { Clock } from "../../kernel/clock.ts";
import type { TenantId, Uuid } from "../../kernel/ids.ts";
import type { RandomBytes } from "../../kernel/random.ts";
import type { MasterKey } from "../secrets/index.ts";
import type { Tables } from "./schema.ts";

export { bumpConfig, CONFIG_CHANNEL } from "./config-version.ts";
export { DatabaseUnavailable } from "./connection.ts";
export { type DatabaseServerOptions, migrateDatabase, openBeside, openDatabase, openServer, readSchemaStatus } from "./open.ts";
export { DatabaseRefusal, type RefusalCode } from "./refusal.ts";
export type { Tables } from "./schema.ts";
export { asTenant, tenantOf } from "./tenant-transaction.ts";

/** The only ways to rows. */
export interface Database {
  /**
   * One transaction as role atrium_app, seeing and writing the rows of this tenant only: by row security, and by a
   * predicate added to every query. Throws DatabaseUnavailable when PostgreSQL is away or went away during the work.
   */
  forTenant<T>(tenant: TenantId, work: (tx: TenantTransaction) => Promise<T>): Promise<T>;
  /**
   * One transaction as role atrium_system, which crosses tenants where an explicit policy lets it. The jobs that only
   * read (`snapshot`, `report`, `key-lookup`) see one snapshot of the database throughout, and cannot write.
   */
  forSystem<T>(job: SystemJob, work: (tx: SystemTransaction) => Promise<T>): Promise<T>;
  /**
   * LISTENs on a connection of its own, which reconnects with backoff. `onLost` is told of each loss: notices of that
   * time are gone, so whoever relies on them also polls.
   */
  listen(channel: string, onNotice: (payload: string) => void, onLost: (error: Error) => void): Promise<Listener>;
  /** Makes the monthly partitions from last month to three months ahead, where missing. Returns the names of those made. */
  ensurePartitions(): Promise<string[]>;
  readonly installationId: Uuid;
  /** Throws DatabaseUnavailable when no answer came within two seconds. */
  ping(): Promise<void>;
  close(): Promise<void>;
}

export interface Listener {
  close(): Promise<void>;
}

/** Who crosses tenants, and so appears in the application_name of its connection and in the logs. */
export type SystemJob = "snapshot" | "ship" | "report" | "key-lookup" | "outbox";

/** Bound to one tenant, which `tenantOf(tx)` tells. A verb takes the transaction it runs in. */
export type TenantTransaction = Brand<Transaction<Tables>, "TenantTransaction">;
export type SystemTransaction = Brand<Transaction<Tables>, "SystemTransaction">;

export interface DatabaseOptions {
  /** Absolute or relative; the embedded server's files are in `<dataDirectory>/postgres/18`. */
  readonly dataDirectory: string;
  /** Absent: the embedded server. The owner's URL when `migrationUrl` is absent. */
  readonly databaseUrl?: string | undefined;
  readonly migrationUrl?: string | undefined;
  /** For LISTEN, when `databaseUrl` is a transaction pooler. */
  readonly listenUrl?: string | undefined;
  readonly masterKey: MasterKey;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly log: DatabaseLog;
}

/** As pino's. */
export interface DatabaseLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}
