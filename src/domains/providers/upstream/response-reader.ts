import { MalformedUpstream } from "../dialects/wire.ts";
import { parseFields, parseHead, type ResponseHead } from "./header-block.ts";

/** What a response turns out to be, in order: one head, slices of the body, one end. */
export interface ResponseSink {
  /** Never an interim (1xx) response: those are skipped. */
  onHead(head: ResponseHead): void;
  /** A slice of what was pushed; never empty. */
  onBody(bytes: Buffer): void;
  onEnd(): void;
}

type State = "head" | "fixed" | "open" | "size" | "extension" | "size-end" | "data" | "data-cr" | "data-lf" | "trailer" | "over";

/**
 * Reads the one response that a connection owes, however its bytes are cut: HTTP/1.0 and 1.1, by RFC 9112 with everything
 * refused that two parsers could understand differently. Bodies are passed on as slices, never copied.
 */
export class ResponseReader {
  readonly #sink: ResponseSink;
  #state: State = "head";
  /** The beginning of a head whose end has not come. */
  #held: Buffer | null = null;
  #headBytes = 0;
  /** Bytes left of the body, or of the chunk; while a chunk's size is read, the size so far. */
  #left = 0;
  #digits = 0;
  #line = "";
  #extensionBytes = 0;
  #keepsAlive = false;
  #surplus = false;
  /** What the upstream said it keeps an idle connection for, seconds; null where it said nothing. */
  keepAliveSeconds: number | null = null;

  constructor(sink: ResponseSink) {
    this.#sink = sink;
  }

  /** For the next response of the same connection. */
  reset(): void {
    this.#state = "head";
    this.#headBytes = 0;
    this.#extensionBytes = 0;
    this.#keepsAlive = false;
    this.keepAliveSeconds = null;
  }

  /** Whether the response is whole, or nobody listens any longer. */
  get isOver(): boolean {
    return this.#state === "over";
  }

  /** Whether the response is whole and nothing that was pushed speaks against another on the same connection. */
  get mayReuse(): boolean {
    return this.#state === "over" && this.#keepsAlive && !this.#surplus;
  }

