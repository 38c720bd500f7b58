import type { FinishReason, ModelEvent } from "../../../../kernel/events.ts";
import type { Json, JsonObject } from "../../../../kernel/request.ts";
import { exactJson, hasInexactNumber } from "../json-text.ts";
import { list, number, object, string } from "../read.ts";
import { MAX_FAULT_TEXT, MalformedUpstream, refuseDeep, type Fault } from "../wire.ts";
import { mergeUsage, parseUsage } from "./usage.ts";

/** A content block of the message, as far as its deltas must be understood. */
export interface Block {
  readonly kind: "text" | "thinking" | "tool" | "hidden" | "other";
  /** Counts the message's tool calls; 0 for other kinds. */
  readonly tool: number;
  open: boolean;
  /** What the arguments are if no delta says any: JSON text; null for other kinds, and once a delta has said some. */
  input: string | null;
}

/**
 * One message's stream, read event by event (`RawMessageStreamEvent` of the SDK's messages.d.ts). What a client of the SDK
 * would put together wrongly is malformed: a block that is not the next, a delta for a block that is not open or of another
 * kind, an end with a block open or without a stop reason. Event and delta types that are not known say nothing to us.
 */
export class MessageReader {
  readonly #blocks: Block[] = [];
  #tools = 0;
  #begun = false;
  #usage: JsonObject = {};
  #stopReason: string | null = null;

  get begun(): boolean {
    return this.#begun;
  }

  /** The block that a delta may go to; `deltaType` is less its `_delta`. */
  openBlock(index: number, deltaType: string): Block {
    const block = this.#blocks[index];
    if (block === undefined || !block.open) throw new MalformedUpstream("a delta of a block that is not open");
    const kind = KIND_OF_DELTA.get(deltaType);
    if (kind !== undefined && kind !== block.kind && block.kind !== "other")
      throw new MalformedUpstream("a delta of another kind than its block");
    return block;
  }

