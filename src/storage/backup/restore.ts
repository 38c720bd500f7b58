import { finished } from "node:stream/promises";
import { isDeepStrictEqual } from "node:util";
import pg from "pg";
import copyStreams, { type CopyStreamQuery } from "pg-copy-streams";
import type { Clock } from "../../kernel/clock.ts";
import type { Uuid } from "../../kernel/ids.ts";
import { type DatabaseServerOptions, openServer } from "../database/index.ts";
import { guarded, withClient } from "../database/connection.ts";
import {
  createInstallation,
  keyCheck,
  lockOutStarts,
  migrate,
  type Migration,
  readMigrations,
  refuseUnknownSchema,
} from "../database/migrate.ts";
import { restorePartition } from "../database/partitions.ts";
import { roleName } from "../database/roles.ts";
import type { MasterKey } from "../secrets/index.ts";
import { journalDirectory } from "./back-up.ts";
import { journalStream, keyFingerprint, type Manifest, type ManifestTable, tableStream } from "./format.ts";
import { JournalRestorer, refuseJournal } from "./journal.ts";
import { type PartSink, readBackup } from "./reader.ts";
import { BackupRefusal } from "./refusal.ts";
import { SESSION } from "./snapshot.ts";
import { readTables } from "./tables.ts";

export interface RestoreOptions extends DatabaseServerOptions {
  readonly masterKey: MasterKey;
  readonly from: string;
  readonly clock: Clock;
  readonly migrations?: readonly Migration[];
}

export interface Restored {
  readonly manifest: Manifest;
  /** The migrations that the backup did not have yet, by name. */
  readonly migrated: readonly string[];
}

/** Reads all of a backup and checks it, without a database. Throws BackupRefusal. */
export function verifyBackup(path: string): Promise<Manifest> {
  return readBackup(path, async () => {});
}

/**
 * Makes an empty database, and a data directory without a journal, what they were at the moment of the backup; then
 * migrates forward. The file is checked first and loaded in one transaction: whatever is refused, nothing has changed.
 * Throws BackupRefusal, DatabaseRefusal, DatabaseUnavailable.
 */
export async function restore(options: RestoreOptions): Promise<Restored> {
  const manifest = await verifyBackup(options.from);
  const known = options.migrations ?? readMigrations();
  const applied = manifest.migrations.map((migration) => ({ ...migration, digest: Buffer.from(migration.sha256, "hex") }));
  refuseUnknownSchema(applied, known);
  refuseOtherKey(manifest, options.masterKey);
  await refuseJournal(journalDirectory(options.dataDirectory));
  const versions = new Set(applied.map(({ version }) => version));
  const server = await openServer(options, true);
  try {
    const taken = known.filter(({ version }) => versions.has(version));
    await guarded(async () => {
      await withClient(server.ownerUrl, "restore", (client) => load(client, options, manifest, taken));
      await migrate({ ...options, url: server.ownerUrl, migrations: known });
    });
  } finally {
    await server.close();
  }
  return { manifest, migrated: known.filter(({ version }) => !versions.has(version)).map(({ name }) => name) };
}

function refuseOtherKey(manifest: Manifest, masterKey: MasterKey): void {
  const check = keyCheck(masterKey, manifest.installation as Uuid).toString("hex");
  if (check === manifest.master_key_check) return;
  throw new BackupRefusal(
    "master_key_differs",
    `This backup was made with master key ${keyFingerprint(manifest.master_key_check)}, and the key given is ${keyFingerprint(check)}: set ATRIUM_MASTER_KEY to that key, or put its file into the data directory as master.key.`,
  );
}

async function load(client: pg.Client, options: RestoreOptions, manifest: Manifest, migrations: readonly Migration[]): Promise<void> {
  const { masterKey, random } = options;
  await client.query("BEGIN");
  await client.query(SESSION);
  await lockOutStarts(client);
  await refuseTarget(client, manifest);
  await createInstallation(client, { id: manifest.installation as Uuid, masterKey, random, migrations });
  await refuseOtherTables(client, manifest);
  for (const { name, months } of manifest.tables) for (const month of months) await restorePartition(client, name, month);
  const journal =
    manifest.journal === null ? null : await JournalRestorer.create(journalDirectory(options.dataDirectory), manifest.journal.id);
  try {
    await withoutForcedRowSecurity(client, () => fill(client, options.from, manifest, journal));
    await forgetProcesses(client, manifest);
    // Before the commit: a database without the journal that completes it must not look whole.
    await journal?.finish();
  } catch (error) {
    await journal?.discard();
    throw error;
  }
  // A commit whose answer is lost may have been one: the journal stays.
  await client.query("COMMIT");
}

