import { type RawBuilder, sql } from "kysely";
import { PLATFORM_TENANT, type TenantId, type Uuid } from "../../../kernel/ids.ts";
import { TOKEN_CLASSES } from "../../../kernel/tokens.ts";
import type { SystemTransaction } from "../../../storage/database/index.ts";
import type { CountingBudget, Posting } from "./decide.ts";
import type { BudgetId } from "./model.ts";
import { BALANCES_LOCK, zonedBudgets } from "./store.ts";
import type { Window } from "./windows.ts";

/** What atrium_system keeps: balances, made from rows and added to as rows come, and the alerts about them. */

/** Rows that are posted come between openings, never beside one: whoever posts holds it shared, whoever makes balances anew alone. */
export async function lockBalances(tx: SystemTransaction, how: "shared" | "exclusive"): Promise<void> {
  const lock = how === "shared" ? sql`pg_advisory_xact_lock_shared` : sql`pg_advisory_xact_lock`;
  await sql`SELECT ${lock}(${BALANCES_LOCK}::bigint)`.execute(tx);
}

/** The live budgets of these owners beside what was opened of each; one of them, or of all owners, where asked. */
export async function readOpenings(tx: SystemTransaction, of: { readonly owners: readonly TenantId[] | null; readonly only?: BudgetId }) {
  const { owners, only } = of;
  let query = zonedBudgets(tx)
    .leftJoin("budget_openings as o", (join) => join.onRef("o.tenant_id", "=", "b.tenant_id").onRef("o.budget_id", "=", "b.id"))
    .select(["o.definition as opened_definition", "o.epoch as opened_epoch", "o.time_zone as opened_zone", "o.counts_from as counts_from"]);
  if (owners !== null) query = query.where(sql<boolean>`b.tenant_id = any(${[...owners]}::uuid[])`);
  if (only !== undefined) query = query.where("b.id", "=", only);
  return await query.orderBy("b.tenant_id").orderBy("b.id").execute();
}

export type OpeningRow = Awaited<ReturnType<typeof readOpenings>>[number];

export async function writeOpening(tx: SystemTransaction, row: OpeningRow, countsFrom: number): Promise<void> {
  await sql`
    INSERT INTO budget_openings (tenant_id, budget_id, definition, epoch, time_zone, counts_from)
    VALUES (${row.tenant_id}, ${row.id}, ${row.definition}, ${row.epoch}, ${row.time_zone}, ${new Date(countsFrom)})
    ON CONFLICT (tenant_id, budget_id) DO UPDATE SET definition = excluded.definition, epoch = excluded.epoch,
      time_zone = excluded.time_zone, counts_from = excluded.counts_from`.execute(tx);
}

/** Adds to the balances, in one order whoever does: two processes never wait for each other in a circle. */
export async function addPostings(tx: SystemTransaction, postings: readonly Posting[]): Promise<void> {
  const list = postings.map(({ budget, subject, subjectSealed, span, posted, overage }) => ({
    tenant_id: budget.owner,
    budget_id: budget.id,
    subject,
    subject_sealed: subjectSealed,
    window_start: iso(span.start),
    window_end: iso(span.end),
    posted: posted.toString(),
    overage: overage.toString(),
  }));
  await sql`
    INSERT INTO budget_balances AS s (tenant_id, budget_id, subject, subject_sealed, window_start, window_end, posted, overage)
    SELECT tenant_id, budget_id, subject, subject_sealed, window_start, window_end, posted, overage
    FROM json_to_recordset(${JSON.stringify(list)}::json) AS p(tenant_id uuid, budget_id uuid, subject text, subject_sealed bytea,
      window_start timestamptz, window_end timestamptz, posted numeric, overage numeric)
    ORDER BY tenant_id, budget_id, subject, window_start
    ON CONFLICT (tenant_id, budget_id, subject, window_start)
    DO UPDATE SET posted = s.posted + excluded.posted, overage = s.overage + excluded.overage`.execute(tx);
}

/** A budget's balances in the spans given, ascending and without a gap, by its rows and adjustments; nothing where they have none. */
export async function rebuild(tx: SystemTransaction, budget: CountingBudget, spans: readonly Window[]): Promise<RebuiltBalance[]> {
  const { rows } = await projection(budget, spans).execute(tx);
  return rows;
}

export interface RebuiltBalance {
  readonly subject: string;
  readonly window_start: Date;
  readonly posted: bigint;
  readonly adjusted: bigint;
  readonly overage: bigint;
}

