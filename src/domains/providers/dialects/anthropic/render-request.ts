import { BOUNDS } from "../../../../kernel/bounds.ts";
import type {
  CacheBreakpoint,
  ChatAnswerPart,
  ChatDocument,
  ChatMessage,
  ChatPart,
  ChatRequest,
  ChatSetting,
  ChatText,
  ChatTool,
  ChatToolCall,
  MediaSource,
} from "../../../../kernel/chat.ts";
import { parseJson } from "../../../../kernel/json.ts";
import { Problem } from "../../../../kernel/problem.ts";
import type { Json, JsonObject, ModelRequest } from "../../../../kernel/request.ts";
import { exactChat } from "../exact-chat.ts";
import { exactJson } from "../json-text.ts";
import { settingName, unsupported } from "../settings.ts";

/**
 * A request of another dialect as a body of `/v1/messages`, API version 2023-06-01. What this dialect cannot say is refused by the
 * caller's own path or field: Problem `unsupported_field`. Where the caller set no maximum the body has no `max_tokens`: it is
 * written with the hold's bound (upstream-body.ts). Shapes: @anthropic-ai/sdk, resources/messages/messages.d.ts.
 */
export function renderMessages(request: ModelRequest): Buffer {
  const chat = exactChat(request);
  const refuse = (setting: ChatSetting, why?: string): Problem => unsupported(settingName(request.dialect, setting), why);
  refuseSettings(chat, refuse);
  const head = headLength(chat.messages);
  const system = chat.messages.slice(0, head).flatMap(toBlocks);
  const body: JsonObject = {
    model: request.model,
    max_tokens: chat.maxOutputTokens ?? undefined,
    system: system.length > 0 ? system : undefined,
    messages: toTurns(chat.messages, head),
    tools: chat.tools.length > 0 ? chat.tools.map(toTool) : undefined,
    tool_choice: toToolChoice(chat),
    ...toThinking(chat, refuse),
    temperature: chat.temperature ?? undefined,
    top_p: chat.topP ?? undefined,
    top_k: chat.topK ?? undefined,
    stop_sequences: chat.stop.length > 0 ? chat.stop : undefined,
    metadata: chat.user === null ? undefined : { user_id: chat.user },
    stream: request.stream ? true : undefined,
  };
  return Buffer.from(JSON.stringify(body));
}

type Refuse = (setting: ChatSetting, why?: string) => Problem;

function refuseSettings(chat: ChatRequest, refuse: Refuse): void {
  if (chat.choices > 1) throw refuse("choices", "It gives one answer a call.");
  if (chat.seed !== null) throw refuse("seed");
  // 0 is no penalty.
  if (chat.frequencyPenalty !== null && chat.frequencyPenalty !== 0) throw refuse("frequencyPenalty");
  if (chat.presencePenalty !== null && chat.presencePenalty !== 0) throw refuse("presencePenalty");
  if (chat.temperature !== null && chat.temperature > 1) throw refuse("temperature", "Its range is 0 to 1.");
  if (chat.responseFormat.kind === "json") throw refuse("responseFormat", "Give a JSON schema: JSON without one is not offered.");
}

/** Reasoning and the answer's format share `output_config`. */
function toThinking(chat: ChatRequest, refuse: Refuse): JsonObject {
  const { reasoning, responseFormat } = chat;
  const effort = reasoning?.kind === "effort" ? reasoning.effort : null;
  if (effort === "minimal") throw refuse("reasoning", "Its efforts are low, medium, high, xhigh and max.");
  const format = responseFormat.kind === "json_schema" ? { type: "json_schema", schema: toSchema(responseFormat, refuse) } : undefined;
  const config = { effort: effort ?? undefined, format };
  return {
    thinking: reasoning === null ? undefined : toThinkingConfig(reasoning),
    output_config: config.effort === undefined && config.format === undefined ? undefined : config,
  };
}

