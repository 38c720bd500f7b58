import { createHash, type Hash } from "node:crypto";
import { rmSync } from "node:fs";
import { link, lstat, open, type FileHandle, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { pack, type Pack } from "tar-stream";
import { MANIFEST, MANIFEST_DIGEST, PART_BYTES, partName, type Manifest, type StreamDigest } from "./format.ts";
import { BackupRefusal } from "./refusal.ts";

/**
 * Writes a backup beside its final name, under a temporary one. `finish` makes it durable and gives it its name, which
 * must be free; `discard` leaves nothing. Holds two parts at most.
 */
export class BackupWriter {
  readonly #path: string;
  readonly #partial: string;
  readonly #file: FileHandle;
  readonly #tar: Pack = pack();
  readonly #written: Promise<void>;
  readonly #modifiedAt: Date;
  readonly #makeLink: MakeLink;
  /** An interrupted command leaves no half of a backup. */
  readonly #onExit = () => rmSync(this.#partial, { force: true });

  /** `makeLink` is the disk's. Throws `directory_missing`. */
  static async create(path: string, modifiedAt: Date, makeLink: MakeLink = link): Promise<BackupWriter> {
    const partial = `${path}.partial-${process.pid}`;
    try {
      return new BackupWriter(path, partial, await open(partial, "wx", 0o600), modifiedAt, makeLink);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "ENOENT") throw cause;
      throw new BackupRefusal("directory_missing", `There is no directory ${dirname(path)}: make it, or name another.`, { cause });
    }
  }

  private constructor(path: string, partial: string, file: FileHandle, modifiedAt: Date, makeLink: MakeLink) {
    this.#path = path;
    this.#partial = partial;
    this.#file = file;
    this.#modifiedAt = modifiedAt;
    this.#makeLink = makeLink;
    process.once("exit", this.#onExit);
    this.#written = drain(this.#tar, file);
    // Whoever waits for an entry or the end hears of it; until then it must not end the process.
    this.#written.catch(() => {});
  }

  /** Writes one stream; the chunks are not kept. */
  async stream(name: string, chunks: AsyncIterable<Buffer>): Promise<StreamDigest> {
    const hash = createHash("sha256");
    let parts = 0;
    let bytes = 0;
    const put = async (data: Buffer) => {
      bytes += data.length;
      await this.#entry(partName(name, ++parts), await compress(hashed(hash, data)));
    };
    for await (const part of inParts(chunks)) await put(part);
    return { bytes, parts, sha256: hash.digest("hex") };
  }

  /** Returns the size of the file, bytes. Throws `file_exists`. */
  async finish(manifest: Manifest): Promise<number> {
    const text = Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`);
    await this.#entry(MANIFEST, text);
    await this.#entry(MANIFEST_DIGEST, Buffer.from(`${createHash("sha256").update(text).digest("hex")}  ${MANIFEST}\n`));
    this.#tar.finalize();
    await this.#written;
    await this.#file.sync();
    const { size } = await this.#file.stat();
    await this.#file.close();
    await this.#name();
    return size;
  }

  async discard(): Promise<void> {
    process.off("exit", this.#onExit);
    this.#tar.destroy();
    await this.#written.catch(() => {});
    await this.#file.close().catch(() => {});
    await rm(this.#partial, { force: true });
  }

  async #name(): Promise<void> {
    await this.#takeName().catch((cause: NodeJS.ErrnoException) => {
      throw cause.code === "EEXIST" ? fileExists(this.#path, cause) : cause;
    });
    process.off("exit", this.#onExit);
    const directory = await open(dirname(this.#path), "r");
    await directory.sync();
    await directory.close();
  }

  /**
   * A link, unlike a rename, never takes the place of a file that is there. Where the file system has none (FAT, some network
   * and cloud ones), the name is taken by an empty file first, which the whole one then replaces.
   */
  async #takeName(): Promise<void> {
    try {
      await this.#makeLink(this.#partial, this.#path);
    } catch (error) {
      if (!NO_LINKS.has(String((error as NodeJS.ErrnoException).code))) throw error;
      await (await open(this.#path, "wx", 0o600)).close();
      return rename(this.#partial, this.#path);
    }
    await rm(this.#partial);
  }

  async #entry(name: string, data: Buffer): Promise<void> {
    const taken = new Promise<void>((resolve, reject) => {
      this.#tar.entry({ name, mode: 0o600, mtime: this.#modifiedAt }, data, (error) => (error ? reject(error) : resolve()));
    });
    try {
      // When the disk refuses, the tar is never asked for more, and might never call back.
      await Promise.race([taken, this.#written]);
    } catch (error) {
      await this.#written; // whose reason is the disk's
      throw error;
    }
  }
}

type MakeLink = typeof link;
const NO_LINKS: ReadonlySet<string> = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"]);

/** Before the hour that a backup may take; `finish` is told again by the disk. Throws `file_exists`. */
export async function refuseExisting(path: string): Promise<void> {
  if (await lstat(path).catch(() => null)) throw fileExists(path);
}

function fileExists(path: string, cause?: unknown): BackupRefusal {
  return new BackupRefusal("file_exists", `${path} exists, and a backup never replaces a file: name another.`, { cause });
}

const compress = promisify<Buffer, Buffer>(gzip);

function hashed(hash: Hash, data: Buffer): Buffer {
  hash.update(data);
  return data;
}

/** The same bytes in pieces of PART_BYTES, the last one shorter; nothing for nothing. */
async function* inParts(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let held: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    for (let rest = chunk; rest.length > 0;) {
      const taken = rest.subarray(0, PART_BYTES - bytes);
      held.push(taken);
      bytes += taken.length;
      rest = rest.subarray(taken.length);
      if (bytes < PART_BYTES) continue;
      yield Buffer.concat(held);
      held = [];
      bytes = 0;
    }
  }
  if (bytes > 0) yield Buffer.concat(held);
}

async function drain(tar: Pack, file: FileHandle): Promise<void> {
  for await (const each of tar) {
    const chunk = each as Buffer;
    for (let at = 0; at < chunk.length;) at += (await file.write(chunk, at)).bytesWritten;
  }
}