/** The same, in place of all balances that the budget has, or of those in the spans. */
export async function replaceBalances(
  tx: SystemTransaction,
  budget: CountingBudget,
  spans: readonly Window[],
  which: "all" | "within",
): Promise<void> {
  const { owner, id } = budget;
  const within = which === "all" ? sql`` : sql`AND ${withinSpans(spans)}`;
  await sql`DELETE FROM budget_balances WHERE tenant_id = ${owner} AND budget_id = ${id} ${within}`.execute(tx);
  await sql`
    INSERT INTO budget_balances (tenant_id, budget_id, subject, subject_sealed, window_start, window_end, posted, adjusted, overage)
    SELECT ${owner}::uuid, ${id}::uuid, subject, subject_sealed, window_start, window_end, posted, adjusted, overage
    FROM (${projection(budget, spans)}) AS rebuilt`.execute(tx);
}

/** What is kept of a budget in the spans. */
export async function readBalancesWithin(
  tx: SystemTransaction,
  { owner, id }: CountingBudget,
  spans: readonly Window[],
): Promise<RebuiltBalance[]> {
  const { rows } = await sql<RebuiltBalance>`
    SELECT subject, window_start, posted, adjusted, overage FROM budget_balances
    WHERE tenant_id = ${owner} AND budget_id = ${id} AND ${withinSpans(spans)}`.execute(tx);
  return rows;
}

function withinSpans(spans: readonly Window[]): RawBuilder<boolean> {
  const end = spans.at(-1)?.end ?? null;
  return sql`window_start >= ${new Date(spans[0]?.start ?? 0)} AND ${end === null ? sql`true` : sql`window_start < ${new Date(end)}`}`;
}

/**
 * What `postingsOf` adds up, row by row as they come, as one query over all of them. Spans are given and not computed here:
 * PostgreSQL's own table of time zones may be of another year than ours, and in an hour that comes twice its days begin late.
 */
function projection(budget: CountingBudget, spans: readonly Window[]): RawBuilder<RebuiltBalance> {
  const starts = spans.map(({ start }) => iso(start));
  const ends = spans.map(({ end }) => iso(end));
  const { subject, sealed, filter } = subjectColumns(budget);
  const isOfAll = budget.owner === PLATFORM_TENANT;
  const within = (at: string) => {
    const end = spans.at(-1)?.end ?? null;
    const column = sql.ref(at);
    return sql`${isOfAll ? sql`true` : sql`tenant_id = ${budget.owner}`}
      AND ${column} >= ${new Date(Math.max(spans[0]?.start ?? 0, budget.countsFrom))}
      AND ${end === null ? sql`true` : sql`${column} < ${new Date(end)}`}`;
  };
  return sql<RebuiltBalance>`
    SELECT subject, decode(min(encode(sealed, 'hex')), 'hex') AS subject_sealed, (${starts}::timestamptz[])[span] AS window_start,
      (${ends}::timestamptz[])[span] AS window_end, sum(posted)::numeric AS posted, sum(adjusted)::numeric AS adjusted,
      sum(overage)::numeric AS overage
    FROM (
      SELECT ${subject} AS subject, ${sealed} AS sealed, width_bucket(started_at, ${starts}::timestamptz[]) AS span,
        ${AMOUNTS[budget.unit]}, 0 AS adjusted
      FROM usage_rows WHERE kind <> 'count' AND ${filter} AND ${within("started_at")}
      UNION ALL
      SELECT ${subject}, ${sealed}, width_bucket(effective_at, ${starts}::timestamptz[]), 0, 0, debit_spend
      FROM ledger_adjustments WHERE ${budget.unit === "usd" ? filter : sql`false`} AND ${within("effective_at")}
    ) AS counted
    GROUP BY subject, span`;
}

