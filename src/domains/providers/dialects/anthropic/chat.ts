import type {
  CacheBreakpoint,
  ChatAnswerPart,
  ChatEffort,
  ChatMessage,
  ChatPart,
  ChatReasoning,
  ChatRequest,
  ChatText,
  ChatTool,
  MediaSource,
} from "../../../../kernel/chat.ts";
import { Problem } from "../../../../kernel/problem.ts";
import type { Json, JsonObject } from "../../../../kernel/request.ts";
import { exactAt, exactJson, hasInexactNumber } from "../json-text.ts";
import { list, number, object, string } from "../read.ts";
import { unsupported } from "../settings.ts";

/**
 * A checked body of `/v1/messages` in our own vocabulary, for providers without this wire. What that vocabulary cannot say
 * (citations, search results, typed client tools, …) is refused by path: Problem `unsupported_field`. `body` holds the same request:
 * numbers in the inputs of tools are taken from it as they are spelt.
 */
export function toChat(fields: JsonObject, body: Buffer): ChatRequest {
  allowOnly(fields, TRANSLATED, "");
  if (fields["max_tokens"] === 0) throw unsupported("max_tokens", "Only this dialect's own provider can fill a cache without an answer.");
  const exact = lazily(() => exactJson(body.toString("utf8")));
  const said = list(fields["messages"]).flatMap((message, index) => toMessages(object(message), `messages[${index}]`, exact));
  const choice = object(fields["tool_choice"]);
  return {
    messages: withLastBreakpoint([...toSystem(fields["system"], "system"), ...said], fields["cache_control"]),
    tools: list(fields["tools"]).map((tool, index) => toTool(object(tool), `tools[${index}]`)),
    toolChoice: toToolChoice(choice),
    parallelToolCalls: isSet(choice["disable_parallel_tool_use"]) ? choice["disable_parallel_tool_use"] !== true : null,
    responseFormat: toResponseFormat(object(fields["output_config"])),
    reasoning: toReasoning(object(fields["thinking"]), object(fields["output_config"])),
    maxOutputTokens: number(fields["max_tokens"]),
    temperature: number(fields["temperature"]),
    topP: number(fields["top_p"]),
    topK: number(fields["top_k"]),
    frequencyPenalty: null,
    presencePenalty: null,
    seed: null,
    stop: list(fields["stop_sequences"]).map(String),
    choices: 1,
    user: string(object(fields["metadata"])["user_id"]) || null,
  };
}

/** Fields that have a word in `ChatRequest`, and those whose value parseMessages found harmless. */
const TRANSLATED = [
  "cache_control",
  "max_tokens",
  "messages",
  "metadata",
  "model",
  "output_config",
  "service_tier",
  "speed",
  "stop_sequences",
  "stream",
  "system",
  "temperature",
  "thinking",
  "tool_choice",
  "tools",
  "top_k",
  "top_p",
];

function toSystem(system: Json | undefined, at: string): ChatMessage[] {
  const content = toTexts(system, at);
  return content.length === 0 ? [] : [{ role: "system", at, content }];
}

function toMessages(message: JsonObject, at: string, exact: () => Json): ChatMessage[] {
  allowOnly(message, ["role", "content"], `${at}.`);
  const { content } = message;
  switch (string(message["role"])) {
    case "system":
      return [{ role: "system", at, content: toTexts(content, `${at}.content`) }];
    case "assistant":
      return [{ role: "assistant", at, content: toAnswer(content, `${at}.content`, exact) }];
    default:
      return toUserMessages(content, at);
  }
}

/** Results of tools stand between what the user said before and after them, in the caller's order. */
function toUserMessages(content: Json | undefined, at: string): ChatMessage[] {
  if (typeof content === "string") return [{ role: "user", at, content: [plainText(content, `${at}.content`)] }];
  const messages: ChatMessage[] = [];
  let said: ChatPart[] = [];
  const flush = (): void => {
    if (said.length > 0) messages.push({ role: "user", at, content: said });
    said = [];
  };
  list(content).forEach((item, index) => {
    const block = object(item);
    const here = `${at}.content[${index}]`;
    if (block["type"] !== "tool_result") {
      said.push(toPart(block, here));
      return;
    }
    flush();
    messages.push(toToolResult(block, here));
  });
  flush();
  return messages.length === 0 ? [{ role: "user", at, content: [] }] : messages;
}

function toToolResult(block: JsonObject, at: string): ChatMessage {
  allowOnly(block, ["type", "tool_use_id", "content", "is_error", "cache_control"], `${at}.`);
  const { content } = block;
  const parts =
    typeof content === "string"
      ? [plainText(content, `${at}.content`)]
      : list(content).map((part, index) => toPart(object(part), `${at}.content[${index}]`));
  return {
    role: "tool",
    at,
    toolCallId: required(block, "tool_use_id", at),
    content: parts,
    isError: block["is_error"] === true,
    cache: toBreakpoint(block["cache_control"], `${at}.cache_control`),
  };
}

