import type { AttemptId, Uuid } from "../../kernel/ids.ts";
import type { Batch, Committer } from "./committer.ts";
import { type JournalFault, JournalUnavailable } from "./fault.ts";
import { encodeRecord, encodeSegmentHead, RECORD_HEADER_BYTES, type RecordKind, SEGMENT_HEAD_BYTES, type SegmentHead } from "./record.ts";
import type { Segment } from "./segments.ts";

export type DurableCallback = (fault: JournalFault | null) => void;

/** What one queue may hold; a journal has two, one filling and one on its way to the disk. */
const QUEUE_BYTES = 8 * 1024 * 1024;
const FIRST_QUEUE_BYTES = 256 * 1024;
/** Callbacks that may wait for one queue. */
const MAX_WAITERS = 100_000;

/** Records that go to the disk together, encoded as they come, and who waits for them. */
export class Queue {
  /** The last sequence in it. */
  last = 0;
  /** Where its records go, and whether they begin that segment. */
  segment: Segment | null = null;
  #begins = false;
  /** The front is kept for a segment head, so that head and records are one write. */
  #bytes: Buffer;
  #end = SEGMENT_HEAD_BYTES;
  #waiters: DurableCallback[] = [];
  readonly #committer: Committer;
  readonly #seed: number;

  constructor(committer: Committer, seed: number) {
    this.#committer = committer;
    this.#seed = seed;
    this.#bytes = committer.allocate(FIRST_QUEUE_BYTES);
  }

  get empty(): boolean {
    return this.#end === SEGMENT_HEAD_BYTES;
  }

  /** Bytes the records add to their segment. */
  get size(): number {
    return this.#begins ? this.#end : this.#end - SEGMENT_HEAD_BYTES;
  }

  get begins(): boolean {
    return this.#begins;
  }

  get batch(): Batch {
    const newSegment = this.#begins ? (this.segment as Segment).path : null;
    return { newSegment, bytes: this.#bytes, start: this.#begins ? 0 : SEGMENT_HEAD_BYTES, end: this.#end };
  }

  continue(segment: Segment): void {
    this.segment = segment;
    this.#begins = false;
  }

  begin(segment: Segment, id: Uuid, head: SegmentHead): void {
    this.segment = segment;
    this.#begins = true;
    encodeSegmentHead(this.#bytes, id, head);
  }

  /** Throws `JournalUnavailable` when there is no room; an empty queue has room for any record. */
  put(sequence: number, acknowledged: number, at: number, kind: RecordKind, attempt: AttemptId, payload: Buffer | string): void {
    const needed = this.#end + RECORD_HEADER_BYTES + (typeof payload === "string" ? payload.length * 3 : payload.length);
    if (needed > this.#bytes.length) this.#enlarge(needed);
    this.#end = encodeRecord(this.#bytes, this.#end, this.#seed, sequence, acknowledged, at, kind, attempt, payload);
    this.last = sequence;
  }

  wait(done: DurableCallback): void {
    if (this.#waiters.length >= MAX_WAITERS) process.nextTick(done, new JournalUnavailable("queue full"));
    else this.#waiters.push(done);
  }

  /** Empties the queue and returns who waited. */
  clear(): DurableCallback[] {
    const waiters = this.#waiters;
    this.#waiters = [];
    this.#end = SEGMENT_HEAD_BYTES;
    this.segment = null;
    this.#begins = false;
    return waiters;
  }

  #enlarge(needed: number): void {
    if (needed > QUEUE_BYTES) throw new JournalUnavailable("queue full");
    const larger = this.#committer.allocate(Math.min(QUEUE_BYTES, Math.max(needed, this.#bytes.length * 2)));
    this.#bytes.copy(larger, 0, 0, this.#end);
    this.#bytes = larger;
  }
}

/**
 * Calls each with the arguments. One that throws is a bug of its owner: it surfaces as an uncaught exception of its own
 * and keeps nobody else from hearing.
 */
export function callEach<Arguments extends unknown[]>(callbacks: readonly ((...values: Arguments) => void)[], ...values: Arguments): void {
  for (const callback of callbacks) {
    try {
      callback(...values);
    } catch (error) {
      process.nextTick(() => {
        throw error;
      });
    }
  }
}
