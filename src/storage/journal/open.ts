import type { Uuid } from "../../kernel/ids.ts";
import type { Committer } from "./committer.ts";
import type { FileSystem } from "./file-system.ts";
import type { Journal, JournalOptions } from "./index.ts";
import { checksumSeed } from "./record.ts";
import { replay } from "./replay.ts";
import { SEGMENT_BYTES, Segments } from "./segments.ts";
import { type JournalLimits, Writer } from "./writer.ts";

/** Makes what commits a journal's batches; told how to report a fault that no batch is there to hear. */
export type MakeCommitter = (onLateFault: (error: unknown) => void) => Committer;

/** `openJournal`, over any disk and any way to commit. */
export async function openWith(options: JournalOptions, fileSystem: FileSystem, makeCommitter: MakeCommitter): Promise<Journal> {
  fileSystem.makeDirectory(options.directory);
  const unlock = fileSystem.lock(options.directory);
  try {
    return await assemble(options, fileSystem, makeCommitter, unlock);
  } catch (error) {
    unlock();
    throw error;
  }
}

const DEFAULT_LIMITS: JournalLimits = {
  segmentBytes: SEGMENT_BYTES,
  backlogBytes: 4 * 1024 * 1024 * 1024,
  recoveryMilliseconds: { first: 100, most: 5_000 },
};

async function assemble(
  options: JournalOptions,
  fileSystem: FileSystem,
  makeCommitter: MakeCommitter,
  unlock: () => void,
): Promise<Journal> {
  const { directory, clock, log } = options;
  const { id, segments: found, last, tornBytes, nextOrdinal } = await replay(fileSystem, directory, options.makeId);
  if (tornBytes > 0)
    log.info({ directory, tornBytes, last }, "journal ended in a write that a crash cut short; nobody had been told it was durable");
  const segments = new Segments(fileSystem, checksumSeed(id), found);
  const writer: Writer = new Writer({
    id,
    directory,
    committer: makeCommitter((error) => writer.fail(error)),
    segments,
    last,
    nextOrdinal,
    clock,
    limits: { ...DEFAULT_LIMITS, ...options.limits },
    log,
    discard: (path) => fileSystem.remove(path),
  });
  return createJournal(id, writer, segments, unlock);
}

function createJournal(id: Uuid, writer: Writer, segments: Segments, unlock: () => void): Journal {
  let closed: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    await writer.close();
    await segments.idle();
    unlock();
  };
  return {
    id,
    get health() {
      return writer.health;
    },
    onHealth: (listener) => writer.onHealth(listener),
    append: (kind, attempt, payload) => writer.append(kind, attempt, payload),
    whenDurable: (sequence, done) => writer.whenDurable(sequence, done),
    durable: () => writer.durable,
    resumeAfter: (sequence) => writer.resumeAfter(sequence),
    read: (after, maxRecords, maxBytes) => segments.read(after, maxRecords, maxBytes),
    release: (through) => segments.release(through),
    close: () => (closed ??= close()),
  };
}
