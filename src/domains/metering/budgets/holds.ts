import type { Clock } from "../../../kernel/clock.ts";
import { type AttemptId, PLATFORM_TENANT, type TenantId } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { AttemptFacts, Settlement } from "../model.ts";
import { type Account, type AccountName, Accounts } from "./accounts.ts";
import { type Balance, RollingBalance, WindowBalance } from "./balances.ts";
import { exceeded } from "./exceeded.ts";
import { type Flight, mostOf, usedBy } from "./flight.ts";
import { type Amounts, type Fit, fit, hasRoom, type Length, type Room } from "./hold-decide.ts";
import { KeptElsewhere } from "./keeper.ts";
import { type Attribution, BUCKETS, type Budget, subjectOf } from "./model.ts";
import type { BalanceSpan } from "./store.ts";
import { type Turn, WaitingLines } from "./waiting.ts";
import { spanAt, type Window, windowAt } from "./windows.ts";

export interface HoldsNeeds {
  readonly clock: Clock;
  /** Of the tenant itself, or of the platform, as the snapshot has them now. */
  readonly budgetsOf: (owner: TenantId) => readonly Budget[];
  /** The blind index of a tag, hexadecimal, as usage rows have it; null once the tenant's keys are gone. */
  readonly indexOf: (tenant: TenantId, column: "user" | "feature", value: string) => string | null;
  /**
   * Asks the database for balances while nothing is being shipped, so that it holds exactly what `shipped` was told, and calls `read` with what
   * `readBalances` says before anything more is. What an earlier process left is shipped `first`, or everything that is durable.
   * Rejects with `KeptElsewhere` where another process may grant holds, and when PostgreSQL is away.
   */
  readonly readBetween: (
    first: "recovered" | "everything",
    names: () => readonly AccountName[],
    read: (names: readonly AccountName[], spans: readonly (readonly BalanceSpan[] | null)[]) => void,
  ) => Promise<void>;
  /** Takes in what was committed before. */
  readonly refresh: () => Promise<void>;
}

/** Whose an attempt is. */
export type Owner = Pick<AttemptFacts, "tenant" | "project" | "key" | "user" | "feature">;

/** One budget that an attempt is held under. */
export interface Place extends Room {
  readonly account: Account;
}

/** Of attempts in flight, in a budget's unit. */
export interface InFlight {
  readonly used: bigint;
  readonly held: bigint;
}

export const NOTHING_IN_FLIGHT: InFlight = { used: 0n, held: 0n };

/** Attempts and the balances that they are held under, in memory. */
export class Holds {
  readonly #needs: HoldsNeeds;
  readonly #accounts: Accounts;
  /** Attempts that the database does not know. */
  readonly #flights = new Map<AttemptId, Flight>();
  readonly #lines = new WaitingLines();
  readonly #windows = new Map<string, Window>();
  readonly #wanted = new Map<string, AccountName>();
  #reading: Promise<void> | null = null;
  /** Settled attempts were forgotten before they were shipped: what is read next must have them. */
  #hasForgotten = false;
  #notHereUntil = Number.NEGATIVE_INFINITY;

  constructor(needs: HoldsNeeds) {
    this.#needs = needs;
    this.#accounts = new Accounts(needs.clock);
  }

  /** Whether a hard budget applies, so that an answer's length must be bounded. */
  isBounded(of: Owner): boolean {
    const budgets = this.#hardBudgets(of);
    if (budgets.length === 0) return false;
    const attribution = this.#attributionOf(of, budgets);
    return budgets.some((budget) => subjectOf(budget, attribution) !== null);
  }

  /**
   * Looks whether every budget whose balance is in memory could pay `least`, and reserves nothing.
   * @throws Problem budget_exceeded
   */
  peek(of: Owner, least: () => Amounts): void {
    const budgets = this.#hardBudgets(of);
    if (budgets.length === 0) return;
    const at = this.#needs.clock.now();
    const known = this.#namesOf(of, budgets, at).flatMap((name) => this.#placeOf(name, at) ?? []);
    if (known.length === 0) return;
    const amounts = least();
    const full = known.find((place) => place.budget.mode !== "wait" && !hasRoom(place, amounts));
    if (full !== undefined) throw exceeded(full, full.account, at, null, of.tenant, amounts[full.budget.unit]);
  }

