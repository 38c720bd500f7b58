import type { Transaction } from "kysely";
import type { Clock } from "../../kernel/clock.ts";
import { type AttemptId, isUuid, type ModelId, PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import { formatUsd } from "../../kernel/money.ts";
import { Problem } from "../../kernel/problem.ts";
import { inputTokens, outputTokens, TOKEN_CLASSES } from "../../kernel/tokens.ts";
import type { Database, Tables, TenantTransaction } from "../../storage/database/index.ts";
import { type Page, toPage } from "../../storage/snapshot/index.ts";
import type { Allowed } from "../identity/index.ts";
import { decodePage, encodePage } from "./cursor.ts";
import { type ExportFormat, type Write, writeRows } from "./exports.ts";
import { type HopView, type Names, Opener, type OpenerNeeds } from "./hop-view.ts";
import {
  type Dimension,
  eachUsageBatch,
  type HopRow,
  type HopsFilter,
  modelsUsed,
  type UsageFilter,
  type UsageGroup,
  usageGroups,
  usageHops,
} from "./usage-query.ts";

export interface ReportNeeds extends OpenerNeeds {
  readonly database: Pick<Database, "forSystem">;
  readonly clock: Clock;
  /** 32 bytes; page cursors are authenticated with it. */
  readonly cursorSecret: Buffer;
  /** Ships what is settled, as far as a report may wait for it. */
  readonly flush: () => Promise<void>;
}

/** What a bucketed report is asked for. Times in Unix seconds, [start, end). */
export interface BucketQuery {
  readonly start_time: number;
  readonly end_time?: number | undefined;
  readonly bucket_width: keyof typeof BUCKET_SECONDS;
  readonly limit: number;
  readonly page?: string | undefined;
  readonly dimensions: ReadonlySet<Dimension>;
  readonly project_ids?: readonly string[] | undefined;
  readonly api_key_ids?: readonly string[] | undefined;
  readonly models?: readonly string[] | undefined;
  /** Nothing matches: a filter on what no row here has. */
  readonly none: boolean;
}

/** A group whose tags are opened. */
export interface NamedGroup extends UsageGroup {
  readonly modelName: string | null;
  readonly featureName: string | null;
  readonly userName: string | null;
}

interface Bucket<Result> {
  object: "bucket";
  start_time: number;
  end_time: number;
  results: Result[];
}

export interface BucketPage<Result> {
  object: "page";
  data: Bucket<Result>[];
  has_more: boolean;
  next_page: string | null;
}

export type Reports = ReturnType<typeof createReports>;

export function createReports(needs: ReportNeeds) {
  const opener = new Opener(needs);
  const longExports: TenantId[] = [];
  return {
    /** A tenant's usage in time buckets; a project's key sees its project only. `report` tells one cursor from another's. */
    async buckets<Result>(
      tx: TenantTransaction,
      allowed: Allowed<"usage:read">,
      report: string,
      query: BucketQuery,
      result: (group: NamedGroup) => Result,
    ): Promise<BucketPage<Result>> {
      await needs.flush();
      const width = BUCKET_SECONDS[query.bucket_width];
      const end = query.end_time ?? Math.floor(needs.clock.now() / 1000) + 1;
      if (end <= query.start_time)
        throw new Problem("invalid_request", { message: "'end_time' must be later than 'start_time'.", param: "end_time" });
      const scope = `${allowed.tenant}/${allowed.project ?? ""}/${report}`;
      const from = query.page === undefined ? query.start_time : decodePage(needs.cursorSecret, scope, query.page);
      const spans = bucketSpans(Math.max(from, query.start_time), end, width, query.limit);
      const to = spans.at(-1)?.end ?? from;
      const groups = query.none ? [] : await tenantGroups(tx, allowed, query, from, to, width);
      const more = to < end;
      return {
        object: "page",
        data: spans.map((span) => ({
          object: "bucket",
          start_time: span.start,
          end_time: span.end,
          results: groups.filter((group) => group.bucket === span.bucket).map(result),
        })),
        has_more: more,
        next_page: more ? encodePage(needs.cursorSecret, scope, to) : null,
      };
    },

    /** Totals over all tenants, dearest first. */
    async totals(query: TotalsQuery): Promise<TotalsReport> {
      await needs.flush();
      const end = query.end_time ?? Math.floor(needs.clock.now() / 1000) + 1;
      const start = query.start_time ?? end - DEFAULT_REPORT_SECONDS;
      const filter = { ...EVERYTHING, from: instant(start), to: instant(end), tenant: tenantOf(query.tenant) };
      const groups = await needs.database.forSystem("report", (tx) => usageGroups(tx, filter, query.group_by, null));
      const rows = merged(await named(groups), query.group_by);
      return { start_time: start, end_time: end, data: rows.map((group) => totalsRow(group, query.group_by, needs.names)) };
    },

    /** Usage rows of all tenants, one each attempt, newest first unless asked otherwise. */
    async hops(query: HopsQuery): Promise<Page<HopView>> {
      await needs.flush();
      const filter: HopsFilter = {
        from: query.start_time === undefined ? null : instant(query.start_time),
        to: query.end_time === undefined ? null : instant(query.end_time),
        tenant: tenantOf(query.tenant),
        call: query.call ?? null,
        after: query.after,
        order: query.order,
        limit: query.limit + 1,
      };
      const rows = await needs.database.forSystem("report", (tx) => usageHops(tx, filter));
      return toPage(await opener.views(rows), query.limit, (view) => view);
    },

    /** Writes a tenant's usage rows, oldest first; a project's key sees its project only. */
    exportTenant(tx: TenantTransaction, allowed: Allowed<"usage:read">, query: ExportQuery, write: Write): Promise<void> {
      return exporting(query, allowed.tenant, (filter, long) => {
        const own = { ...filter, tenant: allowed.tenant, projects: projectsOf(allowed, query) };
        return writeRows(query.format, (take) => eachUsageBatch(tx, own, opened(take), long), write);
      });
    },

    /** Writes the usage rows of all tenants, or of one: each tenant's oldest first. */
    exportAll(query: ExportQuery & { readonly tenant?: string | undefined }, write: Write): Promise<void> {
      return exporting(query, PLATFORM_TENANT, (filter, long) => {
        const all = { ...filter, tenant: tenantOf(query.tenant), projects: query.project_ids ?? null };
        return needs.database.forSystem("report", (tx) =>
          writeRows(query.format, (take) => eachUsageBatch(tx, all, opened(take), long), write),
        );
      });
    },
  };

  /** A long one holds a connection for as long as its reader takes. */
  async function exporting(
    query: ExportQuery,
    tenant: TenantId,
    work: (filter: UsageFilter, long: () => void) => Promise<void>,
  ): Promise<void> {
    let isLong = false;
    const long = (): void => {
      if (!hasRoom(longExports, tenant))
        throw new Problem("overloaded", { message: "Other exports are running. Retry when they have ended.", retryAfterSeconds: 10 });
      longExports.push(tenant);
      isLong = true;
    };
    await needs.flush();
    const end = query.end_time ?? Math.floor(needs.clock.now() / 1000) + 1;
    const start = query.start_time ?? end - DEFAULT_REPORT_SECONDS;
    try {
      await work({ ...EVERYTHING, from: instant(start), to: instant(end) }, long);
    } finally {
      if (isLong) longExports.splice(longExports.indexOf(tenant), 1);
    }
  }

  function opened(take: (views: readonly HopView[]) => Promise<void>): (rows: readonly HopRow[]) => Promise<void> {
    return async (rows) => take(await opener.views(rows));
  }

  async function tenantGroups(
    tx: TenantTransaction,
    allowed: Allowed<"usage:read">,
    query: BucketQuery,
    from: number,
    to: number,
    width: number,
  ): Promise<NamedGroup[]> {
    const everything: UsageFilter = {
      ...EVERYTHING,
      from: instant(from),
      to: instant(to),
      projects: projectsOf(allowed, query),
      keys: query.api_key_ids ?? null,
    };
    const models = query.models === undefined ? null : await modelIds(tx, allowed.tenant, everything, new Set(query.models));
    return named(await usageGroups(tx, { ...everything, models }, query.dimensions, width));
  }

  /** Names are ciphertexts, so a filter by name is resolved among the models that were used. */
  async function modelIds(tx: Transaction<Tables>, tenant: TenantId, filter: UsageFilter, wanted: ReadonlySet<string>): Promise<ModelId[]> {
    const keyring = await needs.tags(tenant);
    const used = await modelsUsed(tx, filter);
    return used.filter((row) => wanted.has(opener.open(keyring, "model_requested", row.sealed, row.model_id))).map((row) => row.model_id);
  }

  async function named(groups: readonly UsageGroup[]): Promise<NamedGroup[]> {
    const keyrings = await opener.keyrings(groups.flatMap((group) => (group.tenant === null ? [] : [group.tenant])));
    return groups.map((group) => {
      const keyring = group.tenant === null ? null : (keyrings.get(group.tenant) ?? null);
      return {
        ...group,
        modelName: group.model === null ? null : opener.open(keyring, "model_requested", group.modelSealed, group.model),
        featureName: opener.tag(keyring, "feature", group.featureSealed, group.featureIndex),
        userName: opener.tag(keyring, "user", group.userSealed, group.userIndex),
      };
    });
  }

  function tenantOf(nameOrId: string | undefined): TenantId | null {
    if (nameOrId === undefined) return null;
    // An archived tenant has no name any more, and still its rows.
    const tenant = needs.names.tenantNamed(nameOrId) ?? (isUuid(nameOrId) ? (nameOrId as TenantId) : null);
    if (tenant === null) throw new Problem("invalid_request", { message: "'tenant' names no tenant.", param: "tenant" });
    return tenant;
  }
}

export interface ExportQuery {
  readonly format: ExportFormat;
  readonly start_time?: number | undefined;
  readonly end_time?: number | undefined;
  readonly project_ids?: readonly string[] | undefined;
}

export interface TotalsQuery {
  readonly group_by: ReadonlySet<Dimension>;
  readonly start_time?: number | undefined;
  readonly end_time?: number | undefined;
  readonly tenant?: string | undefined;
}

export interface TotalsReport {
  start_time: number;
  end_time: number;
  data: TotalsRow[];
}

type TotalsRow = ReturnType<typeof totalsRow>;

export interface HopsQuery {
  readonly start_time?: number | undefined;
  readonly end_time?: number | undefined;
  readonly tenant?: string | undefined;
  readonly call?: string | undefined;
  readonly after: AttemptId | null;
  readonly order: "asc" | "desc";
  readonly limit: number;
}

/** The buckets of [from, end), aligned to UTC and clipped to what was asked for, at most `limit`. Pure. */
export function bucketSpans(from: number, end: number, width: number, limit: number): { bucket: number; start: number; end: number }[] {
  const spans = [];
  for (let bucket = Math.floor(from / width) * width; bucket < end && spans.length < limit; bucket += width) {
    spans.push({ bucket, start: Math.max(bucket, from), end: Math.min(bucket + width, end) });
  }
  return spans;
}

/** Groups that say the same in the dimensions asked for, added up; dearest first. Pure. */
function merged(groups: readonly NamedGroup[], dimensions: ReadonlySet<Dimension>): NamedGroup[] {
  const sums = new Map<string, NamedGroup>();
  for (const group of groups) {
    const label = JSON.stringify([
      dimensions.has("tenant") ? group.tenant : null,
      group.project,
      group.key,
      group.modelName,
      group.deployment,
      group.featureName,
      group.userName,
    ]);
    const sum = sums.get(label);
    sums.set(label, sum === undefined ? group : added(sum, group));
  }
  return [...sums.values()].toSorted((a, b) => (a.charge === b.charge ? 0 : a.charge < b.charge ? 1 : -1));
}

function added(a: NamedGroup, b: NamedGroup): NamedGroup {
  const tokens = { ...a.tokens };
  for (const tokenClass of TOKEN_CLASSES) tokens[tokenClass] += b.tokens[tokenClass];
  return {
    ...a,
    attempts: a.attempts + b.attempts,
    requests: a.requests + b.requests,
    estimated: a.estimated + b.estimated,
    dispatchUnknown: a.dispatchUnknown + b.dispatchUnknown,
    tokens,
    cost: a.cost + b.cost,
    charge: a.charge + b.charge,
  };
}

function totalsRow(group: NamedGroup, dimensions: ReadonlySet<Dimension>, names: Names) {
  const tenant = dimensions.has("tenant") ? group.tenant : null;
  return {
    tenant_id: tenant,
    tenant: tenant === null ? null : names.tenant(tenant),
    project_id: group.project,
    project: group.tenant === null || group.project === null ? null : names.project(group.tenant, group.project),
    key_id: group.key,
    model: group.modelName,
    deployment_id: group.deployment,
    deployment: group.deployment === null ? null : names.deployment(group.deployment),
    feature: group.featureName,
    user: group.userName,
    attempts: group.attempts,
    requests: group.requests,
    estimated: group.estimated,
    dispatch_unknown: group.dispatchUnknown,
    input_tokens: inputTokens(group.tokens),
    output_tokens: outputTokens(group.tokens),
    tokens: { ...group.tokens } as Record<string, number>,
    cost: formatUsd(group.cost),
    charge: formatUsd(group.charge),
  };
}

/** A project's key sees its project, whatever it asks for. */
function projectsOf(
  allowed: Allowed<"usage:read">,
  query: { readonly project_ids?: readonly string[] | undefined },
): readonly string[] | null {
  if (allowed.project === null) return query.project_ids ?? null;
  const { project } = allowed;
  return query.project_ids === undefined ? [project] : query.project_ids.filter((id) => id === project);
}

function instant(seconds: number): Date {
  return new Date(seconds * 1000);
}

const BUCKET_SECONDS = { "1m": 60, "1h": 3600, "1d": 86_400 } as const;
const EVERYTHING = { tenant: null, projects: null, keys: null, models: null };
const DEFAULT_REPORT_SECONDS = 30 * 86_400;
/** Whether one more of more than one batch may run in this process, so that no tenant's slow readers keep another's waiting. */
function hasRoom(running: readonly TenantId[], tenant: TenantId): boolean {
  const own = running.filter((each) => each === tenant).length;
  if (tenant === PLATFORM_TENANT) return own < MAX_LONG_OF_PLATFORM;
  return own === 0 && running.filter((each) => each !== PLATFORM_TENANT).length < MAX_LONG_OF_TENANTS;
}

/** Each takes one of the four connections that shipping needs too. */
const MAX_LONG_OF_PLATFORM = 2;
/** Of all tenants, one each: of the ten connections that requests share. */
const MAX_LONG_OF_TENANTS = 3;
