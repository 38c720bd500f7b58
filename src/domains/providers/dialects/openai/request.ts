import { z } from "zod";
import { BOUNDS } from "../../../../kernel/bounds.ts";
import type { ChatRequest } from "../../../../kernel/chat.ts";
import { parseJson } from "../../../../kernel/json.ts";
import { Problem } from "../../../../kernel/problem.ts";
import type { Attribution, Json, JsonObject, ModelRequest } from "../../../../kernel/request.ts";
import { topLevelMembers, type Member } from "../splice.ts";
import { toChat } from "./chat.ts";
import { FIELDS } from "./fields.ts";
import { isPlainRequest } from "./plain-request.ts";

/**
 * Parses a body of `/v1/chat/completions`. `headers` is what attribution headers said; it beats the body's `metadata`,
 * which beats `user`. Throws Problems `invalid_json`, `duplicate_key`, `invalid_request` and `unsupported_field`, `param` set.
 */
export function parseChatCompletion(body: Buffer, headers: Attribution = NO_ATTRIBUTION): ModelRequest {
  const json = parseJson(body, BOUNDS.jsonDepth);
  const read = isPlainRequest(json) ? json : readBySchema(json);
  const fields = json as JsonObject;
  refuseByPolicy(fields);
  refuseInside(read);
  return new ChatCompletionRequest(body, fields, read, attribute(headers, read));
}

function readBySchema(json: Json): Read {
  const checked = SCHEMA.safeParse(json);
  if (!checked.success) throw invalid(checked.error.issues[0]);
  return checked.data;
}

/** The members of the request's body, scanned once however often it is dispatched. */
export function membersOf(request: ModelRequest): readonly Member[] {
  return request instanceof ChatCompletionRequest ? request.members() : topLevelMembers(request.body);
}

class ChatCompletionRequest implements ModelRequest {
  readonly kind = "generate";
  readonly dialect = "openai";
  readonly model: string;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly body: Buffer;
  readonly fields: JsonObject;
  readonly attribution: Attribution;
  #chat: ChatRequest | null = null;
  #members: Member[] | null = null;

  constructor(body: Buffer, fields: JsonObject, read: Read, attribution: Attribution) {
    this.model = read.model;
    this.stream = read.stream === true;
    this.includeUsage = this.stream && read.stream_options?.include_usage === true;
    this.body = body;
    this.fields = fields;
    this.attribution = attribution;
  }

  chat(): ChatRequest {
    return (this.#chat ??= toChat(this.fields));
  }

  members(): readonly Member[] {
    return (this.#members ??= topLevelMembers(this.body));
  }
}

function refuseByPolicy(fields: JsonObject): void {
  for (const key of Object.keys(fields)) {
    const rule = FIELDS.get(key);
    if (rule?.class !== "ours" || rule.policy.kind !== "refuse") continue;
    const value = fields[key];
    if (value === null || rule.policy.harmless.some((harmless) => harmless === value)) continue;
    throw new Problem("unsupported_field", { param: key, message: `'${key}' cannot be honoured here; leave it out. ${rule.why}` });
  }
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

function attribute(headers: Attribution, read: Read): Attribution {
  const { feature, user, session, ...tags } = read.metadata ?? NO_METADATA;
  return {
    feature: headers.feature ?? feature ?? null,
    user: headers.user ?? user ?? read.user ?? read.safety_identifier ?? null,
    session: headers.session ?? session ?? null,
    tags: { ...tags, ...headers.tags },
  };
}

function invalid(issue: z.core.$ZodIssue | undefined): Problem {
  const param = (issue?.path ?? [])
    .map((step, index) => (typeof step === "number" ? `[${step}]` : index === 0 ? String(step) : `.${String(step)}`))
    .join("");
  if (param === "") return new Problem("invalid_request", { message: "The body must be a JSON object with 'model' and 'messages'." });
  return new Problem("invalid_request", { param, message: `'${param}' is not valid: ${issue?.message ?? "unexpected value"}.` });
}

/** Choices in one request. */
export const MAX_CHOICES = 128;
const MAX_TAGS = 16;
const MAX_STOPS = 16;
/** What clients that mean "no limit" send at most. Times the choices it is still a number that every record and column can hold. */
export const MAX_TOKENS = 2 ** 31 - 1;

const NO_METADATA: Readonly<Record<string, string>> = {};
const NO_ATTRIBUTION: Attribution = { feature: null, user: null, session: null, tags: {} };

const tag = z.string().max(BOUNDS.tagLength);
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
  content: z.union([z.string(), z.null(), z.array(PART)], "expected a string, null or a list of parts").optional(),
  name: z.string().nullish(),
  refusal: z.string().nullish(),
  tool_call_id: z.string().nullish(),
  tool_calls: z
    .array(
      z.looseObject({
        id: z.string().nullish(),
        type: z.string().nullish(),
        function: z.looseObject({ name: z.string(), arguments: z.string().nullish() }).nullish(),
      }),
    )
    .nullish(),
});

/** What is read of a request; everything else passes as it came. */
export const SCHEMA = z.looseObject({
  model: z.string().min(1).max(BOUNDS.tagLength),
  messages: z.array(MESSAGE).min(1),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  n: choices,
  best_of: choices,
  max_tokens: tokens,
  max_completion_tokens: tokens,
  temperature: z.number().nullish(),
  top_p: z.number().nullish(),
  seed: z.int().nullish(),
  stop: z.union([z.string(), z.array(z.string()).max(MAX_STOPS)], `expected a string or a list of at most ${MAX_STOPS}`).nullish(),
  tools: z
    .array(
      z.looseObject({
        type: z.string(),
        function: z
          .looseObject({ name: z.string(), description: z.string().nullish(), parameters: z.looseObject({}).nullish() })
          .optional(),
      }),
    )
    .nullish(),
  tool_choice: z.union([z.string(), z.looseObject({ type: z.string() })], "expected a string or an object").nullish(),
  response_format: z.looseObject({ type: z.string() }).nullish(),
  prediction: z.looseObject({ content: z.union([z.string(), z.array(PART)]) }).nullish(),
  modalities: z.array(z.string()).nullish(),
  metadata: z
    .record(z.string().max(64), tag)
    .refine((metadata) => Object.keys(metadata).length <= MAX_TAGS, `at most ${MAX_TAGS} pairs`)
    .nullish(),
  user: tag.nullish(),
  safety_identifier: tag.nullish(),
  prompt_cache_key: tag.nullish(),
});

export type Read = z.infer<typeof SCHEMA>;