function toThinkingConfig(reasoning: NonNullable<ChatRequest["reasoning"]>): JsonObject {
  switch (reasoning.kind) {
    case "off":
      return { type: "disabled" };
    case "effort":
      return { type: "adaptive" };
    case "budget":
      return { type: "enabled", budget_tokens: reasoning.tokens };
  }
}

/** The format's name is a label that no answer shows; its description is the schema's own keyword. */
function toSchema(format: Extract<ChatRequest["responseFormat"], { kind: "json_schema" }>, refuse: Refuse): JsonObject {
  if (format.description === null || format.description === "") return format.schema;
  if (format.schema["description"] !== undefined) throw refuse("responseFormat", "Describe the schema once: in the schema or beside it.");
  return { ...format.schema, description: format.description };
}

function toToolChoice({ tools, toolChoice, parallelToolCalls }: ChatRequest): JsonObject | undefined {
  if (toolChoice === "none") return tools.length > 0 ? { type: "none" } : undefined;
  const single = parallelToolCalls === null ? {} : { disable_parallel_tool_use: !parallelToolCalls };
  if (toolChoice === "required") return { type: "any", ...single };
  if (toolChoice !== "auto") return { type: "tool", name: toolChoice.name, ...single };
  return parallelToolCalls === null || tools.length === 0 ? undefined : { type: "auto", ...single };
}

function toTool(tool: ChatTool): JsonObject {
  return {
    name: tool.name,
    description: tool.description === "" ? undefined : tool.description,
    // A tool without parameters may leave its schema out elsewhere; here `type` is demanded.
    input_schema: tool.parameters["type"] === undefined ? { type: "object", ...tool.parameters } : tool.parameters,
    strict: tool.strict ?? undefined,
    cache_control: toCacheControl(tool.cache, tool.at),
  };
}

interface Turn {
  readonly role: "user" | "assistant" | "system";
  readonly content: JsonObject[];
}

/** How many messages at the head are the system's: they become the field `system`. */
function headLength(messages: readonly ChatMessage[]): number {
  const first = messages.findIndex(({ role }) => role !== "system");
  return first === -1 ? messages.length : first;
}

/** The conversation after its head, turns of one role merged into one. */
function toTurns(messages: readonly ChatMessage[], head: number): Json {
  const turns: Turn[] = [];
  for (const message of messages.slice(head)) {
    const role = message.role === "tool" ? "user" : message.role;
    const last = turns.at(-1);
    if (role === "system" && last?.role === "assistant")
      throw unsupported(message.at, "A system message stands at the head of the conversation or directly after a user's.");
    const content = toBlocks(message);
    if (content.length === 0 && role === "system") continue;
    if (content.length === 0) throw unsupported(message.at, "It is empty.");
    if (last?.role === role) for (const block of content) last.content.push(block);
    else turns.push({ role, content });
  }
  if (turns.length === 0)
    throw unsupported(messages.at(-1)?.at ?? "messages", "A conversation needs a message that is not a system message.");
  return turns as unknown as Json;
}

function toBlocks(message: ChatMessage): JsonObject[] {
  switch (message.role) {
    case "system":
      return message.content.flatMap(toText);
    case "user":
      return message.content.flatMap(toPart);
    case "assistant":
      return message.content.flatMap(toAnswerPart);
    case "tool": {
      const content = message.content.flatMap(toPart);
      return [
        {
          type: "tool_result",
          tool_use_id: toToolId(message.toolCallId),
          content: content.length > 0 ? content : undefined,
          is_error: message.isError ? true : undefined,
          cache_control: toCacheControl(message.cache, message.at),
        },
      ];
    }
  }
}

/** An empty text says nothing, and this dialect takes none. */
function toText({ text, cache, at }: ChatText): JsonObject[] {
  if (text !== "") return [{ type: "text", text, cache_control: toCacheControl(cache, at) }];
  if (cache !== null) throw unsupported(at, "An empty text cannot carry a cache breakpoint.");
  return [];
}

