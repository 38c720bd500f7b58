import { type Selectable, sql } from "kysely";
import { PLATFORM_TENANT, type ProjectId, type TenantId, type Uuid } from "../../../kernel/ids.ts";
import type { SystemTransaction, Tables, TenantTransaction } from "../../../storage/database/index.ts";
import type { Address } from "../../../storage/snapshot/index.ts";
import { ALERT_ONLY_THRESHOLDS, type BudgetId } from "./model.ts";
import type { Window } from "./windows.ts";

export type BudgetRow = Selectable<Tables["budgets"]>;
export type Fresh<Row> = Omit<Row, "tenant_id" | "archived_at">;
type Changes = Partial<Omit<BudgetRow, "tenant_id" | "id" | "set_by_platform" | "created_at" | "archived_at">>;

/** Of the transaction's tenant. */
export function findBudget(tx: TenantTransaction, address: Address<BudgetId>): Promise<BudgetRow | undefined> {
  return budgetAt(tx, address).executeTakeFirst();
}

/** Locked until the transaction ends. */
export function findBudgetForUpdate(tx: TenantTransaction, address: Address<BudgetId>): Promise<BudgetRow | undefined> {
  return budgetAt(tx, address).forUpdate().executeTakeFirst();
}

function budgetAt(tx: TenantTransaction, address: Address<BudgetId>) {
  const live = liveBudgets(tx);
  return address.kind === "id" ? live.where("id", "=", address.id) : live.where("name_index", "=", address.index);
}

function liveBudgets(tx: TenantTransaction) {
  return tx.selectFrom("budgets").selectAll().where("archived_at", "is", null);
}

export function listBudgets(tx: TenantTransaction, after: string | null, count: number): Promise<BudgetRow[]> {
  const live = liveBudgets(tx);
  return (after === null ? live : live.where("id", ">", after as BudgetId)).orderBy("id").limit(count).execute();
}

/** The live budgets of a project, or of the whole tenant (null), that only tell when an amount of USD is spent in a month. */
export function listSpendAlerts(tx: TenantTransaction, project: ProjectId | null): Promise<BudgetRow[]> {
  const alerts = liveBudgets(tx)
    .where("unit", "=", "usd")
    .where("budget_window", "=", "month")
    .where("mode", "=", "soft")
    .where(sql<boolean>`thresholds = ${[...ALERT_ONLY_THRESHOLDS]}::smallint[]`);
  return (project === null ? alerts.where("scope", "=", "tenant") : alerts.where("scope", "=", "project").where("project_id", "=", project))
    .orderBy("id")
    .execute();
}

export async function insertBudget(tx: TenantTransaction, row: Fresh<BudgetRow>): Promise<void> {
  await tx.insertInto("budgets").values(row).execute();
}

export async function updateBudget(tx: TenantTransaction, id: BudgetId, changes: Changes): Promise<void> {
  await tx.updateTable("budgets").set(changes).where("id", "=", id).execute();
}

export async function archiveBudget(tx: TenantTransaction, id: BudgetId, at: Date): Promise<void> {
  await tx.updateTable("budgets").set({ archived_at: at, updated_at: at }).where("id", "=", id).execute();
}

export async function countBudgets(tx: TenantTransaction): Promise<number> {
  const counted = tx.selectFrom("budgets").where("archived_at", "is", null);
  const { count } = await counted.select((row) => row.fn.countAll<number>().as("count")).executeTakeFirstOrThrow();
  return count;
}

/** What was opened of these budgets, by their ids. */
export async function readOpened(tx: TenantTransaction, ids: readonly BudgetId[]) {
  const rows = await tx
    .selectFrom("budget_openings")
    .selectAll()
    .where("budget_id", "in", [...ids])
    .execute();
  return new Map(rows.map((row) => [row.budget_id, row]));
}

