import { BOUNDS } from "../../../../kernel/bounds.ts";
import type { Json, JsonObject } from "../../../../kernel/request.ts";
import { MAX_TOKENS } from "../parsed-request.ts";
import { MAX_CHOICES, type Read } from "./request.ts";

/**
 * Whether a body is a request of the usual kind: text messages and plain settings. What this accepts the schema accepts, for a
 * tenth of its cost (6 µs a call); what it does not the schema judges, and finds the words.
 */
export function isPlainRequest(json: Json): json is Json & Read {
  if (!isObject(json)) return false;
  if (!isText(json["model"]) || json["model"].length === 0 || !isMessages(json["messages"])) return false;
  for (const key in json) {
    const check = CHECKS.get(key);
    const value = json[key];
    if (check !== undefined && value !== null && !check(value as Json)) return false;
  }
  return true;
}

function isMessages(value: Json | undefined): boolean {
  return Array.isArray(value) && value.length > 0 && value.every(isTextMessage);
}

/** Anything beyond these fields is the schema's to judge. */
function isTextMessage(message: Json): boolean {
  if (!isObject(message) || !ROLES.has(message["role"] as string)) return false;
  for (const key in message) if (key !== "role" && key !== "content") return false;
  const content = message["content"];
  return typeof content === "string" || (Array.isArray(content) && content.every(isTextPart));
}

function isTextPart(part: Json): boolean {
  if (!isObject(part) || part["type"] !== "text" || typeof part["text"] !== "string") return false;
  for (const key in part) if (key !== "type" && key !== "text") return false;
  return true;
}

const ROLES: ReadonlySet<string> = new Set(["developer", "system", "user", "assistant", "tool", "function"]);

const isFinite = (value: Json): boolean => Number.isFinite(value);
const isBoolean = (value: Json): boolean => typeof value === "boolean";
const isText = (value: Json | undefined): value is string => typeof value === "string" && value.length <= BOUNDS.tagLength;
const isCount = (value: Json, most: number): boolean => Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= most;
const isTokens = (value: Json): boolean => isCount(value, MAX_TOKENS);
const isChoices = (value: Json): boolean => isCount(value, MAX_CHOICES);
const never = (): boolean => false;

/** A field of the schema that is not null; fields it does not know pass. */
const CHECKS = new Map<string, (value: Json) => boolean>(
  Object.entries({
    stream: isBoolean,
    stream_options: (value) => isObject(value) && typeof (value["include_usage"] ?? false) === "boolean",
    n: isChoices,
    best_of: isChoices,
    max_tokens: isTokens,
    max_completion_tokens: isTokens,
    temperature: isFinite,
    top_p: isFinite,
    seed: (value) => Number.isSafeInteger(value),
    user: isText,
    safety_identifier: isText,
    prompt_cache_key: isText,
    stop: never,
    tools: never,
    tool_choice: never,
    response_format: never,
    prediction: never,
    modalities: never,
    metadata: never,
  }),
);

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
