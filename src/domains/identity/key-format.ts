import { crc32 } from "node:zlib";
import type { KeyId } from "../../kernel/ids.ts";
import type { RandomBytes } from "../../kernel/random.ts";

/**
 * `atr_<id>_<secret><crc>`: 10 base62 characters of public id, 43 of secret (256 bits), and 6 that are the CRC-32
 * (IEEE, of everything before them) in base62, most significant digit first, padded with `0`. The checksum lets secret
 * scanners and typing errors be told from keys without a look-up; it proves nothing.
 */
export function renderKey(id: KeyId, secret: string): string {
  const body = `${PREFIX}${id}_${secret}`;
  return body + checksum(body);
}

/** The public id of a well-formed key with a right checksum; null for anything else. */
export function parseKeyId(text: string): KeyId | null {
  const match = KEY.exec(text);
  if (match === null) return null;
  if (checksum(text.slice(0, -CHECKSUM_LENGTH)) !== text.slice(-CHECKSUM_LENGTH)) return null;
  return match[1] as KeyId;
}

export function newKeyId(random: RandomBytes): KeyId {
  return base62(random, ID_LENGTH) as KeyId;
}

export function newKeySecret(random: RandomBytes): string {
  return base62(random, SECRET_LENGTH);
}

/** Whether the text has the form of a key's public id. */
export function isKeyId(text: string): text is KeyId {
  return KEY_ID.test(text);
}

/** Uniform: bytes from 248 up are drawn again, since 256 is not a multiple of 62. */
function base62(random: RandomBytes, length: number): string {
  let text = "";
  const pool = new Uint8Array(length + 8);
  while (text.length < length) {
    for (const byte of random(pool)) {
      if (byte < 248 && text.length < length) text += ALPHABET.charAt(byte % 62);
    }
  }
  return text;
}

function checksum(body: string): string {
  let rest = crc32(body);
  let text = "";
  for (let digit = 0; digit < CHECKSUM_LENGTH; digit += 1) {
    text = ALPHABET.charAt(rest % 62) + text;
    rest = Math.floor(rest / 62);
  }
  return text;
}

const PREFIX = "atr_";
const ID_LENGTH = 10;
const SECRET_LENGTH = 43;
const CHECKSUM_LENGTH = 6;
const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const KEY_ID = /^[0-9A-Za-z]{10}$/;
const KEY = /^atr_([0-9A-Za-z]{10})_[0-9A-Za-z]{49}$/;
