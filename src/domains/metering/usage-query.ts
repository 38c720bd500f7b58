import { type Selectable, sql, type Transaction } from "kysely";
import {
  type AttemptId,
  type CallId,
  type DeploymentId,
  isUuid,
  type KeyId,
  type ModelId,
  type ProjectId,
  type TenantId,
} from "../../kernel/ids.ts";
import type { PicoDollars } from "../../kernel/money.ts";
import { Problem } from "../../kernel/problem.ts";
import { TOKEN_CLASSES, type TokenClass } from "../../kernel/tokens.ts";
import type { Tables } from "../../storage/database/index.ts";

/** What usage can be grouped by. Tags and model names are ciphertexts of a tenant, so grouping by them groups by tenant too. */
export const DIMENSIONS = ["tenant", "project", "key", "model", "deployment", "feature", "user"] as const;
export type Dimension = (typeof DIMENSIONS)[number];

export interface UsageFilter {
  /** [from, to) of `started_at`. */
  readonly from: Date;
  readonly to: Date;
  /** Null: any. */
  readonly tenant: TenantId | null;
  readonly projects: readonly string[] | null;
  readonly keys: readonly string[] | null;
  readonly models: readonly ModelId[] | null;
}

/** A group's totals. Dimensions not asked for are null. */
export interface UsageGroup {
  /** Start of the bucket, Unix seconds; 0 without buckets. */
  readonly bucket: number;
  readonly tenant: TenantId | null;
  readonly project: ProjectId | null;
  readonly key: KeyId | null;
  readonly model: ModelId | null;
  readonly deployment: DeploymentId | null;
  readonly featureIndex: Buffer | null;
  readonly userIndex: Buffer | null;
  /** One ciphertext of each: all of a group say the same. */
  readonly modelSealed: Buffer | null;
  readonly featureSealed: Buffer | null;
  readonly userSealed: Buffer | null;
  /** Attempts; requests are those that were answered. */
  readonly attempts: number;
  readonly requests: number;
  readonly estimated: number;
  readonly dispatchUnknown: number;
  readonly tokens: Readonly<Record<TokenClass, number>>;
  readonly cost: PicoDollars;
  readonly charge: PicoDollars;
}

/** Totals of the usage rows that the transaction may see, less counts of tokens: they use nothing and answer nothing. `bucketSeconds` null: one bucket. Throws `invalid_request` beyond MAX_GROUPS. */
export async function usageGroups(
  tx: Transaction<Tables>,
  filter: UsageFilter,
  dimensions: ReadonlySet<Dimension>,
  bucketSeconds: number | null,
): Promise<UsageGroup[]> {
  const bucket =
    bucketSeconds === null
      ? sql<number>`0::bigint`
      : sql<number>`(floor(extract(epoch from started_at) / ${sql.lit(bucketSeconds)}) * ${sql.lit(bucketSeconds)})::bigint`;
  const has = (dimension: Dimension): boolean => dimensions.has(dimension);
  // A name can be told only with its tenant; a project has one tenant, so this makes no more groups.
  const withTenant = has("tenant") || has("project") || has("model") || has("feature") || has("user");
  const one = <T>(wanted: boolean, column: string, type: string) =>
    wanted ? sql<T | null>`${sql.ref(column)}` : sql<T | null>`null::${sql.raw(type)}`;
  const sample = (wanted: boolean, column: string) =>
    wanted ? sql<Buffer | null>`(array_agg(${sql.ref(column)}))[1]` : sql<Buffer | null>`null::bytea`;
  let query = filtered(tx, filter)
    .where("kind", "<>", "count")
    .select([
      bucket.as("bucket"),
      one<TenantId>(withTenant, "tenant_id", "uuid").as("tenant"),
      one<ProjectId>(has("project"), "project_id", "uuid").as("project"),
      one<KeyId>(has("key"), "key_id", "text").as("key"),
      one<ModelId>(has("model"), "model_id", "uuid").as("model"),
      one<DeploymentId>(has("deployment"), "deployment_id", "uuid").as("deployment"),
      one<Buffer>(has("feature"), "feature_index", "bytea").as("featureIndex"),
      one<Buffer>(has("user"), "user_index", "bytea").as("userIndex"),
      sample(has("model"), "model_requested_sealed").as("modelSealed"),
      sample(has("feature"), "feature_sealed").as("featureSealed"),
      sample(has("user"), "user_sealed").as("userSealed"),
      sql<number>`count(*)`.as("attempts"),
      sql<number>`count(*) filter (where status <> 'failed')`.as("requests"),
      sql<number>`count(*) filter (where estimated)`.as("estimated"),
      sql<number>`count(*) filter (where dispatch_unknown)`.as("dispatchUnknown"),
      ...TOKEN_CLASSES.map((tokenClass) => sql<number>`coalesce(sum(${sql.ref(tokenClass)}), 0)::bigint`.as(tokenClass)),
      sql<PicoDollars>`coalesce(sum(cost), 0)`.as("cost"),
      sql<PicoDollars>`coalesce(sum(charge), 0)`.as("charge"),
    ]);
  const columns = GROUP_COLUMNS.filter(([dimension]) => has(dimension) || (withTenant && dimension === "tenant")).map(
    ([, column]) => sql`${sql.ref(column)}`,
  );
  query = query
    .groupBy([bucket, ...columns])
    .orderBy(bucket)
    .limit(MAX_GROUPS + 1);
  const rows = await query.execute();
  if (rows.length > MAX_GROUPS)
    throw new Problem("invalid_request", {
      message: `The report has more than ${MAX_GROUPS} groups. Ask for a shorter time or fewer dimensions.`,
      param: "group_by",
    });
  return rows.map((row) => ({ ...row, tokens: tokensOf(row) }));
}

