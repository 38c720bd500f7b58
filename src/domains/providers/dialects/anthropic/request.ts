import { z } from "zod";
import { BOUNDS } from "../../../../kernel/bounds.ts";
import { parseJson } from "../../../../kernel/json.ts";
import { Problem } from "../../../../kernel/problem.ts";
import type { Attribution, JsonObject, ModelRequest } from "../../../../kernel/request.ts";
import { refuseByPolicy } from "../field-rules.ts";
import { MAX_TOKENS, NO_ATTRIBUTION, ParsedRequest, TAG, attribute, invalid, listOf, tagsOf } from "../parsed-request.ts";
import { toChat } from "./chat.ts";
import { FIELDS } from "./fields.ts";

/**
 * Parses a body of `/v1/messages` (API versions 2023-06-01 and 2026-10-21). `headers` is what attribution headers said; it beats the
 * body's `metadata`, whose `user_id` is the end user. `max_tokens` may be missing, as in a translated request: upstream-body.ts
 * writes it. Throws Problems `invalid_json`, `duplicate_key`, `invalid_request` and `unsupported_field`, `param` set.
 */
export function parseMessages(body: Buffer, headers: Attribution = NO_ATTRIBUTION): ModelRequest {
  return parse("generate", body, headers);
}

/**
 * Parses a body of `/v1/messages/count_tokens`, as parseMessages does. Fields that only an answer needs are not looked for: a provider of this wire
 * says itself what it takes, and for all others they change nothing.
 */
export function parseCountTokens(body: Buffer, headers: Attribution = NO_ATTRIBUTION): ModelRequest {
  return parse("count", body, headers);
}

function parse(kind: ModelRequest["kind"], body: Buffer, headers: Attribution): ModelRequest {
  const json = parseJson(body, BOUNDS.jsonDepth);
  const checked = SCHEMA.safeParse(json);
  if (!checked.success) throw invalid(checked.error.issues[0], "a JSON object with 'model', 'max_tokens' and 'messages'");
  const fields = json as JsonObject;
  refuseByPolicy(fields, FIELDS);
  refuseInside(checked.data);
  const { model, stream, metadata } = checked.data;
  const { user_id: user, ...tags } = metadata ?? {};
  return new ParsedRequest({
    kind,
    dialect: "anthropic",
    model,
    stream: kind === "generate" && stream === true,
    // Usage is part of this dialect's stream, asked for or not.
    includeUsage: true,
    body,
    fields,
    attribution: attribute(headers, tags, user ?? null),
    toChat,
  });
}

/**
 * The types of tools that run at the client (`ClientToolUnion` of the SDK). All others run on the provider's side and are billed
 * apart. `custom` is the one whose definition the body holds.
 */
export const CLIENT_TOOLS = [
  "custom",
  "bash_20250124",
  "text_editor_20250124",
  "text_editor_20250429",
  "text_editor_20250728",
  "memory_20250818",
  "browser_toolset_20260801",
  "computer_toolset_20260801",
] as const;

/** What is ours below the top level: tools that the provider runs itself, and files of the platform's account. */
function refuseInside(read: Read): void {
  read.tools?.forEach(({ type }, index) => {
    if (type === undefined || type === null || (CLIENT_TOOLS as readonly string[]).includes(type)) return;
    throw new Problem("unsupported_field", {
      param: `tools[${index}].type`,
      message: "Only tools that run at the client can be used: others run on the provider's side and are billed apart.",
    });
  });
  read.messages.forEach(({ content }, index) => refuseFiles(content, `messages[${index}].content`));
}

function refuseFiles(content: string | readonly Block[] | null | undefined, at: string): void {
  if (!Array.isArray(content)) return;
  (content as readonly (Block | null)[]).forEach((block, index) => {
    // Below the levels that the schema reads an element may be anything.
    if (!isSet(block)) return;
    const here = `${at}[${index}]`;
    if (isSet(block.file_id)) throw fileById(`${here}.file_id`);
    if (isSet(block.source?.file_id)) throw fileById(`${here}.source.file_id`);
    refuseFiles(block.content, `${here}.content`);
    refuseFiles(block.source?.content, `${here}.source.content`);
  });
}

