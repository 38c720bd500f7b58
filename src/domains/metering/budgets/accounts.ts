import type { Clock } from "../../../kernel/clock.ts";
import type { TenantId } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { Balance } from "./balances.ts";
import type { Budget } from "./model.ts";
import type { Window } from "./windows.ts";

/** One balance that the database is asked for: of a rolling window all buckets from its oldest. */
export interface AccountName {
  readonly key: string;
  /** Where calls wait for it: one for all of its windows and epochs. */
  readonly line: string;
  readonly budget: Budget;
  readonly subject: string;
  readonly window: Window;
}

/** A balance in memory. */
export interface Account extends AccountName {
  readonly balance: Balance;
  /** On the monotonic clock, ms. */
  readAt: number;
}

/** The balances in memory, by key. Who was not asked for in two generations is forgotten: it is read again when it is. */
export class Accounts {
  readonly #clock: Clock;
  #young = new Map<string, Account>();
  #old = new Map<string, Account>();
  /** Of the young, by the budget's owner. */
  #counts = new Map<TenantId, number>();
  #turnsAt: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#turnsAt = clock.monotonic() + GENERATION_MS;
  }

  get size(): number {
    return this.#young.size + this.#old.size;
  }

  find(key: string): Account | undefined {
    const young = this.#young.get(key);
    if (young !== undefined) return young;
    const old = this.#old.get(key);
    if (old !== undefined) this.put(old);
    return old;
  }

  /** @throws Problem capacity_exceeded where the owner has as many in use as it may */
  expectMore(owner: TenantId): void {
    // Here too: where nothing but more is asked for, nothing would be put.
    this.#turn();
    if ((this.#counts.get(owner) ?? 0) < MAX_LIVE_PER_TENANT) return;
    throw new Problem("capacity_exceeded", {
      message: `More than ${MAX_LIVE_PER_TENANT.toLocaleString("en")} users, features or keys with a budget each are in use at once. Retry later.`,
      retryAfterSeconds: GENERATION_MS / 1000,
    });
  }

  /** Takes the place of the one before. */
  put(account: Account): void {
    this.#turn();
    const { owner } = account.budget;
    if (!this.#young.has(account.key)) {
      this.#counts.set(owner, (this.#counts.get(owner) ?? 0) + 1);
    }
    this.#young.set(account.key, account);
    this.#old.delete(account.key);
  }

  clear(): void {
    this.#young = new Map();
    this.#old = new Map();
    this.#counts = new Map();
  }

  #turn(): void {
    const now = this.#clock.monotonic();
    if (now < this.#turnsAt) return;
    this.#turnsAt = now + GENERATION_MS;
    this.#old = this.#young;
    this.#young = new Map();
    this.#counts = new Map();
  }
}

/** Balances of one owner that were used within a generation. */
const MAX_LIVE_PER_TENANT = 100_000;
const GENERATION_MS = 600_000;