function toTexts(content: Json | undefined, at: string): ChatText[] {
  if (typeof content === "string") return [plainText(content, at)];
  return list(content).map((item, index) => {
    const block = object(item);
    if (block["type"] !== "text") throw unsupported(`${at}[${index}].type`);
    return toText(block, `${at}[${index}]`);
  });
}

function plainText(text: string, at: string): ChatText {
  return { kind: "text", at, text, cache: null };
}

function toText(block: JsonObject, at: string): ChatText {
  allowOnly(block, ["type", "text", "cache_control"], `${at}.`);
  return { kind: "text", at, text: required(block, "text", at), cache: toBreakpoint(block["cache_control"], `${at}.cache_control`) };
}

function toPart(block: JsonObject, at: string): ChatPart {
  switch (string(block["type"])) {
    case "text":
      return toText(block, at);
    case "image": {
      allowOnly(block, ["type", "source", "cache_control"], `${at}.`);
      const cache = toBreakpoint(block["cache_control"], `${at}.cache_control`);
      return { kind: "image", at, source: toSource(object(block["source"]), `${at}.source`), detail: null, cache };
    }
    case "document": {
      allowOnly(block, ["type", "source", "title", "citations", "cache_control"], `${at}.`);
      if (object(block["citations"])["enabled"] === true) throw unsupported(`${at}.citations.enabled`);
      const cache = toBreakpoint(block["cache_control"], `${at}.cache_control`);
      const name = string(block["title"]) || null;
      return { kind: "document", at, source: toSource(object(block["source"]), `${at}.source`), name, cache };
    }
    default:
      throw unsupported(`${at}.type`);
  }
}

function toSource(source: JsonObject, at: string): MediaSource {
  switch (string(source["type"])) {
    case "url":
      return { kind: "url", url: required(source, "url", at) };
    case "base64":
      return { kind: "data", mediaType: required(source, "media_type", at), base64: required(source, "data", at) };
    case "text": {
      const text = required(source, "data", at);
      if (!text.isWellFormed()) throw unsupported(`${at}.data`, "It is not valid Unicode.");
      return { kind: "data", mediaType: required(source, "media_type", at), base64: Buffer.from(text).toString("base64") };
    }
    default:
      throw unsupported(`${at}.type`);
  }
}

function toAnswer(content: Json | undefined, at: string, exact: () => Json): ChatAnswerPart[] {
  if (typeof content === "string") return [plainText(content, at)];
  return list(content).map((item, index) => toAnswerPart(object(item), `${at}[${index}]`, exact));
}

function toAnswerPart(block: JsonObject, at: string, exact: () => Json): ChatAnswerPart {
  switch (string(block["type"])) {
    case "text":
      return toText(block, at);
    case "thinking":
      allowOnly(block, ["type", "thinking", "signature"], `${at}.`);
      return { kind: "reasoning", at, text: required(block, "thinking", at), signature: string(block["signature"]) || null };
    case "redacted_thinking":
      allowOnly(block, ["type", "data"], `${at}.`);
      return { kind: "hidden-reasoning", at, data: required(block, "data", at) };
    case "tool_use": {
      allowOnly(block, ["type", "id", "name", "input", "caller", "cache_control"], `${at}.`);
      if (isSet(block["caller"]) && object(block["caller"])["type"] !== "direct") throw unsupported(`${at}.caller`);
      return {
        kind: "tool-call",
        at,
        id: required(block, "id", at),
        name: required(block, "name", at),
        arguments: inputText(object(block["input"]), at, exact),
        cache: toBreakpoint(block["cache_control"], `${at}.cache_control`),
      };
    }
    default:
      throw unsupported(`${at}.type`);
  }
}

/** The input as JSON text. Only one with numbers beyond a double's precision costs a second reading of the body. */
function inputText(input: JsonObject, at: string, exact: () => Json): string {
  if (!hasInexactNumber(input)) return JSON.stringify(input);
  return JSON.stringify(exactAt(exact(), `${at}.input`));
}

function toTool(tool: JsonObject, at: string): ChatTool {
  if (isSet(tool["type"]) && tool["type"] !== "custom") throw unsupported(`${at}.type`);
  const harmless = Object.keys(HARMLESS).filter((key) => JSON.stringify(tool[key]) === HARMLESS[key]);
  allowOnly(tool, ["type", "name", "description", "input_schema", "strict", "cache_control", ...harmless], `${at}.`);
  return {
    at,
    name: required(tool, "name", at),
    description: string(tool["description"]),
    parameters: object(tool["input_schema"]),
    strict: typeof tool["strict"] === "boolean" ? tool["strict"] : null,
    cache: toBreakpoint(tool["cache_control"], `${at}.cache_control`),
  };
}

/** What a tool may say because every upstream does so: arguments are streamed as they come. As JSON text. */
const HARMLESS: Readonly<Record<string, string>> = {
  allowed_callers: '["direct"]',
  defer_loading: "false",
  eager_input_streaming: "true",
};