function fileById(param: string): Problem {
  return new Problem("unsupported_field", { param, message: "Files by id are not available here; send the file as 'base64' or 'text'." });
}

function isSet<T>(value: T | null | undefined): value is T {
  return value !== undefined && value !== null;
}

const MAX_STOPS = 128;

interface Block {
  readonly type: string;
  readonly file_id?: string | null | undefined;
  readonly source?: { readonly file_id?: string | null | undefined; readonly content?: string | readonly Block[] | undefined } | undefined;
  readonly content?: string | readonly Block[] | null | undefined;
}

const CACHE_CONTROL = z.looseObject({ type: z.string(), ttl: z.string().nullish() }).nullish();

/** A block's fields below `depth` levels of blocks: a tool's result holds documents, whose source holds texts. */
function blockSchema(depth: number): z.ZodType<Block> {
  // A server tool's result may hold one object here; it is forwarded as it came.
  const inner = depth === 0 ? z.unknown() : z.union([z.string(), listOf(blockSchema(depth - 1)), z.looseObject({})]);
  return z.looseObject({
    type: z.string(),
    text: z.string().optional(),
    thinking: z.string().optional(),
    signature: z.string().nullish(),
    data: z.string().optional(),
    id: z.string().optional(),
    name: z.string().optional(),
    input: z.looseObject({}).optional(),
    tool_use_id: z.string().optional(),
    is_error: z.boolean().nullish(),
    title: z.string().nullish(),
    file_id: z.string().nullish(),
    source: z
      .union([
        z.string(),
        z.looseObject({
          type: z.string(),
          media_type: z.string().optional(),
          data: z.string().optional(),
          url: z.string().optional(),
          file_id: z.string().nullish(),
          content: inner.optional(),
        }),
      ])
      .optional(),
    content: inner.optional(),
    cache_control: CACHE_CONTROL,
  }) as unknown as z.ZodType<Block>;
}

/** Blocks within blocks: a message's, a tool result's, a document's. */
const BLOCK_DEPTH = 3;

const TEXT = z.looseObject({ type: z.literal("text"), text: z.string(), cache_control: CACHE_CONTROL });

/** What is read of a request; everything else passes as it came. */
const SCHEMA = z.looseObject({
  model: z.string().min(1).max(BOUNDS.tagLength),
  // 0 fills the prompt cache without an answer.
  max_tokens: z.int().min(0).max(MAX_TOKENS).nullish(),
  messages: listOf(
    z.looseObject({
      role: z.enum(["user", "assistant", "system"]),
      content: z.union([z.string(), listOf(blockSchema(BLOCK_DEPTH - 1))], "expected a string or a list of blocks"),
    }),
    { atLeast: 1 },
  ),
  system: z.union([z.string(), listOf(TEXT)], "expected a string or a list of text blocks").nullish(),
  stream: z.boolean().nullish(),
  stop_sequences: listOf(z.string(), { atMost: MAX_STOPS }).nullish(),
  temperature: z.number().nullish(),
  top_p: z.number().nullish(),
  top_k: z.int().nullish(),
  tools: listOf(
    z.looseObject({
      type: z.string().nullish(),
      name: z.string().optional(),
      description: z.string().optional(),
      input_schema: z.looseObject({}).optional(),
      strict: z.boolean().nullish(),
      cache_control: CACHE_CONTROL,
    }),
  ).nullish(),
  tool_choice: z.looseObject({ type: z.string(), name: z.string().optional(), disable_parallel_tool_use: z.boolean().nullish() }).nullish(),
  thinking: z.looseObject({ type: z.string(), budget_tokens: z.int().min(1).max(MAX_TOKENS).optional() }).nullish(),
  output_config: z
    .looseObject({ effort: z.string().nullish(), format: z.looseObject({ type: z.string(), schema: z.looseObject({}) }).nullish() })
    .nullish(),
  cache_control: CACHE_CONTROL,
  metadata: tagsOf(z.object({ user_id: TAG.nullish() }).catchall(TAG)).nullish(),
});

type Read = z.infer<typeof SCHEMA>;
