import { Problem } from "../../../kernel/problem.ts";
import type { ModelRequest } from "../../../kernel/request.ts";
import type { TokenBound } from "../../../kernel/tokens.ts";
import type { Model } from "../../catalog/index.ts";
import type { Generation, GrammarSchema } from "./protocol.ts";
import { toGrammarSchema } from "./schema.ts";

/**
 * The request as the child runs it.
 * @param outputBound the most output tokens that the hold covers; null where it bounds nothing.
 * @throws Problem `unsupported_field` or `invalid_request`, with `param`.
 */
export function toGeneration(request: ModelRequest, outputBound: number | null): Generation {
  refuseFields(request);
  const chat = request.chat();
  if (chat.choices !== 1) throw unsupported("n", "A local model gives one choice; send the request again for another.");
  const limits = [chat.maxOutputTokens, outputBound].filter((limit) => limit !== null);
  return {
    messages: chat.messages,
    tools: chat.tools.map((tool, index) => ({ ...tool, parameters: parametersOf(tool.parameters, `tools.${index}.function.parameters`) })),
    toolChoice: toolChoiceOf(request),
    parallelToolCalls: request.fields["parallel_tool_calls"] !== false,
    format:
      chat.responseFormat.kind === "json_schema"
        ? { kind: "json_schema", schema: toGrammarSchema(chat.responseFormat.schema, "response_format.json_schema.schema") }
        : chat.responseFormat,
    maxOutputTokens: limits.length === 0 ? null : Math.min(...limits),
    temperature: chat.temperature,
    topP: chat.topP,
    seed: chat.seed,
    stop: chat.stop.filter((text) => text !== ""),
  };
}

/**
 * Bytes of text, since no tokenizer that GGUF files come with makes two tokens of one byte; a `rule`, because the chat template is
 * the file's own and is not read here. Neither side passes the context window: the child refuses a longer prompt and cuts the answer there.
 */
export function localBound(request: ModelRequest, model: Model): TokenBound {
  const chat = request.chat();
  let input = TEMPLATE_TOKENS + MESSAGE_TOKENS * chat.messages.length;
  for (const message of chat.messages) {
    input += Buffer.byteLength(message.text);
    if (message.role === "assistant")
      for (const call of message.toolCalls)
        input += MESSAGE_TOKENS + Buffer.byteLength(call.name) + TOKENS_A_BYTE_RENDERED * Buffer.byteLength(call.arguments);
  }
  if (chat.tools.length > 0) input += TOOLS_PREAMBLE_TOKENS;
  for (const tool of chat.tools) input += TOKENS_A_BYTE_RENDERED * Buffer.byteLength(JSON.stringify(tool));
  const output = Math.min(chat.maxOutputTokens ?? Infinity, model.maxOutputTokens ?? Infinity, model.contextWindow);
  return { input: Math.min(input, model.contextWindow), output, certainty: "rule" };
}

/** Default system prompt and the template's own text. */
const TEMPLATE_TOKENS = 512;
/** Role, separators and a byte or two that SentencePiece puts before a text. */
const MESSAGE_TOKENS = 16;
/** What node-llama-cpp tells a model about calling tools: under 900 bytes. */
const TOOLS_PREAMBLE_TOKENS = 1024;
/** Templates indent JSON anew: 2.6 tokens a byte was measured. */
const TOKENS_A_BYTE_RENDERED = 4;

function toolChoiceOf(request: ModelRequest): Generation["toolChoice"] {
  const { toolChoice, tools, responseFormat } = request.chat();
  if (toolChoice === "none" || (toolChoice === "auto" && tools.length === 0)) return "none";
  if (toolChoice === "required" && tools.length === 0)
    throw new Problem("invalid_request", { message: "tool_choice asks for a tool, but 'tools' lists none.", param: "tool_choice" });
  if (typeof toolChoice === "object" && !tools.some(({ name }) => name === toolChoice.name))
    throw new Problem("invalid_request", {
      message: `tool_choice names '${toolChoice.name}', which 'tools' does not list.`,
      param: "tool_choice",
    });
  // One grammar at a time: an answer that is either a call or a text of a given form has none.
  if (responseFormat.kind !== "text")
    throw unsupported("response_format", "A local model cannot be offered tools and held to a format at once; set tool_choice to 'none'.");
  return toolChoice;
}

function parametersOf(parameters: GrammarSchema, at: string): GrammarSchema {
  return toGrammarSchema(
    Object.keys(parameters).length === 0 ? { type: "object", properties: {}, additionalProperties: false } : parameters,
    at,
  );
}

function refuseFields(request: ModelRequest): void {
  for (const [field, value] of Object.entries(request.fields)) {
    if (value === null || value === undefined || UNDERSTOOD.has(field) || NEUTRAL[field]?.includes(value)) continue;
    if (Array.isArray(value) && value.length === 0) continue;
    throw unsupported(field, "Leave it out for a model that this server runs itself.");
  }
}

/** Translated into a generation, or about attribution and transport and so without a meaning for the model. */
const UNDERSTOOD: ReadonlySet<string> = new Set(
  (
    "model messages stream stream_options max_tokens max_completion_tokens temperature top_p seed stop n modalities response_format " +
    "tools tool_choice parallel_tool_calls metadata user safety_identifier prompt_cache_key cache_salt"
  ).split(" "),
);

/** Values that ask for nothing. */
const NEUTRAL: Readonly<Record<string, readonly unknown[] | undefined>> = {
  frequency_penalty: [0],
  presence_penalty: [0],
  logprobs: [false],
  top_logprobs: [0],
  store: [false],
  background: [false],
  service_tier: ["auto", "default"],
};

function unsupported(param: string, advice: string): Problem {
  return new Problem("unsupported_field", { message: `'${param}' cannot be honoured. ${advice}`, param });
}