  /** `payload` is what `event` was parsed from. @throws MalformedUpstream */
  read(type: string, event: JsonObject, payload: Buffer): ModelEvent[] {
    if (!this.#begun && type !== "message_start" && OF_A_MESSAGE.has(type))
      throw new MalformedUpstream("a message went on that had not begun");
    switch (type) {
      case "message_start":
        return this.#start(event);
      case "content_block_start":
        return this.#startBlock(event, payload);
      case "content_block_delta":
        return this.#delta(event);
      case "content_block_stop":
        return this.#stopBlock(event);
      case "message_delta":
        return this.#end(event);
      case "message_stop":
        if (this.#stopReason === null) throw new MalformedUpstream("it ended without a stop reason");
        if (this.#blocks.some((block) => block.open)) throw new MalformedUpstream("it ended inside a block");
        return [{ type: "response-end" }];
      default:
        return [];
    }
  }

  #start(event: JsonObject): ModelEvent[] {
    const message = object(event["message"]);
    if (this.#begun) throw new MalformedUpstream("a second message began");
    if (!isEmptyList(message["content"] ?? [])) throw new MalformedUpstream("a message began with content");
    this.#begun = true;
    return [startOf(message), ...this.#used(message["usage"])];
  }

  #startBlock(event: JsonObject, payload: Buffer): ModelEvent[] {
    if (event["index"] !== this.#blocks.length || this.#blocks.length >= MAX_BLOCKS)
      throw new MalformedUpstream("a block that is not the next");
    if (this.#stopReason !== null) throw new MalformedUpstream("a block after the stop reason");
    const content = object(event["content_block"]);
    refuseDeep(content);
    const kind = KIND_OF_BLOCK.get(string(content["type"])) ?? "other";
    const exact = (): Json | undefined => object(exactJson(payload.toString("utf8")))["content_block"];
    const block = { kind, tool: kind === "tool" ? this.#tools++ : 0, open: true, input: kind === "tool" ? inputOf(content, exact) : null };
    this.#blocks.push(block);
    return contentOf(content, block);
  }

  #delta(event: JsonObject): ModelEvent[] {
    const delta = object(event["delta"]);
    return deltaOf(delta, this.openBlock(number(event["index"]) ?? -1, string(delta["type"]).replace(/_delta$/, "")));
  }

  #stopBlock(event: JsonObject): ModelEvent[] {
    const block = this.#blocks[number(event["index"]) ?? -1];
    if (block === undefined || !block.open) throw new MalformedUpstream("the end of a block that is not open");
    block.open = false;
    return block.input === null ? [] : argumentsOf(block, block.input);
  }

  /** A stop reason may be said again, not changed. */
  #end(event: JsonObject): ModelEvent[] {
    const delta = object(event["delta"]);
    // Without a figure for the output the last one is of the message's beginning, and must not pass for the whole's.
    const used = number(object(event["usage"])["output_tokens"]) === null ? [] : this.#used(event["usage"]);
    const reason = delta["stop_reason"];
    if (typeof reason !== "string" || reason === this.#stopReason) return used;
    if (this.#stopReason !== null) throw new MalformedUpstream("a second stop reason");
    this.#stopReason = reason;
    return [...endOf(delta), ...used];
  }

  #used(reported: Json | undefined): ModelEvent[] {
    this.#usage = mergeUsage(this.#usage, reported);
    const usage = parseUsage(this.#usage);
    return usage === null ? [] : [{ type: "usage", usage }];
  }
}

/** A whole `Message` as events, `response-start` to `response-end`; `bytes` are what it was parsed from. */
export function parseMessage(message: JsonObject, bytes: Buffer): ModelEvent[] {
  const events: ModelEvent[] = [startOf(message)];
  let tools = 0;
  const exact = (position: number): Json | undefined => list(object(exactJson(bytes.toString("utf8")))["content"])[position];
  for (const [position, value] of list(message["content"]).entries()) {
    const content = object(value);
    const kind = KIND_OF_BLOCK.get(string(content["type"])) ?? "other";
    const block = { kind, tool: kind === "tool" ? tools++ : 0, open: true, input: null };
    events.push(
      ...contentOf(content, block),
      ...(kind === "tool"
        ? argumentsOf(
            block,
            inputOf(content, () => exact(position)),
          )
        : []),
    );
  }
  const usage = parseUsage(message["usage"]);
  events.push(...endOf(message));
  if (usage !== null) events.push({ type: "usage", usage });
  events.push({ type: "response-end" });
  return events;
}

/** What a delta says of its block; nothing for an empty one, one of a type that is not known, or of a block that cannot be retold. @throws MalformedUpstream */
export function deltaOf(delta: JsonObject, block: Block): ModelEvent[] {
  if (block.kind === "other") return [];
  switch (string(delta["type"])) {
    case "text_delta":
      return textOf("text-delta", saidIn(delta, "text"));
    case "thinking_delta":
      return textOf("reasoning-delta", saidIn(delta, "thinking"));
    case "signature_delta":
      return signatureOf(saidIn(delta, "signature"));
    case "input_json_delta":
      return argumentsOf(block, saidIn(delta, "partial_json"));
    default:
      return [];
  }
}

/** The official SDK appends what is there, unlooked at: of a delta that says nothing it makes the text "undefined". */
function saidIn(delta: JsonObject, key: string): string {
  const said = delta[key];
  if (typeof said !== "string") throw new MalformedUpstream("a delta that says nothing");
  return said;
}

function textOf(type: "text-delta" | "reasoning-delta", text: Json | undefined): ModelEvent[] {
  return typeof text === "string" && text !== "" ? [{ type, choice: 0, text }] : [];
}

function argumentsOf(block: Block, written: string): ModelEvent[] {
  if (written === "") return [];
  block.input = null;
  return [{ type: "tool-call-delta", choice: 0, index: block.tool, arguments: written }];
}

/** What a body says went wrong: `{"type":"error","error":{…}}`, or an `error` of any other shape; null when it says nothing of the kind. */
export function findFault(body: JsonObject): Fault | null {
  const error = body["error"];
  if (body["type"] !== "error" && (error === undefined || error === null || error === false)) return null;
  return typeof error === "string" ? describe({ message: error }) : describe(object(error));
}

/** As much of a fault as its body tells. */
export function describe(error: JsonObject): Fault {
  const type = string(error["type"]);
  return {
    status: STATUS_OF_ERROR.get(type) ?? null,
    message: string(error["message"]).slice(0, MAX_FAULT_TEXT) || null,
    param: null,
    code: type.slice(0, MAX_FAULT_TEXT) || null,
  };
}

/** Anthropic's answers bear no date: 0. */
function startOf(message: JsonObject): ModelEvent {
  return {
    type: "response-start",
    id: string(message["id"]).slice(0, MAX_FAULT_TEXT),
    model: string(message["model"]).slice(0, MAX_FAULT_TEXT),
    createdSeconds: 0,
  };
}

/** What a block says as it starts: in a stream usually nothing yet. A block that no request of ours asks for cannot be retold: terminal. */
function contentOf(content: JsonObject, block: Block): ModelEvent[] {
  switch (block.kind) {
    case "text":
      return textOf("text-delta", content["text"]);
    case "thinking":
      return [...textOf("reasoning-delta", content["thinking"]), ...signatureOf(content["signature"])];
    case "hidden":
      return [{ type: "reasoning-hidden", choice: 0, data: string(content["data"]) }];
    case "tool":
      return [{ type: "tool-call-start", choice: 0, index: block.tool, id: string(content["id"]), name: string(content["name"]) }];
    case "other":
      return [{ type: "error", message: "the upstream sent a content block of a type that was not asked for" }];
    default:
      return block.kind satisfies never;
  }
}

function signatureOf(signature: Json | undefined): ModelEvent[] {
  return typeof signature === "string" && signature !== "" ? [{ type: "reasoning-signature", choice: 0, signature }] : [];
}

/** A tool's input as JSON text. Where its numbers may be spelt otherwise than as they came, `exact` gives the block that keeps them. */
function inputOf(content: JsonObject, exact: () => Json | undefined): string {
  const input = hasInexactNumber(content["input"]) ? object(exact())["input"] : content["input"];
  return JSON.stringify(input ?? {});
}

/** `delta` of a `message_delta` and a whole message have the same fields. */
function endOf(said: JsonObject): ModelEvent[] {
  const reason = string(said["stop_reason"]);
  const sequence = said["stop_sequence"];
  const explanation = reason === "refusal" ? string(object(said["stop_details"])["explanation"]) : "";
  return [
    ...(explanation === "" ? [] : [{ type: "refusal-delta" as const, choice: 0, text: explanation }]),
    {
      type: "choice-end",
      choice: 0,
      reason: FINISH.get(reason) ?? "stop",
      stopSequence: typeof sequence === "string" && sequence !== "" ? sequence : null,
    },
  ];
}

function isEmptyList(value: Json): boolean {
  return Array.isArray(value) && value.length === 0;
}

/** `StopReason` of the SDK's messages.d.ts. A paused turn is not finished, and must not look so: it may be continued, as one cut by length. */
const FINISH: ReadonlyMap<string, FinishReason> = new Map<string, FinishReason>([
  ["end_turn", "stop"],
  ["stop_sequence", "stop"],
  ["max_tokens", "length"],
  ["model_context_window_exceeded", "length"],
  ["pause_turn", "length"],
  ["tool_use", "tool_calls"],
  ["refusal", "content_filter"],
]);
const KIND_OF_BLOCK: ReadonlyMap<string, Block["kind"]> = new Map<string, Block["kind"]>([
  ["text", "text"],
  ["thinking", "thinking"],
  ["redacted_thinking", "hidden"],
  ["tool_use", "tool"],
]);
const KIND_OF_DELTA: ReadonlyMap<string, Block["kind"]> = new Map<string, Block["kind"]>([
  ["text", "text"],
  ["citations", "text"],
  ["thinking", "thinking"],
  ["signature", "thinking"],
  ["input_json", "tool"],
]);
const OF_A_MESSAGE: ReadonlySet<string> = new Set([
  "content_block_start",
  "content_block_delta",
  "content_block_stop",
  "message_delta",
  "message_stop",
]);
/** The HTTP status that each error type goes with, for those inside a stream of status 200 (the SDK's core/error and shared.d.ts). */
const STATUS_OF_ERROR: ReadonlyMap<string, number> = new Map([
  ["invalid_request_error", 400],
  ["authentication_error", 401],
  ["billing_error", 402],
  ["permission_error", 403],
  ["not_found_error", 404],
  ["request_too_large", 413],
  ["rate_limit_error", 429],
  ["api_error", 500],
  ["timeout_error", 504],
  ["overloaded_error", 529],
]);
/** Content blocks of one message: more is nonsense. */
const MAX_BLOCKS = 10_000;
