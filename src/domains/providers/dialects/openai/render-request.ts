import type {
  CacheBreakpoint,
  ChatAnswerPart,
  ChatMessage,
  ChatPart,
  ChatReasoning,
  ChatRefusal,
  ChatRequest,
  ChatResponseFormat,
  ChatSetting,
  ChatText,
  ChatTool,
  ChatToolCall,
  MediaSource,
} from "../../../../kernel/chat.ts";
import type { Json, JsonObject, ModelRequest } from "../../../../kernel/request.ts";
import { exactChat } from "../exact-chat.ts";
import { settingName, unsupported } from "../settings.ts";
import { MAX_STOPS } from "./fields.ts";

/** What not every upstream of this dialect takes. */
export interface Extensions {
  /**
   * The form in which reasoning of earlier answers goes back: `reasoning_content`, or OpenRouter's `reasoning_details` with signatures.
   * Null: nowhere. It is then left out, as is what a form has no place for: only who wrote it could read it, and a
   * conversation that changes models must go on.
   */
  readonly earlierReasoning: "content" | "details" | null;
  /** The form of cache breakpoints; null where prefixes are cached unasked. They are then left out: they change costs, never an answer. */
  readonly cacheBreakpoints: "prompt_cache_breakpoint" | "cache_control" | null;
  readonly topK: boolean;
}

/**
 * A request of another dialect as the JSON bytes of a chat completion. What this dialect cannot say is refused by the caller's own
 * name or path: Problem `unsupported_field`. Three things change their form: an answer's reasoning, text and calls are said
 * in this order; a failed tool is told from its text; a breakpoint's lifetime becomes the next longer one.
 */
export function renderChatCompletion(request: ModelRequest, takes: Extensions): Buffer {
  const chat = exactChat(request);
  const refuse = (setting: ChatSetting, why: string): never => {
    throw unsupported(settingName(request.dialect, setting), why);
  };
  if (chat.topK !== null && !takes.topK) refuse("topK", "It knows no such limit; leave it out.");
  if (chat.stop.length > MAX_STOPS) refuse("stop", `It takes at most ${MAX_STOPS}.`);
  if (chat.reasoning?.kind === "budget") refuse("reasoning", "It takes an effort, not a budget in tokens.");
  const body: JsonObject = {
    model: request.model,
    messages: chat.messages.map((message) => renderMessage(message, takes)),
    ...(request.stream ? { stream: true, stream_options: { include_usage: true } } : {}),
    ...renderTools(chat),
    response_format: renderFormat(chat.responseFormat),
    reasoning_effort: renderEffort(chat.reasoning),
    max_completion_tokens: chat.maxOutputTokens ?? undefined,
    temperature: chat.temperature ?? undefined,
    top_p: chat.topP ?? undefined,
    top_k: chat.topK ?? undefined,
    frequency_penalty: chat.frequencyPenalty ?? undefined,
    presence_penalty: chat.presencePenalty ?? undefined,
    seed: chat.seed ?? undefined,
    stop: chat.stop.length === 0 ? undefined : chat.stop,
    n: chat.choices === 1 ? undefined : chat.choices,
    user: chat.user ?? undefined,
  };
  return Buffer.from(JSON.stringify(body));
}

/** `auto` is what upstreams do unasked, and they refuse a choice where there are no tools. */
function renderTools({ tools, toolChoice, parallelToolCalls }: ChatRequest): JsonObject {
  const isAsked = toolChoice !== "auto" && (toolChoice !== "none" || tools.length > 0);
  return {
    tools: tools.length === 0 ? undefined : tools.map(renderTool),
    tool_choice: !isAsked ? undefined : typeof toolChoice === "object" ? { type: "function", function: toolChoice } : toolChoice,
    parallel_tool_calls: parallelToolCalls ?? undefined,
  };
}

/** A breakpoint after a tool has no place in this dialect. */
function renderTool({ name, description, parameters, strict }: ChatTool): JsonObject {
  return {
    type: "function",
    function: {
      name,
      description: description === "" ? undefined : description,
      parameters: Object.keys(parameters).length === 0 ? undefined : parameters,
      strict: strict ?? undefined,
    },
  };
}

function renderFormat(format: ChatResponseFormat): JsonObject | undefined {
  if (format.kind === "text") return undefined;
  if (format.kind === "json") return { type: "json_object" };
  const { name, description, schema, strict } = format;
  return {
    type: "json_schema",
    json_schema: { name: name ?? UNNAMED_SCHEMA, description: description ?? undefined, schema, strict: strict ?? undefined },
  };
}

/** The dialect demands a name, others have none. */
const UNNAMED_SCHEMA = "answer";

/** An effort that the model is to choose is what it does unasked. */
function renderEffort(reasoning: ChatReasoning | null): string | undefined {
  if (reasoning?.kind === "off") return "none";
  return reasoning?.kind === "effort" ? (reasoning.effort ?? undefined) : undefined;
}

