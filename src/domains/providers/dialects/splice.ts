/** One member of a JSON object: its decoded key, where the member starts (its key's quote), where its value lies. Byte offsets, `end` exclusive. */
export interface Member {
  readonly key: string;
  readonly start: number;
  readonly valueStart: number;
  readonly end: number;
}

/** What to do to an object's members: JSON text replaces (or adds) a value, null removes the member. */
export type Edits = ReadonlyMap<string, string | null>;

/**
 * Edits the top level of a JSON object in its own bytes: members that no edit names are copied, never re-serialised, so a
 * large prompt costs one copy. `members` are those of `bytes`. Returns `bytes` itself when nothing changes.
 */
export function splice(bytes: Buffer, members: readonly Member[], edits: Edits): Buffer {
  if (changesNothing(members, edits)) return bytes;
  // Written straight into one buffer: pieces to join are a view each.
  const out = Buffer.allocUnsafe(roomFor(bytes, edits));
  out[0] = OPEN_OBJECT;
  let at = 1;
  /** Where the member before ends, if it was copied whole: what lies between it and the next comes along. */
  let copiedTo = -1;
  for (const member of members) {
    const edit = edits.get(member.key);
    const follows = edit === undefined && copiedTo !== -1;
    if (edit !== null && at > 1 && !follows) out[at++] = COMMA_BYTE;
    if (edit === undefined) at += bytes.copy(out, at, follows ? copiedTo : member.start, member.end);
    else if (edit !== null) {
      at += bytes.copy(out, at, member.start, member.valueStart);
      at += out.write(edit, at);
    }
    copiedTo = edit === undefined ? member.end : -1;
  }
  for (const [key, value] of edits) {
    if (value === null || members.some((member) => member.key === key)) continue;
    at += out.write(`${at > 1 ? "," : ""}${JSON.stringify(key)}:${value}`, at);
  }
  out[at++] = CLOSE_OBJECT;
  return out.subarray(0, at);
}

function changesNothing(members: readonly Member[], edits: Edits): boolean {
  for (const member of members) if (edits.has(member.key)) return false;
  for (const value of edits.values()) if (value !== null) return false;
  return true;
}

/** Bytes that the edited object has at most: a character of an edit has up to 3, one of a key up to 6 once escaped. */
function roomFor(bytes: Buffer, edits: Edits): number {
  let room = bytes.length + 2;
  for (const [key, value] of edits) if (value !== null) room += 6 * key.length + 4 + 3 * value.length;
  return room;
}

/** The members of the object that `bytes` is, in order. `bytes` must be valid JSON with an object at its top. */
export function topLevelMembers(bytes: Buffer): Member[] {
  const members: Member[] = [];
  let at = skipSpace(bytes, bytes.indexOf(OPEN_OBJECT) + 1);
  while (bytes[at] === QUOTE) {
    const start = at;
    at = afterString(bytes, at);
    const key = decodedKey(bytes.toString("utf8", start + 1, at - 1));
    const valueStart = skipSpace(bytes, skipSpace(bytes, at) + 1);
    at = afterValue(bytes, valueStart);
    members.push({ key, start, valueStart, end: at });
    at = skipSpace(bytes, at);
    if (bytes[at] !== COMMA_BYTE) break;
    at = skipSpace(bytes, at + 1);
  }
  return members;
}

/** What a key's text between its quotes spells. */
function decodedKey(text: string): string {
  return text.includes("\\") ? (JSON.parse(`"${text}"`) as string) : text;
}

function afterValue(bytes: Buffer, start: number): number {
  const first = bytes[start];
  if (first === QUOTE) return afterString(bytes, start);
  if (first === OPEN_OBJECT || first === OPEN_ARRAY) return afterContainer(bytes, start);
  let at = start;
  while (at < bytes.length && !isEndOfScalar(bytes[at] as number)) at++;
  return at;
}

function afterContainer(bytes: Buffer, start: number): number {
  let depth = 0;
  let at = start;
  while (at < bytes.length) {
    const byte = bytes[at];
    if (byte === QUOTE) {
      at = afterString(bytes, at);
      continue;
    }
    at++;
    if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) depth++;
    else if ((byte === CLOSE_OBJECT || byte === CLOSE_ARRAY) && --depth === 0) return at;
  }
  return at;
}

/** The offset after the string that opens at `start`. Quotes are found natively: a long text costs a memchr, not a loop. */
function afterString(bytes: Buffer, start: number): number {
  for (let at = bytes.indexOf(QUOTE, start + 1); at !== -1; at = bytes.indexOf(QUOTE, at + 1)) {
    let backslashes = 0;
    while (bytes[at - 1 - backslashes] === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return at + 1;
  }
  return bytes.length;
}

function skipSpace(bytes: Buffer, start: number): number {
  let at = start;
  while (isSpace(bytes[at])) at++;
  return at;
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function isEndOfScalar(byte: number): boolean {
  return byte === COMMA_BYTE || byte === CLOSE_OBJECT || byte === CLOSE_ARRAY || isSpace(byte);
}

const QUOTE = 0x22;
const COMMA_BYTE = 0x2c;
const BACKSLASH = 0x5c;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
