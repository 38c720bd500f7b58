import { MalformedUpstream } from "../dialects/wire.ts";

/** The header fields of a response that anybody reads, by lower-case name; the others are checked and forgotten. */
export type ResponseHeaders = ReadonlyMap<string, string>;

export interface ResponseHead {
  /** 100 to 599. */
  readonly status: number;
  /** Of HTTP/1.x. */
  readonly minor: 0 | 1;
  readonly headers: ResponseHeaders;
}

/**
 * Reads a status line and header lines, each with its CRLF, one byte a character. Stricter than a parser must be: bare CR
 * or LF, folded lines, space before a colon and control characters are refused. Throws MalformedUpstream.
 */
export function parseHead(text: string): ResponseHead {
  const line = STATUS_LINE.exec(text);
  if (line === null) throw new MalformedUpstream("not a status line of HTTP/1.x");
  return {
    status: Number(line[2]),
    minor: line[1] === "0" ? 0 : 1,
    headers: parseFields(text, line[0].length),
  };
}

/** Reads header lines, each with its CRLF, from `from` to the end of the text. Throws MalformedUpstream. */
export function parseFields(text: string, from: number): ResponseHeaders {
  const headers = new Map<string, string>();
  let lines = 0;
  for (let at = from; at < text.length;) {
    if (++lines > MAX_LINES) throw new MalformedUpstream("too many header lines");
    const nameAt = at;
    while (TOKEN[text.charCodeAt(at)] === 1) at++;
    const nameEnd = at;
    if (nameEnd === nameAt || text.charCodeAt(at++) !== COLON) throw new MalformedUpstream("a header line without a plain name");
    while (isBlank(text.charCodeAt(at))) at++;
    const valueAt = at;
    while (VALUE[text.charCodeAt(at)] === 1) at++;
    if (text.charCodeAt(at) !== CR || text.charCodeAt(at + 1) !== LF)
      throw new MalformedUpstream("a header value with a control character");
    if (KEPT_LENGTH[nameEnd - nameAt] === 1) {
      let valueEnd = at;
      while (valueEnd > valueAt && isBlank(text.charCodeAt(valueEnd - 1))) valueEnd--;
      keep(headers, text.slice(nameAt, nameEnd).toLowerCase(), text.slice(valueAt, valueEnd));
    }
    at += 2;
  }
  return headers;
}

function keep(headers: Map<string, string>, name: string, value: string): void {
  const rule = KEPT.get(name);
  if (rule === undefined) return;
  const known = headers.get(name);
  if (known === undefined) headers.set(name, value);
  else if (rule === "single") throw new MalformedUpstream(`two header lines '${name}'`);
  else if (rule === "list") headers.set(name, `${known}, ${value}`);
}

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?\r\n/;

/** `single`: where two lines are two readings of one message, it is refused. */
const KEPT: ReadonlyMap<string, "single" | "list" | "first"> = new Map([
  ["connection", "list"],
  ["content-encoding", "list"],
  ["content-length", "single"],
  ["content-type", "single"],
  ["keep-alive", "list"],
  ["request-id", "first"],
  ["retry-after", "first"],
  ["retry-after-ms", "first"],
  ["transfer-encoding", "single"],
  ["x-request-id", "first"],
]);
const KEPT_LENGTH = table(256, (length) => [...KEPT.keys()].some((name) => name.length === length));

/** Lines of one head, or of one trailer. */
const MAX_LINES = 128;

const TOKEN = table(256, (code) => /[!#$%&'*+\-.^_`|~0-9A-Za-z]/.test(String.fromCharCode(code)));
const VALUE = table(256, (code) => code === 0x09 || (code >= 0x20 && code !== 0x7f));
const COLON = 0x3a;
const CR = 0x0d;
const LF = 0x0a;

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

function table(size: number, holds: (index: number) => boolean): Uint8Array {
  return Uint8Array.from({ length: size }, (_, index) => (holds(index) ? 1 : 0));
}