/** A subject's sum over the spans of a window. */
export interface BalanceSum {
  readonly subject: string;
  readonly subject_sealed: Buffer | null;
  /** Posted, adjusted and above holds. */
  readonly spent: bigint;
  readonly held: bigint;
}

/** One subject's, or a page of all by subject. */
export async function sumBalances(
  tx: TenantTransaction,
  budget: BudgetId,
  window: Window,
  page: { readonly only: string } | { readonly after: string | null; readonly count: number },
): Promise<BalanceSum[]> {
  let query = tx
    .selectFrom("budget_balances")
    .select([
      "subject",
      sql<Buffer | null>`decode(min(encode(subject_sealed, 'hex')), 'hex')`.as("subject_sealed"),
      sql<bigint>`sum(posted + adjusted + overage)`.as("spent"),
      sql<bigint>`sum(held)`.as("held"),
    ])
    .where("budget_id", "=", budget)
    .where("window_start", ">=", new Date(window.start))
    .groupBy("subject")
    .orderBy("subject");
  if (window.end !== null) query = query.where("window_start", "<", new Date(window.end));
  if ("only" in page) return await query.where("subject", "=", page.only).execute();
  return await (page.after === null ? query : query.where("subject", ">", page.after)).limit(page.count).execute();
}

/** The owner's live budgets of money whose balances are kept, each with the zone that they are kept in. */
export async function listOpenUsdBudgets(tx: TenantTransaction) {
  return await tx
    .selectFrom("budgets as b")
    .innerJoin("budget_openings as o", (join) => join.onRef("o.budget_id", "=", "b.id").onRef("o.definition", "=", "b.definition"))
    .selectAll("b")
    .select("o.time_zone")
    .where("b.unit", "=", "usd")
    .where("b.archived_at", "is", null)
    .orderBy("b.id")
    .execute();
}

/** No balance is made anew until the transaction ends. */
export async function shareBalances(tx: TenantTransaction): Promise<void> {
  await tx.selectNoFrom(sql`pg_advisory_xact_lock_shared(${BALANCES_LOCK}::bigint)`.as("locked")).execute();
}

/** A constant of our own: advisory locks are numbers, one space for each database. */
export const BALANCES_LOCK = "4711202607220007";

export interface Adjusted {
  readonly budget: BudgetId;
  readonly subject: string;
  readonly sealed: Buffer | null;
  readonly span: Window;
  readonly amount: bigint;
}

export async function addAdjusted(tx: TenantTransaction, { budget, subject, sealed, span, amount }: Adjusted): Promise<void> {
  await tx
    .insertInto("budget_balances")
    .values({
      budget_id: budget,
      subject,
      subject_sealed: sealed,
      window_start: new Date(span.start),
      window_end: span.end === null ? null : new Date(span.end),
      adjusted: amount,
    })
    .onConflict((conflict) =>
      conflict
        .columns(["tenant_id", "budget_id", "subject", "window_start"])
        .doUpdateSet((row) => ({ adjusted: row("budget_balances.adjusted", "+", row.ref("excluded.adjusted")) })),
    )
    .execute();
}

/** Its balances changed without a posting: processes read them again, and thresholds are judged. */
export async function touchBudget(tx: TenantTransaction, id: BudgetId, at: Date): Promise<void> {
  await tx
    .updateTable("budgets")
    .set((row) => ({ epoch: row("epoch", "+", 1), updated_at: at }))
    .where("id", "=", id)
    .execute();
}

export type AdjustmentRow = Selectable<Tables["ledger_adjustments"]>;

export async function insertAdjustment(tx: TenantTransaction, row: Fresh<AdjustmentRow>): Promise<void> {
  await tx.insertInto("ledger_adjustments").values(row).execute();
}

export function listAdjustments(tx: TenantTransaction, after: string | null, count: number): Promise<AdjustmentRow[]> {
  const all = tx.selectFrom("ledger_adjustments").selectAll();
  return (after === null ? all : all.where("id", ">", after as Uuid)).orderBy("id").limit(count).execute();
}

