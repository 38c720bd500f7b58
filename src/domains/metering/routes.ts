import { z } from "zod";
import { type AttemptId, isUuid } from "../../kernel/ids.ts";
import { formatUsd } from "../../kernel/money.ts";
import { Problem } from "../../kernel/problem.ts";
import { type Answer, type Download, routeBuilder } from "../../kernel/route.ts";
import { inputTokens, outputTokens, TOKEN_CLASSES } from "../../kernel/tokens.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import { afterId, pageOf } from "../../storage/snapshot/index.ts";
import type { Proofs } from "../identity/index.ts";
import { EXPORT_FORMATS, EXPORT_TYPES, type ExportFormat } from "./exports.ts";
import { ATTEMPT_STATUSES } from "./model.ts";
import type { BucketQuery, NamedGroup, Reports } from "./reports.ts";
import { type Dimension, DIMENSIONS } from "./usage-query.ts";

/** The tenant's usage and costs in the shapes of the OpenAI Admin API, and the platform's reports. */
export function meteringRoutes(reports: Reports) {
  return [
    route({
      id: "usage.completions",
      method: "GET",
      path: "/v1/organization/usage/completions",
      summary:
        "Usage of chat completions in time buckets, of the tenant or of the key's project. Beside OpenAI's, 'feature' and 'user' can be grouped by.",
      permission: "usage:read",
      reach: "own",
      params: NOTHING,
      query: completionsQuery,
      body: null,
      result: bucketPage(completionsResult),
      example: { params: {}, query: { start_time: "1767225600", group_by: "model" } },
      audit: null,
      handler: async ({ allowed, transaction, query }) => {
        const grouped = new Set<string>(query.group_by);
        return {
          body: await reports.buckets(transaction, allowed, "completions", usageQuery(query), (group) => completionsOf(group, grouped)),
        };
      },
    }),
    route({
      id: "usage.costs",
      method: "GET",
      path: "/v1/organization/costs",
      summary:
        "What the tenant (or the key's project) is charged, in daily buckets. 'amount.value_exact' is the exact amount; 'feature', 'user' and 'model' can be grouped by as well.",
      permission: "usage:read",
      reach: "own",
      params: NOTHING,
      query: costsQuery,
      body: null,
      result: bucketPage(costsResult),
      example: { params: {}, query: { start_time: "1767225600", group_by: "project_id" } },
      audit: null,
      handler: async ({ allowed, transaction, query }) => {
        const grouped = new Set<string>(query.group_by);
        return { body: await reports.buckets(transaction, allowed, "costs", costQuery(query), (group) => costOf(group, grouped)) };
      },
    }),
    route({
      id: "platform_usage.report",
      method: "GET",
      path: "/admin/v1/usage",
      summary:
        "Usage and costs of all tenants, added up by the dimensions asked for, dearest first. The last 30 days unless told otherwise.",
      permission: "platform:usage:read",
      reach: "platform",
      params: NOTHING,
      query: totalsQuery,
      body: null,
      result: z.object({ start_time: z.int(), end_time: z.int(), data: z.array(totalsView) }),
      example: { params: {}, query: { group_by: "tenant" } },
      audit: null,
      handler: async ({ query }) => ({ body: await reports.totals({ ...query, group_by: new Set(query.group_by) }) }),
    }),
    route({
      id: "platform_usage.hops",
      method: "GET",
      path: "/admin/v1/usage/hops",
      summary: "The usage rows of all tenants: one each attempt, newest first.",
      permission: "platform:usage:read",
      reach: "platform",
      params: NOTHING,
      query: hopsQuery,
      body: null,
      result: pageOf(hopView),
      example: { params: {}, query: { limit: "20" } },
      audit: null,
      handler: async ({ query }) => ({ body: await reports.hops({ ...query, after: afterId(query.after) as AttemptId | null }) }),
    }),
    route({
      id: "platform_usage.export",
      method: "GET",
      path: "/admin/v1/usage/export",
      summary:
        "The usage rows of all tenants, one each attempt, as CSV, JSON Lines or FOCUS 1.2. The last 30 days unless told otherwise; all of one moment.",
      permission: "platform:usage:read",
      reach: "platform",
      params: NOTHING,
      query: exportQuery.extend({ tenant: z.string().min(1).max(200).optional().describe("Only this tenant, by name or id.") }),
      body: null,
      result: z.string(),
      downloads: DOWNLOADS,
      example: { params: {}, query: { format: "focus" } },
      audit: null,
      handler: async ({ query }) => exported(query, (write) => reports.exportAll(query, write)),
    }),
    route({
      id: "usage.export",
      method: "GET",
      path: "/admin/v1/tenants/{tenant}/usage/export",
      summary:
        "A tenant's usage rows, or those of the key's project, one each attempt, oldest first, as CSV, JSON Lines or FOCUS 1.2. The last 30 days unless told otherwise.",
      permission: "usage:read",
      reach: "path",
      params: z.strictObject({ tenant: z.string().min(1).max(200) }),
      query: exportQuery,
      body: null,
      result: z.string(),
      downloads: DOWNLOADS,
      example: { params: { tenant: "example" }, query: { format: "csv" } },
      audit: null,
      handler: async ({ allowed, transaction, query }) =>
        exported(query, (write) => reports.exportTenant(transaction, allowed, query, write)),
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();
const NOTHING = z.strictObject({});

/** A list in a query: repeated, or separated by commas. */
function listOf<Item extends z.ZodType>(item: Item) {
  return z.preprocess((value) => (typeof value === "string" ? value.split(",") : value), z.array(item).min(1).max(MAX_LISTED));
}

const MAX_LISTED = 100;
/** The year 9999: what a Date of either side can hold. */
const LAST_SECOND = 253_402_300_799;
const time = z.coerce.number().int().min(0).max(LAST_SECOND).describe("Unix seconds.");
const ids = listOf(z.string().min(1).max(200));

const COMPLETIONS_GROUPS = ["project_id", "user_id", "api_key_id", "model", "batch", "feature", "user"] as const;
const COSTS_GROUPS = ["project_id", "user_id", "api_key_id", "line_item", "model", "feature", "user"] as const;

const completionsQuery = z.strictObject({
  start_time: time,
  end_time: time.optional(),
  bucket_width: z.enum(["1m", "1h", "1d"]).default("1d"),
  limit: z.coerce
    .number()
    .int()
    .min(1)
    .max(1440)
    .optional()
    .describe("How many buckets. 1d: 7 unless told otherwise, at most 31; 1h: 24, at most 168; 1m: 60, at most 1440."),
  page: z.string().max(200).optional(),
  group_by: listOf(z.enum(COMPLETIONS_GROUPS)).optional(),
  project_ids: ids.optional(),
  user_ids: ids.optional(),
  api_key_ids: ids.optional(),
  models: ids.optional(),
  batch: z.enum(["true", "false"]).optional(),
});

const costsQuery = z.strictObject({
  start_time: time,
  end_time: time.optional(),
  bucket_width: z.enum(["1d"]).default("1d"),
  limit: z.coerce.number().int().min(1).max(180).default(7).describe("How many buckets."),
  page: z.string().max(200).optional(),
  group_by: listOf(z.enum(COSTS_GROUPS)).optional(),
  project_ids: ids.optional(),
  api_key_ids: ids.optional(),
  line_items: ids.optional().describe("A line item is a model."),
});

const totalsQuery = z.strictObject({
  group_by: listOf(z.enum(DIMENSIONS)).optional(),
  start_time: time.optional(),
  end_time: time.optional(),
  tenant: z.string().min(1).max(200).optional().describe("Only this tenant, by name or id."),
});

const hopsQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  after: z.string().min(1).max(200).optional(),
  order: z.enum(["asc", "desc"]).default("desc"),
  start_time: time.optional(),
  end_time: time.optional(),
  tenant: z.string().min(1).max(200).optional().describe("Only this tenant, by name or id."),
  call: z.string().refine(isUuid, "must be the id of a call").optional(),
});

const exportQuery = z.strictObject({
  format: z.enum(EXPORT_FORMATS),
  start_time: time.optional(),
  end_time: time.optional(),
  project_ids: ids.optional(),
});

const DOWNLOADS = [...new Set(EXPORT_FORMATS.map((format) => EXPORT_TYPES[format].contentType))];

/** `body` is what the answer would be if nothing were written. */
function exported({ format }: { readonly format: ExportFormat }, write: Download["write"]): Answer<string> {
  const { contentType, extension } = EXPORT_TYPES[format];
  return { body: "", download: { contentType, fileName: `usage.${extension}`, write } };
}

const LIMITS = { "1m": { usual: 60, most: 1440 }, "1h": { usual: 24, most: 168 }, "1d": { usual: 7, most: 31 } } as const;

function usageQuery(query: z.infer<typeof completionsQuery>): BucketQuery {
  const { usual, most } = LIMITS[query.bucket_width];
  if (query.limit !== undefined && query.limit > most)
    throw new Problem("invalid_request", { message: `At most ${most} buckets of ${query.bucket_width} fit a page.`, param: "limit" });
  // No member of the organization and no batch makes calls here, so these filters match nothing.
  const none = query.user_ids !== undefined || query.batch === "true";
  return { ...query, limit: query.limit ?? usual, dimensions: dimensionsOf(query.group_by), none };
}

function costQuery(query: z.infer<typeof costsQuery>): BucketQuery {
  return { ...query, models: query.line_items, dimensions: dimensionsOf(query.group_by), none: false };
}

function dimensionsOf(groups: readonly string[] = []): Set<Dimension> {
  return new Set(groups.flatMap((group) => DIMENSION_OF[group] ?? []));
}

/** OpenAI's words for dimensions. `user_id` is a member of the organization, `user` the end user a call was tagged with. */
const DIMENSION_OF: Readonly<Record<string, Dimension>> = {
  project_id: "project",
  api_key_id: "key",
  model: "model",
  line_item: "model",
  feature: "feature",
  user: "user",
};

function bucketPage<Result extends z.ZodType>(result: Result) {
  return z.object({
    object: z.literal("page"),
    data: z.array(z.object({ object: z.literal("bucket"), start_time: z.int(), end_time: z.int(), results: z.array(result) })),
    has_more: z.boolean(),
    next_page: z.string().nullable(),
  });
}

const count = z.int();
const label = z.string().nullable();

const completionsResult = z.object({
  object: z.literal("organization.usage.completions.result"),
  input_tokens: count,
  output_tokens: count,
  num_model_requests: count,
  input_uncached_tokens: count,
  input_cached_tokens: count,
  input_cache_write_tokens: count,
  input_text_tokens: count,
  input_audio_tokens: count,
  input_image_tokens: count,
  output_text_tokens: count,
  output_audio_tokens: count,
  project_id: label,
  user_id: label,
  api_key_id: label,
  model: label,
  batch: z.boolean().nullable(),
  service_tier: label,
  feature: label,
  user: label,
});

function completionsOf(group: NamedGroup, grouped: ReadonlySet<string>): z.infer<typeof completionsResult> {
  const { tokens } = group;
  return {
    object: "organization.usage.completions.result",
    input_tokens: inputTokens(tokens),
    output_tokens: outputTokens(tokens),
    num_model_requests: group.requests,
    input_uncached_tokens: tokens.input_uncached + tokens.audio_input + tokens.image,
    input_cached_tokens: tokens.cache_read,
    input_cache_write_tokens: tokens.cache_write_5m + tokens.cache_write_1h,
    input_text_tokens: tokens.input_uncached,
    input_audio_tokens: tokens.audio_input,
    input_image_tokens: tokens.image,
    output_text_tokens: tokens.output + tokens.reasoning,
    output_audio_tokens: tokens.audio_output,
    project_id: group.project,
    user_id: null,
    api_key_id: group.key,
    model: group.modelName,
    batch: grouped.has("batch") ? false : null,
    service_tier: null,
    feature: group.featureName,
    user: group.userName,
  };
}

const costsResult = z.object({
  object: z.literal("organization.costs.result"),
  amount: z.object({ value: z.number(), value_exact: z.string(), currency: z.literal("usd") }),
  line_item: label,
  quantity: z.number().nullable(),
  quantity_unit: label,
  project_id: label,
  user_id: label,
  api_key_id: label,
  model: label,
  feature: label,
  user: label,
});

function costOf(group: NamedGroup, grouped: ReadonlySet<string>): z.infer<typeof costsResult> {
  const exact = formatUsd(group.charge);
  return {
    object: "organization.costs.result",
    amount: { value: Number(exact), value_exact: exact, currency: "usd" },
    line_item: grouped.has("line_item") ? group.modelName : null,
    quantity: grouped.has("line_item") ? inputTokens(group.tokens) + outputTokens(group.tokens) : null,
    quantity_unit: grouped.has("line_item") ? "tokens" : null,
    project_id: group.project,
    user_id: null,
    api_key_id: group.key,
    model: grouped.has("model") ? group.modelName : null,
    feature: group.featureName,
    user: group.userName,
  };
}

const tokensView = z.record(z.enum(TOKEN_CLASSES), count);
const usd = z.string().describe("USD, an exact decimal.");

const totalsView = z.object({
  tenant_id: label,
  tenant: label,
  project_id: label,
  project: label,
  key_id: label,
  model: label,
  deployment_id: label,
  deployment: label,
  feature: label,
  user: label,
  attempts: count.describe("Dispatches, failed ones included."),
  requests: count.describe("Attempts that were answered."),
  estimated: count.describe("Attempts charged by an estimate."),
  dispatch_unknown: count.describe("Attempts cut off by a crash before it was known whether they had left."),
  input_tokens: count,
  output_tokens: count,
  tokens: tokensView,
  cost: usd,
  charge: usd,
});

const hopView = z.object({
  id: z.string().describe("The attempt."),
  hop: z.string(),
  call: z.string(),
  tenant_id: z.string(),
  tenant: label,
  project_id: label,
  project: label,
  key_id: label,
  feature: z.string(),
  user: label,
  trace: label,
  kind: z.string(),
  provider: z.string(),
  model: z.string().describe("As the caller asked for it."),
  model_served: z.string().describe("As the upstream named it."),
  deployment_id: z.string(),
  deployment: label,
  region: label,
  price_version: z.string(),
  tokens: tokensView,
  cost: usd,
  charge: usd,
  worst_case: usd,
  bound: z.enum(["proof", "rule"]),
  source: z.enum(["reported", "counted"]),
  estimated: z.boolean(),
  dispatch_unknown: z.boolean(),
  status: z.enum(ATTEMPT_STATUSES),
  latency_ms: count,
  first_token_ms: count.nullable(),
  started_at: z.iso.datetime(),
});
