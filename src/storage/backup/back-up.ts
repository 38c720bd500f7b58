import { join } from "node:path";
import { guarded } from "../database/connection.ts";
import { type DatabaseServerOptions, openServer } from "../database/index.ts";
import { keyCheck, type Migration } from "../database/migrate.ts";
import type { MasterKey } from "../secrets/index.ts";
import { FORMAT, type Manifest, type ManifestTable, tableStream } from "./format.ts";
import { HeldJournal } from "./journal.ts";
import { BackupRefusal } from "./refusal.ts";
import { Snapshot, type SnapshotOptions } from "./snapshot.ts";
import type { BackupTable } from "./tables.ts";
import { BackupWriter, refuseExisting } from "./writer.ts";

export interface BackUpOptions extends DatabaseServerOptions {
  readonly masterKey: MasterKey;
  /** The file to make; its name must be free. */
  readonly to: string;
  /** The version of this release, for whoever reads the manifest. */
  readonly release: string;
  readonly migrations?: readonly Migration[];
}

export interface BackedUp {
  readonly manifest: Manifest;
  /** The size of the file. */
  readonly bytes: number;
  /** Whether the journal has something in it that may be another installation's: this database has had nothing from it yet. */
  readonly strangeJournal: boolean;
}

/**
 * Copies the whole database as of one moment, and this machine's journal, into one file; a server may go on beside it. The
 * file has its name only when it is whole and on the disk. Throws BackupRefusal, DatabaseRefusal, DatabaseUnavailable.
 */
export async function backUp(options: BackUpOptions): Promise<BackedUp> {
  await refuseExisting(options.to);
  const server = await openServer(options);
  try {
    return await guarded(async () => {
      const { snapshot, journal } = await takeTogether({ ...server, ...options }, journalDirectory(options.dataDirectory));
      try {
        return await write(options, snapshot, journal);
      } finally {
        await snapshot.close();
        await journal?.close();
      }
    });
  } finally {
    await server.close();
  }
}

export function journalDirectory(dataDirectory: string): string {
  return join(dataDirectory, "journal");
}

/** A snapshot, and the journal without a gap from before it to after it. */
async function takeTogether(options: SnapshotOptions, directory: string): Promise<{ snapshot: Snapshot; journal: HeldJournal | null }> {
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    const journal = await HeldJournal.hold(directory);
    let snapshot: Snapshot | null = null;
    try {
      snapshot = await Snapshot.take(options);
      if (journal === null || (await journal.extend())) return { snapshot, journal };
    } catch (error) {
      await snapshot?.close();
      await journal?.close();
      throw error;
    }
    await snapshot.close();
    await journal.close();
  }
  throw new BackupRefusal("journal_moves", `The journal in ${directory} moves on too fast to be copied: try again.`);
}

async function write(options: BackUpOptions, snapshot: Snapshot, journal: HeldJournal | null): Promise<BackedUp> {
  const { at, journals, ...database } = await snapshot.facts<{ at: Date; version: string; encoding: string; journals: string[] }>(
    `SELECT now() AS at, current_setting('server_version') AS version, current_setting('server_encoding') AS encoding,
      ARRAY(SELECT id::text FROM journals) AS journals`,
  );
  const { installation, applied } = snapshot.schema;
  const writer = await BackupWriter.create(options.to, at);
  try {
    const tables: ManifestTable[] = [];
    for (const table of snapshot.tables) tables.push(await writeTable(writer, snapshot, table));
    const manifest: Manifest = {
      format: FORMAT,
      atrium: options.release,
      created_at: at.toISOString(),
      installation,
      master_key_check: keyCheck(options.masterKey, installation).toString("hex"),
      database,
      migrations: applied.map(({ version, name, digest }) => ({ version, name, sha256: digest.toString("hex") })),
      tables,
      journal: journal === null ? null : await journal.copy(writer),
    };
    const strangeJournal = manifest.journal !== null && manifest.journal.segments.length > 0 && !journals.includes(manifest.journal.id);
    return { manifest, bytes: await writer.finish(manifest), strangeJournal };
  } catch (error) {
    await writer.discard();
    throw error;
  }
}

async function writeTable(writer: BackupWriter, snapshot: Snapshot, table: BackupTable): Promise<ManifestTable> {
  const { name, columns, months } = table;
  let rows = 0;
  const counted = async function* () {
    for await (const chunk of snapshot.rows(table)) {
      rows += newlines(chunk);
      yield chunk;
    }
  };
  const digest = await writer.stream(tableStream(name), counted());
  return { name, columns: [...columns], rows, ...digest, months: [...months] };
}

/** A row is a line: COPY writes a newline within a value as `\n`. */
function newlines(chunk: Buffer): number {
  let count = 0;
  for (let at = chunk.indexOf(NEWLINE); at !== -1; at = chunk.indexOf(NEWLINE, at + 1)) count += 1;
  return count;
}

const NEWLINE = 10;
/** A journal of 16 MiB segments loses one between two looks at it when nothing else on the machine gets a turn. */
const ATTEMPTS = 5;
