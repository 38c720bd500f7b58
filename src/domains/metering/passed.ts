import type { ModelEvent } from "../../kernel/events.ts";
import type { Dialect, Frame } from "../../kernel/frame.ts";
import type { Passed } from "./decide.ts";

/** Takes what a model wrote, as it stands in JSON between the quotes. */
export interface TextSink {
  take(choice: number, bytes: Buffer, from: number, to: number): void;
}

/** What has passed of one stream, found by reading as little of each frame as its dialect allows; with a sink, all of its text. */
export class Tally implements Passed {
  outputFrames = 0;
  outputBytes = 0;
  /** An upper bound of the output tokens in the frames: a byte-level token is at least one byte. */
  atMost = 0;
  readonly #sink: TextSink | null;

  constructor(sink: TextSink | null = null) {
    this.#sink = sink;
  }

  add(frame: Frame, wire: Dialect | null): void {
    if (frame.deltas !== undefined && this.#sink === null) {
      this.atMost += frame.deltas.bytes;
      this.outputBytes += frame.deltas.bytes;
      this.outputFrames += frame.deltas.events;
      return;
    }
    if (wire !== null && this.#addDeltas(frame.bytes, ENVELOPES[wire])) return;
    const before = this.atMost;
    this.addEvents(frame.events());
    // A frame of a shape that is not known may hold text where nobody looks.
    if (wire !== null && !frame.notable) this.atMost = before + frame.bytes.length;
  }

  addEvents(events: readonly ModelEvent[]): void {
    for (const event of events) {
      const text = outputOf(event);
      if (text === "") continue;
      const bytes = Buffer.byteLength(text);
      this.#count(bytes, bytes);
      if (this.#sink === null) continue;
      const escaped = Buffer.from(JSON.stringify(text));
      this.#sink.take("choice" in event ? event.choice : 0, escaped, 1, escaped.length - 1);
    }
  }

  /**
   * The `delta` objects of a `chat.completion.chunk` or of a `RawMessageStreamEvent`, walked byte by byte without parsing the frame. False when it has none.
   * Model text cannot forge or hide one: in a JSON string a quote is escaped.
   */
  #addDeltas(bytes: Buffer, envelope: Envelope): boolean {
    let found = false;
    for (let at = bytes.indexOf(DELTA); at !== -1; at = bytes.indexOf(DELTA, at)) {
      const colon = afterSpace(bytes, at + DELTA.length);
      const start = bytes[colon] === COLON ? afterSpace(bytes, colon + 1) : at;
      const choice = this.#sink === null ? 0 : numberBefore(bytes, at);
      at = bytes[start] === OPEN ? this.#addObject(bytes, start, envelope, choice) : at + DELTA.length;
      found ||= bytes[start] === OPEN;
    }
    return found;
  }

  /**
   * Counts the object that opens at `start` and returns where it ends: its string values, less the envelope's, as output; its length less the
   * usual envelope as bound.
   */
  #addObject(bytes: Buffer, start: number, envelope: Envelope, choice: number): number {
    let depth = 0;
    let values = 0;
    let isEnvelope = false;
    let at = start;
    for (; at < bytes.length; at++) {
      const byte = bytes[at];
      if (byte === QUOTE) {
        const end = endOfString(bytes, at + 1);
        if (bytes[afterSpace(bytes, end + 1)] === COLON) isEnvelope = envelope.keys.some((key) => isAt(key, bytes, at + 1, end));
        else if (!isEnvelope) {
          values += end - at - 1;
          this.#sink?.take(choice, bytes, at + 1, Math.min(end, bytes.length));
        }
        at = end;
      } else if (byte === OPEN) depth++;
      else if (byte === CLOSE && --depth === 0) break;
    }
    this.#count(Math.max(values, at + 1 - start - envelope.bytes), values);
    return Math.min(at + 1, bytes.length);
  }

  #count(atMost: number, output: number): void {
    this.atMost += atMost;
    if (output === 0) return;
    this.outputBytes += output;
    this.outputFrames += 1;
  }
}

/** What the model wrote in one event. */
function outputOf(event: ModelEvent): string {
  switch (event.type) {
    case "text-delta":
    case "reasoning-delta":
    case "refusal-delta":
      return event.text;
    case "tool-call-start":
      return event.name;
    case "tool-call-delta":
      return event.arguments;
    // Both can hold encrypted reasoning, billed as output: no shorter than what it hides.
    case "reasoning-signature":
      return event.signature;
    case "reasoning-hidden":
      return event.data;
    case "response-start":
    case "choice-end":
    case "usage":
    case "error":
    case "response-end":
      return "";
    default:
      return event satisfies never;
  }
}

/** Where the string that begins at `from` has its closing quote; the end of the bytes when it has none. */
function endOfString(bytes: Buffer, from: number): number {
  for (let at = from; at < bytes.length; at++) {
    if (bytes[at] === QUOTE) return at;
    if (bytes[at] === BACKSLASH) at++;
  }
  return bytes.length;
}

function afterSpace(bytes: Buffer, from: number): number {
  let at = from;
  while (isSpace(bytes[at])) at++;
  return at;
}

/** The number of the member before a delta, `"index":0,"delta"`: its choice, or its block. 0 where there is none. */
function numberBefore(bytes: Buffer, from: number): number {
  let at = from - 1;
  while (at > 0 && (bytes[at] === COMMA || isSpace(bytes[at]))) at--;
  const end = at + 1;
  while (at >= 0 && isDigit(bytes[at])) at--;
  const digits = end - at - 1;
  return digits > 0 && digits <= MAX_DIGITS ? Number(bytes.toString("latin1", at + 1, end)) : 0;
}

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x39;
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d;
}

function isAt(key: Buffer, bytes: Buffer, from: number, to: number): boolean {
  return to - from === key.length && bytes.compare(key, 0, key.length, from, to) === 0;
}

/** What of a delta is not the model's writing. */
interface Envelope {
  /** Whose string values are the dialect's own words. */
  readonly keys: readonly Buffer[];
  /** Of the usual delta, without its text. */
  readonly bytes: number;
}

/** `ChatCompletionChunk.Choice.Delta` (openai, completions.d.ts); `RawContentBlockDelta` and `RawMessageDeltaEvent.Delta` (@anthropic-ai/sdk, messages.d.ts). */
const ENVELOPES: Readonly<Record<Dialect, Envelope>> = {
  openai: { keys: ["role", "type", "id"].map((key) => Buffer.from(key)), bytes: '{"content":""}'.length },
  anthropic: {
    keys: ["type", "stop_reason", "stop_sequence", "category"].map((key) => Buffer.from(key)),
    bytes: '{"type":"text_delta","text":""}'.length,
  },
};

const DELTA = Buffer.from('"delta"');
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const COMMA = 0x2c;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const MAX_DIGITS = 6;