function renderMessage(message: ChatMessage, takes: Extensions): JsonObject {
  switch (message.role) {
    case "system":
    case "user":
      return { role: message.role, content: renderContent(message.content, takes) };
    case "tool":
      return { role: "tool", tool_call_id: message.toolCallId, content: renderContent(toResult(message), takes) };
    case "assistant":
      return renderAnswer(message.content, takes);
    default:
      return message satisfies never;
  }
}

/** A result is text alone here. Its breakpoint is one at the end of that text. */
function toResult({ at, content, cache, isError }: Extract<ChatMessage, { readonly role: "tool" }>): ChatText[] {
  const texts = content.map((part) => {
    if (part.kind !== "text") throw unsupported(part.at, "A tool's result can only be text there.");
    return part;
  });
  if (isError && texts.every(({ text }) => text === ""))
    throw unsupported(`${at}.is_error`, "Say in the result's text that the tool failed, and how.");
  return texts.map((part, index) => (index === texts.length - 1 ? { ...part, cache: part.cache ?? cache } : part));
}

function renderAnswer(content: readonly ChatAnswerPart[], takes: Extensions): JsonObject {
  const said = content.filter((part) => part.kind === "text" || part.kind === "refusal");
  const calls = content.filter((part) => part.kind === "tool-call");
  const [only] = said;
  const isRefusal = said.length === 1 && only?.kind === "refusal" && only.text !== "";
  return {
    role: "assistant",
    ...renderReasoning(content, takes),
    content: isRefusal || (said.length === 0 && calls.length > 0) ? null : renderContent(said, takes),
    refusal: isRefusal ? only.text : undefined,
    tool_calls: calls.length === 0 ? undefined : calls.map(renderCall),
  };
}

function renderReasoning(content: readonly ChatAnswerPart[], { earlierReasoning }: Extensions): JsonObject {
  if (earlierReasoning === "content") {
    const text = content.map((part) => (part.kind === "reasoning" ? part.text : "")).join("");
    return text === "" ? {} : { reasoning_content: text };
  }
  if (earlierReasoning === null) return {};
  const details = content.flatMap((part): JsonObject[] => {
    if (part.kind === "hidden-reasoning") return [{ type: "reasoning.encrypted", data: part.data }];
    return part.kind === "reasoning" ? [{ type: "reasoning.text", text: part.text, signature: part.signature ?? undefined }] : [];
  });
  return details.length === 0 ? {} : { reasoning_details: details.map((detail, index) => ({ ...detail, index })) };
}

/** A breakpoint after a call has no place in this dialect. */
function renderCall({ id, name, arguments: written }: ChatToolCall): JsonObject {
  return { id, type: "function", function: { name, arguments: written } };
}

/** One text is a string: every upstream takes that, and some take no lists outside a user's message. */
function renderContent(parts: readonly (ChatPart | ChatRefusal)[], takes: Extensions): Json {
  const [only] = parts;
  if (only === undefined) return "";
  if (parts.length > 1 || only.kind !== "text" || only.text === "") return parts.map((part) => renderPart(part, takes));
  const rendered = renderPart(only, takes);
  return Object.keys(rendered).length === 2 ? only.text : [rendered];
}

function renderPart(part: ChatPart | ChatRefusal, takes: Extensions): JsonObject {
  switch (part.kind) {
    case "refusal":
      return { type: "refusal", refusal: part.text };
    case "text":
      return { type: "text", text: part.text, ...renderCache(part, takes) };
    case "image":
      return { type: "image_url", image_url: { url: urlOf(part.source), detail: part.detail ?? undefined }, ...renderCache(part, takes) };
    case "document":
      if (part.source.kind === "url") throw unsupported(part.at, "A document must come inline there, as base64.");
      return {
        type: "file",
        file: { filename: part.name ?? UNNAMED_FILES.get(part.source.mediaType) ?? "document", file_data: urlOf(part.source) },
        ...renderCache(part, takes),
      };
    default:
      return part satisfies never;
  }
}

/** The dialect demands a name, and reads the type from its ending. */
const UNNAMED_FILES: ReadonlyMap<string, string> = new Map([
  ["application/pdf", "document.pdf"],
  ["text/plain", "document.txt"],
]);

function urlOf(source: MediaSource): string {
  return source.kind === "url" ? source.url : `data:${source.mediaType};base64,${source.base64}`;
}

function renderCache({ at, cache }: ChatPart, { cacheBreakpoints: form }: Extensions): JsonObject {
  if (cache === null || form === null) return {};
  const { ttl } = cache;
  if (form === "prompt_cache_breakpoint") return { [form]: { mode: "explicit", ttl: OPENAI_LIFETIMES[ttl] } };
  if (ttl === "12h") throw unsupported(at, "No breakpoint there lasts as long.");
  return { [form]: { type: "ephemeral", ttl: ttl === "default" ? undefined : ttl === "5m" ? "5m" : "1h" } };
}

/** The lifetimes of completions.d.ts: each is a minimum, so the next longer one keeps what was asked. */
const OPENAI_LIFETIMES: Readonly<Record<CacheBreakpoint["ttl"], "30m" | "12h" | undefined>> = {
  default: undefined,
  "5m": "30m",
  "30m": "30m",
  "1h": "12h",
  "12h": "12h",
};