  /** Says what the bytes complete. Bytes after the end are not looked at, but rule out another response. Throws MalformedUpstream. */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      switch (this.#state) {
        case "head":
          at = this.#readHead(chunk, at);
          break;
        case "fixed":
        case "data":
          at = this.#readBody(chunk, at);
          break;
        case "open":
          this.#sink.onBody(at === 0 ? chunk : chunk.subarray(at));
          return;
        case "over":
          this.#surplus = true;
          return;
        case "size":
        case "extension":
        case "size-end":
        case "data-cr":
        case "data-lf":
        case "trailer":
          this.#readFraming(chunk[at++] as number, this.#state);
          break;
        default:
          this.#state satisfies never;
      }
    }
  }

  /** The other side has closed: `whole` where that is the body's end, or came after it; `cut` where a response had begun. */
  close(): "whole" | "cut" | "nothing" {
    if (this.#state === "open") {
      this.#finish();
      return "whole";
    }
    if (this.#state === "over") return "whole";
    return this.#state === "head" && this.#headBytes === 0 && this.#held === null ? "nothing" : "cut";
  }

  /** Nothing more is said, also not of the chunk being read. */
  stop(): void {
    this.#state = "over";
    this.#keepsAlive = false;
  }

  #readHead(chunk: Buffer, from: number): number {
    const held = this.#held;
    const bytes = held !== null ? Buffer.concat([held, chunk]) : from === 0 ? chunk : chunk.subarray(from);
    const before = held?.length ?? 0;
    const end = bytes.indexOf(HEAD_END, Math.max(0, before - HEAD_END.length + 1));
    if (end === -1) {
      this.#hold(bytes);
      return chunk.length;
    }
    const length = end + HEAD_END.length;
    this.#held = null;
    this.#headBytes += length;
    if (this.#headBytes > MAX_HEAD_BYTES) throw new MalformedUpstream("the head is too long");
    this.#begin(parseHead(bytes.toString("latin1", 0, end + 2)));
    return from + length - before;
  }

  /** What can never become a head is refused before its end has come. */
  #hold(bytes: Buffer): void {
    if (this.#headBytes + bytes.length >= MAX_HEAD_BYTES) throw new MalformedUpstream("the head is too long");
    const start = bytes.toString("latin1", 0, PROTOCOL.length);
    if (!PROTOCOL.startsWith(start)) throw new MalformedUpstream("not HTTP/1.x");
    for (let at = bytes.indexOf(LF); at !== -1; at = bytes.indexOf(LF, at + 1)) {
      if (bytes[at - 1] !== CR) throw new MalformedUpstream("a line feed alone in the head");
    }
    this.#held = bytes;
  }

  #begin(head: ResponseHead): void {
    const { status, minor, headers } = head;
    const coding = headers.get("transfer-encoding");
    const length = lengthOf(headers.get("content-length"));
    if (coding !== undefined && (length !== null || minor === 0 || coding.toLowerCase() !== "chunked"))
      throw new MalformedUpstream("a transfer coding that leaves the length in doubt");
    if (status < 200) {
      if (status === 101 || coding !== undefined || length !== null) throw new MalformedUpstream("an interim response that is none");
      return;
    }
    this.#keepsAlive = keepsAlive(minor, headers.get("connection"));
    this.keepAliveSeconds = secondsOf(headers.get("keep-alive"));
    const bodiless = status === 204 || status === 304;
    if (bodiless && (coding !== undefined || (length ?? 0) > 0)) this.#keepsAlive = false;
    this.#left = bodiless ? 0 : (length ?? 0);
    this.#digits = 0;
    this.#state = bodiless || length !== null ? "fixed" : coding !== undefined ? "size" : "open";
    if (this.#state === "open") this.#keepsAlive = false;
    this.#sink.onHead(head);
    if (this.#state === "fixed" && this.#left === 0) this.#finish();
  }

  #readBody(chunk: Buffer, from: number): number {
    const end = Math.min(chunk.length, from + this.#left);
    this.#left -= end - from;
    const isChunk = this.#state === "data";
    if (isChunk && this.#left === 0) this.#state = "data-cr";
    this.#sink.onBody(from === 0 && end === chunk.length ? chunk : chunk.subarray(from, end));
    if (this.#state === "fixed" && this.#left === 0) this.#finish();
    return end;
  }

  /** One byte between the data of a chunked body. */
  #readFraming(byte: number, state: Exclude<State, "head" | "fixed" | "open" | "data" | "over">): void {
    switch (state) {
      case "size":
        return this.#readSize(byte);
      case "extension":
        return this.#readExtension(byte);
      case "size-end":
        expectByte(byte, LF);
        this.#line = "";
        this.#digits = 0;
        this.#state = this.#left === 0 ? "trailer" : "data";
        return;
      case "data-cr":
        expectByte(byte, CR);
        this.#state = "data-lf";
        return;
      case "data-lf":
        expectByte(byte, LF);
        this.#state = "size";
        return;
      case "trailer":
        return this.#readTrailer(byte);
      default:
        state satisfies never;
    }
  }

  #readSize(byte: number): void {
    const digit = hexDigit(byte);
    if (digit !== -1) {
      this.#left = (this.#digits === 0 ? 0 : this.#left * 16) + digit;
      if (++this.#digits > MAX_SIZE_DIGITS || this.#left > MAX_CHUNK_BYTES) throw new MalformedUpstream("a chunk that is too large");
      return;
    }
    if (this.#digits === 0 || (byte !== CR && byte !== SEMICOLON)) throw new MalformedUpstream("not a chunk size");
    this.#line = ";";
    this.#state = byte === CR ? "size-end" : "extension";
  }

  #readExtension(byte: number): void {
    if (byte === CR) {
      if (!EXTENSIONS.test(this.#line)) throw new MalformedUpstream("not a chunk extension");
      this.#state = "size-end";
      return;
    }
    if (++this.#extensionBytes > MAX_EXTENSION_BYTES) throw new MalformedUpstream("chunk extensions without end");
    this.#line += String.fromCharCode(byte);
  }

  #readTrailer(byte: number): void {
    if (byte === LF && !this.#line.endsWith("\r")) throw new MalformedUpstream("a line feed alone in the trailer");
    this.#line += String.fromCharCode(byte);
    if (this.#line.length > MAX_TRAILER_BYTES) throw new MalformedUpstream("a trailer that is too long");
    if (byte !== LF) return;
    const isEnd = this.#line.length === 2 || this.#line.endsWith("\r\n\r\n");
    if (!isEnd) return;
    const fields = parseFields(this.#line.slice(0, -2), 0);
    if (fields.has("content-length") || fields.has("transfer-encoding"))
      throw new MalformedUpstream("a trailer that speaks of the body's length");
    this.#finish();
  }

  #finish(): void {
    this.#state = "over";
    this.#sink.onEnd();
  }
}

/** All heads before a body, interim ones included, bytes: Node's own bound. */
const MAX_HEAD_BYTES = 16 * 1024;
const MAX_TRAILER_BYTES = 8 * 1024;
/** Of all chunks of a response together. */
const MAX_EXTENSION_BYTES = 16 * 1024;
const MAX_CHUNK_BYTES = 2 ** 40;
/** Zeros in front count. */
const MAX_SIZE_DIGITS = 16;

const HEAD_END = Buffer.from("\r\n\r\n");
const PROTOCOL = "HTTP/1.";
const CR = 0x0d;
const LF = 0x0a;
const SEMICOLON = 0x3b;

const EXTENSIONS =
  /^(?:;[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:=(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+|"(?:[\t\x20!\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"))?)+$/;

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}

function expectByte(byte: number, expected: number): void {
  if (byte !== expected) throw new MalformedUpstream("a chunk without its end");
}

function lengthOf(text: string | undefined): number | null {
  if (text === undefined) return null;
  if (!/^[0-9]{1,15}$/.test(text)) throw new MalformedUpstream("not a content-length");
  return Number(text);
}

/** An HTTP/1.0 connection is kept only where both sides say so; one of 1.1 unless one side says not. */
function keepsAlive(minor: 0 | 1, connection: string | undefined): boolean {
  if (connection === undefined) return minor === 1;
  const words = connection
    .toLowerCase()
    .split(",")
    .map((word) => word.trim());
  return !words.includes("close") && (minor === 1 || words.includes("keep-alive"));
}

function secondsOf(keepAlive: string | undefined): number | null {
  const seconds = keepAlive === undefined ? null : /(?:^|[,;\s])timeout\s*=\s*"?([0-9]{1,9})/i.exec(keepAlive);
  return seconds === null ? null : Number(seconds[1]);
}