/** The models in the rows, with one ciphertext of each one's name: what a filter by name is resolved with. */
export function modelsUsed(tx: Transaction<Tables>, filter: UsageFilter): Promise<{ model_id: ModelId; sealed: Buffer }[]> {
  return filtered(tx, filter)
    .select(["model_id", sql<Buffer>`(array_agg(model_requested_sealed))[1]`.as("sealed")])
    .groupBy("model_id")
    .execute();
}

export interface HopsFilter {
  readonly from: Date | null;
  readonly to: Date | null;
  readonly tenant: TenantId | null;
  readonly call: string | null;
  /** The row before the first. */
  readonly after: AttemptId | null;
  readonly order: "asc" | "desc";
  readonly limit: number;
}

export type HopRow = Selectable<Tables["usage_rows"]>;

/** Usage rows in the order of their ids, which is that of their admission. */
export function usageHops(tx: Transaction<Tables>, filter: HopsFilter): Promise<HopRow[]> {
  let query = tx.selectFrom("usage_rows").selectAll().orderBy("id", filter.order).limit(filter.limit);
  if (filter.from !== null) query = query.where("started_at", ">=", filter.from);
  if (filter.to !== null) query = query.where("started_at", "<", filter.to);
  if (filter.tenant !== null) query = query.where("tenant_id", "=", filter.tenant);
  if (filter.call !== null) query = query.where("call", "=", filter.call as CallId);
  if (filter.after !== null) query = query.where("id", filter.order === "asc" ? ">" : "<", filter.after);
  return query.execute();
}

/**
 * Usage rows, by tenant and then in the order of admission, through a cursor: all of one moment, never more than a batch of them
 * in memory. The transaction stays open until `take` has had them all. `long` is called first where they are more than one batch.
 */
export async function eachUsageBatch(
  tx: Transaction<Tables>,
  filter: UsageFilter,
  take: (rows: readonly HopRow[]) => Promise<void>,
  long: () => void,
): Promise<void> {
  const rows = filtered(tx, filter).selectAll().orderBy("tenant_id").orderBy("id");
  await sql`DECLARE usage_export NO SCROLL CURSOR FOR ${rows}`.execute(tx);
  for (let batches = 1, more = true; more; batches++) {
    const batch = await sql<HopRow>`FETCH ${sql.lit(BATCH_ROWS)} FROM usage_export`.execute(tx);
    more = batch.rows.length === BATCH_ROWS;
    if (more && batches === 1) long();
    if (batch.rows.length > 0) await take(batch.rows);
  }
  await sql`CLOSE usage_export`.execute(tx);
}

function tokensOf(row: Record<TokenClass, number>): Record<TokenClass, number> {
  return Object.fromEntries(TOKEN_CLASSES.map((tokenClass) => [tokenClass, row[tokenClass]])) as Record<TokenClass, number>;
}

function filtered(tx: Transaction<Tables>, filter: UsageFilter) {
  let query = tx.selectFrom("usage_rows").where("started_at", ">=", filter.from).where("started_at", "<", filter.to);
  if (filter.tenant !== null) query = query.where("tenant_id", "=", filter.tenant);
  if (filter.projects !== null)
    query = query.where(
      "project_id",
      "in",
      matching(
        filter.projects.filter((id): id is ProjectId => isUuid(id)),
        NO_PROJECT,
      ),
    );
  if (filter.keys !== null) query = query.where("key_id", "in", matching(filter.keys as readonly KeyId[], "" as KeyId));
  if (filter.models !== null) query = query.where("model_id", "in", matching(filter.models, NO_MODEL));
  return query;
}

/** A list that is never empty: `IN ()` is not SQL. */
function matching<T>(values: readonly T[], none: T): readonly T[] {
  return values.length === 0 ? [none] : values;
}

const GROUP_COLUMNS: readonly (readonly [Dimension, string])[] = [
  ["tenant", "tenant_id"],
  ["project", "project_id"],
  ["key", "key_id"],
  ["model", "model_id"],
  ["deployment", "deployment_id"],
  ["feature", "feature_index"],
  ["user", "user_index"],
];
const MAX_GROUPS = 20_000;
/** About 0.5 MB of rows. */
const BATCH_ROWS = 500;
const NO_PROJECT = "00000000-0000-0000-0000-000000000000" as ProjectId;
const NO_MODEL = "00000000-0000-0000-0000-000000000000" as ModelId;