function toPart(part: ChatPart): JsonObject[] {
  switch (part.kind) {
    case "text":
      return toText(part);
    case "image":
      if (part.detail !== null && part.detail !== "auto") throw unsupported(part.at, "Leave the image's detail to the model.");
      return [{ type: "image", source: toImageSource(part.source, part.at), cache_control: toCacheControl(part.cache, part.at) }];
    case "document":
      return [
        {
          type: "document",
          source: toDocumentSource(part),
          title: part.name ?? undefined,
          cache_control: toCacheControl(part.cache, part.at),
        },
      ];
  }
}

function toImageSource(source: MediaSource, at: string): JsonObject {
  if (source.kind === "url") return { type: "url", url: source.url };
  if (!IMAGE_TYPES.includes(source.mediaType)) throw unsupported(at, `Images are ${IMAGE_TYPES.join(", ")}.`);
  return { type: "base64", media_type: source.mediaType, data: source.base64 };
}

const IMAGE_TYPES: readonly string[] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

function toDocumentSource({ source, at }: ChatDocument): JsonObject {
  if (source.kind === "url") return { type: "url", url: source.url };
  if (source.mediaType === "application/pdf") return { type: "base64", media_type: source.mediaType, data: source.base64 };
  if (source.mediaType !== "text/plain") throw unsupported(at, "Documents are application/pdf or text/plain.");
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.from(source.base64, "base64"));
    return { type: "text", media_type: source.mediaType, data: text };
  } catch {
    throw unsupported(at, "The text is not valid UTF-8.");
  }
}

function toAnswerPart(part: ChatAnswerPart): JsonObject[] {
  switch (part.kind) {
    case "text":
      return toText(part);
    case "refusal":
      // What the model said when it declined: here it is text.
      return part.text === "" ? [] : [{ type: "text", text: part.text }];
    case "reasoning":
      // Unsigned, it is another provider's: this one takes none of it, and a conversation that changes models must go on.
      return part.signature === null ? [] : [{ type: "thinking", thinking: part.text, signature: part.signature }];
    case "hidden-reasoning":
      return [{ type: "redacted_thinking", data: part.data }];
    case "tool-call":
      return [
        {
          type: "tool_use",
          id: toToolId(part.id),
          name: part.name,
          input: toInput(part),
          cache_control: toCacheControl(part.cache, part.at),
        },
      ];
  }
}

/** The arguments as the object that they must be here; numbers as they are spelt, no text for a call without arguments. */
function toInput(call: ChatToolCall): Json {
  if (call.arguments.trim() === "") return {};
  let parsed: Json;
  try {
    parsed = parseJson(Buffer.from(call.arguments), BOUNDS.jsonDepth - INPUT_DEPTH);
  } catch {
    throw unsupported(call.at, "Its arguments are not JSON, name a key twice or are nested too deeply.");
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))
    throw unsupported(call.at, "Its arguments are not a JSON object.");
  return exactJson(call.arguments);
}

/** Of the body, its list of messages, a message, its list of blocks and a block. */
const INPUT_DEPTH = 5;

/**
 * Ids of calls must match `^[a-zA-Z0-9_-]+$`. Others, and those that look like ours, become `atrium_` and their base64url: no two ids
 * become one, and a result still names its call.
 */
function toToolId(id: string): string {
  return /^[a-zA-Z0-9_-]+$/.test(id) && !id.startsWith(OUR_PREFIX) ? id : `${OUR_PREFIX}${Buffer.from(id).toString("base64url")}`;
}

const OUR_PREFIX = "atrium_";

/** A breakpoint says for how long at least: 30 minutes are kept by an hour. */
function toCacheControl(cache: CacheBreakpoint | null, at: string): JsonObject | undefined {
  switch (cache?.ttl) {
    case undefined:
      return undefined;
    case "default":
      return { type: "ephemeral" };
    case "5m":
      return { type: "ephemeral", ttl: "5m" };
    case "30m":
    case "1h":
      return { type: "ephemeral", ttl: "1h" };
    case "12h":
      throw unsupported(at, "A prompt prefix is kept for an hour at most.");
  }
}
