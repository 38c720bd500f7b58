import type { ChatEffort, ChatReasoning, ChatRequest, ChatTool } from "../../../../kernel/chat.ts";
import type { Json, JsonObject } from "../../../../kernel/request.ts";
import { list, number, object, string } from "../read.ts";
import { unsupported } from "../settings.ts";
import { FIELDS } from "./fields.ts";
import { refuseOthers, toMessage } from "./messages.ts";

/**
 * A checked body of `/v1/chat/completions` in our own vocabulary, for providers of another wire or none. Every member is read, is
 * ours, asks for nothing (null, empty, its documented default), or is refused by name: Problem `unsupported_field`.
 */
export function toChat(fields: JsonObject): ChatRequest {
  for (const key of Object.keys(fields)) if (!READ.has(key) && !isHarmless(key, fields[key])) throw unsupported(key);
  return {
    messages: list(fields["messages"]).map((message, index) => toMessage(object(message), `messages[${index}]`)),
    tools: list(fields["tools"]).map((tool, index) => toTool(object(tool), `tools[${index}]`)),
    toolChoice: toToolChoice(fields["tool_choice"]),
    parallelToolCalls: booleanOf(fields["parallel_tool_calls"], "parallel_tool_calls"),
    responseFormat: toResponseFormat(fields["response_format"]),
    reasoning: toReasoning(fields["reasoning_effort"]),
    maxOutputTokens: number(fields["max_completion_tokens"]) ?? number(fields["max_tokens"]),
    temperature: number(fields["temperature"]),
    topP: number(fields["top_p"]),
    topK: toTopK(fields["top_k"]),
    frequencyPenalty: toPenalty(fields["frequency_penalty"], "frequency_penalty"),
    presencePenalty: toPenalty(fields["presence_penalty"], "presence_penalty"),
    seed: number(fields["seed"]),
    stop: typeof fields["stop"] === "string" ? [fields["stop"]] : list(fields["stop"]).map(String),
    choices: number(fields["n"]) ?? 1,
    user: string(fields["user"]) || string(fields["safety_identifier"]) || null,
  };
}

/** Fields that `toChat` reads, and `stream`, which says how the answer travels. */
const READ: ReadonlySet<string> = new Set(
  (
    "messages tools tool_choice parallel_tool_calls response_format reasoning_effort max_completion_tokens max_tokens temperature top_p " +
    "top_k frequency_penalty presence_penalty seed stop n user safety_identifier stream"
  ).split(" "),
);

/** Values by which a field of the table asks for nothing: its documented default, or "off". */
const DEFAULTS: ReadonlyMap<string, readonly Json[]> = new Map<string, readonly Json[]>([
  ["add_generation_prompt", [true]],
  ["add_special_tokens", [false]],
  ["best_of", [1]],
  ["continue_final_message", [false]],
  ["ignore_eos", [false]],
  ["include_reasoning", [true]],
  ["include_stop_str_in_output", [false]],
  ["length_penalty", [1]],
  ["logprobs", [false]],
  ["min_p", [0]],
  ["min_tokens", [0]],
  ["repetition_penalty", [1]],
  ["separate_reasoning", [true]],
  ["skip_special_tokens", [true]],
  ["spaces_between_special_tokens", [true]],
  ["top_a", [0]],
  ["top_logprobs", [0]],
  ["typical_p", [1]],
  ["verbosity", ["medium"]],
]);

function isHarmless(key: string, value: Json | undefined): boolean {
  if (value === null || value === undefined) return true;
  const rule = FIELDS.get(key);
  if (rule === undefined) return false;
  if (rule.class === "ours") return rule.policy.kind !== "refuse" || rule.policy.harmless.some((harmless) => harmless === value);
  if (key === "modalities") return Array.isArray(value) && value.every((modality) => modality === "text");
  // Whatever its values: they move cost between calls of one tenant, never an answer.
  if (key === "prompt_cache_options") return true;
  const isEmpty = typeof value === "object" && Object.keys(value).length === 0;
  return isEmpty || DEFAULTS.get(key)?.includes(value) === true;
}

function toTool(tool: JsonObject, at: string): ChatTool {
  if (tool["type"] !== "function") throw unsupported(`${at}.type`);
  refuseOthers(tool, TOOL_MEMBERS, at);
  const described = object(tool["function"]);
  refuseOthers(described, FUNCTION_MEMBERS, `${at}.function`);
  return {
    at,
    name: string(described["name"]),
    description: string(described["description"]),
    parameters: object(described["parameters"]),
    strict: booleanOf(described["strict"], `${at}.function.strict`),
    cache: null,
  };
}

const TOOL_MEMBERS: ReadonlySet<string> = new Set(["type", "function"]);
const FUNCTION_MEMBERS: ReadonlySet<string> = new Set(["name", "description", "parameters", "strict"]);

function toToolChoice(choice: Json | undefined): ChatRequest["toolChoice"] {
  if (choice === undefined || choice === null) return "auto";
  if (choice === "auto" || choice === "none" || choice === "required") return choice;
  const named = object(choice);
  if (named["type"] !== "function") throw unsupported("tool_choice");
  refuseOthers(named, TOOL_MEMBERS, "tool_choice");
  return { name: string(object(named["function"])["name"]) };
}

function toResponseFormat(format: Json | undefined): ChatRequest["responseFormat"] {
  if (format === undefined || format === null) return { kind: "text" };
  const { type, json_schema: given } = object(format);
  refuseOthers(object(format), FORMAT_MEMBERS, "response_format");
  if (type === "text") return { kind: "text" };
  if (type === "json_object") return { kind: "json" };
  if (type !== "json_schema") throw unsupported("response_format.type");
  const described = object(given);
  refuseOthers(described, SCHEMA_MEMBERS, "response_format.json_schema");
  return {
    kind: "json_schema",
    name: typeof described["name"] === "string" ? described["name"] : null,
    description: typeof described["description"] === "string" ? described["description"] : null,
    schema: object(described["schema"]),
    strict: booleanOf(described["strict"], "response_format.json_schema.strict"),
  };
}

const FORMAT_MEMBERS: ReadonlySet<string> = new Set(["type", "json_schema"]);
const SCHEMA_MEMBERS: ReadonlySet<string> = new Set(["name", "description", "schema", "strict"]);

function toReasoning(effort: Json | undefined): ChatReasoning | null {
  if (effort === undefined || effort === null) return null;
  if (effort === "none") return { kind: "off" };
  const known = EFFORTS.find((name) => name === effort);
  if (known === undefined) throw unsupported("reasoning_effort", `Send one of: none, ${EFFORTS.join(", ")}.`);
  return { kind: "effort", effort: known };
}

const EFFORTS: readonly ChatEffort[] = ["minimal", "low", "medium", "high", "xhigh", "max"];

/** vLLM turns it off by 0 and -1. */
function toTopK(value: Json | undefined): number | null {
  if (value === undefined || value === null || value === 0 || value === -1) return null;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 1) throw unsupported("top_k", "Send a whole number from 1.");
  return value;
}

function toPenalty(value: Json | undefined, param: string): number | null {
  if (value === undefined || value === null || value === 0) return null;
  if (typeof value !== "number") throw unsupported(param, "Send a number.");
  return value;
}

function booleanOf(value: Json | undefined, param: string): boolean | null {
  if (value === undefined || value === null) return null;
  if (typeof value !== "boolean") throw unsupported(param, "Send true or false.");
  return value;
}
