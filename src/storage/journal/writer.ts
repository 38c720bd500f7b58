import type { Clock } from "../../kernel/clock.ts";
import type { AttemptId, Uuid } from "../../kernel/ids.ts";
import type { Committer } from "./committer.ts";
import { diskFault, type JournalFault, JournalUnavailable } from "./fault.ts";
import { callEach, type DurableCallback, Queue } from "./queue.ts";
import { checksumSeed, encodeSegmentHead, MAX_PAYLOAD_BYTES, RECORD, type RecordKind, SEGMENT_HEAD_BYTES } from "./record.ts";
import { type Segment, segmentPath, type Segments } from "./segments.ts";

export type JournalHealth = "open" | "failed";
export type HealthListener = (health: JournalHealth, fault: JournalFault | null) => void;

/** Where the journal says what happened to its disk; a pino logger is one. */
export interface JournalLog {
  info(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface JournalLimits {
  /** A segment is full at this size; the batch that passes it still goes in. */
  readonly segmentBytes: number;
  /** With this much on disk no attempt is admitted until segments are released; what is running may still be recorded. */
  readonly backlogBytes: number;
  /** After a fault recovery is tried after `first`, then after twice as long each time, at most `most`. */
  readonly recoveryMilliseconds: { readonly first: number; readonly most: number };
}

interface WriterParts {
  readonly id: Uuid;
  readonly directory: string;
  readonly committer: Committer;
  readonly segments: Segments;
  /** The last sequence on disk and the ordinal of the next segment. */
  readonly last: number;
  readonly nextOrdinal: number;
  readonly clock: Clock;
  readonly limits: JournalLimits;
  readonly log: JournalLog;
  /** Removes a segment whose first batch failed, if it is there. */
  readonly discard: (path: string) => Promise<void>;
}

/** Ranges of sequences remembered as lost; beyond it the two oldest become one. */
const MAX_LOST_RANGES = 1_000;

/** Turns appended records into batches and batches into durable ones; `Journal` in index.ts says what each verb promises. */
export class Writer {
  #state: JournalHealth | "closed" = "open";
  #fault: JournalFault | null = null;
  /** The last sequence handed out; the last of those that is not lost; the last that is durable. */
  #appended: number;
  #tail: number;
  #durable: number;
  #lost: { readonly from: number; readonly to: number }[] = [];
  #filling: Queue;
  #spare: Queue;
  #committing: Queue | null = null;
  /** The segment the next batch goes to and its size with all that is queued; null when a new one must begin. */
  #segment: Segment | null = null;
  #segmentSize = 0;
  #nextOrdinal: number;
  #turnScheduled = false;
  /** A segment whose first batch failed, to be removed before another begins. */
  #broken: string | null = null;
  #recoveries = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #recovering: Promise<void> = Promise.resolve();
  readonly #listeners: HealthListener[] = [];
  readonly #parts: WriterParts;

  constructor(parts: WriterParts) {
    this.#parts = parts;
    this.#appended = this.#tail = this.#durable = parts.last;
    this.#nextOrdinal = parts.nextOrdinal;
    const seed = checksumSeed(parts.id);
    this.#filling = new Queue(parts.committer, seed);
    this.#spare = new Queue(parts.committer, seed);
  }

  get health(): JournalHealth {
    return this.#state === "open" ? "open" : "failed";
  }

  get durable(): number {
    return this.#durable;
  }

  onHealth(listener: HealthListener): void {
    this.#listeners.push(listener);
  }

  resumeAfter(sequence: number): void {
    if (this.#appended !== this.#parts.last) throw new Error("resumeAfter comes once, before the first append");
    this.#appended = Math.max(this.#appended, sequence);
  }

  append(kind: RecordKind, attempt: AttemptId, payload: Buffer | string): number {
    if (this.#state !== "open") throw this.#fault ?? new JournalUnavailable("closed");
    checkSize(payload);
    const { segments, limits, clock } = this.#parts;
    if (kind === RECORD.admit && segments.bytes >= limits.backlogBytes) throw new JournalUnavailable("backlog full");
    if (this.#filling.empty) this.#place(this.#filling);
    const sequence = this.#appended + 1;
    this.#filling.put(sequence, this.#durable, clock.now(), kind, attempt, payload);
    this.#appended = this.#tail = sequence;
    this.#scheduleTurn();
    return sequence;
  }

  whenDurable(sequence: number, done: DurableCallback): void {
    if (sequence > this.#appended) throw new RangeError(`record ${sequence} was never appended`);
    if (this.#isLost(sequence)) {
      process.nextTick(done, this.#fault ?? new JournalUnavailable("disk error"));
    } else if (this.#committing !== null && sequence > this.#durable && sequence <= this.#committing.last) {
      this.#committing.wait(done);
    } else if (sequence > this.#durable && !this.#filling.empty) {
      this.#filling.wait(done);
    } else {
      done(null);
    }
  }

  /** Ends in an orderly way: what is queued becomes durable first, unless the disk refuses. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    const open = this.#state === "open";
    this.#state = "closed";
    this.#fault ??= new JournalUnavailable("closed");
    if (open) await new Promise<void>((resolve) => this.whenDurable(this.#appended, () => resolve()));
    await this.#recovering;
    await this.#parts.committer.close();
  }

  /** The disk refused: in a commit, or in the background. */
  fail(error: unknown): void {
    const fault = diskFault(error);
    const waiters = [...(this.#committing?.clear() ?? []), ...this.#filling.clear()];
    this.#forget();
    if (this.#state !== "closed") this.#becomeFailed(fault);
    callEach(waiters, fault);
  }

  /** Decides where a batch goes when its first record comes. */
  #place(queue: Queue): void {
    if (this.#segment !== null && this.#segmentSize < this.#parts.limits.segmentBytes) {
      queue.continue(this.#segment);
      return;
    }
    queue.begin(this.#nextSegment(), this.#parts.id, { previous: this.#tail, first: this.#appended + 1 });
  }

  #nextSegment(): Segment {
    const ordinal = this.#nextOrdinal++;
    this.#segment = { path: segmentPath(this.#parts.directory, ordinal), ordinal, last: this.#tail, bytes: 0 };
    this.#segmentSize = 0;
    return this.#segment;
  }

  /**
   * `setImmediate` runs once the turn's I/O callbacks have all run: whatever they appended is one write. A microtask or
   * `nextTick` would run between them and write once per socket.
   */
  #scheduleTurn(): void {
    if (this.#turnScheduled) return;
    this.#turnScheduled = true;
    setImmediate(this.#endTurn);
  }

  readonly #endTurn = (): void => {
    this.#turnScheduled = false;
    if (this.#committing === null && !this.#filling.empty) this.#commit();
  };

  #commit(): void {
    const queue = this.#filling;
    this.#filling = this.#spare;
    this.#committing = queue;
    this.#segmentSize += queue.size;
    this.#parts.committer.commit(queue.batch, this.#settle);
  }

  readonly #settle = (error: unknown): void => {
    const queue = this.#committing as Queue;
    if (error !== null) {
      if (queue.begins) this.#broken = queue.batch.newSegment;
      this.fail(error);
      return;
    }
    this.#record(queue);
    const waiters = queue.clear();
    this.#spare = queue;
    this.#committing = null;
    this.#recoveries = 0;
    // before the callbacks, so that the disk works while they run
    if (!this.#filling.empty && !this.#turnScheduled) this.#commit();
    callEach(waiters, null);
  };

  #record(queue: Queue): void {
    const segment = queue.segment as Segment;
    if (queue.begins) this.#parts.segments.add(segment);
    this.#parts.segments.grow(segment, queue.last, queue.size);
    this.#durable = queue.last;
  }

  /** Everything handed out and not durable is lost; the numbers are not used again. */
  #forget(): void {
    if (this.#committing !== null) this.#spare = this.#committing;
    this.#committing = null;
    const from = Math.max(this.#durable, this.#lost.at(-1)?.to ?? 0) + 1;
    if (from <= this.#appended) this.#lost.push({ from, to: this.#appended });
    if (this.#lost.length > MAX_LOST_RANGES) {
      const [oldest, next] = this.#lost.splice(0, 2);
      if (oldest && next) this.#lost.unshift({ from: oldest.from, to: next.to });
    }
    this.#tail = this.#durable;
    this.#segment = null;
  }

  #isLost(sequence: number): boolean {
    const newest = this.#lost.at(-1);
    if (newest === undefined || sequence > newest.to) return false;
    for (const { from, to } of this.#lost) if (sequence >= from && sequence <= to) return true;
    return false;
  }

  #becomeFailed(fault: JournalFault): void {
    this.#fault = fault;
    this.#parts.log.error({ err: fault }, "journal failed: no billable work is admitted until its disk takes records again");
    this.#scheduleRecovery();
    this.#setHealth("failed");
  }

  #setHealth(state: JournalHealth): void {
    const changed = this.#state !== state;
    this.#state = state;
    if (changed) callEach(this.#listeners, state, this.#fault);
  }

  #scheduleRecovery(): void {
    const { first, most } = this.#parts.limits.recoveryMilliseconds;
    const delay = Math.min(most, first * 2 ** this.#recoveries++);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#recovering = this.#recovering.then(() => this.#recover());
    }, delay);
    this.#timer.unref();
  }

  /**
   * Reads the log back and begins a new segment; never writes to the one that failed. The new head says which record was
   * the last durable one, so whatever the failed write left behind it does not count.
   */
  async #recover(): Promise<void> {
    if (this.#state !== "failed") return;
    try {
      await this.#parts.segments.readBack();
      if (this.#broken !== null) await this.#parts.discard(this.#broken);
      this.#broken = null;
      await this.#beginRecovered();
    } catch (error) {
      this.#stayFailed(diskFault(error));
    }
  }

  #stayFailed(fault: JournalFault): void {
    if (this.#state === "closed") return;
    this.#segment = null;
    this.#fault = fault;
    this.#parts.log.error({ err: fault }, "journal recovery failed");
    this.#scheduleRecovery();
  }

  async #beginRecovered(): Promise<void> {
    const { committer, segments, id, log } = this.#parts;
    const segment = this.#nextSegment();
    const bytes = committer.allocate(SEGMENT_HEAD_BYTES);
    encodeSegmentHead(bytes, id, { previous: this.#tail, first: this.#appended + 1 });
    const batch = { newSegment: segment.path, bytes, start: 0, end: bytes.length };
    const error = await new Promise<unknown>((resolve) => committer.commit(batch, resolve));
    if (error !== null) {
      this.#broken = segment.path;
      throw error;
    }
    segments.add(segment);
    segments.grow(segment, this.#tail, bytes.length);
    this.#segmentSize = bytes.length;
    if (this.#state === "closed") return;
    this.#fault = null;
    log.info({ segment: segment.path }, "journal recovered");
    this.#setHealth("open");
  }
}

function checkSize(payload: Buffer | string): void {
  // at most 3 bytes a character, so short strings need no counting
  if (payload.length * 3 <= MAX_PAYLOAD_BYTES) return;
  const length = Buffer.byteLength(payload);
  if (length > MAX_PAYLOAD_BYTES) throw new RangeError(`a journal record may carry ${MAX_PAYLOAD_BYTES} bytes, not ${length}`);
}
