import type { Clock } from "../../kernel/clock.ts";
import type { AttemptId, Uuid } from "../../kernel/ids.ts";
import { createCommitThread } from "./commit-thread.ts";
import { createCommitter, type Durability } from "./committer.ts";
import { type FileSystem, nodeFileSystem } from "./file-system.ts";
import { openWith } from "./open.ts";
import type { DurableCallback } from "./queue.ts";
import type { JournalRecord, RecordKind } from "./record.ts";
import type { HealthListener, JournalHealth, JournalLimits, JournalLog } from "./writer.ts";

export type { Durability } from "./committer.ts";
export { JournalCorrupt, type JournalFault, JournalLocked, JournalUnavailable } from "./fault.ts";
export type { DurableCallback } from "./queue.ts";
export { type JournalRecord, MAX_PAYLOAD_BYTES, RECORD, type RecordKind } from "./record.ts";
export type { HealthListener, JournalHealth, JournalLog } from "./writer.ts";

/** Append-only records that outlive the process, in one directory with one writer. */
export interface Journal {
  /** The directory's identity, and with it the replica's. */
  readonly id: Uuid;
  /** `failed` after the disk refused, from which it recovers by itself, and once closed. */
  readonly health: JournalHealth;
  /** Hears every change of health. A listener is wired at start-up and stays. */
  onHealth(listener: HealthListener): void;
  /**
   * Queues a record and returns its sequence. Throws `JournalUnavailable` (nothing was queued) and `RangeError` for a
   * payload beyond `MAX_PAYLOAD_BYTES`.
   */
  append(kind: RecordKind, attempt: AttemptId, payload: Buffer | string): number;
  /**
   * Calls back once the record of that sequence, and with it every one before it that is not lost, is durable — or with
   * the fault: then its fate is unknown, and it may still be read after a restart. Calls back synchronously only when the
   * record is durable already.
   */
  whenDurable(sequence: number, done: DurableCallback): void;
  /** The last durable sequence; 0 before the first. */
  durable(): number;
  /**
   * Makes the next sequence greater than `sequence`. A shipper calls it once, before the first append, with the watermark
   * its database holds: after a power loss a `process` journal may end before it, and would number new records as shipped.
   */
  resumeAfter(sequence: number): void;
  /** Durable records after `after`, in order: at most `maxRecords`, and `maxBytes` on disk unless the first alone has more. */
  read(after: number, maxRecords: number, maxBytes: number): Promise<JournalRecord[]>;
  /**
   * Lets go of every record at or below `through`: whole segments are removed, so some stay readable. What is released
   * cannot be replayed: the caller keeps `through` below the first record it would need after a crash — the ADMIT of the
   * oldest attempt that has no SETTLE yet, however old its segment is.
   */
  release(through: number): Promise<void>;
  /** Makes what is queued durable, then gives back the thread, the descriptor and the lock. */
  close(): Promise<void>;
}

export interface JournalOptions {
  readonly directory: string;
  readonly durability: Durability;
  readonly clock: Clock;
  /** Makes the identity of a new directory. */
  readonly makeId: () => Uuid;
  readonly log: JournalLog;
  /** For simulations; then `power` too commits on the calling thread. */
  readonly fileSystem?: FileSystem;
  readonly limits?: Partial<JournalLimits>;
}

/**
 * Opens the journal in a directory, made if need be. Throws `JournalLocked` while another process writes it and
 * `JournalCorrupt` when records that were reported durable do not check; a torn tail that nobody was promised is left out.
 */
export async function openJournal(options: JournalOptions): Promise<{ readonly journal: Journal }> {
  const { directory, durability, fileSystem } = options;
  const journal = await openWith(options, fileSystem ?? nodeFileSystem, (onLateFault) =>
    durability === "power" && fileSystem === undefined
      ? createCommitThread(directory)
      : createCommitter(fileSystem ?? nodeFileSystem, directory, durability, onLateFault),
  );
  return { journal };
}
