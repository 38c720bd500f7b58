import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { extract, type Extract } from "tar-stream";
import {
  MANIFEST,
  MANIFEST_DIGEST,
  type Manifest,
  MAX_ENTRY_BYTES,
  PART_BYTES,
  parseManifest,
  parsePartName,
  type StreamDigest,
  streamsOf,
} from "./format.ts";
import { BackupRefusal } from "./refusal.ts";

/** Takes a stream's bytes, in order; the streams come one after another. */
export type PartSink = (stream: string, data: Buffer) => Promise<void>;

/**
 * Reads a backup from its first byte to its last and checks all of it against the manifest. What the sink takes is known to
 * be right only when this resolves. Throws `not_a_backup`, `backup_damaged`, `backup_of_newer_format`.
 */
export async function readBackup(path: string, sink: PartSink): Promise<Manifest> {
  const tar = extract();
  const feeding = pipeline(createReadStream(path, { highWaterMark: READ_BYTES }), tar);
  // It rejects with what the iteration below rejects with, and with the disk's own error first.
  feeding.catch(() => {});
  try {
    return await readEntries(tar, sink);
  } catch (error) {
    tar.destroy();
    await feeding.catch((cause: NodeJS.ErrnoException) => {
      if (typeof cause.code === "string" && cause.syscall !== undefined) throw cause;
    });
    throw readable(path, error);
  }
}

const READ_BYTES = 256 * 1024;

async function readEntries(tar: Extract, sink: PartSink): Promise<Manifest> {
  const streams = new Streams();
  let text: Buffer | null = null;
  let digest: string | null = null;
  for await (const entry of tar) {
    const { name } = entry.header;
    const part = parsePartName(name);
    if (digest !== null || (text !== null && part !== null)) throw damaged(`${name} stands behind the manifest`);
    if (part !== null) await streams.part(part.stream, part.ordinal, await unzip(name, await content(entry)), sink);
    else if (name === MANIFEST && text === null) text = await content(entry);
    else if (name === MANIFEST_DIGEST && text !== null) digest = (await content(entry)).toString();
    else throw damaged(`${name} has no place in a backup`);
  }
  if (text === null || digest === null) throw damaged("it ends before its manifest");
  if (!digest.startsWith(createHash("sha256").update(text).digest("hex"))) throw damaged("its manifest does not have its checksum");
  const manifest = parseManifest(text.toString());
  compare(streamsOf(manifest), streams.end());
  return manifest;
}

/** Folds parts into the digests of their streams. */
class Streams {
  readonly #ended = new Map<string, StreamDigest>();
  #current: { readonly name: string; readonly hash: Hash; bytes: number; parts: number } | null = null;

  async part(name: string, ordinal: number, data: Buffer, sink: PartSink): Promise<void> {
    if (this.#current?.name !== name) {
      this.#endCurrent();
      if (this.#ended.has(name)) throw damaged(`${name} begins again`);
      this.#current = { name, hash: createHash("sha256"), bytes: 0, parts: 0 };
    }
    const current = this.#current;
    current.parts += 1;
    if (ordinal !== current.parts) throw damaged(`part ${current.parts} of ${name} is missing`);
    current.hash.update(data);
    current.bytes += data.length;
    await sink(name, data);
  }

  end(): ReadonlyMap<string, StreamDigest> {
    this.#endCurrent();
    return this.#ended;
  }

  #endCurrent(): void {
    if (this.#current === null) return;
    const { name, hash, bytes, parts } = this.#current;
    this.#ended.set(name, { bytes, parts, sha256: hash.digest("hex") });
  }
}

function compare(promised: ReadonlyMap<string, StreamDigest>, found: ReadonlyMap<string, StreamDigest>): void {
  for (const name of found.keys()) if (!promised.has(name)) throw damaged(`${name} is not in its manifest`);
  for (const [name, { bytes, sha256, parts }] of promised) {
    const own = found.get(name) ?? EMPTY;
    if (own.bytes !== bytes || own.parts !== parts || own.sha256 !== sha256) throw damaged(`${name} does not have its checksum`);
  }
}

const EMPTY: StreamDigest = { bytes: 0, parts: 0, sha256: createHash("sha256").digest("hex") };

type Entry = Extract extends AsyncIterable<infer Each> ? Each : never;

async function content(entry: Entry): Promise<Buffer> {
  const { name, size, type } = entry.header;
  if (type !== "file" || size > MAX_ENTRY_BYTES) throw damaged(`${name} is not as a backup has it`);
  const chunks: Buffer[] = [];
  for await (const chunk of entry) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

const inflate = promisify<Buffer, { maxOutputLength: number }, Buffer>(gunzip);

async function unzip(name: string, data: Buffer): Promise<Buffer> {
  try {
    return await inflate(data, { maxOutputLength: PART_BYTES });
  } catch (cause) {
    throw damaged(`${name} does not decompress`, cause);
  }
}

function damaged(what: string, cause?: unknown): BackupRefusal {
  return new BackupRefusal("backup_damaged", `The backup is damaged, use another copy: ${what}.`, { cause });
}

/** tar-stream's own words are about tar, and a file that is none has no entry to blame. */
function readable(path: string, error: unknown): unknown {
  const message = error instanceof Error ? error.message : "";
  if (/Unexpected end of data/.test(message)) return damaged("it was cut short", error);
  if (/Invalid tar header/.test(message))
    return new BackupRefusal("not_a_backup", `${path} is not a backup of Atrium, or a damaged one.`, { cause: error });
  return error;
}
