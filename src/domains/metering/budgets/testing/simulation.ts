import assert from "node:assert/strict";
import type { Clock } from "../../../../kernel/clock.ts";
import type { AttemptId, KeyId, TenantId } from "../../../../kernel/ids.ts";
import type { TokenCounts } from "../../../../kernel/tokens.ts";
import { NO_TOKENS } from "../../../../kernel/tokens.ts";
import { worstCase } from "../../decide.ts";
import { type Held, heldOf, hold } from "../../hold.ts";
import type { AttemptFacts } from "../../model.ts";
import { decodeSettlement, encodeSettlement } from "../../records.ts";
import { Attempts, type SettledAttempt, settleLost } from "../../replay.ts";
import { Settler } from "../../settle.ts";
import { Speeds } from "../../speeds.ts";
import { factsOf, newId, PRICE, silent } from "../../testing/facts.ts";
import { ScriptedJournal } from "../../testing/scripted-journal.ts";
import { type JournalRecord, RECORD } from "../../../../storage/journal/index.ts";
import type { AccountName } from "../accounts.ts";
import { BudgetExceeded } from "../exceeded.ts";
import { mostOf, usedBy } from "../flight.ts";
import type { Amounts } from "../hold-decide.ts";
import { Holds, type HoldsNeeds } from "../holds.ts";
import { type Budget, subjectOf } from "../model.ts";
import type { BalanceSpan } from "../store.ts";
import { spanAt, windowAt } from "../windows.ts";

/** What is asked of the simulation: whose call, how much of it, and what of its worst case it uses, in percent. */
export interface Ask {
  readonly project: AttemptFacts["project"];
  readonly key: KeyId;
  readonly user: string | null;
  readonly input: number;
  readonly output: number;
}

/** An attempt as an onlooker knows it, who sees the disk and the database and nothing in between. */
interface Known {
  readonly facts: AttemptFacts;
  readonly most: Amounts;
  used: Amounts | null;
}

/** One process with budgets, its journal's disk and the database, each of which a test drives step by step. */
export class Simulation {
  readonly clock = new JumpingClock();
  readonly tenant: TenantId = newId();
  budgets: readonly Budget[] = [];
  /** Adjustments, by budget and subject, each at its time. */
  readonly #adjustments: { readonly budget: string; readonly subject: string; readonly at: number; readonly amount: bigint }[] = [];
  /** Rows in the database. */
  readonly #rows = new Map<AttemptId, SettledAttempt>();
  readonly known = new Map<AttemptId, Known>();
  #looked = 0;
  /** Whether everything in memory is exactly what the onlooker knows: not after a disk refused, when fates are unknown. */
  isExact = true;
  journal = new ScriptedJournal();
  #attempts = new Attempts();
  #folded = 0;
  #recovered = 0;
  #reads: (() => Promise<void>)[] = [];
  #isReading = false;
  holds!: Holds;
  #settler!: Settler;
  readonly open = new Map<AttemptId, Held>();
  granted = 0;
  refused = 0;
  crashes = 0;

  constructor() {
    this.#start();
  }

