import { join } from "node:path";
import { isUuid, type Uuid } from "../../kernel/ids.ts";
import { JournalCorrupt } from "./fault.ts";
import type { FileSystem } from "./file-system.ts";
import {
  acknowledgedAt,
  checksumSeed,
  decodeSegmentHead,
  nextMarker,
  recordEnd,
  SEGMENT_HEAD_BYTES,
  type SegmentHead,
  sequenceAt,
} from "./record.ts";
import { type Segment, segmentOrdinal, segmentPath } from "./segments.ts";

/** What a directory holds: its identity, the segments that count, oldest first, and the last sequence. */
export interface Replayed {
  readonly id: Uuid;
  readonly segments: Segment[];
  readonly last: number;
  /** Bytes after the last record that no caller was ever told are durable. */
  readonly tornBytes: number;
  /** The ordinal of the next segment. */
  readonly nextOrdinal: number;
}

/**
 * Reads and checks the whole directory. A torn tail — bytes that a crash left half written and that nobody was promised —
 * is left out; the next segment's head makes that final. Whatever else does not check is a `JournalCorrupt`. What this
 * returns is on stable storage: with `kill -9` a record can be readable and yet not have been synced.
 */
export async function replay(fileSystem: FileSystem, directory: string, makeId: () => Uuid): Promise<Replayed> {
  const ordinals = fileSystem
    .list(directory)
    .map(segmentOrdinal)
    .filter((ordinal) => ordinal !== null)
    .sort((a, b) => a - b);
  const id = await readIdentity(fileSystem, directory, ordinals.length === 0 ? makeId : null);
  const found: Found[] = [];
  for (const ordinal of ordinals) found.push(await readHead(fileSystem, directory, ordinal, id));
  const walk = new Walk(fileSystem, id, found);
  for (let index = 0; index < found.length; index++) await walk.step(index);
  const newest = walk.segments.at(-1);
  if (newest !== undefined) fileSystem.syncPath(newest.path);
  fileSystem.syncPath(directory);
  return {
    id,
    segments: walk.segments,
    last: walk.last ?? 0,
    tornBytes: walk.tornBytes,
    nextOrdinal: (ordinals.at(-1) ?? 0) + 1,
  };
}

interface Found {
  readonly path: string;
  readonly ordinal: number;
  /** Null when the head was never completely written, or is damaged. */
  readonly head: SegmentHead | null;
}

class Walk {
  readonly segments: Segment[] = [];
  /** The last sequence that counts so far; null before the first readable head. */
  last: number | null = null;
  tornBytes = 0;
  readonly #fileSystem: FileSystem;
  readonly #seed: number;
  readonly #found: readonly Found[];

  constructor(fileSystem: FileSystem, id: Uuid, found: readonly Found[]) {
    this.#fileSystem = fileSystem;
    this.#seed = checksumSeed(id);
    this.#found = found;
  }

  async step(index: number): Promise<void> {
    const { path, ordinal, head } = this.#found[index] as Found;
    const limit = this.#limit(index);
    const bytes = await this.#fileSystem.read(path, 0, Infinity);
    const end = head === null ? 0 : this.#readRecords(path, bytes, head, limit);
    this.#judgeRest(path, bytes, end, limit);
    if (head === null) await this.#fileSystem.remove(path);
    else this.segments.push({ path, ordinal, last: this.last as number, bytes: end });
  }

  /** The last sequence that later segments say counts before them; null for the newest. */
  #limit(index: number): number | null {
    for (let later = index + 1; later < this.#found.length; later++) {
      const head = this.#found[later]?.head;
      if (head) return head.previous;
    }
    return null;
  }

  /** Moves `last` over the segment's records and returns where the last one that counts ends. */
  #readRecords(path: string, bytes: Buffer, head: SegmentHead, limit: number | null): number {
    this.last ??= head.previous;
    let at = SEGMENT_HEAD_BYTES;
    for (let sequence = head.first; limit === null || sequence <= limit; sequence++) {
      const end = recordEnd(bytes, at, bytes.length, this.#seed);
      if (end === -1) break;
      if (sequenceAt(bytes, at) !== sequence) {
        throw new JournalCorrupt(path, at, `record ${sequenceAt(bytes, at)} stands where record ${sequence} belongs`);
      }
      this.last = sequence;
      at = end;
    }
    return at;
  }

  /** Decides whether the bytes from `end` on may be left out. */
  #judgeRest(path: string, bytes: Buffer, end: number, limit: number | null): void {
    if (limit !== null) {
      if (this.last !== limit)
        throw new JournalCorrupt(
          path,
          end,
          `the records up to ${limit} were reported durable, but from here on they do not read back; a file may be missing`,
        );
      return;
    }
    if (this.#promised(bytes, end, (this.last ?? 0) + 1)) {
      throw new JournalCorrupt(
        path,
        end,
        "bytes that do not check stand before records that were made after they had been reported durable",
      );
    }
    this.tornBytes += bytes.length - end;
  }

  /** Whether a whole record at or after `from` says that record `sequence` had been reported durable. */
  #promised(bytes: Buffer, from: number, sequence: number): boolean {
    for (let at = nextMarker(bytes, from); at !== -1; at = nextMarker(bytes, at + 1)) {
      if (recordEnd(bytes, at, bytes.length, this.#seed) !== -1 && acknowledgedAt(bytes, at) >= sequence) return true;
    }
    return false;
  }
}

async function readHead(fileSystem: FileSystem, directory: string, ordinal: number, id: Uuid): Promise<Found> {
  const path = segmentPath(directory, ordinal);
  const head = decodeSegmentHead(await fileSystem.read(path, 0, SEGMENT_HEAD_BYTES), id);
  if (head === "other version") throw new JournalCorrupt(path, 0, "it is written in a format version this release does not read");
  if (head === "other journal") throw new JournalCorrupt(path, 8, `it belongs to another journal than ${id}`);
  return { path, ordinal, head: head === "torn" ? null : head };
}

/** The directory's identity; `makeId` gives a new directory one, and null says that it must have one. */
async function readIdentity(fileSystem: FileSystem, directory: string, makeId: (() => Uuid) | null): Promise<Uuid> {
  const path = join(directory, IDENTITY);
  const exists = fileSystem.list(directory).includes(IDENTITY);
  const text = exists ? (await fileSystem.read(path, 0, 64)).toString() : "";
  if (isUuid(text)) {
    fileSystem.syncPath(path);
    return text;
  }
  if (makeId === null) throw new JournalCorrupt(path, 0, "it does not hold the journal's identity");
  // an identity nobody could have used yet: a crash came before it was whole
  await fileSystem.remove(path);
  return createIdentity(fileSystem, directory, path, makeId());
}

const IDENTITY = "id";

function createIdentity(fileSystem: FileSystem, directory: string, path: string, id: Uuid): Uuid {
  const descriptor = fileSystem.create(path);
  try {
    const bytes = Buffer.from(id);
    for (let at = 0; at < bytes.length;) at += fileSystem.write(descriptor, bytes, at, bytes.length);
    fileSystem.sync(descriptor);
  } finally {
    fileSystem.close(descriptor);
  }
  fileSystem.syncPath(directory);
  return id;
}
