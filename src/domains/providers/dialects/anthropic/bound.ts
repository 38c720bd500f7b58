import type { Json, JsonObject, ModelRequest } from "../../../../kernel/request.ts";
import type { RequestBound } from "../../../../kernel/tokens.ts";
import type { Model } from "../../../catalog/index.ts";
import { membersOf } from "../parsed-request.ts";
import { list, number, object, string } from "../read.ts";
import { SCHEMA_TOKENS_PER_BYTE, schemaBytes, textBytes } from "../sizes.ts";
import { FIELDS } from "./fields.ts";

/**
 * The most tokens one dispatch of the request can use: always a rule, since Anthropic's tokenizers are not published. Text counts
 * its UTF-8 bytes, tools and schemas 4 a byte, an image the dearest that was found published, the template 512 and 32 a message. A part
 * without a term (a PDF, whose pages nobody here has counted; a typed client tool, whose definition is the provider's) counts as
 * the context window, once for all of them: a longer prompt is rejected. Thinking is part of the output.
 */
export function bound(request: ModelRequest, model: Model): RequestBound {
  const { fields } = request;
  const tally: Tally = { tokens: TEMPLATE_TOKENS, unknownParts: 0 };
  addContent(fields["system"], tally);
  for (const message of list(fields["messages"])) addMessage(object(message), tally);
  addTools(request, tally);
  for (const key of Object.keys(fields)) if (!FIELDS.has(key)) tally.unknownParts++;
  const input = tally.tokens + (tally.unknownParts > 0 ? model.contextWindow : 0);
  const each = maxTokens(fields, model);
  return { input, output: each, certainty: "rule", answers: 1, each, isStated: number(fields["max_tokens"]) !== null };
}

/** The caller's maximum, else what is sent for one who set none: tokens, thinking included. */
export function maxTokens(fields: JsonObject, model: Model): number {
  return number(fields["max_tokens"]) ?? model.maxOutputTokens ?? Math.min(UNSTATED_MAX_TOKENS, model.contextWindow);
}

/** The dialect demands a maximum; where neither caller nor catalog states one, the least that a model of the SDK's list allows. */
const UNSTATED_MAX_TOKENS = 32_000;

/** The chat template and what the provider adds to it, a format's instructions included. */
const TEMPLATE_TOKENS = 512;
/** Role markers and separators around one message. */
const MESSAGE_TOKENS = 32;
/** 530 is the dearest published count of the system prompt that tools bring (Claude 3 Opus); later tokenizers count a text up to 1.5 times. */
const TOOL_PREAMBLE_TOKENS = 1024;
/**
 * Copies of the vendor's vision page publish two rules: ⌈width / 28⌉ × ⌈height / 28⌉, and width × height / 750. Its table of the largest image
 * kept could not be read; launch notes of the 4.7 models say 3.75 megapixels, 2,576 pixels on the long edge. That is up to 4,929 by the
 * first rule, rounding included, and 5,000 by the second; models before kept images of about 1,600.
 */
const IMAGE_TOKENS = 5000;

interface Tally {
  tokens: number;
  unknownParts: number;
}

function addMessage(message: JsonObject, tally: Tally): void {
  tally.tokens += MESSAGE_TOKENS;
  addContent(message["content"], tally);
  addUnread(message, MESSAGE_FIELDS, tally);
}

const MESSAGE_FIELDS: ReadonlySet<string> = new Set(["role", "content"]);

function addContent(content: Json | undefined, tally: Tally): void {
  if (Array.isArray(content)) for (const block of content as readonly Json[]) addBlock(object(block), tally);
  else if (typeof content === "string") tally.tokens += textBytes(content);
  else if (isSet(content)) tally.unknownParts++;
}

function addBlock(block: JsonObject, tally: Tally): void {
  const read = BLOCK_FIELDS[string(block["type"])];
  if (read === undefined) {
    tally.unknownParts++;
    return;
  }
  addUnread(block, read, tally);
  for (const key of TEXT_FIELDS) tally.tokens += textBytes(block[key]);
  switch (string(block["type"])) {
    case "image":
      tally.tokens += IMAGE_TOKENS;
      return;
    case "document":
      addSource(object(block["source"]), tally);
      return;
    case "tool_use":
      tally.tokens += SCHEMA_TOKENS_PER_BYTE * schemaBytes(block["input"]);
      return;
    case "tool_result":
      tally.tokens += MESSAGE_TOKENS;
      addContent(block["content"], tally);
  }
}

/** Texts of any block. A signature or hidden reasoning is at least as long as the reasoning it encrypts. */
const TEXT_FIELDS = ["text", "thinking", "signature", "data", "id", "name", "tool_use_id", "title", "context"] as const;

/** The blocks that have a term, and their fields that have one or none to need; any other is a part without a term. */
const BLOCK_FIELDS: Readonly<Record<string, ReadonlySet<string>>> = Object.assign(Object.create(null) as object, {
  text: new Set(["type", "text", "cache_control"]),
  thinking: new Set(["type", "thinking", "signature"]),
  redacted_thinking: new Set(["type", "data"]),
  image: new Set(["type", "source", "transformations", "cache_control"]),
  document: new Set(["type", "source", "title", "context", "citations", "cache_control"]),
  tool_use: new Set(["type", "id", "name", "input", "caller", "cache_control"]),
  tool_result: new Set(["type", "tool_use_id", "content", "is_error", "cache_control"]),
});

function addSource(source: JsonObject, tally: Tally): void {
  if (source["type"] === "text") tally.tokens += textBytes(source["data"]);
  else if (source["type"] === "content") addContent(source["content"], tally);
  else tally.unknownParts++;
}

function addUnread(value: JsonObject, read: ReadonlySet<string>, tally: Tally): void {
  for (const key of Object.keys(value)) if (!read.has(key) && isSet(value[key])) tally.unknownParts++;
}

/** Tools and the answer's schema, in the caller's own bytes: nothing is re-serialised. */
function addTools(request: ModelRequest, tally: Tally): void {
  const { tools, output_config: config } = request.fields;
  if (!isSet(tools) && !isSet(config)) return;
  for (const { key, valueStart, end } of membersOf(request))
    if (key === "tools" || key === "output_config") tally.tokens += SCHEMA_TOKENS_PER_BYTE * (end - valueStart);
  if (list(tools).length > 0) tally.tokens += TOOL_PREAMBLE_TOKENS;
  for (const tool of list(tools)) {
    const { type } = object(tool);
    if (isSet(type) && type !== "custom") tally.unknownParts++;
  }
}

function isSet(value: Json | undefined): boolean {
  return value !== undefined && value !== null;
}
