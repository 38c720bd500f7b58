import { createSecretKey, hkdfSync, type KeyObject } from "node:crypto";
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import type { Brand } from "../../kernel/brand.ts";
import type { RandomBytes } from "../../kernel/random.ts";

/** The one root secret, 32 bytes. A KeyObject, so that no log, error or inspection prints it. */
export type MasterKey = Brand<KeyObject, "MasterKey">;

/**
 * A secret of 32 bytes for one purpose: HKDF-SHA256 of the master key with the label and version as info.
 * A new version is a new secret, so one purpose can be rotated alone.
 */
export function derive(master: MasterKey, label: string, version: number): Buffer {
  return Buffer.from(hkdfSync("sha256", master, Buffer.alloc(0), `atrium/${label}/v${version}`, KEY_BYTES));
}

/** Why there is no master key; the message is one sentence that says what to do. */
export class MasterKeyProblem extends Error {
  override readonly name = "MasterKeyProblem";
}

/** Parses 32 bytes written as base64 (or base64url) or as 64 hexadecimal digits. Throws MasterKeyProblem. */
export function masterKeyFrom(text: string): MasterKey {
  const trimmed = text.trim();
  const bytes = HEX.test(trimmed) ? Buffer.from(trimmed, "hex") : BASE64.test(trimmed) ? Buffer.from(trimmed, "base64") : null;
  if (bytes === null || bytes.length !== KEY_BYTES) {
    throw new MasterKeyProblem(
      "The master key must be 32 bytes, as base64 or as 64 hexadecimal digits (make one with: openssl rand -base64 32).",
    );
  }
  return createSecretKey(bytes) as MasterKey;
}

export interface MasterKeySource {
  /** ATRIUM_MASTER_KEY, when set. */
  readonly value?: string | undefined;
  readonly dataDirectory: string;
  /** With a database of their own, the operator brings the key: one made here would be lost with this disk. */
  readonly mayGenerate: boolean;
  readonly random: RandomBytes;
}

/** The key given, else the one in `<data>/master.key` (0600), else — where that may be — a new one written there. */
export function loadMasterKey(source: MasterKeySource): MasterKey {
  if (source.value !== undefined && source.value !== "") return masterKeyFrom(source.value);
  const path = join(source.dataDirectory, "master.key");
  if (existsSync(path)) return readKeyFile(path);
  if (!source.mayGenerate) {
    throw new MasterKeyProblem(
      `DATABASE_URL is set and no master key is given: set ATRIUM_MASTER_KEY to 32 random bytes (openssl rand -base64 32) and keep it apart from the database's backups, or put it into ${path} (0600).`,
    );
  }
  if (existsSync(join(source.dataDirectory, "postgres"))) {
    throw new MasterKeyProblem(
      `${path} is gone, but the database it belongs to is there: put the file back, or set ATRIUM_MASTER_KEY; without that key what the database holds sealed cannot be read.`,
    );
  }
  return generateKeyFile(path, source);
}

function readKeyFile(path: string): MasterKey {
  if (process.platform !== "win32" && (statSync(path).mode & 0o077) !== 0) {
    throw new MasterKeyProblem(`${path} can be read by others than its owner: chmod 600 ${path}`);
  }
  return masterKeyFrom(readFileSync(path, "utf8"));
}

/** The file appears whole or not at all, and a process that starts beside this one cannot be given another key. */
function generateKeyFile(path: string, source: MasterKeySource): MasterKey {
  mkdirSync(source.dataDirectory, { recursive: true, mode: 0o700 });
  const text = Buffer.from(source.random(new Uint8Array(KEY_BYTES))).toString("base64");
  const temporary = `${path}.${process.pid}`;
  const file = openSync(temporary, "w", 0o600);
  try {
    writeSync(file, `${text}\n`);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  chmodSync(temporary, 0o600);
  try {
    linkSync(temporary, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  } finally {
    unlinkSync(temporary);
  }
  return readKeyFile(path);
}

const KEY_BYTES = 32;
const HEX = /^[0-9a-fA-F]{64}$/;
const BASE64 = /^[A-Za-z0-9+/_-]{43}=?$/;