  #start(): void {
    const speeds = new Speeds();
    this.holds = new Holds({
      clock: this.clock,
      budgetsOf: (owner) => this.budgets.filter((budget) => budget.owner === owner),
      indexOf: (_tenant, column, value) => `${column}-${value}`,
      refresh: async () => {},
      readBetween: this.#readBetween,
    });
    const settled = this.holds.settled.bind(this.holds);
    this.#settler = new Settler({ journal: this.journal, clock: this.clock, speeds, log: silent, settled });
  }

  /** Tries to hold; what it says is judged against what the onlooker knows. */
  async ask(ask: Ask): Promise<void> {
    const facts = factsOf({
      tenant: this.tenant,
      project: ask.project,
      key: ask.key,
      user: ask.user,
      bound: { input: ask.input, output: ask.output, certainty: "proof" },
      startedAt: this.clock.now(),
    });
    const needs = {
      journal: this.journal,
      clock: this.clock,
      speeds: new Speeds(),
      holds: this.holds,
      voided: (held: Held) => this.#settler.void(held),
    };
    const most = mostOf(facts, worstCase(facts.bound, PRICE, facts.markupMillionths));
    const { append } = this.journal;
    // The moment of the grant is when its ADMIT is queued.
    this.journal.append = (kind, attempt, payload) => {
      const sequence = append.call(this.journal, kind, attempt, payload);
      if (kind === RECORD.admit && attempt === facts.attempt) this.#onGrant(facts, most);
      return sequence;
    };
    const holding = hold(facts, PRICE, needs).then(
      (held) => void this.open.set(facts.attempt, heldOf(held)),
      (thrown: unknown) => {
        if (thrown instanceof BudgetExceeded) this.#onRefusal(thrown, facts, most);
      },
    );
    await Promise.race([holding, turns()]);
  }

  #onGrant(facts: AttemptFacts, most: Amounts): void {
    for (const budget of this.budgets) {
      const subject = subjectOf(budget, attributionOf(facts));
      if (subject === null) continue;
      const counted = this.counted(budget, subject, facts.startedAt);
      assert.ok(
        counted + most[budget.unit] <= budget.cap,
        `${budget.scope} ${budget.unit}: ${counted} + ${most[budget.unit]} > ${budget.cap}`,
      );
    }
    this.known.set(facts.attempt, { facts, most, used: null });
    this.granted += 1;
  }

  #onRefusal({ budget }: BudgetExceeded, facts: AttemptFacts, most: Amounts): void {
    this.refused += 1;
    if (!this.isExact) return;
    const counted = this.counted(budget, subjectOf(budget, attributionOf(facts)) as string, facts.startedAt);
    assert.ok(counted + most[budget.unit] > budget.cap, `refused with room: ${counted} + ${most[budget.unit]} of ${budget.cap}`);
  }

  /** What counts against a budget by its definition: what attempts used, what open ones may use at most, and adjustments. */
  counted(budget: Budget, subject: string, at: number): bigint {
    this.#look();
    let sum = 0n;
    for (const { facts, most, used } of this.known.values()) {
      if (subjectOf(budget, attributionOf(facts)) !== subject) continue;
      if (used === null ? isInWindowOrHeld(budget, facts.startedAt, at) : isInWindow(budget, facts.startedAt, at))
        sum += (used ?? most)[budget.unit];
    }
    for (const adjustment of this.#adjustments)
      if (adjustment.budget === budget.id && adjustment.subject === subject && isInWindow(budget, adjustment.at, at))
        sum += adjustment.amount;
    return sum;
  }

  /** What the disk says was settled. */
  #look(): void {
    const { records } = this.journal;
    for (; this.#looked < records.length; this.#looked++) {
      const { kind, attempt, payload } = records[this.#looked] as JournalRecord;
      const known = kind === RECORD.settle ? this.known.get(attempt) : undefined;
      if (known !== undefined) known.used ??= usedBy(decodeSettlement(attempt, payload));
    }
  }

  /** Settles an open attempt with that share of its bound, above it where `percent` is more than 100. */
  settle(index: number, percent: number): void {
    const [attempt, held] = [...this.open][index % Math.max(1, this.open.size)] ?? [];
    if (attempt === undefined || held === undefined) return;
    this.open.delete(attempt);
    const { bound } = held.facts;
    const part = (tokens: number): number => Math.floor((tokens * percent) / 100);
    const tokens: TokenCounts = { ...NO_TOKENS, input_uncached: part(bound.input), output: part(bound.output) };
    this.#settler.settle(
      held,
      { status: "completed", usage: { tokens, source: "reported" }, modelServed: null, firstTokenMs: null },
      () => {},
    );
  }

  /** Makes records durable. */
  async commit(count: number): Promise<void> {
    this.journal.commit(count);
    await turns();
  }

  /** The disk refuses: what is queued is lost, and comes back when the settler writes it again. */
  async faulty(): Promise<void> {
    this.isExact = false;
    this.journal.fail();
    await turns();
    this.journal.recover();
  }

  /** Ships what is durable, as far as `records` reach. Never while a balance is read. */
  async ship(records: number): Promise<void> {
    if (this.#isReading) return;
    const settles: AttemptId[] = [];
    for (const record of await this.journal.read(this.#folded, records)) {
      const settled = this.#attempts.apply(record);
      if (settled !== null && !this.#rows.has(settled.admission.facts.attempt)) this.#rows.set(settled.admission.facts.attempt, settled);
      if (record.kind === RECORD.settle) settles.push(record.attempt);
      this.#folded = record.sequence;
    }
    this.holds.shipped(settles);
  }

  /** Lets the next read begin, or the one that began end. */
  async read(): Promise<void> {
    await this.#reads.shift()?.();
    await turns();
  }

  adjust(budget: Budget, subject: string, amount: bigint): void {
    this.#adjustments.push({ budget: budget.id, subject, at: this.clock.now(), amount });
    this.change(budget, {});
  }

  /** As a PUT does: another epoch, and other balances where what is counted changed. */
  change(budget: Budget, changes: Partial<Budget>): void {
    this.budgets = this.budgets.map((each) => (each.id === budget.id ? { ...each, ...changes, epoch: each.epoch + 1 } : each));
  }

  /** The process dies: of what it queued nothing is kept. The next one finds the journal as the disk has it, and settles what is open. */
  async crash(): Promise<void> {
    this.crashes += 1;
    const before = this.journal;
    this.journal = new ScriptedJournal();
    for (const { kind, attempt, payload } of before.records) this.journal.append(kind, attempt, payload);
    this.journal.commit();
    this.open.clear();
    this.#reads = [];
    this.#isReading = false;
    this.isExact = true;
    const found = new Attempts();
    for (const record of this.journal.records) found.apply(record);
    for (const open of found.open.values()) {
      const lost = settleLost(open, this.journal.at, this.clock.now());
      this.journal.append(RECORD.settle, lost.attempt, encodeSettlement(lost));
      const known = this.known.get(lost.attempt);
      assert.ok(known !== undefined, "an attempt that nobody granted");
      known.used = usedBy(lost);
      for (const unit of ["usd", "tokens", "requests"] as const)
        assert.ok(known.used[unit] <= known.most[unit], "a lost attempt costs more than it held");
    }
    this.journal.commit();
    this.#recovered = this.journal.durable();
    this.#folded = 0;
    this.#attempts = new Attempts();
    const admitted = new Set(this.journal.records.filter(({ kind }) => kind === RECORD.admit).map(({ attempt }) => attempt));
    for (const attempt of this.known.keys()) if (!admitted.has(attempt)) this.known.delete(attempt);
    this.#looked = 0;
    this.#start();
    await turns();
  }

  /** Everything ends: what is open is settled, written and shipped. Then the database holds what the onlooker knows, and memory that too. */
  async end(): Promise<void> {
    for (let rounds = 0; rounds < 20 && this.#reads.length > 0; rounds++) await this.read();
    await this.commit(Infinity);
    while (this.open.size > 0) this.settle(0, 50);
    const closing = this.#settler.close();
    await this.commit(Infinity);
    await closing;
    await this.ship(Infinity);
    this.#look();
    assert.equal(this.holds.figures().unshipped, 0, "an attempt is neither open nor shipped");
    for (const [attempt, { used }] of this.known) {
      const row = this.#rows.get(attempt);
      if (row === undefined) assert.ok(!this.isExact, "a granted attempt has no row");
      else assert.deepEqual(usedBy(row.settlement), used);
    }
  }

  readonly #readBetween: HoldsNeeds["readBetween"] = (first, take, read) =>
    new Promise((resolve, reject) => {
      this.#reads.push(async () => {
        await this.ship(first === "everything" ? Infinity : Math.max(0, this.#recovered - this.#folded));
        this.#isReading = true;
        const names = take();
        const spans = names.map((name) => this.#spansOf(name));
        const { holds } = this;
        this.#reads.unshift(async () => {
          this.#isReading = false;
          if (holds !== this.holds) return reject(new Error("the process died"));
          read(names, spans);
          resolve();
        });
      });
    });

  /** As the database has it; null where it has another epoch. */
  #spansOf({ budget, subject, window }: AccountName): readonly BalanceSpan[] | null {
    if (!this.budgets.includes(budget)) return null;
    const spans = new Map<number, { posted: bigint; adjusted: bigint; overage: bigint }>();
    const at = (when: number) => {
      const { start } = spanAt(budget, when);
      if (start < window.start || (window.end !== null && start >= window.end)) return null;
      const span = spans.get(start) ?? { posted: 0n, adjusted: 0n, overage: 0n };
      spans.set(start, span);
      return span;
    };
    for (const { admission, settlement } of this.#rows.values()) {
      const { facts } = admission;
      if (subjectOf(budget, attributionOf(facts)) !== subject) continue;
      const span = at(facts.startedAt);
      if (span === null) continue;
      const used = usedBy(settlement)[budget.unit];
      const most = budget.unit === "usd" && used > admission.worstCase ? admission.worstCase : used;
      span.posted += most;
      span.overage += used - most;
    }
    for (const adjustment of this.#adjustments) {
      const span = adjustment.budget === budget.id && adjustment.subject === subject ? at(adjustment.at) : null;
      if (span !== null) span.adjusted += adjustment.amount;
    }
    return [...spans].map(([start, { posted, adjusted, overage }]) => ({ start, posted, adjusted, overage }));
  }
}

/** A wall clock that somebody sets, beside one that only goes on. */
class JumpingClock implements Clock {
  #now = 1_800_000_000_000;
  #monotonic = 0;

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#monotonic;
  }

  advance(milliseconds: number): void {
    this.#now += milliseconds;
    this.#monotonic += Math.max(0, milliseconds);
  }
}

function attributionOf({ project, key, user, feature }: AttemptFacts) {
  return { project, key, userIndex: user === null ? null : `user-${user}`, featureIndex: `feature-${feature}` };
}

function isInWindow(budget: Budget, startedAt: number, at: number): boolean {
  const { start, end } = windowAt(budget, at);
  const span = spanAt(budget, startedAt).start;
  return span >= start && (budget.rollingSeconds !== null || end === null || span < end);
}

/** What is held under a rolling window counts until it is settled, however old it is. */
function isInWindowOrHeld(budget: Budget, startedAt: number, at: number): boolean {
  return budget.rollingSeconds !== null || isInWindow(budget, startedAt, at);
}

/** Lets everything that can happen by itself happen. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}