  /** The balances that an attempt admitted at `at` is judged by; or a promise, after which to ask again. @throws Problem capacity_exceeded; rejects with Problem overloaded */
  places(of: Owner, at: number): readonly Place[] | Promise<void> {
    const budgets = this.#hardBudgets(of);
    if (budgets.length === 0) return NO_PLACES;
    const names = this.#namesOf(of, budgets, at);
    const places: Place[] = [];
    const missing: AccountName[] = [];
    for (const name of names) {
      const place = this.#placeOf(name, at);
      if (place === null) missing.push(name);
      else places.push(place);
    }
    if (missing.length === 0) return places;
    for (const { budget } of missing) this.#accounts.expectMore(budget.owner);
    return this.#read(missing);
  }

  /**
   * The longest answers with which an attempt fits under all of its budgets now. The caller takes the hold in the same step.
   * @throws Problem budget_exceeded, which says whose line to wait in where waiting may help
   */
  fit(places: readonly Place[], most: (each: number) => Amounts, length: Length, tenant: TenantId, turn: Turn | null): number {
    if (places.length === 0) return length.each;
    const found = this.#inTurn(places, fit(places, most, length), turn);
    if (found.kind === "fits") return found.each;
    const { by, mayWait } = found;
    const asked = most(length.each)[by.budget.unit];
    throw exceeded(by, by.account, this.#needs.clock.now(), mayWait ? by.account.line : null, tenant, asked);
  }

  /** Reserves. What has room is found by `fit` in the same step, with nothing awaited between. */
  take(facts: AttemptFacts, worstCase: bigint, places: readonly Place[]): void {
    if (facts.kind === "count") return;
    const flight: Flight = {
      facts,
      most: mostOf(facts, worstCase),
      used: null,
      soFar: null,
      accounts: places.map(({ account }) => account),
    };
    if (this.#flights.size >= MAX_FLIGHTS) this.#forget();
    this.#flights.set(facts.attempt, flight);
    for (const { budget, balance } of flight.accounts) balance.held += flight.most[budget.unit];
  }

  /** The attempt's answer has begun: `soFar` says what it has used. */
  watch(attempt: AttemptId, soFar: () => Amounts): void {
    const flight = this.#flights.get(attempt);
    if (flight !== undefined) flight.soFar = soFar;
  }

  /** The attempt's SETTLE is durable: what it held returns, and what it used is spent. Once an attempt; what it is told again is ignored. */
  settled(settlement: Settlement): void {
    const flight = this.#flights.get(settlement.attempt);
    if (flight === undefined || flight.used !== null) return;
    flight.used = usedBy(settlement);
    flight.soFar = null;
    for (const { budget, balance, line } of flight.accounts) {
      balance.held -= flight.most[budget.unit];
      balance.post(flight.facts.startedAt, flight.used[budget.unit]);
      this.#lines.wake(line);
    }
  }

  /** The database knows them now. */
  shipped(attempts: readonly AttemptId[]): void {
    for (const attempt of attempts) this.#flights.delete(attempt);
  }

  /** What attempts in flight here have used under a budget for one subject, and what they hold beside that, in the budget's unit. */
  inFlightUnder(budget: Budget, subject: string, at: number): InFlight {
    const account = this.#accounts.find(this.#nameOf(budget, subject, at).key);
    if (account === undefined) return NOTHING_IN_FLIGHT;
    let used = 0n;
    for (const { soFar, most, used: settled, accounts } of this.#flights.values()) {
      if (soFar === null || settled !== null || !accounts.includes(account)) continue;
      const [now, limit] = [soFar()[budget.unit], most[budget.unit]];
      used += now < limit ? now : limit;
    }
    return { used, held: account.balance.held - used };
  }

  /** Waits in a line until it is worth trying again: true; or until time is up or the caller gone: false. @throws Problem capacity_exceeded */
  wait(line: string, turn: Turn, signal: AbortSignal): Promise<boolean> {
    this.#lines.join(line, turn);
    return turn.called(this.#needs.clock.monotonic(), signal, !this.#lines.isAhead(line, turn));
  }

  leave(turn: Turn): void {
    this.#lines.leave(turn);
  }

  /** For metrics. */
  figures(): { readonly balances: number; readonly unshipped: number; readonly waiting: number } {
    return { balances: this.#accounts.size, unshipped: this.#flights.size, waiting: this.#lines.size };
  }

  /** Who came first is served first: what would fit for another waits behind them. */
  #inTurn(places: readonly Place[], found: Fit<Place>, turn: Turn | null): Fit<Place> {
    if (found.kind === "refused" || this.#lines.size === 0) return found;
    const by = places.find(({ budget, account }) => budget.mode === "wait" && this.#lines.isAhead(account.line, turn));
    return by === undefined ? found : { kind: "refused", by, mayWait: true };
  }

  #hardBudgets({ tenant, project, key }: Owner): readonly Budget[] {
    const own = hardOf(this.#needs.budgetsOf(tenant));
    const platform = tenant === PLATFORM_TENANT ? NO_BUDGETS : hardOf(this.#needs.budgetsOf(PLATFORM_TENANT));
    if (own.length === 0) return platform;
    const about = own.filter((budget) => (budget.project ?? project) === project && (budget.key ?? key) === key);
    return platform.length === 0 ? about : [...platform, ...about];
  }

  #namesOf(of: Owner, budgets: readonly Budget[], at: number): AccountName[] {
    const names: AccountName[] = [];
    const attribution = this.#attributionOf(of, budgets);
    for (const budget of budgets) {
      const subject = subjectOf(budget, attribution);
      if (subject !== null) names.push(this.#nameOf(budget, subject, at));
    }
    return names;
  }

  #nameOf(budget: Budget, subject: string, at: number): AccountName {
    const { id, epoch, timeZone, rollingSeconds } = budget;
    const line = `${id} ${subject}`;
    // A clock that was set forward and back has left amounts in buckets to come: they are known, and count when they are reached.
    const window = rollingSeconds === null ? this.#windowAt(budget, at) : { start: windowAt(budget, at).start, end: null };
    return { key: `${line} ${epoch} ${timeZone} ${rollingSeconds === null ? window.start : "rolling"}`, line, budget, subject, window };
  }

  /** Time zones are slow to compute with: a window is computed once. */
  #windowAt(budget: Budget, at: number): Window {
    const name = `${budget.window} ${budget.timeZone}`;
    const known = this.#windows.get(name);
    if (known !== undefined && known.start <= at && (known.end === null || at < known.end)) return known;
    if (this.#windows.size >= MAX_WINDOWS) this.#windows.clear();
    const window = spanAt(budget, at);
    this.#windows.set(name, window);
    return window;
  }

  #attributionOf(of: Owner, budgets: readonly Budget[]): Attribution {
    const index = (column: "user" | "feature", value: string | null): string | null =>
      value !== null && budgets.some(({ scope }) => scope === column) ? this.#needs.indexOf(of.tenant, column, value) : null;
    return { project: of.project, key: of.key, userIndex: index("user", of.user), featureIndex: index("feature", of.feature) };
  }

  /** Null where its balance must be read first. */
  #placeOf(name: AccountName, at: number): Place | null {
    const account = this.#accounts.find(name.key);
    if (account === undefined || !account.balance.covers(at)) return null;
    const now = this.#needs.clock.monotonic();
    if (now - account.readAt > READ_AGAIN_MS) {
      account.readAt = now;
      this.#read([name]).catch(ignore);
    }
    const { held } = account.balance;
    return { budget: name.budget, headroom: name.budget.cap - account.balance.spent(at) - held, held, account };
  }

  /** Reads balances, with whatever else is wanted by the time it is the database's turn. */
  #read(names: readonly AccountName[]): Promise<void> {
    if (this.#needs.clock.monotonic() < this.#notHereUntil) return Promise.reject(new KeptElsewhere().problem());
    if (this.#wanted.size + names.length > MAX_WANTED) return Promise.reject(unread("more balances wait to be read than may"));
    for (const name of names) this.#wanted.set(name.key, name);
    return within(READ_WAIT_MS, (this.#reading ??= this.#readWanted()));
  }

  async #readWanted(): Promise<void> {
    // What else is wanted in this turn comes along, and `#reading` is set before it is taken back.
    await Promise.resolve();
    let allKnown = true;
    const take = (): AccountName[] => {
      this.#reading = null;
      const names = [...this.#wanted.values()];
      this.#wanted.clear();
      return names;
    };
    const first = this.#hasForgotten ? "everything" : "recovered";
    this.#hasForgotten = false;
    try {
      await this.#needs.readBetween(first, take, (names, spans) => (allKnown = this.#open(names, spans)));
      if (!allKnown) await this.#needs.refresh();
    } catch (thrown) {
      // It may have failed before it took what was wanted.
      if (this.#reading !== null) take();
      this.#hasForgotten ||= first === "everything";
      if (!(thrown instanceof KeptElsewhere)) throw thrown instanceof Problem ? thrown : unread(thrown);
      this.#accounts.clear();
      this.#notHereUntil = this.#needs.clock.monotonic() + TRY_KEEPER_AGAIN_MS;
      throw thrown.problem();
    }
  }

  /** Those that PostgreSQL, being away, has not taken for long; what is open stays. */
  #forget(): void {
    let left = MAX_FLIGHTS / 100;
    for (const [attempt, { used }] of this.#flights) {
      if (left === 0) return;
      if (used === null) continue;
      this.#flights.delete(attempt);
      this.#hasForgotten = true;
      left -= 1;
    }
  }

  /** One step: the balances as the database has them, and every attempt that it does not know. False where the snapshot is behind. */
  #open(names: readonly AccountName[], spans: readonly (readonly BalanceSpan[] | null)[]): boolean {
    const now = this.#needs.clock.monotonic();
    const opened = new Map<Budget, Map<string, Account[]>>();
    let allKnown = true;
    for (const [index, name] of names.entries()) {
      const found = spans[index] ?? null;
      if (found === null) {
        allKnown = false;
        continue;
      }
      const account: Account = { ...name, balance: balanceOf(name, found), readAt: now };
      this.#accounts.put(account);
      const ofBudget = opened.get(name.budget) ?? new Map<string, Account[]>();
      opened.set(name.budget, ofBudget);
      ofBudget.set(name.subject, [...(ofBudget.get(name.subject) ?? []), account]);
    }
    for (const [budget, bySubject] of opened) for (const flight of this.#flights.values()) this.#count(flight, budget, bySubject);
    return allKnown;
  }

  #count(flight: Flight, budget: Budget, bySubject: ReadonlyMap<string, readonly Account[]>): void {
    const { facts, most, used } = flight;
    if (budget.owner !== PLATFORM_TENANT && budget.owner !== facts.tenant) return;
    const subject = subjectOf(budget, this.#attributionOf(facts, [budget]));
    const accounts = subject === null ? undefined : bySubject.get(subject);
    for (const account of accounts ?? []) {
      if (!isWithin(account, facts.startedAt)) continue;
      if (used !== null) account.balance.post(facts.startedAt, used[budget.unit]);
      else {
        account.balance.held += most[budget.unit];
        flight.accounts = [...flight.accounts.filter(({ key }) => key !== account.key), account];
      }
    }
  }
}

/** Every attempt of a rolling window's subject: what is too old is in no bucket that counts. */
function isWithin({ budget, window }: AccountName, startedAt: number): boolean {
  return budget.rollingSeconds !== null || (startedAt >= window.start && (window.end === null || startedAt < window.end));
}

function balanceOf({ budget, window }: AccountName, spans: readonly BalanceSpan[]): Balance {
  const { rollingSeconds } = budget;
  const spent = ({ posted, adjusted, overage }: BalanceSpan): bigint => posted + adjusted + overage;
  if (rollingSeconds === null) return new WindowBalance(spans.reduce((sum, span) => sum + spent(span), 0n));
  const windowMs = rollingSeconds * 1000;
  const buckets = new Map(spans.map((span) => [span.start, spent(span)]));
  return new RollingBalance(windowMs, windowMs / BUCKETS, buckets, window.start + windowMs);
}

/** By the list itself, which is immutable and of one snapshot. */
const hard = new WeakMap<readonly Budget[], readonly Budget[]>();

function hardOf(budgets: readonly Budget[]): readonly Budget[] {
  if (budgets.length === 0) return NO_BUDGETS;
  let known = hard.get(budgets);
  if (known === undefined) hard.set(budgets, (known = budgets.filter(({ mode }) => mode !== "soft")));
  return known;
}

/** A PostgreSQL that hangs keeps no caller for longer: what it then says is there for the next. */
function within(milliseconds: number, reading: Promise<void>): Promise<void> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(unread(`the balance was not read within ${milliseconds} ms`)), milliseconds).unref();
  return Promise.race([reading, late]).finally(() => clearTimeout(timer));
}

function unread(cause: unknown): Problem {
  return new Problem("overloaded", {
    message: "What is spent of a budget cannot be read now. Retry after the time in 'retry-after'.",
    retryAfterSeconds: 1,
    cause,
  });
}

const NO_BUDGETS: readonly Budget[] = [];
const NO_PLACES: readonly Place[] = [];
const ignore = (): void => {};
/** Attempts that the database does not know, about 100 MB of them. */
const MAX_FLIGHTS = 200_000;
/** Balances that wait to be read. */
const MAX_WANTED = 20_000;
/** One for each kind of window and time zone. */
const MAX_WINDOWS = 2_000;
/** What other processes ship that admitted calls before they knew of the budget is seen this late. */
const READ_AGAIN_MS = 60_000;
const TRY_KEEPER_AGAIN_MS = 1_000;
/** A balance takes a few ms; that of a new budget as long as one window's rows take to sum. */
const READ_WAIT_MS = 5_000;
