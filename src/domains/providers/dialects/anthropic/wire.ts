import { BOUNDS } from "../../../../kernel/bounds.ts";
import type { ModelEvent } from "../../../../kernel/events.ts";
import type { Frame, WholeBody } from "../../../../kernel/frame.ts";
import { object, string } from "../read.ts";
import { SseSplitter, writeEvent, type SseEvent } from "../sse.ts";
import { MalformedUpstream, UpstreamFault, parseObject, refuseDeep, type Fault, type StreamDecoder, type Wire } from "../wire.ts";
import { deltaOf, describe, findFault, MessageReader, parseMessage, type Block } from "./events.ts";

/** The wire of `/v1/messages`, as an upstream speaks it. */
export const anthropicWire: Wire = {
  dialect: "anthropic",
  streamContentType: "text/event-stream",
  decoder: () => new MessageDecoder(),
  whole: parseBody,
  fault: parseFault,
};

/**
 * An event means what the `type` in its data says; a name that says otherwise is malformed, because clients dispatch on
 * either. An event without a name is written anew with one: the official SDK skips what has none.
 */
class MessageDecoder implements StreamDecoder {
  readonly #splitter = new SseSplitter(BOUNDS.frameBytes, true);
  readonly #reader = new MessageReader();
  #events: SseEvent[] = [];

  push(chunk: Buffer, frames: Frame[]): "more" | "done" {
    const within = this.#splitter.push(chunk, this.#events);
    const state = this.#read(frames);
    if (!within && state === "more") throw new MalformedUpstream("an event is too large");
    return state;
  }

  end(frames: Frame[]): "more" | "done" {
    this.#splitter.end(this.#events);
    return this.#read(frames);
  }

  #read(frames: Frame[]): "more" | "done" {
    const events = this.#events;
    this.#events = [];
    for (const event of events) {
      const plain = this.#plain(event);
      if (plain !== null) frames.push(plain);
      else if (this.#look(event, frames)) return "done";
    }
    return "more";
  }

  /** Nearly all events are deltas in the form that Anthropic writes: their text is not looked at until somebody asks. */
  #plain({ bytes, payload, name }: SseEvent): Frame | null {
    const [head, index, deltaType] = PLAIN.exec(payload.toString("latin1", 0, PLAIN_HEAD_BYTES)) ?? [];
    if (head === undefined || deltaType === undefined || !endsPlainly(payload, head.length)) return null;
    checkName(name, DELTA);
    const block = this.#reader.openBlock(Number(index), deltaType);
    if (payload[head.length] !== QUOTE) block.input = null;
    return new DeltaFrame(name === null ? writeEvent(DELTA, lines(payload)) : bytes, payload, block);
  }

  /** All others are few, and read at once, because a failure must not pass as an answer. True for the end. */
  #look({ bytes, payload, name }: SseEvent, frames: Frame[]): boolean {
    const event = parseObject(payload);
    if (event === null) throw new MalformedUpstream("an event is not a JSON object");
    const fault = findFault(event) ?? (name === "error" ? describe(event) : null);
    if (fault !== null) throw new UpstreamFault(fault);
    const type = string(event["type"]);
    if (!EVENT_TYPE.test(type)) throw new MalformedUpstream("an event without a type");
    checkName(name, type);
    const events = this.#reader.read(type, event, payload);
    // Before the message began there is nothing to keep alive, and a first frame would count as an answer.
    if (this.#reader.begun) frames.push(new ReadFrame(name === null ? writeEvent(type, lines(payload)) : bytes, events));
    return type === "message_stop";
  }
}

/** A delta whose bytes are known to be nothing else. */
class DeltaFrame implements Frame {
  readonly bytes: Buffer;
  readonly notable = false;
  readonly #payload: Buffer;
  readonly #block: Block;
  #events: readonly ModelEvent[] | null = null;

  constructor(bytes: Buffer, payload: Buffer, block: Block) {
    this.bytes = bytes;
    this.#payload = payload;
    this.#block = block;
  }

  events(): readonly ModelEvent[] {
    if (this.#events !== null) return this.#events;
    const event = parseObject(this.#payload);
    return (this.#events = event === null ? BROKEN : deltaOf(object(event["delta"]), this.#block));
  }
}

/** An event that was read as it came. */
class ReadFrame implements Frame {
  readonly bytes: Buffer;
  readonly notable = true;
  readonly #events: readonly ModelEvent[];

  constructor(bytes: Buffer, events: readonly ModelEvent[]) {
    this.bytes = bytes;
    this.#events = events;
  }

  events(): readonly ModelEvent[] {
    return this.#events;
  }
}

function checkName(name: string | null, type: string): void {
  if (name !== null && name !== type) throw new MalformedUpstream("an event's name is not its type");
}

/** Whether the string that `start` is inside of ends the innermost of two objects, and nothing follows but space. */
function endsPlainly(payload: Buffer, start: number): boolean {
  let end = payload.indexOf(QUOTE, start);
  while (end !== -1 && isEscaped(payload, end)) end = payload.indexOf(QUOTE, end + 1);
  return end !== -1 && CLOSED.test(payload.toString("latin1", end + 1));
}

function isEscaped(payload: Buffer, at: number): boolean {
  let backslashes = 0;
  while (payload[at - 1 - backslashes] === BACKSLASH) backslashes++;
  return backslashes % 2 === 1;
}

function parseBody(bytes: Buffer): WholeBody {
  const message = parseObject(bytes);
  if (message === null) throw new MalformedUpstream("the body is not a JSON object");
  const fault = findFault(message);
  if (fault !== null) throw new UpstreamFault(fault);
  if (!Array.isArray(message["content"])) throw new MalformedUpstream("the body is not a message");
  if (typeof message["stop_reason"] !== "string") throw new MalformedUpstream("a message without a stop reason");
  refuseDeep(message["content"]);
  let events: readonly ModelEvent[] | null = null;
  return { bytes, events: () => (events ??= parseMessage(message, bytes)) };
}

function parseFault(bytes: Buffer): Fault {
  const body = parseObject(bytes);
  return body === null ? NO_FAULT : (findFault(body) ?? describe(body));
}

/** Between tokens JSON may hold line ends; each is a `data` line of its own. */
function lines(payload: Buffer): Buffer[] {
  return payload
    .toString("utf8")
    .split("\n")
    .map((line) => Buffer.from(line));
}

const DELTA = "content_block_delta";
const PLAIN =
  /^\{"type": ?"content_block_delta", ?"index": ?(\d{1,5}), ?"delta": ?\{"type": ?"(text(?=_delta", ?"text")|thinking(?=_delta", ?"thinking")|input_json(?=_delta", ?"partial_json"))_delta", ?"\w+": ?"/;
/** The longest head that PLAIN takes is shorter. */
const PLAIN_HEAD_BYTES = 128;
const CLOSED = /^ *\} *\} *$/;
const EVENT_TYPE = /^[\w.-]{1,56}$/;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const BROKEN: readonly ModelEvent[] = [{ type: "error", message: "the upstream sent an event that is not valid JSON" }];
const NO_FAULT: Fault = { status: null, message: null, param: null, code: null };
