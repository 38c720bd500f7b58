import type {
  CacheBreakpoint,
  ChatAnswerPart,
  ChatMessage,
  ChatPart,
  ChatReasoningPart,
  ChatRefusal,
  ChatText,
  ChatToolCall,
  MediaSource,
} from "../../../../kernel/chat.ts";
import type { Json, JsonObject } from "../../../../kernel/request.ts";
import { list, object, string } from "../read.ts";
import { unsupported } from "../settings.ts";
import { readReasoning } from "./reasoning.ts";

/**
 * One checked message of `/v1/chat/completions` in our own vocabulary; `at` is its path. Every member is read, says nothing (null,
 * an empty list), or is refused by its path: Problem `unsupported_field`.
 */
export function toMessage(message: JsonObject, at: string): ChatMessage {
  const content = message["content"];
  switch (string(message["role"])) {
    case "developer":
    case "system":
      refuseOthers(message, PLAIN_MEMBERS, at);
      return { role: "system", at, content: toParts(content, `${at}.content`, toText) };
    case "user":
      refuseOthers(message, PLAIN_MEMBERS, at);
      return { role: "user", at, content: toParts(content, `${at}.content`, toPart) };
    case "tool":
      refuseOthers(message, TOOL_MEMBERS, at);
      return {
        role: "tool",
        at,
        toolCallId: string(message["tool_call_id"]),
        content: toParts(content, `${at}.content`, toText),
        isError: false,
        cache: null,
      };
    case "assistant":
      refuseOthers(message, ASSISTANT_MEMBERS, at);
      return { role: "assistant", at, content: toAnswer(message, at) };
    default:
      throw unsupported(`${at}.role`);
  }
}

/** Refuses a member that no reader knows and that says something. */
export function refuseOthers(value: JsonObject, known: ReadonlySet<string>, at: string): void {
  for (const [key, member] of Object.entries(value)) {
    if (known.has(key) || member === null || member === undefined || (Array.isArray(member) && member.length === 0)) continue;
    throw unsupported(`${at}.${key}`);
  }
}

const PLAIN_MEMBERS: ReadonlySet<string> = new Set(["role", "content"]);
/** Some clients repeat the tool's name in its result; the call that it answers has it. */
const TOOL_MEMBERS: ReadonlySet<string> = new Set(["role", "content", "tool_call_id", "name"]);
const ASSISTANT_MEMBERS: ReadonlySet<string> = new Set([
  "role",
  "content",
  "refusal",
  "tool_calls",
  "reasoning",
  "reasoning_content",
  "reasoning_details",
]);

/** Reasoning, text and calls, in this order: the dialect keeps each apart and has no order among them. */
function toAnswer(message: JsonObject, at: string): ChatAnswerPart[] {
  const refusal = string(message["refusal"]);
  return [
    ...toReasoning(message, at),
    ...toParts(message["content"], `${at}.content`, toTextOrRefusal),
    ...(refusal === "" ? [] : [{ kind: "refusal" as const, at: `${at}.refusal`, text: refusal }]),
    ...list(message["tool_calls"]).map((call, index) => toToolCall(object(call), `${at}.tool_calls[${index}]`)),
  ];
}

/** Pieces of one block, as a stream gave them, are one part: they share an index, or only sign the text before them. */
function toReasoning(message: JsonObject, at: string): ChatAnswerPart[] {
  const { pieces, unknown } = readReasoning(message);
  if (unknown !== null) throw unsupported(`${at}.${unknown}`);
  const parts: ChatAnswerPart[] = [];
  let open: { readonly part: ChatReasoningPart; readonly index: number | null } | null = null;
  for (const piece of pieces) {
    const path = `${at}.${piece.at}`;
    if (piece.kind === "hidden") {
      parts.push({ kind: "hidden-reasoning", at: path, data: piece.data });
      open = null;
      continue;
    }
    const continues = open !== null && (piece.kind === "signature" || (piece.index !== null && piece.index === open.index));
    const before: ChatReasoningPart = open !== null && continues ? open.part : { kind: "reasoning", at: path, text: "", signature: null };
    const part = piece.kind === "text" ? { ...before, text: before.text + piece.text } : { ...before, signature: piece.signature };
    if (continues) parts.pop();
    parts.push(part);
    open = piece.kind === "text" ? { part, index: piece.index } : null;
  }
  return parts;
}

function toParts<Part>(content: Json | undefined, at: string, toPartOf: (part: JsonObject, at: string) => Part): (Part | ChatText)[] {
  if (Array.isArray(content)) return content.map((part: Json, index) => toPartOf(object(part), `${at}[${index}]`));
  return content === "" || typeof content !== "string" ? [] : [{ kind: "text", at, text: content, cache: null }];
}

function toPart(part: JsonObject, at: string): ChatPart {
  if (part["type"] === "image_url") return toImage(part, at);
  if (part["type"] === "file") return toDocument(part, at);
  return toText(part, at);
}

function toText(part: JsonObject, at: string): ChatText {
  if (part["type"] !== "text") throw unsupported(`${at}.type`);
  refuseOthers(part, TEXT_MEMBERS, at);
  return { kind: "text", at, text: string(part["text"]), cache: toCache(part, at) };
}

