import type { ModelEvent } from "../../kernel/events.ts";
import type { Dialect, Frame } from "../../kernel/frame.ts";
import type { Passed } from "./decide.ts";

/** What has passed of one stream, kept by reading as little of each frame as its dialect allows. */
export class Tally implements Passed {
  outputFrames = 0;
  outputBytes = 0;
  /** An upper bound of the output tokens in the frames: a byte-level token is at least one byte. */
  atMost = 0;

  add(frame: Frame, wire: Dialect | null): void {
    if (frame.deltas !== undefined) {
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
      const bytes = outputBytes(event);
      this.#count(bytes, bytes);
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
      at = bytes[start] === OPEN ? this.#addObject(bytes, start, envelope) : at + DELTA.length;
      found ||= bytes[start] === OPEN;
    }
    return found;
  }

  /**
   * Counts the object that opens at `start` and returns where it ends: its string values, less the envelope's, as output; its length less the
   * usual envelope as bound.
   */
  #addObject(bytes: Buffer, start: number, envelope: Envelope): number {
    let depth = 0;
    let values = 0;
    let isEnvelope = false;
    let at = start;
    for (; at < bytes.length; at++) {
      const byte = bytes[at];
      if (byte === QUOTE) {
        const end = endOfString(bytes, at + 1);
        if (bytes[afterSpace(bytes, end + 1)] === COLON) isEnvelope = envelope.keys.some((key) => isAt(key, bytes, at + 1, end));
        else if (!isEnvelope) values += end - at - 1;
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

/** UTF-8 bytes of what the model wrote in one event. */
function outputBytes(event: ModelEvent): number {
  switch (event.type) {
    case "text-delta":
    case "reasoning-delta":
    case "refusal-delta":
      return Buffer.byteLength(event.text);
    case "tool-call-start":
      return Buffer.byteLength(event.name);
    case "tool-call-delta":
      return Buffer.byteLength(event.arguments);
    // Both can hold encrypted reasoning, billed as output: no shorter than what it hides.
    case "reasoning-signature":
      return Buffer.byteLength(event.signature);
    case "reasoning-hidden":
      return Buffer.byteLength(event.data);
    case "response-start":
    case "choice-end":
    case "usage":
    case "error":
    case "response-end":
      return 0;
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
  while (bytes[at] === 0x20 || bytes[at] === 0x09 || bytes[at] === 0x0a || bytes[at] === 0x0d) at++;
  return at;
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
const OPEN = 0x7b;
const CLOSE = 0x7d;
