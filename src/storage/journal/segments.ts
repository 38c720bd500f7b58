import { join } from "node:path";
import { JournalCorrupt } from "./fault.ts";
import type { FileSystem } from "./file-system.ts";
import { decodeRecord, type JournalRecord, recordEnd, SEGMENT_HEAD_BYTES, sequenceAt } from "./record.ts";

/** One file of the journal and the part of it that counts. */
export interface Segment {
  readonly path: string;
  readonly ordinal: number;
  /** The last durable sequence in it; the one before the segment while it has none. */
  last: number;
  /** Bytes up to the end of that record. */
  bytes: number;
}

export const SEGMENT_BYTES = 16 * 1024 * 1024;
/** How much of a segment is read at a time; at least one record of the greatest size. */
const READ_BYTES = 256 * 1024;

const NAME = /^(\d{10})\.journal$/;

export function segmentPath(directory: string, ordinal: number): string {
  return join(directory, `${String(ordinal).padStart(10, "0")}.journal`);
}

/** The ordinal in a segment's file name; null for any other file. */
export function segmentOrdinal(name: string): number | null {
  const match = NAME.exec(name);
  return match === null ? null : Number(match[1]);
}

/** The journal's segments, oldest first, as a shipper reads and releases them. */
export class Segments {
  #list: Segment[];
  #bytes = 0;
  #removing: Promise<void> = Promise.resolve();
  /** Where the last read ended, so that the next one need not look for its place. */
  #cursor: { readonly segment: Segment; readonly sequence: number; readonly offset: number } | null = null;
  readonly #fileSystem: FileSystem;
  readonly #seed: number;

  constructor(fileSystem: FileSystem, seed: number, list: readonly Segment[]) {
    this.#fileSystem = fileSystem;
    this.#seed = seed;
    this.#list = [...list];
    for (const segment of list) this.#bytes += segment.bytes;
  }

  /** Bytes of all segments. */
  get bytes(): number {
    return this.#bytes;
  }

  add(segment: Segment): void {
    this.#list.push(segment);
    this.#bytes += segment.bytes;
  }

  grow(segment: Segment, last: number, bytes: number): void {
    segment.last = last;
    segment.bytes += bytes;
    this.#bytes += bytes;
  }

  async read(after: number, maxRecords: number, maxBytes: number): Promise<JournalRecord[]> {
    const taken: JournalRecord[] = [];
    let room = maxBytes;
    for (const segment of this.#list.slice()) {
      if (segment.last <= after) continue;
      if (taken.length >= maxRecords || room <= 0) break;
      room = await this.#readSegment(segment, after, maxRecords, room, taken);
    }
    return taken;
  }

  /** Appends what fits to `taken` and returns the bytes still free; 0 when a record did not fit. */
  async #readSegment(segment: Segment, after: number, maxRecords: number, room: number, taken: JournalRecord[]): Promise<number> {
    const cursor = this.#cursor;
    let offset = cursor?.segment === segment && cursor.sequence <= after ? cursor.offset : SEGMENT_HEAD_BYTES;
    let left = room;
    for (const end = segment.bytes; offset < end && left > 0 && taken.length < maxRecords;) {
      const chunk = await this.#fileSystem.read(segment.path, offset, Math.min(READ_BYTES, end - offset));
      const { at, room: stillFree } = this.#take(chunk, after, maxRecords, left, taken);
      if (at === 0 && stillFree > 0) throw new JournalCorrupt(segment.path, offset, "a record in it no longer reads back");
      offset += at;
      left = stillFree;
    }
    this.#cursor = { segment, sequence: taken.at(-1)?.sequence ?? after, offset };
    return left;
  }

  /** Takes records from the front of a chunk; `at` is where the first one not taken begins. */
  #take(chunk: Buffer, after: number, maxRecords: number, room: number, taken: JournalRecord[]): { at: number; room: number } {
    let at = 0;
    let left = room;
    while (taken.length < maxRecords) {
      const end = recordEnd(chunk, at, chunk.length, this.#seed);
      if (end === -1) break;
      if (sequenceAt(chunk, at) > after) {
        if (taken.length > 0 && end - at > left) return { at, room: 0 };
        taken.push(decodeRecord(chunk, at, end));
        left -= end - at;
      }
      at = end;
    }
    return { at, room: left };
  }

  /** Rejects unless every record that counts in the newest segment that has any reads back from the disk. */
  async readBack(): Promise<void> {
    const segment = this.#list.findLast(({ bytes }) => bytes > SEGMENT_HEAD_BYTES);
    if (segment === undefined) return;
    const { last, bytes: end } = segment;
    const bytes = await this.#fileSystem.read(segment.path, 0, end);
    let at = SEGMENT_HEAD_BYTES;
    let sequence = -1;
    for (let next = recordEnd(bytes, at, bytes.length, this.#seed); next !== -1; next = recordEnd(bytes, at, bytes.length, this.#seed)) {
      sequence = sequenceAt(bytes, at);
      at = next;
    }
    if (at !== end || sequence !== last) throw new JournalCorrupt(segment.path, at, "a record in it no longer reads back");
  }

  /** Removes, oldest first, the segments whose every record is at or below `through`; the newest stays as the anchor of the sequence. */
  release(through: number): Promise<void> {
    const removed = this.#removing.then(async () => {
      for (let oldest = this.#list[0]; oldest !== undefined && this.#list.length > 1 && oldest.last <= through; oldest = this.#list[0]) {
        await this.#fileSystem.remove(oldest.path);
        this.#list.shift();
        this.#bytes -= oldest.bytes;
      }
    });
    this.#removing = removed.catch(() => undefined);
    return removed;
  }

  /** Resolves when no removal is under way. */
  async idle(): Promise<void> {
    await this.#removing;
  }
}