function toToolChoice(choice: JsonObject): ChatRequest["toolChoice"] {
  allowOnly(choice, ["type", "name", "disable_parallel_tool_use"], "tool_choice.");
  switch (string(choice["type"])) {
    case "":
    case "auto":
      return "auto";
    case "none":
      return "none";
    case "any":
      return "required";
    case "tool":
      return { name: required(choice, "name", "tool_choice") };
    default:
      throw unsupported("tool_choice.type");
  }
}

function toReasoning(thinking: JsonObject, config: JsonObject): ChatReasoning | null {
  allowOnly(thinking, ["type", "budget_tokens"], "thinking.");
  const effort = toEffort(config["effort"]);
  if (effort !== null && thinking["type"] !== undefined && thinking["type"] !== "adaptive")
    throw unsupported("output_config.effort", "With this 'thinking' only one of the two can be said.");
  switch (string(thinking["type"])) {
    case "":
      return effort === null ? null : { kind: "effort", effort };
    case "adaptive":
      return { kind: "effort", effort };
    case "disabled":
      return { kind: "off" };
    case "enabled": {
      const tokens = number(thinking["budget_tokens"]);
      if (tokens === null) throw missing("thinking.budget_tokens");
      return { kind: "budget", tokens };
    }
    default:
      throw unsupported("thinking.type");
  }
}

function toEffort(effort: Json | undefined): ChatEffort | null {
  if (!isSet(effort)) return null;
  const known = EFFORTS.find((name) => name === effort);
  if (known === undefined) throw unsupported("output_config.effort");
  return known;
}

const EFFORTS = ["low", "medium", "high", "xhigh", "max"] as const satisfies readonly ChatEffort[];

function toResponseFormat(config: JsonObject): ChatRequest["responseFormat"] {
  allowOnly(config, ["effort", "format"], "output_config.");
  if (!isSet(config["format"])) return { kind: "text" };
  const format = object(config["format"]);
  allowOnly(format, ["type", "schema"], "output_config.format.");
  if (format["type"] !== "json_schema") throw unsupported("output_config.format.type");
  // This dialect's answers always conform.
  return { kind: "json_schema", name: null, description: null, schema: object(format["schema"]), strict: true };
}

function toBreakpoint(control: Json | undefined, at: string): CacheBreakpoint | null {
  if (!isSet(control)) return null;
  const { type, ttl, ...rest } = object(control);
  if (type !== "ephemeral") throw unsupported(`${at}.type`);
  const [other] = Object.keys(rest);
  if (other !== undefined) throw unsupported(`${at}.${other}`);
  if (!isSet(ttl)) return { ttl: "default" };
  if (ttl !== "5m" && ttl !== "1h") throw unsupported(`${at}.ttl`);
  return { ttl };
}

/** The top-level `cache_control`: a breakpoint at the request's last block that can carry one and has none. */
function withLastBreakpoint(messages: readonly ChatMessage[], control: Json | undefined): readonly ChatMessage[] {
  const cache = toBreakpoint(control, "cache_control");
  const last = messages.at(-1);
  if (cache === null || last === undefined) return messages;
  const before = messages.slice(0, -1);
  if (last.role === "tool") return [...before, { ...last, cache: last.cache ?? cache }];
  const index = last.content.findLastIndex((part) => "cache" in part && !(part.kind === "text" && part.text === ""));
  if (index === -1) throw unsupported("cache_control", "The last message has nothing that can be cached.");
  const mark = <Part extends ChatAnswerPart | ChatPart>(part: Part, at: number): Part =>
    at === index && "cache" in part ? { ...part, cache: part.cache ?? cache } : part;
  switch (last.role) {
    case "system":
      return [...before, { ...last, content: last.content.map(mark) }];
    case "user":
      return [...before, { ...last, content: last.content.map(mark) }];
    case "assistant":
      return [...before, { ...last, content: last.content.map(mark) }];
  }
}

/** Refuses, by path, the first member that has a value and that nothing here reads. */
function allowOnly(value: JsonObject, known: readonly string[], prefix: string): void {
  for (const key of Object.keys(value)) if (!known.includes(key) && isSet(value[key])) throw unsupported(`${prefix}${key}`);
}

function required(value: JsonObject, key: string, at: string): string {
  const found = value[key];
  if (typeof found !== "string") throw missing(`${at}.${key}`);
  return found;
}

function missing(param: string): Problem {
  return new Problem("invalid_request", { param, message: `'${param}' is missing.` });
}

/** Null, and an empty list or object, say nothing. */
function isSet(value: Json | undefined): value is Json {
  if (value === undefined || value === null) return false;
  return typeof value !== "object" || Object.keys(value).length > 0;
}

function lazily<T>(make: () => T): () => T {
  let made: { readonly value: T } | null = null;
  return () => (made ??= { value: make() }).value;
}
