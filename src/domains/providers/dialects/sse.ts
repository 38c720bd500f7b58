/** One server-sent event that carries data. */
export interface SseEvent {
  /**
   * The event in canonical form: the upstream's own bytes where they are that, else written anew. The form is
   * `data: <payload>\n\n`; where names count and the event has one, `event: <name>\n` comes first.
   */
  readonly bytes: Buffer;
  /** The data, lines joined by LF. */
  readonly payload: Buffer;
  /** The event's name; null where it has none. */
  readonly name: string | null;
}

/**
 * Cuts an upstream's bytes into events as they come, by the HTML standard's rules: LF, CRLF or CR, a leading BOM, comments,
 * no space after the colon, several data lines. Any split of the bytes gives the same events. Events in canonical form
 * are slices of what came; all others are written anew, so that a caller's parser never sees an odd form.
 */
export class SseSplitter {
  readonly #maxBytes: number;
  readonly #named: boolean;
  /** The unfinished block, and how far it has been read. Grows by doubling: a long event is copied O(1) times per byte. */
  #held: Buffer = EMPTY;
  #heldLength = 0;
  #lineStart = 0;
  #scanned = 0;
  #block: Block = newBlock();
  #skipLf = false;
  #atStart = true;

  /** `maxBytes` bounds one event, comments included. `named`: whether a reader of this wire looks at the events' names. */
  constructor(maxBytes: number, named = false) {
    this.#maxBytes = maxBytes;
    this.#named = named;
  }

  /** Whether the next byte begins an event, whatever came before. */
  get idle(): boolean {
    return this.#heldLength === 0 && !this.#skipLf && !this.#atStart;
  }

