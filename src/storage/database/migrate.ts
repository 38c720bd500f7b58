import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import type { Clock } from "../../kernel/clock.ts";
import { createIdMaker, type Uuid } from "../../kernel/ids.ts";
import type { RandomBytes } from "../../kernel/random.ts";
import { derive, type MasterKey } from "../secrets/index.ts";
import { withClient } from "./connection.ts";
import type { DatabaseLog } from "./index.ts";
import { ensureMonthlyPartitions } from "./partitions.ts";
import { DatabaseRefusal } from "./refusal.ts";
import { ensureRoles, type RequestRoles, requestRoles, resetPasswords, roleName } from "./roles.ts";

export interface MigrateOptions {
  /** Of the owner, or of someone above it (a superuser), who then only acts as the owner. */
  readonly url: string;
  readonly masterKey: MasterKey;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly log: DatabaseLog;
  readonly migrations?: readonly Migration[];
}

export interface Migration {
  readonly version: number;
  readonly name: string;
  /** What PostgreSQL 15 accepts; `:"app"` and `:"system"` stand for the request roles. */
  readonly sql: string;
}

export interface Installation {
  readonly id: Uuid;
  readonly roles: RequestRoles;
}

/** Brings the schema to what this release knows, alone among all processes that start now. Throws DatabaseRefusal. */
export async function migrate(options: MigrateOptions): Promise<Installation> {
  return withClient(options.url, "migration", async (client) => {
    await client.query("SELECT pg_advisory_lock($1)", [MIGRATION_LOCK]);
    await refuseOldServer(client);
    const id = (await installationId(client)) ?? (await found(client, options));
    const migrations = options.migrations ?? readMigrations();
    const pending = await pendingBetweenBackups(client, options.log, () => schemaOf(client, id, options.masterKey, migrations));
    const roles = requestRoles(options.masterKey, id);
    await ensureRoles(client, roles, options.random);
    await becomeOwner(client);
    for (const migration of pending) {
      await client.query("BEGIN");
      await apply(client, migration, roles);
      await client.query("COMMIT");
      options.log.info({ migration: migration.name }, "database migrated");
    }
    await ensureMonthlyPartitions(client, options.clock.now());
    return { id, roles };
  });
}

/** How far the schema of a database is from what this release knows. */
export interface SchemaStatus {
  /** Null where the database holds no installation yet. */
  readonly installation: Uuid | null;
  readonly applied: readonly AppliedMigration[];
  readonly pending: readonly Migration[];
}

/** A migration as a database remembers it. */
export interface AppliedMigration {
  readonly version: number;
  readonly name: string;
  /** SHA-256 of its text. */
  readonly digest: Buffer;
}

/** Reads only. Throws DatabaseRefusal where this release could not start on the database. */
export async function schemaStatus(
  client: pg.Client,
  masterKey: MasterKey,
  migrations: readonly Migration[] = readMigrations(),
): Promise<SchemaStatus> {
  await refuseOldServer(client);
  const installation = await installationId(client);
  if (installation === null) return { installation, applied: [], pending: migrations };
  return { installation, ...(await schemaOf(client, installation, masterKey, migrations)) };
}

/**
 * What is pending, once no backup reads: whoever waits for a table that one reads keeps every request waiting behind it. This
 * lock comes before that of migrations, as in {@link betweenMigrations}: neither waits for the other in a circle.
 */
async function pendingBetweenBackups(
  client: pg.Client,
  log: DatabaseLog,
  read: () => Promise<Pick<SchemaStatus, "pending">>,
): Promise<readonly Migration[]> {
  const { pending } = await read();
  if (pending.length === 0) return pending;
  await client.query("SELECT pg_advisory_unlock($1)", [MIGRATION_LOCK]);
  const { rows } = await client.query<{ free: boolean }>("SELECT pg_try_advisory_lock($1) AS free", [BACKUP_LOCK]);
  if (rows[0]?.free !== true) {
    log.warn({ pending: pending.map(({ name }) => name) }, "migrations wait for a backup to end");
    await client.query("SELECT pg_advisory_lock($1)", [BACKUP_LOCK]);
  }
  await client.query("SELECT pg_advisory_lock($1)", [MIGRATION_LOCK]);
  return (await read()).pending;
}

async function schemaOf(client: pg.Client, id: Uuid, masterKey: MasterKey, migrations: readonly Migration[]) {
  await verifyMasterKey(client, id, masterKey);
  const applied = await appliedMigrations(client);
  refuseUnknownSchema(applied, migrations);
  const versions = new Set(applied.map(({ version }) => version));
  return { applied, pending: migrations.filter(({ version }) => !versions.has(version)) };
}