/** The live rows of many tenants, each with its owner's zone. */
export async function readBudgets(tx: SystemTransaction, tenants: readonly TenantId[]) {
  return zonedBudgets(tx)
    .where(sql<boolean>`b.tenant_id = any(${[...tenants]}::uuid[])`)
    .orderBy("b.id")
    .execute();
}

/** The platform has no row among tenants, and counts in UTC. */
export function zonedBudgets(tx: SystemTransaction) {
  return tx
    .selectFrom("budgets as b")
    .leftJoin("tenants as t", (join) => join.onRef("t.id", "=", "b.tenant_id").on("t.tenant_id", "=", PLATFORM_TENANT))
    .selectAll("b")
    .select(sql<string>`coalesce(t.time_zone, 'UTC')`.as("time_zone"))
    .where("b.archived_at", "is", null);
}

/** A balance that a process is about to keep. */
export interface WantedBalance {
  /** The budget's owner. */
  readonly owner: TenantId;
  readonly budget: BudgetId;
  /** As the snapshot has them: another definition or zone in the database, or an earlier epoch, makes the answer null. */
  readonly definition: number;
  readonly epoch: number;
  readonly timeZone: string;
  readonly subject: string;
  /** As `windowAt` gives it. */
  readonly window: Window;
}

/** One row for a calendar window, one for each bucket of a rolling one that has something; ascending. */
export interface BalanceSpan {
  /** ms since the epoch. */
  readonly start: number;
  readonly posted: bigint;
  readonly adjusted: bigint;
  readonly overage: bigint;
}

/**
 * What stands in the database against each balance wanted, in their order: no span where nothing does yet. Null where the budget is
 * not what the caller knows, or its balances are not made yet (`openBudgets`): take the snapshot in and ask again. Of a later epoch, with
 * another cap or more adjustments, the sums are good: whoever learns of it asks again.
 */
export async function readBalances(
  tx: SystemTransaction,
  wanted: readonly WantedBalance[],
): Promise<readonly (readonly BalanceSpan[] | null)[]> {
  if (wanted.length === 0) return [];
  const list = wanted.map(({ owner, budget, definition, epoch, timeZone, subject, window }, position) => ({
    position,
    tenant_id: owner,
    budget_id: budget,
    definition,
    epoch,
    time_zone: timeZone,
    subject,
    since: new Date(window.start).toISOString(),
    until: window.end === null ? null : new Date(window.end).toISOString(),
  }));
  const { rows } = await sql<ReadSpan>`
    SELECT w.position, extract(epoch FROM s.window_start)::float8 * 1000 AS start, s.posted, s.adjusted, s.overage
    FROM json_to_recordset(${JSON.stringify(list)}::json)
      AS w(position integer, tenant_id uuid, budget_id uuid, definition integer, epoch integer, time_zone text, subject text, since timestamptz, until timestamptz)
    JOIN budgets b ON b.tenant_id = w.tenant_id AND b.id = w.budget_id AND b.definition = w.definition AND b.epoch >= w.epoch
      AND b.archived_at IS NULL
    JOIN budget_openings o
      ON o.tenant_id = b.tenant_id AND o.budget_id = b.id AND o.definition = b.definition AND o.time_zone = w.time_zone
    LEFT JOIN budget_balances s
      ON s.tenant_id = w.tenant_id AND s.budget_id = w.budget_id AND s.subject = w.subject AND s.window_start >= w.since
        AND (w.until IS NULL OR s.window_start < w.until)
    ORDER BY w.position, s.window_start`.execute(tx);
  const answer: (BalanceSpan[] | null)[] = wanted.map(() => null);
  for (const { position, start, ...sums } of rows) {
    const spans = (answer[position] ??= []);
    if (start !== null) spans.push({ start, ...sums });
  }
  return answer;
}

interface ReadSpan extends Omit<BalanceSpan, "start"> {
  readonly position: number;
  readonly start: number | null;
}
