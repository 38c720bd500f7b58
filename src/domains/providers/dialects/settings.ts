import type { ChatReasoning, ChatSetting } from "../../../kernel/chat.ts";
import type { Dialect } from "../../../kernel/frame.ts";
import { Problem } from "../../../kernel/problem.ts";

/** The field of a caller's body that holds a setting, so that a refusal names what the caller wrote. */
export function settingName(dialect: Dialect, setting: ChatSetting): string {
  return NAMES[dialect][setting];
}

/** The same for reasoning, of which Anthropic's dialect says the effort elsewhere. */
export function reasoningName(dialect: Dialect, reasoning: ChatReasoning): string {
  const isEffort = reasoning.kind === "effort" && reasoning.effort !== null;
  return dialect === "anthropic" && isEffort ? "output_config.effort" : settingName(dialect, "reasoning");
}

/** The refusal of a field, or of a path into one, that the model's provider cannot honour. `why` ends with a full stop. */
export function unsupported(param: string, why = "Leave it out for this model."): Problem {
  return new Problem("unsupported_field", { param, message: `'${param}' cannot be honoured by this model's provider. ${why}` });
}

/** Where schemas lie in a caller's body: the answer's in the body itself, a tool's in the tool. */
export const SCHEMA_PATHS: Readonly<Record<Dialect, { readonly answer: string; readonly tool: string }>> = {
  openai: { answer: "response_format.json_schema.schema", tool: "function.parameters" },
  anthropic: { answer: "output_config.format.schema", tool: "input_schema" },
};

const OPENAI: Readonly<Record<ChatSetting, string>> = {
  toolChoice: "tool_choice",
  parallelToolCalls: "parallel_tool_calls",
  responseFormat: "response_format",
  reasoning: "reasoning_effort",
  maxOutputTokens: "max_completion_tokens",
  temperature: "temperature",
  topP: "top_p",
  topK: "top_k",
  frequencyPenalty: "frequency_penalty",
  presencePenalty: "presence_penalty",
  seed: "seed",
  stop: "stop",
  choices: "n",
  user: "user",
};

const NAMES: Readonly<Record<Dialect, Readonly<Record<ChatSetting, string>>>> = {
  openai: OPENAI,
  // Anthropic's dialect has no penalties, seed or choices: those keep the name that everybody knows them by.
  anthropic: {
    ...OPENAI,
    parallelToolCalls: "tool_choice.disable_parallel_tool_use",
    responseFormat: "output_config.format",
    reasoning: "thinking",
    maxOutputTokens: "max_tokens",
    stop: "stop_sequences",
    user: "metadata.user_id",
  },
};
