import { JournalLocked } from "./fault.ts";
import type { FileSystem } from "./file-system.ts";

/** What one operation does instead of its work. `torn` writes a part and fails; `short` writes a part and says so. */
export type DiskFault = "ENOSPC" | "EIO" | "torn" | "short" | "crash";

interface SimulatedFile {
  /** What a reader sees: the page cache. */
  content: Buffer;
  /** What a power loss leaves for certain. */
  stable: Buffer;
  /** From here to the end of `content` a failed sync lost the bytes; the kernel calls them clean. */
  lostFrom: number | null;
  /** Whether the next process finds only what is stable. */
  pagesDrop: boolean;
  /** Whether the directory's entry was synced. */
  entered: boolean;
}

/**
 * A disk in memory that keeps apart what was written and what is on stable storage. A failed sync loses the bytes for
 * good while they can still be read and later syncs succeed, as Linux does. `crash` stops time in the middle of an
 * operation: `crashed` is set, the state is kept, every later operation fails.
 */
export class SimulatedDisk implements FileSystem {
  crashed = false;
  /** Operations that change something, so far; `faults` is keyed by this count. */
  operations = 0;
  readonly writes: number[] = [];
  readonly #faults: ReadonlyMap<number, DiskFault>;
  readonly #files: Map<string, SimulatedFile>;
  readonly #descriptors = new Map<number, SimulatedFile>();
  #nextDescriptor = 3;
  #locked = false;

  constructor(faults: ReadonlyMap<number, DiskFault> = new Map(), files: Map<string, SimulatedFile> = new Map()) {
    this.#faults = faults;
    this.#files = files;
  }

  /** The disk the next process finds after this one was killed: the page cache lives on. */
  afterKill(faults: ReadonlyMap<number, DiskFault>): SimulatedDisk {
    for (const file of this.#files.values()) if (file.pagesDrop) file.content = file.stable;
    return new SimulatedDisk(faults, this.#files);
  }

  /** The disk after a power loss: of what was not synced any part may be there, missing or zero. `chance` is in [0, 1). */
  afterPowerLoss(faults: ReadonlyMap<number, DiskFault>, chance: () => number): SimulatedDisk {
    const left = new Map<string, SimulatedFile>();
    for (const [path, file] of this.#files) {
      if (!file.entered && chance() < 0.5) continue;
      const content = survivor(file, chance);
      left.set(path, { content, stable: content, lostFrom: null, pagesDrop: false, entered: true });
    }
    return new SimulatedDisk(faults, left);
  }

  bytesOf(path: string): Buffer | undefined {
    return this.#files.get(path)?.content;
  }

  makeDirectory(): void {}

  list(directory: string): string[] {
    return [...this.#files.keys()].map((path) => path.slice(directory.length + 1));
  }

  create(path: string): number {
    this.#step();
    if (this.#files.has(path)) throw fault("EEXIST");
    const file: SimulatedFile = { content: Buffer.alloc(0), stable: Buffer.alloc(0), lostFrom: null, pagesDrop: false, entered: false };
    this.#files.set(path, file);
    this.#descriptors.set(this.#nextDescriptor, file);
    return this.#nextDescriptor++;
  }

  write(descriptor: number, bytes: Buffer, start: number, end: number): number {
    const file = this.#open(descriptor);
    const kind = this.#faults.get(this.operations);
    const part = start + Math.floor((end - start) * PART);
    if (kind === "torn" || kind === "crash") file.content = Buffer.concat([file.content, bytes.subarray(start, part)]);
    this.#step();
    const taken = kind === "short" && part > start ? part : end;
    file.content = Buffer.concat([file.content, bytes.subarray(start, taken)]);
    this.writes.push(taken - start);
    return taken - start;
  }

  sync(descriptor: number): void {
    this.#syncFile(this.#open(descriptor));
  }

  /** It fails on a file system gone read-only, which comes back writable only with its pages dropped. */
  truncate(descriptor: number, size: number): void {
    if (this.crashed) throw fault("EIO");
    const file = this.#open(descriptor);
    const kind = this.#faults.get(this.operations++);
    if (kind !== undefined && kind !== "crash") {
      file.pagesDrop = file.lostFrom !== null;
      throw fault("EROFS");
    }
    file.content = file.content.subarray(0, size);
    if (file.lostFrom !== null && file.lostFrom >= size) file.lostFrom = null;
    this.crashed = kind === "crash";
  }

  close(descriptor: number): void {
    this.#descriptors.delete(descriptor);
  }

  async syncAndClose(descriptor: number): Promise<void> {
    this.sync(descriptor);
    this.close(descriptor);
  }

  syncPath(path: string): void {
    const file = this.#files.get(path);
    if (file !== undefined) {
      this.#syncFile(file);
      return;
    }
    this.#step();
    for (const entry of this.#files.values()) entry.entered = true;
  }

  async read(path: string, offset: number, length: number): Promise<Buffer> {
    const file = this.#files.get(path);
    if (file === undefined) throw fault("ENOENT");
    return Buffer.from(file.content.subarray(offset, Math.min(file.content.length, offset + length)));
  }

  async remove(path: string): Promise<void> {
    this.#step();
    this.#files.delete(path);
  }

  lock(directory: string): () => void {
    if (this.#locked) throw new JournalLocked(directory, "another simulated process");
    this.#locked = true;
    return () => {
      this.#locked = false;
    };
  }

  #open(descriptor: number): SimulatedFile {
    const file = this.#descriptors.get(descriptor);
    if (file === undefined) throw fault("EBADF");
    return file;
  }

  #syncFile(file: SimulatedFile): void {
    try {
      this.#step();
    } catch (error) {
      // a crash comes before the sync begins; a fault comes out of it
      if (!this.crashed) file.lostFrom ??= file.stable.length;
      throw error;
    }
    file.stable = file.content;
    if (file.lostFrom !== null) file.stable = file.content.subarray(0, file.lostFrom);
  }

  /** Counts an operation and fails it when that is its turn. */
  #step(): void {
    const kind = this.#faults.get(this.operations++);
    if (this.crashed) throw fault("EIO");
    if (kind === "crash") {
      this.crashed = true;
      throw fault("EIO");
    }
    if (kind === "ENOSPC" || kind === "EIO") throw fault(kind);
    if (kind === "torn") throw fault("ENOSPC");
  }
}

/**
 * Evenly spread numbers in [0, 1) from a seed (mulberry32). fast-check's own doubles crowd at 0 and 1, where a power loss
 * leaves either everything or nothing.
 */
export function chanceFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** How much of a torn or short write arrives. */
const PART = 0.6;
const SECTOR = 64;

/** The stable bytes, then sectors of which each may have arrived, be zero, or be where the file ends. */
function survivor(file: SimulatedFile, chance: () => number): Buffer {
  const length = file.stable.length + Math.floor(chance() * (file.content.length - file.stable.length + 1));
  const bytes = Buffer.from(file.content.subarray(0, length));
  for (let at = file.stable.length; at < length; at += SECTOR) {
    if (file.lostFrom !== null || chance() < 0.3) bytes.fill(0, at, Math.min(length, at + SECTOR));
  }
  return bytes;
}

function fault(code: string): Error {
  return Object.assign(new Error(`${code}: simulated`), { code });
}