/** As `subjectOf` has it. */
function subjectColumns({ scope, project, key, subjectIndex }: CountingBudget) {
  const columns = (column: string, sealed: RawBuilder<unknown>, text: RawBuilder<unknown>, only: RawBuilder<unknown> | null) => ({
    subject: sql`coalesce(${text}, '')`,
    sealed,
    filter: only === null ? sql`true` : sql`${sql.ref(column)} = ${only}`,
  });
  const none = sql`NULL::bytea`;
  const index = subjectIndex === null ? null : sql`decode(${subjectIndex}, 'hex')`;
  switch (scope) {
    case "platform":
    case "tenant":
      return { subject: sql`''`, sealed: none, filter: sql`true` };
    case "project":
      return columns("project_id", none, sql`project_id::text`, project === null ? null : sql`${project}`);
    case "key":
      return columns("key_id", none, sql`key_id`, key === null ? null : sql`${key}`);
    case "user":
      return columns("user_index", sql`user_sealed`, sql`encode(user_index, 'hex')`, index);
    case "feature":
      return columns("feature_index", sql`feature_sealed`, sql`encode(feature_index, 'hex')`, index);
    default:
      return scope satisfies never;
  }
}

const AMOUNTS = {
  usd: sql`least(charge, worst_case) AS posted, greatest(charge - worst_case, 0) AS overage`,
  tokens: sql`${sql.raw(TOKEN_CLASSES.join(" + "))} AS posted, 0 AS overage`,
  requests: sql`1 AS posted, 0 AS overage`,
};

/** A window to judge: of one subject, or of each that has anything in it. */
export interface Judged {
  readonly budget: CountingBudget;
  readonly subject: string | null;
  readonly window: Window;
}

export interface Sum {
  /** Which of those judged. */
  readonly position: number;
  readonly subject: string;
  readonly subject_sealed: Buffer | null;
  readonly used: bigint;
  readonly overage: bigint;
}

/** What stands in each window, where it is enough for an alert. All of them name a subject, or none does. */
export async function sumsWorthAlerts(tx: SystemTransaction, judged: readonly Judged[]): Promise<Sum[]> {
  const list = judged.map(({ budget, subject, window }, position) => ({
    position,
    tenant_id: budget.owner,
    budget_id: budget.id,
    subject,
    since: iso(window.start),
    until: iso(window.end),
    hundredfold: budget.thresholds.length === 0 ? null : (budget.cap * BigInt(Math.min(...budget.thresholds))).toString(),
  }));
  const one = judged[0]?.subject === null ? sql`` : sql`AND s.subject = w.subject`;
  const { rows } = await sql<Sum>`
    SELECT w.position, s.subject, decode(min(encode(s.subject_sealed, 'hex')), 'hex') AS subject_sealed,
      sum(s.posted + s.adjusted + s.overage) AS used, sum(s.overage) AS overage
    FROM json_to_recordset(${JSON.stringify(list)}::json) AS w(position integer, tenant_id uuid, budget_id uuid, subject text,
      since timestamptz, until timestamptz, hundredfold numeric)
    JOIN budget_balances s ON s.tenant_id = w.tenant_id AND s.budget_id = w.budget_id ${one}
      AND s.window_start >= w.since AND (w.until IS NULL OR s.window_start < w.until)
    GROUP BY w.position, s.subject, w.hundredfold
    HAVING sum(s.posted + s.adjusted + s.overage) * 100 >= w.hundredfold OR sum(s.overage) > 0
    ORDER BY w.position, s.subject`.execute(tx);
  return rows;
}

export interface Alert {
  readonly owner: TenantId;
  readonly budget: BudgetId;
  readonly subject: string;
  /** ms since the epoch. */
  readonly windowStart: number;
  readonly threshold: number;
}

/** Resolves to the positions of those that were not there. */
export async function insertAlerts(tx: SystemTransaction, alerts: readonly Alert[], at: Date): Promise<number[]> {
  const list = alerts.map(({ owner, budget, subject, windowStart, threshold }, position) => ({
    position,
    tenant_id: owner,
    budget_id: budget,
    subject,
    window_start: iso(windowStart),
    threshold,
  }));
  const { rows } = await sql<{ position: number }>`
    WITH due AS MATERIALIZED (
      SELECT * FROM json_to_recordset(${JSON.stringify(list)}::json)
        AS a(position integer, tenant_id uuid, budget_id uuid, subject text, window_start timestamptz, threshold smallint)
    ), fresh AS (
      INSERT INTO budget_alerts (tenant_id, budget_id, subject, window_start, threshold, at)
      SELECT tenant_id, budget_id, subject, window_start, threshold, ${at}::timestamptz FROM due
      ORDER BY tenant_id, budget_id, subject, window_start, threshold
      ON CONFLICT DO NOTHING
      RETURNING tenant_id, budget_id, subject, window_start, threshold
    )
    SELECT due.position FROM due JOIN fresh USING (tenant_id, budget_id, subject, window_start, threshold) ORDER BY due.position`.execute(
    tx,
  );
  return rows.map(({ position }) => position);
}

