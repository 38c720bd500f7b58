import type { ChatMessage, ChatRequest, ChatTool, ChatToolCall } from "../../../../kernel/chat.ts";
import { Problem } from "../../../../kernel/problem.ts";
import type { Json, JsonObject } from "../../../../kernel/request.ts";
import { list, number, object, string } from "../read.ts";

/**
 * A checked body of `/v1/chat/completions` in our own vocabulary, for providers without this wire. What that vocabulary
 * cannot say (images, audio, files, custom tools, log probabilities, …) is refused by name: Problem `unsupported_field`.
 */
export function toChat(fields: JsonObject): ChatRequest {
  for (const field of UNTRANSLATED) if (isSet(fields[field])) throw unsupported(field);
  const modalities = list(fields["modalities"]);
  if (modalities.some((modality) => modality !== "text")) throw unsupported("modalities");
  return {
    messages: list(fields["messages"]).map((message, index) => toMessage(object(message), `messages[${index}]`)),
    tools: list(fields["tools"]).map((tool, index) => toTool(object(tool), `tools[${index}]`)),
    toolChoice: toToolChoice(fields["tool_choice"]),
    responseFormat: toResponseFormat(fields["response_format"]),
    maxOutputTokens: number(fields["max_completion_tokens"]) ?? number(fields["max_tokens"]),
    temperature: number(fields["temperature"]),
    topP: number(fields["top_p"]),
    seed: number(fields["seed"]),
    stop: typeof fields["stop"] === "string" ? [fields["stop"]] : list(fields["stop"]).map(String),
    choices: number(fields["n"]) ?? 1,
  };
}

/** Fields that would change the answer and have no word in `ChatRequest`. */
const UNTRANSLATED = [
  "audio",
  "functions",
  "function_call",
  "logit_bias",
  "logprobs",
  "top_logprobs",
  "prediction",
  "best_of",
  "documents",
  "chat_template_kwargs",
] as const;

function toMessage(message: JsonObject, at: string): ChatMessage {
  const text = toText(message["content"], `${at}.content`);
  switch (string(message["role"])) {
    case "developer":
    case "system":
      return { role: "system", text };
    case "user":
      return { role: "user", text };
    case "tool":
      return { role: "tool", toolCallId: string(message["tool_call_id"]), text };
    case "assistant":
      if (isSet(message["audio"])) throw unsupported(`${at}.audio`);
      if (isSet(message["function_call"])) throw unsupported(`${at}.function_call`);
      return {
        role: "assistant",
        text: text + string(message["refusal"]),
        toolCalls: list(message["tool_calls"]).map((call, index) => toToolCall(object(call), `${at}.tool_calls[${index}]`)),
      };
    default:
      throw unsupported(`${at}.role`);
  }
}

function toText(content: Json | undefined, at: string): string {
  if (!Array.isArray(content)) return string(content);
  return content
    .map((item: Json, index) => {
      const part = object(item);
      if (part["type"] === "text") return string(part["text"]);
      if (part["type"] === "refusal") return string(part["refusal"]);
      throw unsupported(`${at}[${index}].type`);
    })
    .join("");
}

function toToolCall(call: JsonObject, at: string): ChatToolCall {
  if (!isSet(call["function"])) throw unsupported(`${at}.type`);
  const called = object(call["function"]);
  return { id: string(call["id"]), name: string(called["name"]), arguments: string(called["arguments"]) };
}

function toTool(tool: JsonObject, at: string): ChatTool {
  if (tool["type"] !== "function") throw unsupported(`${at}.type`);
  const described = object(tool["function"]);
  return { name: string(described["name"]), description: string(described["description"]), parameters: object(described["parameters"]) };
}

function toToolChoice(choice: Json | undefined): ChatRequest["toolChoice"] {
  if (!isSet(choice)) return "auto";
  if (choice === "auto" || choice === "none" || choice === "required") return choice;
  const named = object(choice);
  if (named["type"] !== "function") throw unsupported("tool_choice");
  return { name: string(object(named["function"])["name"]) };
}

function toResponseFormat(format: Json | undefined): ChatRequest["responseFormat"] {
  if (!isSet(format)) return { kind: "text" };
  const { type, json_schema: described } = object(format);
  if (type === "text") return { kind: "text" };
  if (type === "json_object") return { kind: "json" };
  if (type !== "json_schema") throw unsupported("response_format.type");
  return { kind: "json_schema", schema: object(object(described)["schema"]) };
}

function unsupported(param: string): Problem {
  return new Problem("unsupported_field", { param, message: `'${param}' cannot be honoured by this model's provider; leave it out.` });
}

function isSet(value: Json | undefined): boolean {
  return value !== undefined && value !== null && value !== false && !(Array.isArray(value) && value.length === 0);
}
