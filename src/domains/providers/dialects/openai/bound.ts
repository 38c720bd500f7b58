import type { Json, JsonObject, ModelRequest } from "../../../../kernel/request.ts";
import type { RequestBound } from "../../../../kernel/tokens.ts";
import type { Model } from "../../../catalog/index.ts";
import { membersOf } from "../parsed-request.ts";
import { list, number, object, string } from "../read.ts";
import { SCHEMA_TOKENS_PER_BYTE, schemaBytes, textBytes } from "../sizes.ts";
import { FIELDS } from "./fields.ts";

/** What a provider's tokenizer and media rules are, as far as they are published. */
export interface BoundRule {
  /** Whether every model of the provider has a byte-level tokenizer: then a text's bytes are a proof, elsewhere a rule. */
  readonly byteLevelTokenizer: boolean;
  /** The most tokens one image takes, by detail; null where nothing is published: such a part counts as the context window. */
  readonly image: { readonly low: number; readonly high: number } | null;
}

/**
 * The most tokens one dispatch of the request can use. Text counts its UTF-8 bytes, schemas 4 a byte, media the provider's published
 * maximum, the template 512 and 32 a message. Parts without a term count as the context window, once for
 * all of them: every upstream of this dialect rejects or cuts a prompt that is longer than its window. Nothing is
 * re-serialised: schemas are measured in the caller's own bytes.
 */
export function bound(request: ModelRequest, model: Model, rule: BoundRule): RequestBound {
  const { fields } = request;
  const tally: Tally = { tokens: TEMPLATE_TOKENS, unknownParts: 0, proven: rule.byteLevelTokenizer };
  for (const message of list(fields["messages"])) addMessage(object(message), rule, tally);
  addSchemas(request, tally);
  for (const key of Object.keys(fields)) if (!FIELDS.has(key) && isSet(fields[key])) tally.unknownParts++;
  const input = tally.tokens + (tally.unknownParts > 0 ? model.contextWindow : 0);
  const answers = Math.max(1, number(fields["n"]) ?? 1, number(fields["best_of"]) ?? 1);
  const asked = Math.max(number(fields["max_completion_tokens"]) ?? 0, number(fields["max_tokens"]) ?? 0);
  const each = asked > 0 ? asked : (model.maxOutputTokens ?? model.contextWindow);
  const predicted = textBytes(object(fields["prediction"])["content"]);
  const certainty = tally.proven && tally.unknownParts === 0 ? "proof" : "rule";
  return { input, output: answers * each + predicted, certainty, answers, each, isStated: asked > 0 };
}

/** The chat template and default system prompt of a deployment. */
const TEMPLATE_TOKENS = 512;
/** Role markers and separators around one message: 3 to 20 in the templates of Llama, Qwen, Gemma, Mistral and DeepSeek. */
const MESSAGE_TOKENS = 32;

interface Tally {
  tokens: number;
  unknownParts: number;
  proven: boolean;
}

function addMessage(message: JsonObject, rule: BoundRule, tally: Tally): void {
  tally.tokens += MESSAGE_TOKENS;
  for (const key of TEXT_FIELDS) {
    const text = message[key];
    if (typeof text === "string") tally.tokens += textBytes(text);
    else if (isSet(text)) tally.unknownParts++;
  }
  const { content } = message;
  if (Array.isArray(content)) for (const part of content as readonly Json[]) addPart(object(part), rule, tally);
  else tally.tokens += textBytes(content);
  for (const call of list(message["tool_calls"])) addSchemaValue(call, tally);
  if (isSet(message["function_call"])) addSchemaValue(message["function_call"], tally);
  for (const key of Object.keys(message)) if (!MESSAGE_FIELDS.has(key) && isSet(message[key])) tally.unknownParts++;
}

const TEXT_FIELDS = ["name", "refusal", "tool_call_id", "reasoning", "reasoning_content"] as const;

/** Fields of a message that have a term; what else a message carries (earlier audio by id, say) counts as a part without one. */
const MESSAGE_FIELDS: ReadonlySet<string> = new Set(["role", "content", "tool_calls", "function_call", ...TEXT_FIELDS]);

function addPart(part: JsonObject, rule: BoundRule, tally: Tally): void {
  for (const key of Object.keys(part)) if (!PART_FIELDS.has(key) && isSet(part[key])) tally.unknownParts++;
  tally.tokens += textBytes(part["text"]) + textBytes(part["refusal"]);
  switch (string(part["type"])) {
    case "text":
    case "refusal":
      return;
    case "image_url": {
      const { detail } = object(part["image_url"]);
      const known = detail === undefined || detail === null || detail === "auto" || detail === "low" || detail === "high";
      if (rule.image === null || !known) tally.unknownParts++;
      else tally.tokens += detail === "low" ? rule.image.low : rule.image.high;
      tally.proven = false;
      return;
    }
    default:
      tally.unknownParts++;
  }
}

/** Fields of a part that have a term by its type, or need none. */
const PART_FIELDS: ReadonlySet<string> = new Set(["type", "text", "refusal", "image_url", "prompt_cache_breakpoint", "cache_control"]);

/** Priced fields that are measured elsewhere in this file or bounded by the output; all other priced ones are schemas. */
const NOT_SCHEMAS: ReadonlySet<string> = new Set([
  "messages",
  "n",
  "best_of",
  "max_tokens",
  "max_completion_tokens",
  "prediction",
  "audio",
  "modalities",
  "prompt_cache_options",
]);

function addSchemas(request: ModelRequest, tally: Tally): void {
  let measured = true;
  for (const key of Object.keys(request.fields)) {
    if (FIELDS.get(key)?.class === "priced" && !NOT_SCHEMAS.has(key)) measured = false;
  }
  if (measured) return;
  for (const member of membersOf(request)) {
    if (NOT_SCHEMAS.has(member.key) || FIELDS.get(member.key)?.class !== "priced") continue;
    tally.tokens += SCHEMA_TOKENS_PER_BYTE * (member.end - member.valueStart);
    tally.proven = false;
  }
}

/** A tool call inside a message, measured by walking it: keys, texts and a constant for every other value. */
function addSchemaValue(value: Json | undefined, tally: Tally): void {
  tally.tokens += SCHEMA_TOKENS_PER_BYTE * schemaBytes(value);
  tally.proven = false;
}

function isSet(value: Json | undefined): boolean {
  return value !== undefined && value !== null;
}