/** The alerts of a window that were told; so that those no longer due can be told again. */
export async function readAlerts(tx: SystemTransaction, { owner, id }: CountingBudget, windowStart: number) {
  return await tx
    .selectFrom("budget_alerts")
    .select(["subject", "threshold"])
    .where("tenant_id", "=", owner)
    .where("budget_id", "=", id)
    .where("window_start", "=", new Date(windowStart))
    .execute();
}

export async function deleteAlerts(
  tx: SystemTransaction,
  { owner, id }: CountingBudget,
  windowStart: number,
  gone: readonly { readonly subject: string; readonly threshold: number }[],
): Promise<void> {
  await sql`
    DELETE FROM budget_alerts a USING json_to_recordset(${JSON.stringify(gone)}::json) AS g(subject text, threshold smallint)
    WHERE a.tenant_id = ${owner} AND a.budget_id = ${id} AND a.window_start = ${new Date(windowStart)}
      AND a.subject = g.subject AND a.threshold = g.threshold`.execute(tx);
}

/** Balances and alerts of windows that ended before then, and buckets that no rolling window holds any more. */
export async function forgetEnded(tx: SystemTransaction, before: Date, now: Date): Promise<void> {
  await sql`
    DELETE FROM budget_balances s USING budgets b
    WHERE b.tenant_id = s.tenant_id AND b.id = s.budget_id AND (s.window_end < ${before}
      OR (b.rolling_seconds IS NOT NULL AND s.window_end < ${now}::timestamptz - make_interval(secs => 2 * b.rolling_seconds)))`.execute(
    tx,
  );
  await sql`
    DELETE FROM budget_alerts a USING budgets b
    WHERE b.tenant_id = a.tenant_id AND b.id = a.budget_id AND b.budget_window <> 'total' AND a.window_start < ${before}`.execute(tx);
}

function iso(at: number): string;
function iso(at: number | null): string | null;
function iso(at: number | null): string | null {
  return at === null ? null : new Date(at).toISOString();
}

/** The two records of every attempt, all tenants together. Pico-dollars. */
export interface LedgerTotals {
  readonly rows: bigint;
  readonly entries: bigint;
  /** Attempts whose two records are not of one charge and cost, or of which one is missing. */
  readonly unmatched: bigint;
  readonly adjustments: bigint;
  readonly debit: bigint;
  readonly credit: bigint;
}

export async function readLedgerTotals(tx: SystemTransaction): Promise<LedgerTotals> {
  const { rows } = await sql<LedgerTotals>`
    WITH matched AS (
      SELECT count(u.id)::numeric AS rows, count(l.id)::numeric AS entries, coalesce(sum(l.debit_spend), 0) AS debit,
        coalesce(sum(l.credit_provider + l.credit_margin), 0) AS credit,
        count(*) FILTER (WHERE u.charge IS DISTINCT FROM l.debit_spend OR u.cost IS DISTINCT FROM l.credit_provider)::numeric AS unmatched
      FROM usage_rows u FULL JOIN ledger_entries l USING (tenant_id, id)
    ), adjusted AS (
      SELECT count(*)::numeric AS adjustments, coalesce(sum(debit_spend), 0) AS debit, coalesce(sum(credit_margin), 0) AS credit
      FROM ledger_adjustments
    )
    SELECT rows, entries, unmatched, adjustments, matched.debit + adjusted.debit AS debit, matched.credit + adjusted.credit AS credit
    FROM matched, adjusted`.execute(tx);
  return rows[0] as LedgerTotals;
}

export interface Keeper {
  /** Of the process's journal. */
  readonly journal: Uuid;
  readonly takenAt: Date;
  /** Null while it keeps the budgets. */
  readonly releasedAt: Date | null;
  /** When it last shipped; null where it never did. */
  readonly shippedAt: Date | null;
}

/** The process that may grant holds under hard budgets, or the last that did. */
export async function readKeeper(tx: SystemTransaction): Promise<Keeper | null> {
  const row = await tx
    .selectFrom("budget_keeper as k")
    .leftJoin("journals as j", "j.id", "k.journal_id")
    .select(["k.journal_id as journal", "k.taken_at as takenAt", "k.released_at as releasedAt", "j.updated_at as shippedAt"])
    .executeTakeFirst();
  return row ?? null;
}
