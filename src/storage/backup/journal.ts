import { mkdir, open, type FileHandle, readdir, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { isUuid } from "../../kernel/ids.ts";
import { segmentOrdinal } from "../journal/segments.ts";
import { journalStream, type Manifest } from "./format.ts";
import { BackupRefusal } from "./refusal.ts";
import type { BackupWriter } from "./writer.ts";

export type ManifestJournal = NonNullable<Manifest["journal"]>;

/**
 * The journal of a data directory, held open while its process goes on writing, shipping and removing segments.
 *
 * A settled attempt is in PostgreSQL or in the journal, and shipping moves it from the journal to PostgreSQL. So segments are
 * held before the snapshot is taken and copied after it: what the snapshot does not have, they do, and what both have meets
 * itself when it is replayed. A last batch that was being written is a torn tail, of which nobody was told.
 */
export class HeldJournal {
  readonly id: string;
  readonly #directory: string;
  readonly #segments = new Map<string, FileHandle>();

  /** Null where the directory holds no journal. Throws `journal_unreadable`, rather than leave settled calls out. */
  static async hold(directory: string): Promise<HeldJournal | null> {
    const id = await readFile(join(directory, IDENTITY), "utf8").catch(absent);
    const held = new HeldJournal(directory, id ?? "");
    const names = await held.#holdNew();
    if (isUuid(held.id)) return held;
    await held.close();
    // A first start makes the identity before the first segment.
    if (names.length === 0) return null;
    throw new BackupRefusal(
      "journal_unreadable",
      `${directory} holds a journal, and its file 'id' does not say which: mend or move it away, because what it holds may be nowhere else.`,
    );
  }

  private constructor(directory: string, id: string) {
    this.#directory = directory;
    this.id = id;
  }

  /**
   * Holds the segments begun since. False where some may have come and gone unseen: only when those held before were all
   * shipped and removed meanwhile, because the newest always stays and the oldest goes first.
   */
  async extend(): Promise<boolean> {
    const newest = [...this.#segments.keys()].at(-1);
    const names = await this.#holdNew();
    return newest === undefined ? names.length === 0 : names.includes(newest);
  }

  async copy(writer: BackupWriter): Promise<ManifestJournal> {
    const segments: ManifestJournal["segments"] = [];
    for (const [name, file] of this.#segments) segments.push({ name, ...(await writer.stream(journalStream(name), bytesOf(file))) });
    return { id: this.id, segments };
  }

  async close(): Promise<void> {
    for (const file of this.#segments.values()) await file.close();
    this.#segments.clear();
  }

  /** Returns the segments that are there now. */
  async #holdNew(): Promise<string[]> {
    const listed = (await readdir(this.#directory).catch(absent)) ?? [];
    const names = listed.filter((name) => segmentOrdinal(name) !== null).sort();
    for (const name of names) {
      if (this.#segments.has(name)) continue;
      // Null: shipped and removed since it was listed.
      const file = await open(join(this.#directory, name), "r").catch(absent);
      if (file !== null) this.#segments.set(name, file);
    }
    return names;
  }
}

/** Null for what is not there; throws what is there and cannot be read. */
function absent(error: NodeJS.ErrnoException): null {
  if (error.code === "ENOENT") return null;
  throw error;
}

/** As far as it is written now: a busy journal would otherwise never end. */
async function* bytesOf(file: FileHandle): AsyncGenerator<Buffer> {
  const { size } = await file.stat();
  for (let at = 0; at < size;) {
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(Math.min(READ_BYTES, size - at)), { position: at });
    if (bytesRead === 0) return;
    yield buffer.subarray(0, bytesRead);
    at += bytesRead;
  }
}

/** Throws `journal_present`: two journals cannot be one, and what the one there holds may be nowhere else. */
export async function refuseJournal(directory: string): Promise<void> {
  const names = await readdir(directory).catch(() => []);
  if (names.length === 0) return;
  throw new BackupRefusal(
    "journal_present",
    `${directory} holds a journal, of an Atrium that may not have shipped all of it: restore into another data directory (ATRIUM_DATA_DIR), or move that folder away.`,
  );
}

/** Writes a journal's segments beside their place and puts them there at once. */
export class JournalRestorer {
  readonly #directory: string;
  readonly #unfinished: string;
  #file: { readonly name: string; readonly handle: FileHandle } | null = null;

  /** The directory must not exist, or be empty. */
  static async create(directory: string, id: string): Promise<JournalRestorer> {
    const restorer = new JournalRestorer(directory);
    await rm(restorer.#unfinished, { recursive: true, force: true });
    await mkdir(restorer.#unfinished, { recursive: true, mode: 0o700 });
    await restorer.write(IDENTITY, Buffer.from(id));
    return restorer;
  }

  private constructor(directory: string) {
    this.#directory = directory;
    this.#unfinished = `${directory}.unfinished`;
  }

  /** Appends to a file of the journal; one file after another. */
  async write(name: string, data: Buffer): Promise<void> {
    if (this.#file?.name !== name) {
      await this.#endFile();
      this.#file = { name, handle: await open(join(this.#unfinished, name), "ax", 0o600) };
    }
    await this.#file.handle.appendFile(data);
  }

  async finish(): Promise<void> {
    await this.#endFile();
    await syncDirectory(this.#unfinished);
    await rename(this.#unfinished, this.#directory);
    await syncDirectory(dirname(this.#directory));
  }

  /** Instead of `finish`, or after it failed. */
  async discard(): Promise<void> {
    await this.#file?.handle.close();
    this.#file = null;
    await rm(this.#unfinished, { recursive: true, force: true });
  }

  async #endFile(): Promise<void> {
    await this.#file?.handle.sync();
    await this.#file?.handle.close();
    this.#file = null;
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  await directory.sync();
  await directory.close();
}

/** The file that holds a journal's identity. */
const IDENTITY = "id";
const READ_BYTES = 256 * 1024;
