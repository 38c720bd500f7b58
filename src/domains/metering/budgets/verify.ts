import type { Clock } from "../../../kernel/clock.ts";
import type { TenantId } from "../../../kernel/ids.ts";
import { bumpConfig, type Database } from "../../../storage/database/index.ts";
import type { CountingBudget } from "./decide.ts";
import type { BudgetId, Unit } from "./model.ts";
import { countingOf, isOpen, KEPT_MS } from "./postings.ts";
import { touchBudget } from "./store.ts";
import {
  type LedgerTotals,
  lockBalances,
  readBalancesWithin,
  readLedgerTotals,
  readOpenings,
  rebuild,
  type RebuiltBalance,
  replaceBalances,
} from "./store-postings.ts";
import { spansBetween, type Window, windowAt } from "./windows.ts";

export interface VerifyNeeds {
  readonly database: Pick<Database, "forSystem">;
  readonly clock: Clock;
}

export interface VerifyReport extends LedgerTotals {
  readonly budgets: number;
  /** Balances of all of them that were compared. */
  readonly balances: number;
  /** Budgets whose balances the server has not made yet. */
  readonly unopened: number;
  readonly differences: readonly BalanceDifference[];
}

/** What is kept beside what the rows say. Absent counts as zeros. */
export interface BalanceDifference {
  readonly owner: TenantId;
  readonly budget: BudgetId;
  readonly unit: Unit;
  readonly subject: string;
  readonly windowStart: Date;
  readonly kept: Sums;
  readonly rebuilt: Sums;
}

type Sums = Pick<RebuiltBalance, "posted" | "adjusted" | "overage">;

/**
 * Makes every balance again from usage rows and adjustments and compares; `repairs` puts what differs right. Each budget by itself,
 * while nothing is posted: the server may run. Windows that are no longer kept are not looked at.
 */
export async function verifyBalances({ database, clock }: VerifyNeeds, repairs: boolean): Promise<VerifyReport> {
  const totals = await database.forSystem("report", readLedgerTotals);
  const listed = await database.forSystem("report", (tx) => readOpenings(tx, { owners: null }));
  const differences: BalanceDifference[] = [];
  let [balances, unopened] = [0, 0];
  for (const { tenant_id: owner, id } of listed) {
    const verified = await database.forSystem("ship", async (tx) => {
      await lockBalances(tx, "exclusive");
      const [row] = await readOpenings(tx, { owners: [owner], only: id });
      if (row === undefined || !isOpen(row, clock.now())) return null;
      const budget = countingOf(row, row.counts_from);
      const spans = spansToVerify(budget, clock.now());
      const kept = await readBalancesWithin(tx, budget, spans);
      const rebuilt = await rebuild(tx, budget, spans);
      const found = differencesOf(budget, kept, rebuilt);
      if (repairs && found.length > 0) await replaceBalances(tx, budget, spans, "within");
      return { count: Math.max(kept.length, rebuilt.length), found };
    });
    if (verified === null) unopened += 1;
    balances += verified?.count ?? 0;
    differences.push(...(verified?.found ?? []));
  }
  return { ...totals, budgets: listed.length, balances, unopened, differences };
}

/** After a repair: has every process read these balances again. */
export async function announceRepair(
  { database, clock }: { readonly database: Pick<Database, "forTenant">; readonly clock: Clock },
  differences: readonly BalanceDifference[],
): Promise<void> {
  for (const [owner, found] of Map.groupBy(differences, (difference) => difference.owner))
    await database.forTenant(owner, async (tx) => {
      for (const id of new Set(found.map(({ budget }) => budget))) await touchBudget(tx, id, new Date(clock.now()));
      await bumpConfig(tx);
    });
}

function spansToVerify(budget: CountingBudget, now: number): Window[] {
  const from = budget.rollingSeconds === null ? Math.max(budget.countsFrom, now - KEPT_MS) : windowAt(budget, now).start;
  return spansBetween(budget, from, now);
}

function differencesOf(budget: CountingBudget, kept: readonly RebuiltBalance[], rebuilt: readonly RebuiltBalance[]): BalanceDifference[] {
  const keyOf = ({ subject, window_start }: RebuiltBalance): string => `${window_start.getTime()} ${subject}`;
  const byKey = (rows: readonly RebuiltBalance[]) => new Map(rows.map((row) => [keyOf(row), row]));
  const [was, is] = [byKey(kept), byKey(rebuilt)];
  const differences: BalanceDifference[] = [];
  for (const key of new Set([...was.keys(), ...is.keys()])) {
    const [before, after] = [was.get(key), is.get(key)];
    const { subject, window_start: windowStart } = (after ?? before) as RebuiltBalance;
    const difference = { kept: sumsOf(before), rebuilt: sumsOf(after) };
    if (SUMS.some((sum) => difference.kept[sum] !== difference.rebuilt[sum]))
      differences.push({ owner: budget.owner, budget: budget.id, unit: budget.unit, subject, windowStart, ...difference });
  }
  return differences;
}

const SUMS = ["posted", "adjusted", "overage"] as const;

function sumsOf(balance: RebuiltBalance | undefined): Sums {
  return { posted: balance?.posted ?? 0n, adjusted: balance?.adjusted ?? 0n, overage: balance?.overage ?? 0n };
}
