import { PLATFORM_TENANT, type TenantId } from "../../../kernel/ids.ts";
import type { Database, SystemTransaction } from "../../../storage/database/index.ts";
import type { TenantKeyring } from "../../../storage/secrets/index.ts";
import { openName } from "../../../storage/snapshot/index.ts";
import type { Tags } from "../tags.ts";
import { alertsDue, type CountingBudget, OVERAGE, type PostedAttempt, type Posting, postingsOf } from "./decide.ts";
import { formatAmount, type ScopeKind } from "./model.ts";
import type { BudgetEvent, BudgetFacts, PostingNeeds } from "./needs.ts";
import {
  addPostings,
  deleteAlerts,
  forgetEnded,
  insertAlerts,
  type Judged,
  lockBalances,
  type OpeningRow,
  readAlerts,
  readOpenings,
  replaceBalances,
  type Sum,
  sumsWorthAlerts,
  writeOpening,
} from "./store-postings.ts";
import { rulesOf } from "./source.ts";
import { alertWindowStart, formatWindow, spansBetween, type Window, windowAt } from "./windows.ts";

export interface BudgetLedgerNeeds extends PostingNeeds {
  readonly database: Pick<Database, "forSystem">;
  readonly sealing: Pick<Tags, "open">;
  readonly log: { error(fields: object, message: string): void };
}

/**
 * Keeps the balances of budgets: adds what is shipped, makes those of new and changed budgets from the rows that are there, and
 * tells what reached a threshold. A row is in a balance exactly once: what is posted is locked out while a balance is made.
 */
export class BudgetLedger {
  readonly #needs: BudgetLedgerNeeds;
  #opening: Promise<void> | null = null;
  #forgottenAt = Number.NEGATIVE_INFINITY;

  constructor(needs: BudgetLedgerNeeds) {
    this.#needs = needs;
  }

  /**
   * Before rows are inserted in the transaction: no balance is made until it ends. Resolves to the budgets of these tenants, and of
   * the platform, that rows count under; new and changed ones are made soon.
   */
  async begin(tx: SystemTransaction, tenants: Iterable<TenantId>): Promise<readonly CountingBudget[]> {
    await lockBalances(tx, "shared");
    const owners = [PLATFORM_TENANT, ...tenants];
    const rows = await readOpenings(tx, { owners });
    const now = this.#needs.clock.now();
    if (rows.some((row) => !isSettled(row, now)) || (rows.length > 0 && this.#forgetsNow())) this.#openSoon(owners);
    return rows.flatMap((row) => (isOpen(row, now) ? countingOf(row, row.counts_from) : []));
  }

  /** Adds the attempts, whose rows are new in this transaction, and tells thresholds that they reach: all of it or, with the rows, none. */
  async post(tx: SystemTransaction, budgets: readonly CountingBudget[], attempts: readonly PostedAttempt[], at: Date): Promise<void> {
    const postings = postingsOf(budgets, attempts);
    if (postings.length === 0) return;
    await addPostings(tx, postings);
    await this.#judge(tx, judgedOf(postings, at.getTime()), at);
  }

  /**
   * Makes the balances of the owners' new and changed budgets, one transaction each, and judges anew those that a cap or an adjustment changed; of the
   * latter nothing where only what is `unmade` is asked for, which has no turn to wait for then. Rejects while PostgreSQL is away.
   */
  async open(owners: readonly TenantId[] | null, which: "all" | "unmade" = "all"): Promise<void> {
    const isDone = which === "all" ? isSettled : isOpen;
    const waiting = await this.#system(async (tx) =>
      (await readOpenings(tx, { owners })).filter((row) => !isDone(row, this.#needs.clock.now())),
    );
    for (const { tenant_id: owner, id } of waiting) {
      await this.#system(async (tx) => {
        await lockBalances(tx, "exclusive");
        const [row] = await readOpenings(tx, { owners: [owner], only: id });
        if (row !== undefined && !isSettled(row, this.#needs.clock.now())) await this.#open(tx, row);
      });
    }
    if (this.#forgetsNow()) await this.#forget();
  }

  /** Ends with what is being made. */
  async close(): Promise<void> {
    await this.#opening;
  }

  #system<T>(work: (tx: SystemTransaction) => Promise<T>): Promise<T> {
    return this.#needs.database.forSystem("ship", work);
  }

  /** One at a time. What is asked for meanwhile is asked for again by the next batch, which finds it still unmade. */
  #openSoon(owners: readonly TenantId[]): void {
    this.#opening ??= this.open(owners)
      .catch((error: unknown) => this.#needs.log.error({ err: error }, "balances of new or changed budgets could not be made"))
      .finally(() => {
        this.#opening = null;
      });
  }

  async #open(tx: SystemTransaction, row: OpeningRow): Promise<void> {
    const at = new Date(this.#needs.clock.now());
    const now = at.getTime();
    const window = windowAt(rulesOf(row), now);
    let countsFrom = row.counts_from;
    if (!isOpen(row, now)) {
      const through = Math.max(now, countsFrom?.getTime() ?? now);
      countsFrom = new Date(window.start);
      const budget = countingOf(row, countsFrom);
      await replaceBalances(tx, budget, spansBetween(budget, window.start, through), "all");
    }
    const budget = countingOf(row, countsFrom as Date);
    await writeOpening(tx, row, budget.countsFrom);
    await this.#rearm(tx, budget, window, now);
    await this.#judge(tx, [{ budget, subject: null, window }], at);
  }

  #forgetsNow(): boolean {
    return this.#needs.clock.monotonic() - this.#forgottenAt > FORGET_EVERY_MS;
  }

  async #forget(): Promise<void> {
    this.#forgottenAt = this.#needs.clock.monotonic();
    const now = this.#needs.clock.now();
    await this.#system((tx) => forgetEnded(tx, new Date(now - KEPT_MS), new Date(now)));
  }

  /** After a change: what was told and is no longer so, a threshold under a raised cap, is told again once it is. */
  async #rearm(tx: SystemTransaction, budget: CountingBudget, window: Window, now: number): Promise<void> {
    const start = alertWindowStart(budget, now);
    const told = await readAlerts(tx, budget, start);
    if (told.length === 0) return;
    const sums = new Map((await sumsWorthAlerts(tx, [{ budget, subject: null, window }])).map((sum) => [sum.subject, sum]));
    const gone = told.filter(({ subject, threshold }) => {
      const sum = sums.get(subject);
      return sum === undefined || !alertsDue(budget, sum).includes(threshold);
    });
    if (gone.length > 0) await deleteAlerts(tx, budget, start, gone);
  }

