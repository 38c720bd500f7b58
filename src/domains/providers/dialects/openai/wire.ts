import { BOUNDS } from "../../../../kernel/bounds.ts";
import type { ModelEvent } from "../../../../kernel/events.ts";
import type { Frame, WholeBody } from "../../../../kernel/frame.ts";
import type { JsonObject } from "../../../../kernel/request.ts";
import { SseSplitter, type SseEvent } from "../sse.ts";
import { MAX_FAULT_TEXT, MalformedUpstream, UpstreamFault, parseObject, type Fault, type StreamDecoder, type Wire } from "../wire.ts";
import { describe, findFault, parseChunk, parseWhole } from "./events.ts";
import { PlainDeltas } from "./plain-deltas.ts";

/** The wire of `/v1/chat/completions`, as an upstream speaks it. */
export const openaiWire: Wire = {
  dialect: "openai",
  streamContentType: "text/event-stream",
  decoder: () => new ChunkDecoder(),
  whole: parseBody,
  fault: parseFault,
};

class ChunkDecoder implements StreamDecoder {
  readonly #splitter = new SseSplitter(BOUNDS.frameBytes);
  readonly #deltas = new PlainDeltas((payload) => new ChunkFrame({ bytes: payload, payload, name: null }, false, false).events());
  #events: SseEvent[] = [];
  #first = true;
  #finished = false;

  push(chunk: Buffer, frames: Frame[]): "more" | "done" {
    for (let at = 0; at < chunk.length;) {
      const run = this.#splitter.idle ? this.#deltas.take(chunk, at) : null;
      if (run !== null) {
        frames.push(run);
        at += run.bytes.length;
        continue;
      }
      const end = this.#deltas.learning ? endOfEvent(chunk, at) : chunk.length;
      const within = this.#splitter.push(chunk.subarray(at, end), this.#events);
      const state = this.#read(frames);
      if (!within && state === "more") throw new MalformedUpstream("an event is too large");
      if (state === "done") return "done";
      at = end;
    }
    return "more";
  }

  end(frames: Frame[]): "more" | "done" {
    this.#splitter.end(this.#events);
    return this.#read(frames);
  }

  #read(frames: Frame[]): "more" | "done" {
    const events = this.#events;
    this.#events = [];
    for (const event of events) {
      if (event.payload.equals(DONE)) {
        if (!this.#finished) throw new MalformedUpstream("it ended before a choice had finished");
        frames.push(new ChunkFrame(event, true, false));
        return "done";
      }
      frames.push(this.#chunk(event));
    }
    return "more";
  }

  #chunk(event: SseEvent): Frame {
    const { payload, name } = event;
    if (!isBraced(payload)) throw new MalformedUpstream("an event is not a JSON object");
    const notable = this.#first || name === "error" || isNotable(payload);
    const frame = new ChunkFrame(event, notable, this.#first);
    if (notable) this.#look(frame, name);
    else this.#deltas.learn(event.bytes);
    this.#first = false;
    return frame;
  }

  /** Notable frames are few; they are parsed here, because a failure must not pass as an answer. */
  #look(frame: ChunkFrame, name: string | null): void {
    const chunk = parseObject(frame.payload);
    if (chunk === null) throw new MalformedUpstream("an event is not valid JSON");
    const fault = findFault(chunk) ?? (name === "error" ? describe(chunk) : null);
    if (fault !== null) throw new UpstreamFault(fault);
    if (this.#first && !Array.isArray(chunk["choices"])) throw new MalformedUpstream("the first event is not a completion chunk");
    if (frame.read(chunk).some((event) => event.type === "choice-end")) this.#finished = true;
  }
}

/** Where the event at `from` ends, if it ends as nearly all do. */
function endOfEvent(chunk: Buffer, from: number): number {
  const blank = chunk.indexOf(BLANK, from);
  return blank === -1 ? chunk.length : blank + BLANK.length;
}

/** One event of the stream: its bytes, and its meaning when somebody asks. */
class ChunkFrame implements Frame {
  readonly bytes: Buffer;
  readonly notable: boolean;
  readonly payload: Buffer;
  readonly #first: boolean;
  #events: readonly ModelEvent[] | null = null;

  constructor(event: SseEvent, notable: boolean, first: boolean) {
    this.bytes = event.bytes;
    this.notable = notable;
    this.payload = event.payload;
    this.#first = first;
  }

  events(): readonly ModelEvent[] {
    if (this.#events !== null) return this.#events;
    if (this.payload.equals(DONE)) return (this.#events = END);
    const chunk = parseObject(this.payload);
    return chunk === null ? (this.#events = BROKEN) : this.read(chunk);
  }

  /** `events` for who has parsed the payload already. */
  read(chunk: JsonObject): readonly ModelEvent[] {
    return (this.#events ??= parseChunk(chunk, this.#first));
  }
}

function isBraced(payload: Buffer): boolean {
  let start = 0;
  let end = payload.length - 1;
  while (isSpace(payload[start])) start++;
  while (end > start && isSpace(payload[end])) end--;
  return payload[start] === OPEN && payload[end] === CLOSE;
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x09;
}

/**
 * Whether a chunk can hold anything but a delta. Keys are looked for as bytes: `"finish_reason"` and `"usage"` count unless null
 * follows, `"error"` always (its quotes cannot occur inside a JSON string), and so does an escaped ASCII character,
 * with which a key can be spelt another way.
 */
function isNotable(payload: Buffer): boolean {
  return NOTABLE.test(payload.toString("latin1"));
}

const NOTABLE = /"(?:finish_reason"\s*:\s*(?!null[\s,}])[^\s]|usage"\s*:\s*(?!null[\s,}])[^\s]|error")|\\u00[2-7]/;

function parseBody(bytes: Buffer): WholeBody {
  const completion = parseObject(bytes);
  if (completion === null) throw new MalformedUpstream("the body is not a JSON object");
  const fault = findFault(completion);
  if (fault !== null) throw new UpstreamFault(fault);
  if (!Array.isArray(completion["choices"])) throw new MalformedUpstream("the body is not a completion");
  let events: readonly ModelEvent[] | null = null;
  return { bytes, events: () => (events ??= parseWhole(completion)) };
}

function parseFault(bytes: Buffer): Fault {
  const body = parseObject(bytes);
  if (body === null) return { status: null, message: null, param: null, code: null };
  const detail = body["detail"];
  return findFault(body) ?? describe(typeof detail === "string" ? { message: detail.slice(0, MAX_FAULT_TEXT) } : body);
}

const DONE = Buffer.from("[DONE]");
const BLANK = Buffer.from("\n\n");
const OPEN = 0x7b;
const CLOSE = 0x7d;
const END: readonly ModelEvent[] = [{ type: "response-end" }];
const BROKEN: readonly ModelEvent[] = [{ type: "error", message: "the upstream sent an event that is not valid JSON" }];