export interface InstallationAt {
  readonly id: Uuid;
  readonly masterKey: MasterKey;
  readonly random: RandomBytes;
  /** Those it had taken, in order. */
  readonly migrations: readonly Migration[];
}

/** For a restore: until its transaction ends, no process starts on the database. */
export async function lockOutStarts(client: pg.Client): Promise<void> {
  await client.query("SELECT pg_advisory_xact_lock($1)", [MIGRATION_LOCK]);
}

/**
 * For a restore, within its transaction and after {@link lockOutStarts}: the roles and the schema of an installation as they were,
 * without the rows that make it one. The transaction goes on as the owner. Throws `roles_missing`.
 */
export async function createInstallation(client: pg.Client, { id, masterKey, random, migrations }: InstallationAt): Promise<void> {
  await refuseOldServer(client);
  const roles = requestRoles(masterKey, id);
  await ensureRoles(client, roles, random);
  await createFoundation(client, id);
  for (const migration of migrations) await apply(client, migration, roles);
}

/**
 * For a backup: the work begins a transaction while no process migrates or makes partitions, and migrations wait until that
 * transaction ends. Others may do so beside it, and a start that has nothing to migrate does not wait.
 */
export async function betweenMigrations<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  await client.query("SELECT pg_advisory_lock_shared($1)", [BACKUP_LOCK]);
  await client.query("SELECT pg_advisory_lock_shared($1)", [MIGRATION_LOCK]);
  const result = await work();
  // For the rest of the transaction. Not before the work: it would be the transaction's first look, from before the wait.
  await client.query("SELECT pg_advisory_xact_lock_shared($1)", [BACKUP_LOCK]);
  for (const lock of [MIGRATION_LOCK, BACKUP_LOCK]) await client.query("SELECT pg_advisory_unlock_shared($1)", [lock]);
  return result;
}

/** Upkeep between starts: the partitions of the coming months. */
export async function addPartitions(url: string, clock: Clock): Promise<string[]> {
  return withClient(url, "upkeep", async (client) => {
    await client.query("SELECT pg_advisory_lock($1)", [MIGRATION_LOCK]);
    await becomeOwner(client);
    return ensureMonthlyPartitions(client, clock.now());
  });
}

/** Gives both request roles their derived passwords again. */
export async function repairPasswords(options: MigrateOptions, roles: RequestRoles): Promise<void> {
  await withClient(options.url, "roles", (client) => resetPasswords(client, roles, options.random));
}

export function readMigrations(directory: string = MIGRATIONS_DIRECTORY): Migration[] {
  const files = readdirSync(directory)
    .filter((name) => name.endsWith(".sql"))
    .sort();
  return files.map((file) => ({
    version: Number.parseInt(file, 10),
    name: file.slice(0, -".sql".length),
    sql: readFileSync(join(directory, file), "utf8"),
  }));
}

async function refuseOldServer(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ server_version_num: string; server_version: string }>(
    "SELECT current_setting('server_version_num') AS server_version_num, current_setting('server_version') AS server_version",
  );
  if (Number(rows[0]?.server_version_num) >= MINIMUM_SERVER_VERSION) return;
  throw new DatabaseRefusal("server_too_old", `This PostgreSQL is ${rows[0]?.server_version}; Atrium needs 15 or newer.`);
}

async function installationId(client: pg.Client): Promise<Uuid | null> {
  const { rows } = await client.query<{ present: boolean }>("SELECT to_regclass('installation') IS NOT NULL AS present");
  if (rows[0]?.present !== true) return null;
  // The row is written in the transaction that makes the table.
  const { rows: installations } = await client.query<{ id: Uuid }>("SELECT id FROM installation");
  return installations[0]?.id ?? null;
}

/** The first start: this database becomes an installation. */
async function found(client: pg.Client, options: MigrateOptions): Promise<Uuid> {
  const id = createIdMaker(options.clock, options.random)<Uuid>();
  await client.query("BEGIN");
  await createFoundation(client, id);
  await client.query("INSERT INTO installation (id, key_check, created_at) VALUES ($1, $2, $3)", [
    id,
    keyCheck(options.masterKey, id),
    new Date(options.clock.now()),
  ]);
  await client.query("COMMIT");
  options.log.info({ installation: id }, "a new installation");
  return id;
}

