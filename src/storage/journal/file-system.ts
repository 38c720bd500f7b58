import fs from "node:fs";
import { open, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { promisify } from "node:util";
import { lockDirectory } from "./lock.ts";

/**
 * Everything the journal asks of a disk, so that a faulty one can be simulated. The methods that write are synchronous
 * because they run in the event-loop turn's one write or on a thread of their own; errors carry Node's `code`.
 */
export interface FileSystem {
  /** Makes the directory, and those above it, unless it exists; the entries are on stable storage. */
  makeDirectory(directory: string): void;
  /** File names in the directory, in no order. */
  list(directory: string): string[];
  /** Creates a file that must not exist and returns a descriptor to append with. */
  create(path: string): number;
  /** Appends once; returns how many bytes were taken, perhaps fewer than `end - start`. */
  write(descriptor: number, bytes: Buffer, start: number, end: number): number;
  /** Returns once the file's content is on stable storage. */
  sync(descriptor: number): void;
  /** Cuts a file short. */
  truncate(descriptor: number, size: number): void;
  close(descriptor: number): void;
  /** The same as `sync` by path; for a directory: its entries are on stable storage. */
  syncPath(path: string): void;
  /** The bytes of `[offset, offset + length)`, fewer at the end of the file. */
  read(path: string, offset: number, length: number): Promise<Buffer>;
  /** `sync` then `close`, off the calling thread. */
  syncAndClose(descriptor: number): Promise<void>;
  /** Removes a file that no descriptor writes, if it is there; the removal is on stable storage when it resolves. */
  remove(path: string): Promise<void>;
  /** Takes the directory's writer lock, or throws `JournalLocked`; the result gives it back. */
  lock(directory: string): () => void;
}

export const nodeFileSystem: FileSystem = {
  makeDirectory: (directory) => {
    const made = fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
    if (made === undefined) return;
    const top = dirname(resolve(made));
    for (let parent = dirname(resolve(directory)); parent.length >= top.length; parent = dirname(parent)) {
      syncPath(parent);
      if (parent === top) break;
    }
  },
  list: (directory) => fs.readdirSync(directory),
  create: (path) => fs.openSync(path, "ax", 0o600),
  write: (descriptor, bytes, start, end) => fs.writeSync(descriptor, bytes, start, end - start),
  sync: (descriptor) => fs.fdatasyncSync(descriptor),
  truncate: (descriptor, size) => fs.ftruncateSync(descriptor, size),
  close: (descriptor) => fs.closeSync(descriptor),
  syncPath,
  read: async (path, offset, length) => {
    const file = await open(path, "r");
    try {
      const { size } = await file.stat();
      const bytes = Buffer.allocUnsafeSlow(Math.max(0, Math.min(length, size - offset)));
      let filled = 0;
      for (let taken = -1; taken !== 0 && filled < bytes.length; filled += taken) {
        ({ bytesRead: taken } = await file.read(bytes, filled, bytes.length - filled, offset + filled));
      }
      return bytes.subarray(0, filled);
    } finally {
      await file.close();
    }
  },
  syncAndClose: async (descriptor) => {
    try {
      await fdatasync(descriptor);
    } finally {
      await close(descriptor);
    }
  },
  remove: async (path) => {
    await rm(path, { force: true });
    const directory = await open(dirname(path), "r");
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  },
  lock: lockDirectory,
};

const fdatasync = promisify(fs.fdatasync);
const close = promisify(fs.close);

function syncPath(path: string): void {
  const descriptor = fs.openSync(path, "r");
  try {
    fs.fsyncSync(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
}