async function refuseTarget(client: pg.Client, manifest: Manifest): Promise<void> {
  const { rows } = await client.query<{ table: string | null; encoding: string }>(
    `SELECT current_setting('server_encoding') AS encoding, (SELECT min(relname) FROM pg_class
       WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relname = ANY ($1)) AS table`,
    [manifest.tables.map(({ name }) => name)],
  );
  const { table = null, encoding = "" } = rows[0] ?? {};
  if (table !== null) {
    throw new BackupRefusal(
      "target_not_empty",
      `The database to restore into is not empty: it has ${table}. Restore into a new database, or a new data directory (ATRIUM_DATA_DIR).`,
    );
  }
  if (encoding === "UTF8" || encoding === manifest.database.encoding) return;
  throw new BackupRefusal("encoding_differs", `The database to restore into has encoding ${encoding}: make one with ENCODING 'UTF8'.`);
}

async function refuseOtherTables(client: pg.Client, manifest: Manifest): Promise<void> {
  const tables = await readTables(client, roleName("system", manifest.installation as Uuid));
  const described = (list: readonly { readonly name: string; readonly columns: readonly string[] }[]) =>
    new Map(list.map(({ name, columns }) => [name, [...columns].sort()]));
  if (isDeepStrictEqual(described(tables), described(manifest.tables))) return;
  throw new BackupRefusal("backup_damaged", "The backup's tables are not those of its migrations: it was edited, use another copy.");
}

/** Row security binds even the owner, who loads; in this transaction nobody else sees these tables yet. */
async function withoutForcedRowSecurity(client: pg.Client, work: () => Promise<void>): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT quote_ident(relname) AS name FROM pg_class
     WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p') AND relforcerowsecurity`,
  );
  const each = (clause: string) => rows.map(({ name }) => `ALTER TABLE ${name} ${clause};`).join("\n");
  await client.query(each("NO FORCE ROW LEVEL SECURITY"));
  await work();
  await client.query(each("FORCE ROW LEVEL SECURITY"));
}

async function fill(client: pg.Client, path: string, manifest: Manifest, journal: JournalRestorer | null): Promise<void> {
  // What the migrations themselves have put there is in the backup too.
  await client.query(`TRUNCATE ${manifest.tables.map(({ name }) => pg.escapeIdentifier(name)).join(", ")}`);
  const tables = new TableLoader(client, manifest);
  const segments = new Map((manifest.journal?.segments ?? []).map(({ name }) => [journalStream(name), name]));
  const sink: PartSink = async (stream, data) => {
    const segment = segments.get(stream);
    if (segment === undefined) await tables.write(stream, data);
    else await journal?.write(segment, data);
  };
  if (!isDeepStrictEqual(await readBackup(path, sink), manifest)) throw changed();
  await tables.finish();
}

/** None of the processes that were at work is at work here: nobody waits for what they would give back. */
async function forgetProcesses(client: pg.Client, manifest: Manifest): Promise<void> {
  for (const { name } of manifest.tables) if (OF_PROCESSES.has(name)) await client.query(`DELETE FROM ${pg.escapeIdentifier(name)}`);
}

/** Tables that say which process does something now. */
const OF_PROCESSES: ReadonlySet<string> = new Set(["budget_keeper"]);

/** Copies the tables' streams in, one after another. */
class TableLoader {
  readonly #client: pg.Client;
  readonly #tables: ReadonlyMap<string, ManifestTable>;
  #current: { readonly stream: string; readonly copy: CopyStreamQuery; readonly done: Promise<void> } | null = null;

  constructor(client: pg.Client, manifest: Manifest) {
    this.#client = client;
    this.#tables = new Map(manifest.tables.map((table) => [tableStream(table.name), table]));
  }

  async write(stream: string, data: Buffer): Promise<void> {
    if (this.#current?.stream !== stream) {
      await this.finish();
      this.#current = this.#begin(stream);
    }
    const { copy, done } = this.#current;
    const taken = new Promise<void>((resolve) => copy.write(data, () => resolve()));
    // When the server refuses a row, the stream fails and may never take what was written to it.
    await Promise.race([taken, done]);
  }

  /** Ends the table at work, and checks that the server has every row of it. */
  async finish(): Promise<void> {
    if (this.#current === null) return;
    const { stream, copy, done } = this.#current;
    this.#current = null;
    copy.end();
    await done;
    const table = this.#tables.get(stream);
    if (table?.rows === copy.rowCount) return;
    throw new BackupRefusal(
      "backup_damaged",
      `The backup has ${table?.rows} rows of ${table?.name}, and the database took ${copy.rowCount}.`,
    );
  }

  #begin(stream: string) {
    const table = this.#tables.get(stream);
    if (table === undefined) throw changed();
    const columns = table.columns.map((name) => pg.escapeIdentifier(name)).join(", ");
    const copy = this.#client.query(copyStreams.from(`COPY ${pg.escapeIdentifier(table.name)} (${columns}) FROM STDIN`));
    const done = finished(copy);
    done.catch(() => {});
    return { stream, copy, done };
  }
}

function changed(): BackupRefusal {
  return new BackupRefusal(
    "backup_damaged",
    "The backup changed while it was restored: nothing was restored, try again with a file that stays.",
  );
}
