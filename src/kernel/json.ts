import { isUtf8 } from "node:buffer";
import { Problem } from "./problem.ts";
import type { Json } from "./request.ts";

/**
 * Parses JSON bytes, strictly: invalid UTF-8, nesting deeper than `maxDepth` and an object that names a key twice are
 * refused (two parsers may disagree about which of two equal keys counts).
 *
 * Duplicates are found by counting: outside strings, a text has one colon per written key; the parsed value has one key
 * per kept key. Only when the counts differ is the text scanned again, slowly, to name the key.
 *
 * @throws Problem `invalid_json` or `duplicate_key`
 */
export function parseJson(bytes: Buffer, maxDepth: number): Json {
  if (!isUtf8(bytes)) throw new Problem("invalid_json", { message: "The body is not valid UTF-8." });
  const text = bytes.toString("utf8");
  const value = parse(text);
  if (countKeys(value, maxDepth) !== countColons(text)) {
    const key = firstDuplicate(text);
    throw new Problem("duplicate_key", {
      message: `An object in the body names the key ${JSON.stringify(key)} twice; name it once.`,
      param: key,
    });
  }
  return value;
}

function parse(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch (error) {
    // V8's message quotes the body; only the position is passed on.
    const position = /position (\d+)/.exec((error as Error).message)?.[1];
    const where = position === undefined ? "" : ` (near character ${position})`;
    throw new Problem("invalid_json", { message: `The body is not valid JSON${where}.` });
  }
}

function countKeys(value: Json | undefined, depthLeft: number): number {
  if (value === null || typeof value !== "object") return 0;
  if (depthLeft === 0) throw new Problem("invalid_json", { message: "The body is nested too deeply." });
  let keys = 0;
  if (Array.isArray(value)) {
    for (const element of value) keys += countKeys(element, depthLeft - 1);
    return keys;
  }
  const object = value as Readonly<Record<string, Json>>;
  // Not Object.keys, which makes a list of each: parsed objects inherit nothing that can be enumerated.
  for (const key in object) keys += 1 + countKeys(object[key], depthLeft - 1);
  return keys;
}

const QUOTE = 34;
const COLON = 58;
const BACKSLASH = 92;

/** Colons outside strings of a text that is known to be valid JSON. */
function countColons(text: string): number {
  let colons = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === COLON) colons++;
    else if (code === QUOTE) at = stringEnd(text, at);
  }
  return colons;
}

/** The index of the quote that closes the string opened at `start`. */
function stringEnd(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); ; end = text.indexOf('"', end + 1)) {
    let backslashes = 0;
    while (text.charCodeAt(end - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return end;
  }
}

/** The first key that its object already has, of a text that is known to be valid JSON and to hold one. */
function firstDuplicate(text: string): string {
  const open: (Set<string> | null)[] = [];
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (character === "{") open.push(new Set());
    else if (character === "[") open.push(null);
    else if (character === "}" || character === "]") open.pop();
    else if (character === '"') {
      const end = stringEnd(text, at);
      const keys = open.at(-1);
      if (keys !== null && keys !== undefined && isKey(text, end + 1)) {
        const key = JSON.parse(text.slice(at, end + 1)) as string;
        if (keys.has(key)) return key;
        keys.add(key);
      }
      at = end;
    }
  }
  throw new Error("no key is named twice");
}

function isKey(text: string, at: number): boolean {
  while (text[at] === " " || text[at] === "\n" || text[at] === "\t" || text[at] === "\r") at++;
  return text.charCodeAt(at) === COLON;
}
