import type { FinishReason, ModelEvent } from "../../../../kernel/events.ts";
import type { Json, JsonObject } from "../../../../kernel/request.ts";
import { list, object, string } from "../read.ts";
import { MAX_FAULT_TEXT, type Fault } from "../wire.ts";
import { readReasoning } from "./reasoning.ts";
import { parseUsage } from "./usage.ts";

/**
 * One `chat.completion.chunk` as events; lenient, as with every provider. `first` adds `response-start`. An upstream that repeats a tool
 * call's id and name gives its `tool-call-start` again: same choice and index, nothing new.
 */
export function parseChunk(chunk: JsonObject, first: boolean): ModelEvent[] {
  const events: ModelEvent[] = first ? [parseStart(chunk)] : [];
  const fault = findFault(chunk);
  if (fault !== null) return [{ type: "error", message: fault.message ?? "" }];
  list(chunk["choices"]).forEach((value, position) => {
    const choice = object(value);
    parseDelta(object(choice["delta"]), index(choice["index"], position), events);
    parseFinish(choice, index(choice["index"], position), events);
  });
  const usage = parseUsage(chunk["usage"]);
  if (usage !== null) events.push({ type: "usage", usage });
  return events;
}

/** A whole `chat.completion` as events, `response-start` to `response-end`. */
export function parseWhole(completion: JsonObject): ModelEvent[] {
  const events: ModelEvent[] = [parseStart(completion)];
  list(completion["choices"]).forEach((value, position) => {
    const choice = object(value);
    parseDelta(object(choice["message"]), index(choice["index"], position), events);
    parseFinish(choice, index(choice["index"], position), events);
  });
  const usage = parseUsage(completion["usage"]);
  if (usage !== null) events.push({ type: "usage", usage });
  events.push({ type: "response-end" });
  return events;
}

/** What a body says went wrong: `error` as an object or text, vLLM's `"object":"error"`, FastAPI's `detail`; null when it says nothing of the kind. */
export function findFault(body: JsonObject): Fault | null {
  const error = body["error"];
  if (error !== undefined && error !== null && error !== false)
    return typeof error === "object" ? describe(object(error)) : describe({ message: error });
  if (body["object"] === "error") return describe(body);
  const failed = list(body["choices"]).some((choice) => FAILED.has(string(object(choice)["finish_reason"])));
  return failed ? describe({}) : null;
}

/** As much of a fault as its body tells. */
export function describe(error: JsonObject): Fault {
  const code = error["code"];
  const status = [error["status"], error["status_code"], code].find(
    (value) => typeof value === "number" && Number.isInteger(value) && value >= 400 && value < 600,
  );
  return {
    status: typeof status === "number" ? status : null,
    message: text(error["message"]),
    param: text(error["param"]),
    code: typeof code === "string" ? text(code) : text(error["type"]),
  };
}

function parseStart(body: JsonObject): ModelEvent {
  return {
    type: "response-start",
    id: text(body["id"]) ?? "",
    model: text(body["model"]) ?? "",
    createdSeconds: typeof body["created"] === "number" ? body["created"] : 0,
  };
}

/** A chunk's `delta` and a whole answer's `message` have the same fields. */
function parseDelta(delta: JsonObject, choice: number, events: ModelEvent[]): void {
  for (const piece of readReasoning(delta).pieces) {
    if (piece.kind === "signature") events.push({ type: "reasoning-signature", choice, signature: piece.signature });
    else if (piece.kind === "hidden") events.push({ type: "reasoning-hidden", choice, data: piece.data });
    else if (piece.text !== "") events.push({ type: "reasoning-delta", choice, text: piece.text });
  }
  for (const part of list(delta["content"])) parsePart(object(part), choice, events);
  if (isText(delta["content"])) events.push({ type: "text-delta", choice, text: delta["content"] });
  if (isText(delta["refusal"])) events.push({ type: "refusal-delta", choice, text: delta["refusal"] });
  list(delta["tool_calls"]).forEach((value, position) => {
    const call = object(value);
    parseToolCall(call, text(call["id"]) ?? "", choice, index(call["index"], position), events);
  });
  if (delta["function_call"] !== undefined && delta["function_call"] !== null)
    parseToolCall({ function: delta["function_call"] }, "", choice, 0, events);
}

/** Mistral's reasoning models answer in parts; one that nothing asked for cannot be retold: terminal. */
function parsePart(part: JsonObject, choice: number, events: ModelEvent[]): void {
  const thought = list(part["thinking"])
    .map((piece) => string(object(piece)["text"]))
    .join("");
  if (part["type"] === "thinking" && thought !== "") events.push({ type: "reasoning-delta", choice, text: thought });
  else if (part["type"] === "text" && isText(part["text"])) events.push({ type: "text-delta", choice, text: part["text"] });
  else if (part["type"] !== "thinking" && part["type"] !== "text")
    events.push({ type: "error", message: "the upstream sent a part of a type that was not asked for" });
}

function parseToolCall(call: JsonObject, id: string, choice: number, at: number, events: ModelEvent[]): void {
  const called = object(call["function"] ?? call["custom"]);
  const written = called["arguments"] ?? called["input"];
  if (isText(called["name"])) events.push({ type: "tool-call-start", choice, index: at, id, name: called["name"] });
  const said = typeof written === "object" && written !== null ? JSON.stringify(written) : written;
  if (isText(said)) events.push({ type: "tool-call-delta", choice, index: at, arguments: said });
}

/** vLLM says under `stop_reason`, SGLang under `matched_stop`, which of the caller's sequences ended a choice (or the id of a token). */
function parseFinish(ended: JsonObject, choice: number, events: ModelEvent[]): void {
  const said = ended["finish_reason"];
  if (!isText(said)) return;
  const reason = FINISH.get(said) ?? "stop";
  const sequence = ended["stop_reason"] ?? ended["matched_stop"];
  events.push({ type: "choice-end", choice, reason, stopSequence: reason === "stop" && isText(sequence) ? sequence : null });
}

const FINISH: ReadonlyMap<string, FinishReason> = new Map<string, FinishReason>([
  ["stop", "stop"],
  ["length", "length"],
  ["max_tokens", "length"],
  ["model_length", "length"],
  ["tool_calls", "tool_calls"],
  ["function_call", "tool_calls"],
  ["content_filter", "content_filter"],
]);
/** Reasons by which OpenRouter, vLLM and SGLang say that a choice broke off. */
const FAILED: ReadonlySet<string> = new Set(["error", "abort", "insufficient_system_resource"]);
/** Choices and tool calls of one response: an index beyond it is nonsense, taken as the position. */
const MAX_INDEX = 1024;

function index(value: Json | undefined, position: number): number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value < MAX_INDEX ? value : position;
}

function isText(value: Json | undefined): value is string {
  return typeof value === "string" && value !== "";
}

function text(value: Json | undefined): string | null {
  return isText(value) ? value.slice(0, MAX_FAULT_TEXT) : null;
}