/** The two tables that every migration stands on, owned by the owner, whom the transaction acts as from here on. */
async function createFoundation(client: pg.Client, id: Uuid): Promise<void> {
  await client.query(await ownerSetup(client, id));
  await client.query(`
    CREATE TABLE installation (
      singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
      id uuid NOT NULL,
      key_check bytea NOT NULL,
      created_at timestamptz NOT NULL
    );
    CREATE TABLE schema_migrations (
      version integer PRIMARY KEY,
      name text NOT NULL,
      digest bytea NOT NULL,
      applied_at timestamptz NOT NULL DEFAULT now()
    );`);
}

/** Row security does not bind a superuser, not even a forced one: it makes itself an owner that is none, and acts as it. */
async function ownerSetup(client: pg.Client, id: Uuid): Promise<string> {
  const name = roleName("owner", id);
  const { rows } = await client.query<{ above: boolean; schema: string; present: boolean }>(
    `SELECT rolsuper OR rolbypassrls AS above, quote_ident(current_schema()) AS schema, to_regrole($1) IS NOT NULL AS present
     FROM pg_roles WHERE rolname = current_user`,
    [name],
  );
  if (rows[0]?.above !== true) return "";
  const owner = pg.escapeIdentifier(name);
  // Present where the installation is restored into the cluster that it came from.
  const create = rows[0].present ? "" : `CREATE ROLE ${owner} NOLOGIN; `;
  return `${create}GRANT ${owner} TO CURRENT_USER; GRANT USAGE, CREATE ON SCHEMA ${rows[0].schema} TO ${owner}; SET LOCAL ROLE ${owner};`;
}

async function becomeOwner(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ owner: string }>(
    "SELECT relowner::regrole::text AS owner FROM pg_class WHERE oid = to_regclass('installation')",
  );
  if (rows[0] !== undefined) await client.query(`SET ROLE ${rows[0].owner}`);
}

async function verifyMasterKey(client: pg.Client, id: Uuid, master: MasterKey): Promise<void> {
  const { rows } = await client.query<{ key_check: Buffer }>("SELECT key_check FROM installation");
  if (rows[0] !== undefined && timingSafeEqual(rows[0].key_check, keyCheck(master, id))) return;
  throw new DatabaseRefusal(
    "master_key_mismatch",
    "This database belongs to another master key: start with the key it was made with (ATRIUM_MASTER_KEY, or master.key in the data directory); nothing was changed.",
  );
}

/** What a database remembers of the master key it was made with. */
export function keyCheck(master: MasterKey, id: Uuid): Buffer {
  return createHmac("sha256", derive(master, "key-check", 1))
    .update(id)
    .digest();
}

async function appliedMigrations(client: pg.Client): Promise<AppliedMigration[]> {
  const { rows } = await client.query<AppliedMigration>("SELECT version, name, digest FROM schema_migrations ORDER BY version");
  return rows;
}

/** Throws `schema_newer` or `migration_changed` unless every migration that was applied is one of these, unchanged. */
export function refuseUnknownSchema(applied: readonly AppliedMigration[], migrations: readonly Migration[]): void {
  const known = new Map(migrations.map((migration) => [migration.version, migration]));
  for (const { version, digest } of applied) {
    const migration = known.get(version);
    if (migration === undefined) {
      throw new DatabaseRefusal(
        "schema_newer",
        `The database has schema ${version} and this Atrium knows ${Math.max(0, ...known.keys())}: start the newer release.`,
      );
    }
    if (!digest.equals(migrationDigest(migration))) {
      throw new DatabaseRefusal(
        "migration_changed",
        `Migration ${migration.name} was edited after this database took it: migrations only go forward, in new files.`,
      );
    }
  }
}

async function apply(client: pg.Client, migration: Migration, roles: RequestRoles): Promise<void> {
  const sql = migration.sql.replaceAll(':"app"', `"${roles.app.name}"`).replaceAll(':"system"', `"${roles.system.name}"`);
  await client.query(sql);
  await client.query("INSERT INTO schema_migrations (version, name, digest) VALUES ($1, $2, $3)", [
    migration.version,
    migration.name,
    migrationDigest(migration),
  ]);
}

function migrationDigest(migration: Migration): Buffer {
  return createHash("sha256").update(migration.sql).digest();
}

const MIGRATIONS_DIRECTORY = join(import.meta.dirname, "..", "migrations");
/** Any constant of our own: advisory locks are numbers, one space for each database. */
const MIGRATION_LOCK = 0x61_74_72_6d;
const BACKUP_LOCK = MIGRATION_LOCK + 1;
const MINIMUM_SERVER_VERSION = 150_000;