function toTextOrRefusal(part: JsonObject, at: string): ChatText | ChatRefusal {
  if (part["type"] !== "refusal") return toText(part, at);
  refuseOthers(part, REFUSAL_MEMBERS, at);
  return { kind: "refusal", at, text: string(part["refusal"]) };
}

function toImage(part: JsonObject, at: string): ChatPart {
  refuseOthers(part, IMAGE_MEMBERS, at);
  const image = typeof part["image_url"] === "string" ? { url: part["image_url"] } : object(part["image_url"]);
  refuseOthers(image, IMAGE_URL_MEMBERS, `${at}.image_url`);
  const detail = image["detail"] ?? null;
  if (detail !== null && detail !== "auto" && detail !== "low" && detail !== "high") throw unsupported(`${at}.image_url.detail`);
  const url = string(image["url"]);
  const source: MediaSource = isDataUrl(url) ? toData(url, `${at}.image_url.url`) : { kind: "url", url };
  return { kind: "image", at, source, detail, cache: toCache(part, at) };
}

/** `file_data` is a data: URL; bare base64 is taken as PDF, the one type that the dialect takes without naming it. */
function toDocument(part: JsonObject, at: string): ChatPart {
  refuseOthers(part, FILE_MEMBERS, at);
  const file = object(part["file"]);
  refuseOthers(file, FILE_DATA_MEMBERS, `${at}.file`);
  const data = file["file_data"];
  if (typeof data !== "string") throw unsupported(`${at}.file`, "Send the file as 'file_data'.");
  const name = string(file["filename"]);
  return {
    kind: "document",
    at,
    source: isDataUrl(data) ? toData(data, `${at}.file.file_data`) : { kind: "data", mediaType: "application/pdf", base64: data },
    name: name === "" ? null : name,
    cache: toCache(part, at),
  };
}

function isDataUrl(url: string): boolean {
  return /^data:/i.test(url);
}

function toData(url: string, at: string): MediaSource {
  const comma = url.indexOf(",");
  const head = /^data:([^,;]+);base64$/i.exec(url.slice(0, Math.max(0, comma)));
  if (head?.[1] === undefined) throw unsupported(at, "Send it as 'data:<media type>;base64,<data>'.");
  return { kind: "data", mediaType: head[1].toLowerCase(), base64: url.slice(comma + 1) };
}

/** OpenAI's `prompt_cache_breakpoint` (completions.d.ts), or `cache_control` as OpenRouter takes it in this dialect. */
function toCache(part: JsonObject, at: string): CacheBreakpoint | null {
  for (const [key, mode, lifetimes] of BREAKPOINTS) {
    const given = part[key];
    if (given === undefined || given === null) continue;
    const { [mode.member]: said, ttl = null, ...rest } = object(given);
    refuseOthers(rest, NOTHING, `${at}.${key}`);
    if (said !== mode.value) throw unsupported(`${at}.${key}.${mode.member}`);
    if (ttl === null) return { ttl: "default" };
    const lifetime = lifetimes.find((known) => known === ttl);
    if (lifetime === undefined) throw unsupported(`${at}.${key}.ttl`);
    return { ttl: lifetime };
  }
  return null;
}

const BREAKPOINTS: readonly (readonly [
  key: string,
  mode: { readonly member: string; readonly value: string },
  lifetimes: readonly CacheBreakpoint["ttl"][],
])[] = [
  ["prompt_cache_breakpoint", { member: "mode", value: "explicit" }, ["30m", "12h"]],
  ["cache_control", { member: "type", value: "ephemeral" }, ["5m", "1h"]],
];

function toToolCall(call: JsonObject, at: string): ChatToolCall {
  const called = call["function"];
  if (called === undefined || called === null) throw unsupported(`${at}.type`);
  refuseOthers(call, CALL_MEMBERS, at);
  const { name, arguments: written } = object(called);
  refuseOthers(object(called), CALLED_MEMBERS, `${at}.function`);
  return { kind: "tool-call", at, id: string(call["id"]), name: string(name), arguments: string(written), cache: null };
}

const NOTHING: ReadonlySet<string> = new Set();
const CACHED = ["prompt_cache_breakpoint", "cache_control"] as const;
const TEXT_MEMBERS: ReadonlySet<string> = new Set(["type", "text", ...CACHED]);
const REFUSAL_MEMBERS: ReadonlySet<string> = new Set(["type", "refusal"]);
const IMAGE_MEMBERS: ReadonlySet<string> = new Set(["type", "image_url", ...CACHED]);
const IMAGE_URL_MEMBERS: ReadonlySet<string> = new Set(["url", "detail"]);
const FILE_MEMBERS: ReadonlySet<string> = new Set(["type", "file", ...CACHED]);
const FILE_DATA_MEMBERS: ReadonlySet<string> = new Set(["file_data", "filename"]);
/** Clients that gather a stream keep the call's `index`. */
const CALL_MEMBERS: ReadonlySet<string> = new Set(["id", "type", "function", "index"]);
const CALLED_MEMBERS: ReadonlySet<string> = new Set(["name", "arguments"]);