  async #judge(tx: SystemTransaction, judged: readonly Judged[], at: Date): Promise<void> {
    const due = (await sumsWorthAlerts(tx, judged)).flatMap((sum) => {
      const { budget, window } = judged[sum.position] as Judged;
      const windowStart = budget.rollingSeconds === null ? window.start : alertWindowStart(budget, at.getTime());
      return alertsDue(budget, sum).map((threshold) => ({ budget, window, windowStart, threshold, sum }));
    });
    if (due.length === 0) return;
    const alerts = due.map(({ budget, sum, ...alert }) => ({ ...alert, owner: budget.owner, budget: budget.id, subject: sum.subject }));
    for (const position of await insertAlerts(tx, alerts, at)) {
      const { budget, threshold, windowStart, window, sum } = due[position] as (typeof due)[number];
      const keyring = await this.#needs.keyringOf(budget.owner);
      if (keyring === null) continue;
      const id = subjectName(this.#needs.sealing, keyring, budget.scope, sum);
      const data = factsOf(budget, keyring, id, { start: windowStart, end: endOf(budget, windowStart, window) }, sum);
      const key = `${budget.id}:${budget.epoch}:${sum.subject}:${windowStart}:${threshold}`;
      await this.#needs.writeEvent(tx, eventOf({ tenant: budget.owner, key, at: at.getTime() }, threshold, data, budget, sum));
    }
  }
}

/**
 * Whether rows are posted to it: its balances are of what it says now, and begin before now, as those do not that were made under a clock which
 * was set back since.
 */
export function isOpen(row: OpeningRow, now: number): row is OpeningRow & { counts_from: Date } {
  const { counts_from: from } = row;
  return from !== null && from.getTime() <= now && row.opened_definition === row.definition && row.opened_zone === row.time_zone;
}

/** Whether there is nothing to do for it beside posting. */
function isSettled(row: OpeningRow, now: number): boolean {
  return isOpen(row, now) && row.opened_epoch === row.epoch;
}

export function countingOf(row: OpeningRow, countsFrom: Date): CountingBudget {
  return { ...rulesOf(row), nameSealed: row.name_sealed, countsFrom: countsFrom.getTime() };
}

/** The windows that postings fell into; of a rolling window, the one that is in force. */
function judgedOf(postings: readonly Posting[], now: number): Judged[] {
  const judged = new Map<string, Judged>();
  for (const { budget, subject, span } of postings) {
    const window = budget.rollingSeconds === null ? span : windowAt(budget, now);
    judged.set(`${budget.id} ${window.start} ${subject}`, { budget, subject, window });
  }
  return [...judged.values()];
}

function endOf({ rollingSeconds }: CountingBudget, windowStart: number, window: Window): number | null {
  return rollingSeconds === null ? window.end : windowStart + rollingSeconds * 1000;
}

function eventOf(
  fact: Pick<BudgetEvent, "tenant" | "key" | "at">,
  threshold: number,
  data: BudgetFacts,
  { unit }: CountingBudget,
  { overage }: Sum,
): BudgetEvent {
  if (threshold === OVERAGE) return { ...fact, type: "budget.overage", data: { ...data, overage: formatAmount(unit, overage) } };
  if (threshold === 100) return { ...fact, type: "budget.exhausted", data };
  return { ...fact, type: "budget.threshold_reached", data: { ...data, threshold } };
}

function factsOf(budget: CountingBudget, keyring: TenantKeyring, id: string | null, window: Window, sum: Sum): BudgetFacts {
  return {
    budget_id: budget.id,
    budget: openName(keyring, "budgets", { id: budget.id, name_sealed: budget.nameSealed }),
    scope: { kind: budget.scope, id },
    unit: budget.unit,
    window: formatWindow(budget),
    window_start: Math.floor(window.start / 1000),
    window_end: window.end === null ? null : Math.floor(window.end / 1000),
    cap: formatAmount(budget.unit, budget.cap),
    spent: formatAmount(budget.unit, sum.used),
  };
}

/** The id of a project or key, the words of a user or feature; null where there is none, or it was erased. */
export function subjectName(
  sealing: Pick<Tags, "open">,
  keyring: TenantKeyring,
  scope: ScopeKind,
  { subject, subject_sealed: sealed }: Pick<Sum, "subject" | "subject_sealed">,
): string | null {
  if (subject === "") return null;
  if (scope !== "user" && scope !== "feature") return subject;
  return sealed === null ? null : sealing.open(keyring, scope, sealed, subject);
}

/** Calendar windows stay readable this long after their end, 400 days: a year's report, and then some. */
export const KEPT_MS = 400 * 86_400_000;
const FORGET_EVERY_MS = 3_600_000;
