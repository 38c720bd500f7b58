import type { FileSystem } from "./file-system.ts";

/** What survives once a record is reported durable: a `kill -9` of the process, or a loss of power as well. */
export type Durability = "process" | "power";

/** Bytes to append, as one write. */
export interface Batch {
  /** Path of a segment to create for these bytes and those that follow; null goes on with the last one. */
  readonly newSegment: string | null;
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
}

/** Makes batches durable, one at a time. After an error the next batch must name a new segment. */
export interface Committer {
  /** A buffer that batches for this committer may be filled in. */
  allocate(size: number): Buffer;
  /** Calls `done` with null once the batch is durable, or with the error. The bytes must not change before that. */
  commit(batch: Batch, done: (error: unknown) => void): void;
  /** Gives back the descriptor. No commit may be under way. */
  close(): Promise<void>;
}

/**
 * Commits on the calling thread; `done` is called before `commit` returns.
 *
 * With `process` a full segment is synced in the background when the next begins, so that a power loss (which `process`
 * does not promise to survive) can tear only the last segment, which replay knows how to end; `onLateFault` is told when
 * that fails.
 */
export function createCommitter(
  fileSystem: FileSystem,
  directory: string,
  durability: Durability,
  onLateFault: (error: unknown) => void,
): Committer {
  let descriptor: number | null = null;
  /** Bytes of it that are durable. */
  let size = 0;

  function begin(path: string): void {
    const full = descriptor;
    descriptor = null;
    if (full !== null && durability === "process") fileSystem.syncAndClose(full).catch(onLateFault);
    else if (full !== null) fileSystem.close(full);
    descriptor = fileSystem.create(path);
    size = 0;
  }

  function write({ newSegment, bytes, start, end }: Batch): void {
    if (newSegment !== null) begin(newSegment);
    if (descriptor === null) throw new Error("a batch after a fault must begin a segment");
    for (let at = start; at < end;) at += fileSystem.write(descriptor, bytes, at, end);
    if (durability === "power") {
      fileSystem.sync(descriptor);
      if (newSegment !== null) fileSystem.syncPath(directory);
    }
    size += end - start;
  }

  /**
   * A descriptor that failed is never asked again: after a failed sync the kernel calls the lost pages clean and reports
   * the next sync as fine, while they still read back. Cutting them off keeps a restart from taking them for stored.
   */
  function abandon(failed: number): void {
    descriptor = null;
    try {
      fileSystem.truncate(failed, size);
    } catch {
      // a file system that cannot cut, being read-only now, drops its pages before it is writable again
    }
    closeQuietly(failed);
  }

  function closeQuietly(used: number): void {
    try {
      fileSystem.close(used);
    } catch {
      // what is durable is so already, and the error that led here is the one to report
    }
  }

  return {
    allocate: (size) => Buffer.allocUnsafeSlow(size),
    commit(batch, done) {
      let fault: unknown = null;
      try {
        write(batch);
      } catch (error) {
        fault = error;
        if (descriptor !== null) abandon(descriptor);
      }
      done(fault);
    },
    async close() {
      if (descriptor !== null) closeQuietly(descriptor);
      descriptor = null;
    },
  };
}
