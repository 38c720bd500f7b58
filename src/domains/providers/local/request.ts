import { textOf, type ChatMessage, type ChatRequest, type ChatSetting } from "../../../kernel/chat.ts";
import type { Dialect } from "../../../kernel/frame.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { ModelRequest } from "../../../kernel/request.ts";
import type { RequestBound } from "../../../kernel/tokens.ts";
import type { Model } from "../../catalog/index.ts";
import { SCHEMA_PATHS, reasoningName, settingName, unsupported } from "../dialects/settings.ts";
import type { Generation, GenerationMessage, GrammarSchema } from "./protocol.ts";
import { toGrammarSchema } from "./schema.ts";

/**
 * The request as the child runs it.
 * @param outputBound the most output tokens that the hold covers; null where it bounds nothing.
 * @throws Problem `unsupported_field` or `invalid_request`, with `param` in the caller's words.
 */
export function toGeneration(request: ModelRequest, outputBound: number | null): Generation {
  const chat = request.chat();
  refuseSettings(chat, request.dialect);
  const limits = [chat.maxOutputTokens, outputBound].filter((limit) => limit !== null);
  return {
    messages: chat.messages.map(toMessage),
    tools: chat.tools.map(({ at, name, description, parameters }) => ({
      name,
      description,
      parameters: parametersOf(parameters, `${at}.${SCHEMA_PATHS[request.dialect].tool}`),
    })),
    toolChoice: toolChoiceOf(chat, request.dialect),
    parallelToolCalls: chat.parallelToolCalls !== false,
    format:
      chat.responseFormat.kind === "json_schema"
        ? { kind: "json_schema", schema: toGrammarSchema(chat.responseFormat.schema, SCHEMA_PATHS[request.dialect].answer) }
        : chat.responseFormat,
    maxOutputTokens: limits.length === 0 ? null : Math.min(...limits),
    temperature: chat.temperature,
    topP: chat.topP,
    seed: chat.seed,
    stop: chat.stop.filter((text) => text !== ""),
    countOnly: request.kind === "count",
  };
}

/** A generation as JSON text: the child gets these very bytes. */
export interface Prompt {
  readonly generation: Buffer;
}

export function renderPrompt(request: ModelRequest, outputBound: number | null): Prompt {
  return { generation: Buffer.from(JSON.stringify(toGeneration(request, outputBound))) };
}

/** Text and calls. Earlier reasoning is left out, as the models' own templates leave it out; breakpoints of a cache have nothing to do here. */
function toMessage(message: ChatMessage): GenerationMessage {
  const { role, content } = message;
  for (const part of content)
    if (part.kind === "image" || part.kind === "document")
      throw unsupported(part.at, "A model that this server runs itself reads text alone.");
  const text = textOf(content);
  if (role === "tool") return { role, toolCallId: message.toolCallId, text };
  if (role !== "assistant") return { role, text };
  const calls = content.filter((part) => part.kind === "tool-call");
  return { role, text, toolCalls: calls.map(({ id, name, arguments: written }) => ({ id, name, arguments: written })) };
}

/**
 * Bytes of text, since no tokenizer that GGUF files come with makes two tokens of one byte; a `rule`, because the chat template is
 * the file's own and is not read here. Neither side passes the context window: the child refuses a longer prompt and cuts the answer there.
 */
export function localBound(request: ModelRequest, model: Model): RequestBound {
  const chat = request.chat();
  let input = TEMPLATE_TOKENS + MESSAGE_TOKENS * chat.messages.length;
  for (const { content } of chat.messages) {
    input += Buffer.byteLength(textOf(content));
    for (const part of content)
      if (part.kind === "tool-call")
        input += MESSAGE_TOKENS + Buffer.byteLength(part.name) + TOKENS_A_BYTE_RENDERED * Buffer.byteLength(part.arguments);
  }
  if (chat.tools.length > 0) input += TOOLS_PREAMBLE_TOKENS;
  for (const tool of chat.tools) input += TOKENS_A_BYTE_RENDERED * Buffer.byteLength(JSON.stringify(tool));
  const each = Math.min(chat.maxOutputTokens ?? Infinity, model.maxOutputTokens ?? Infinity, model.contextWindow);
  const isStated = chat.maxOutputTokens !== null;
  return { input: Math.min(input, model.contextWindow), output: each, certainty: "rule", answers: 1, each, isStated };
}

/** Default system prompt and the template's own text. */
const TEMPLATE_TOKENS = 512;
/** Role, separators and a byte or two that SentencePiece puts before a text. */
const MESSAGE_TOKENS = 16;
/** What node-llama-cpp tells a model about calling tools: under 900 bytes. */
const TOOLS_PREAMBLE_TOKENS = 1024;
/** Templates indent JSON anew: 2.6 tokens a byte was measured. */
const TOKENS_A_BYTE_RENDERED = 4;

function toolChoiceOf(chat: ChatRequest, dialect: Dialect): Generation["toolChoice"] {
  const { toolChoice, tools, responseFormat } = chat;
  const param = settingName(dialect, "toolChoice");
  if (toolChoice === "none" || (toolChoice === "auto" && tools.length === 0)) return "none";
  if (toolChoice === "required" && tools.length === 0)
    throw new Problem("invalid_request", { message: `${param} asks for a tool, but 'tools' lists none.`, param });
  if (typeof toolChoice === "object" && !tools.some(({ name }) => name === toolChoice.name))
    throw new Problem("invalid_request", { message: `${param} names '${toolChoice.name}', which 'tools' does not list.`, param });
  // One grammar at a time: an answer that is either a call or a text of a given form has none.
  if (responseFormat.kind !== "text")
    throw unsupported(
      settingName(dialect, "responseFormat"),
      "A local model cannot be offered tools and held to a format at once; set tool_choice to 'none'.",
    );
  return toolChoice;
}

function parametersOf(parameters: GrammarSchema, at: string): GrammarSchema {
  return toGrammarSchema(
    Object.keys(parameters).length === 0 ? { type: "object", properties: {}, additionalProperties: false } : parameters,
    at,
  );
}

function refuseSettings(chat: ChatRequest, dialect: Dialect): void {
  if (chat.choices !== 1)
    throw unsupported(settingName(dialect, "choices"), "A local model gives one choice; send the request again for another.");
  const { reasoning } = chat;
  // An effort that the model is to choose is what it does unasked.
  const leavesReasoning = reasoning === null || (reasoning.kind === "effort" && reasoning.effort === null);
  if (!leavesReasoning) throw unsupported(reasoningName(dialect, reasoning), LEAVE_OUT);
  const refused = UNHONOURED.find((setting) => chat[setting] !== null);
  if (refused !== undefined) throw unsupported(settingName(dialect, refused), LEAVE_OUT);
}

const LEAVE_OUT = "Leave it out for a model that this server runs itself.";
const UNHONOURED = ["topK", "frequencyPenalty", "presencePenalty"] as const satisfies readonly ChatSetting[];
