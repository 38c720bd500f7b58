import { z } from "zod";
import { BOUNDS } from "../../../../kernel/bounds.ts";
import { parseJson } from "../../../../kernel/json.ts";
import { Problem } from "../../../../kernel/problem.ts";
import type { Attribution, Json, JsonObject, ModelRequest } from "../../../../kernel/request.ts";
import { refuseByPolicy } from "../field-rules.ts";
import { METADATA, MAX_TOKENS, NO_ATTRIBUTION, ParsedRequest, TAG, attribute, invalid, listOf } from "../parsed-request.ts";
import { toChat } from "./chat.ts";
import { FIELDS, MAX_STOPS } from "./fields.ts";
import { isPlainRequest } from "./plain-request.ts";

/**
 * Parses a body of `/v1/chat/completions`. `headers` is what attribution headers said; it beats the body's `metadata`,
 * which beats `user`. Throws Problems `invalid_json`, `duplicate_key`, `invalid_request` and `unsupported_field`, `param` set.
 */
export function parseChatCompletion(body: Buffer, headers: Attribution = NO_ATTRIBUTION): ModelRequest {
  const json = parseJson(body, BOUNDS.jsonDepth);
  const read = isPlainRequest(json) ? json : readBySchema(json);
  const fields = json as JsonObject;
  refuseByPolicy(fields, FIELDS);
  refuseInside(read);
  const { model, stream, stream_options: options, metadata, user, safety_identifier: identifier } = read;
  return new ParsedRequest({
    kind: "generate",
    dialect: "openai",
    model,
    stream: stream === true,
    includeUsage: stream === true && options?.include_usage === true,
    body,
    fields,
    attribution: attribute(headers, metadata ?? NO_METADATA, user ?? identifier ?? null),
    toChat,
  });
}

function readBySchema(json: Json): Read {
  const checked = SCHEMA.safeParse(json);
  if (!checked.success) throw invalid(checked.error.issues[0], "a JSON object with 'model' and 'messages'");
  return checked.data;
}

/** What is ours below the top level: tools that a provider runs itself, and files of the platform's account. */
function refuseInside(read: Read): void {
  read.tools?.forEach((tool, index) => {
    if (tool.type === "function" || tool.type === "custom") return;
    throw new Problem("unsupported_field", {
      param: `tools[${index}].type`,
      message: "Only tools of type 'function' and 'custom' can be used: others run on the provider's side and are billed apart.",
    });
  });
  read.messages.forEach((message, index) => {
    if (!Array.isArray(message.content)) return;
    message.content.forEach((part, position) => {
      if (part.file?.file_id === undefined || part.file.file_id === null) return;
      throw new Problem("unsupported_field", {
        param: `messages[${index}].content[${position}].file.file_id`,
        message: "Files by id are not available here; send the file as 'file_data'.",
      });
    });
  });
}

/** Choices in one request. */
export const MAX_CHOICES = 128;
const NO_METADATA: Readonly<Record<string, string>> = {};

const tokens = z.int().min(1).max(MAX_TOKENS).nullish();
const choices = z.int().min(1).max(MAX_CHOICES).nullish();

const PART = z.looseObject({
  type: z.string(),
  text: z.string().optional(),
  refusal: z.string().optional(),
  image_url: z
    .union([z.string(), z.looseObject({ url: z.string(), detail: z.string().nullish() })], "expected an object with 'url'")
    .optional(),
  file: z.looseObject({ file_id: z.string().nullish(), file_data: z.string().nullish() }).optional(),
});

const MESSAGE = z.looseObject({
  role: z.enum(["developer", "system", "user", "assistant", "tool", "function"]),
  content: z.union([z.string(), z.null(), listOf(PART)], "expected a string, null or a list of parts").optional(),
  name: z.string().nullish(),
  refusal: z.string().nullish(),
  tool_call_id: z.string().nullish(),
  tool_calls: listOf(
    z.looseObject({
      id: z.string().nullish(),
      type: z.string().nullish(),
      function: z.looseObject({ name: z.string(), arguments: z.string().nullish() }).nullish(),
    }),
  ).nullish(),
});

/** What is read of a request; everything else passes as it came. */
export const SCHEMA = z.looseObject({
  model: z.string().min(1).max(BOUNDS.tagLength),
  messages: listOf(MESSAGE, { atLeast: 1 }),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  n: choices,
  best_of: choices,
  max_tokens: tokens,
  max_completion_tokens: tokens,
  temperature: z.number().nullish(),
  top_p: z.number().nullish(),
  seed: z.int().nullish(),
  stop: z.union([z.string(), listOf(z.string(), { atMost: MAX_STOPS })], `expected a string or a list of at most ${MAX_STOPS}`).nullish(),
  tools: listOf(
    z.looseObject({
      type: z.string(),
      function: z.looseObject({ name: z.string(), description: z.string().nullish(), parameters: z.looseObject({}).nullish() }).optional(),
    }),
  ).nullish(),
  tool_choice: z.union([z.string(), z.looseObject({ type: z.string() })], "expected a string or an object").nullish(),
  response_format: z.looseObject({ type: z.string() }).nullish(),
  prediction: z.looseObject({ content: z.union([z.string(), listOf(PART)]) }).nullish(),
  modalities: listOf(z.string()).nullish(),
  metadata: METADATA.nullish(),
  user: TAG.nullish(),
  safety_identifier: TAG.nullish(),
  prompt_cache_key: TAG.nullish(),
});

export type Read = z.infer<typeof SCHEMA>;