  /** Appends the events that `chunk` completes to `events`. Returns false, for good, when an event passes the bound. */
  push(chunk: Buffer, events: SseEvent[]): boolean {
    const buffer = this.#heldLength === 0 ? chunk : this.#append(chunk);
    let start = 0;
    let nextCr = buffer.indexOf(CR, this.#scanned);
    for (;;) {
      if (this.#skipLf && this.#scanned < buffer.length) {
        this.#skipLf = false;
        if (buffer[this.#scanned] === LF) {
          if (this.#lineStart === start) start++;
          this.#lineStart = ++this.#scanned;
        }
      }
      if (nextCr !== -1 && nextCr < this.#scanned) nextCr = buffer.indexOf(CR, this.#scanned);
      const nextLf = buffer.indexOf(LF, this.#scanned);
      const end = nextLf === -1 || (nextCr !== -1 && nextCr < nextLf) ? nextCr : nextLf;
      if (end === -1) break;
      if (end - start > this.#maxBytes) return false;
      const isCr = end === nextCr;
      this.#skipLf = isCr;
      if (isCr) this.#block.canonical = false;
      if (this.#line(buffer, this.#lineStart, end)) {
        this.#finish(buffer, start, end + 1, events);
        start = end + 1;
      }
      this.#scanned = this.#lineStart = end + 1;
    }
    this.#hold(buffer, start);
    return this.#heldLength <= this.#maxBytes;
  }

  /** The upstream closed cleanly: an event that lacks only its blank line counts. */
  end(events: SseEvent[]): void {
    const buffer = this.#held.subarray(0, this.#heldLength);
    if (this.#lineStart < buffer.length) this.#line(buffer, this.#lineStart, buffer.length);
    this.#block.canonical = false;
    this.#finish(buffer, 0, buffer.length, events);
  }

  /** Reads one line; true when it is the blank one that ends a block. */
  #line(buffer: Buffer, lineStart: number, end: number): boolean {
    let start = lineStart;
    if (this.#atStart) {
      this.#atStart = false;
      if (end - start >= 3 && buffer[start] === 0xef && buffer[start + 1] === 0xbb && buffer[start + 2] === 0xbf) {
        start += 3;
        this.#block.canonical = false;
      }
    }
    if (start === end) return true;
    const block = this.#block;
    if (startsWith(buffer, start, end, DATA)) {
      let from = start + DATA.length;
      if (from < end && buffer[from] !== COLON) {
        block.canonical = false;
        return false;
      }
      if (from < end) from++;
      if (from < end && buffer[from] === SPACE) from++;
      if (from !== start + DATA.length + 2) block.canonical = false;
      block.data.push(buffer.subarray(from, end));
      return false;
    }
    const isFirst = block.name === null && block.data.length === 0;
    const isName = startsWith(buffer, start, end, EVENT) && buffer[start + EVENT.length] === COLON;
    if (isName) block.name = buffer.toString("utf8", start + EVENT.length + 1, Math.min(end, start + MAX_NAME_BYTES)).trim();
    block.canonical &&= this.#named && isName && isFirst && isPlain(buffer, start, end);
    return false;
  }

  #finish(buffer: Buffer, start: number, end: number, events: SseEvent[]): void {
    const { data, name, canonical } = this.#block;
    this.#block = newBlock();
    const first = data[0];
    if (first === undefined) return;
    if (canonical && data.length === 1) {
      events.push({ bytes: buffer.subarray(start, end), payload: first, name });
      return;
    }
    const payload = data.length === 1 ? first : joinLines(data, "");
    events.push({ bytes: writeEvent(this.#named ? name : null, data), payload, name });
  }

  /** Keeps the unfinished block from `start` on; offsets become relative to it. */
  #hold(buffer: Buffer, start: number): void {
    const length = buffer.length - start;
    if (start > 0 || this.#heldLength === 0) {
      const data = this.#block.data;
      this.#held = length === 0 ? EMPTY : Buffer.from(buffer.subarray(start));
      this.#lineStart -= start;
      if (data.length > 0) this.#block.data = data.map((line) => rebase(line, buffer, start, this.#held));
    }
    this.#heldLength = length;
    this.#scanned = length;
  }

  #append(chunk: Buffer): Buffer {
    const length = this.#heldLength + chunk.length;
    if (length > this.#held.length) {
      const grown = Buffer.allocUnsafe(Math.max(length, 2 * this.#held.length));
      const old = this.#held;
      old.copy(grown, 0, 0, this.#heldLength);
      this.#block.data = this.#block.data.map((line) => rebase(line, old, 0, grown));
      this.#held = grown;
    }
    chunk.copy(this.#held, this.#heldLength);
    this.#heldLength = length;
    return this.#held.subarray(0, length);
  }
}

/** One event in canonical form; `lines` are its data, split at LF. */
export function writeEvent(name: string | null, lines: readonly Buffer[]): Buffer {
  return Buffer.concat([Buffer.from(name === null ? "" : `event: ${name}\n`), joinLines(lines, "data: "), BLANK]);
}

interface Block {
  data: Buffer[];
  name: string | null;
  /** Whether the block is in canonical form to the byte, so far. */
  canonical: boolean;
}

function newBlock(): Block {
  return { data: [], name: null, canonical: true };
}

/** The same bytes of a line in the buffer that the block was copied to: `start` of `from` is 0 of `to`. */
function rebase(line: Buffer, from: Buffer, start: number, to: Buffer): Buffer {
  const at = line.byteOffset - from.byteOffset - start;
  return to.subarray(at, at + line.length);
}

function joinLines(lines: readonly Buffer[], prefix: string): Buffer {
  return Buffer.concat(lines.flatMap((line, index) => [index === 0 ? Buffer.from(prefix) : Buffer.from(`\n${prefix}`), line]));
}

/** Whether a line that names an event is `event: <word>` to the byte, so that the name is all that it says. */
function isPlain(buffer: Buffer, start: number, end: number): boolean {
  if (end - start > MAX_NAME_BYTES || buffer[start + EVENT.length + 1] !== SPACE) return false;
  for (let at = start + EVENT.length + 2; at < end; at++) {
    const byte = buffer[at] as number;
    if (byte <= SPACE || byte > LAST_ASCII) return false;
  }
  return true;
}

function startsWith(buffer: Buffer, start: number, end: number, word: Buffer): boolean {
  if (end - start < word.length) return false;
  for (let at = 0; at < word.length; at++) if (buffer[start + at] !== word[at]) return false;
  return true;
}

const LF = 0x0a;
const CR = 0x0d;
const COLON = 0x3a;
const SPACE = 0x20;
const LAST_ASCII = 0x7e;
const DATA = Buffer.from("data");
const EVENT = Buffer.from("event");
const BLANK = Buffer.from("\n\n");
const EMPTY = Buffer.alloc(0);
/** Of a line that names an event, as much as is looked at. */
const MAX_NAME_BYTES = 64;
