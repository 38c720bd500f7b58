import { isUtf8 } from "node:buffer";
import { Problem } from "./problem.ts";
import type { Json } from "./request.ts";

/**
 * Parses a JSON body strictly. Throws `invalid_json` (also for bytes that are not UTF-8 and for nesting beyond `maxDepth`
 * containers) and `duplicate_key` with the key as `param`: two parsers may disagree about which of two equal keys counts.
 */
export function parseJson(bytes: Buffer, maxDepth: number): Json {
  if (!isUtf8(bytes)) throw new Problem("invalid_json", { message: "The body is not valid JSON: it is not UTF-8." });
  const { keys, depth } = measure(bytes);
  if (depth > maxDepth) throw new Problem("invalid_json", { message: `The body is nested more than ${maxDepth} levels deep.` });
  const value = parse(bytes.toString("utf8"));
  if (countKeys(value) !== keys) throw new Problem("duplicate_key", { param: firstDuplicate(bytes) });
  return value;
}

function parse(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch (cause) {
    throw new Problem("invalid_json", { cause });
  }
}

/**
 * In valid JSON every colon outside a string ends a key, so keys written = colons, and keys kept are in the parsed tree:
 * they differ exactly when an object names a key twice, whatever escapes the two spellings use.
 */
function measure(bytes: Buffer): { keys: number; depth: number } {
  let keys = 0;
  let depth = 0;
  let deepest = 0;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at];
    if (byte === QUOTE) at = endOfString(bytes, at);
    else if (byte === COLON) keys++;
    else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) deepest = Math.max(deepest, ++depth);
    else if (byte === CLOSE_OBJECT || byte === CLOSE_ARRAY) depth--;
  }
  return { keys, depth: deepest };
}

/** The index of the quote that closes the string opened at `start`; the last byte where none does. */
function endOfString(bytes: Buffer, start: number): number {
  for (let at = bytes.indexOf(QUOTE, start + 1); at !== -1; at = bytes.indexOf(QUOTE, at + 1)) {
    let backslashes = 0;
    while (bytes[at - 1 - backslashes] === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return at;
  }
  return bytes.length - 1;
}

function countKeys(value: Json | undefined): number {
  if (typeof value !== "object" || value === null) return 0;
  const children = Object.values(value);
  return children.reduce<number>((sum, child) => sum + countKeys(child), Array.isArray(value) ? 0 : children.length);
}

/** Only walked once a duplicate is known to be there. */
function firstDuplicate(bytes: Buffer): string {
  const open: Set<string>[] = [];
  let text = "";
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at];
    if (byte === QUOTE) {
      const end = endOfString(bytes, at);
      text = JSON.parse(bytes.toString("utf8", at, end + 1)) as string;
      at = end;
    } else if (byte === OPEN_OBJECT) open.push(new Set());
    else if (byte === CLOSE_OBJECT) open.pop();
    else if (byte === COLON) {
      const keys = open.at(-1);
      if (keys?.has(text) === true) return text;
      keys?.add(text);
    }
  }
  throw new Error("no object names a key twice");
}

const QUOTE = 0x22;
const COLON = 0x3a;
const BACKSLASH = 0x5c;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
