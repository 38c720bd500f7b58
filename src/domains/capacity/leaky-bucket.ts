import { type Level, type Settled, TICKS_PER_MINUTE } from "./level.ts";
import type { Rule } from "./model.ts";

/**
 * GCRA as a bucket that leaks `amount` a minute: in any t seconds at most burst + amount × t / 60 pass. Its content is in units of one
 * `TICKS_PER_MINUTE`-th of a request or token, of which exactly `amount` leave each tick, the oldest first.
 *
 * A charge that turns out too large is given back as far as it has not leaked: that is as if it had never been taken. What has leaked of
 * it is spent, and giving it back would let others pass twice.
 *
 * Strict charges do not leak: they stay whole until the call has ended, and what it used begins to leak then. So the promise holds for
 * tokens really used, whether they are counted when a call begins, when it ends, or between.
 */
export class LeakyBucket implements Level {
  readonly #isCorrected: boolean;
  #content = 0;
  #reserved = 0;
  #tick = 0;
  #amount = 0;
  /** What is left of each charge, oldest first; the first is that of the mark `#first`. */
  readonly #charges: number[] = [];
  #first = 0;
  /** Content that is older than all of `#charges`: nothing of it is given back. */
  #older = 0;

  /** `isCorrected`: whether charges are settled with what was used. */
  constructor(isCorrected: boolean) {
    this.#isCorrected = isCorrected;
  }

  wait(charge: number, rule: Rule, tick: number): number {
    if (charge > rule.burst) return Number.POSITIVE_INFINITY;
    this.#leak(rule, tick);
    const over = this.#content + this.#reserved + (charge - rule.burst) * TICKS_PER_MINUTE;
    return over <= 0 ? 0 : Math.ceil(over / rule.amount);
  }

  take(charge: number, rule: Rule, tick: number): number {
    this.#leak(rule, tick);
    if (rule.strict) this.#reserved += charge * TICKS_PER_MINUTE;
    else this.#add(charge * TICKS_PER_MINUTE);
    return this.#first + this.#charges.length - 1;
  }

  settle({ charge, used, mark }: Settled, rule: Rule, tick: number): void {
    this.#leak(rule, tick);
    if (rule.strict) {
      this.#reserved -= charge * TICKS_PER_MINUTE;
      this.#add(used * TICKS_PER_MINUTE);
    } else if (used >= charge) this.#add((used - charge) * TICKS_PER_MINUTE);
    else this.#giveBack((charge - used) * TICKS_PER_MINUTE, mark);
  }

  remaining(rule: Rule, tick: number): number {
    this.#leak(rule, tick);
    return Math.max(0, Math.floor((rule.burst * TICKS_PER_MINUTE - this.#content - this.#reserved) / TICKS_PER_MINUTE));
  }

  reset(rule: Rule, tick: number): number {
    this.#leak(rule, tick);
    return Math.ceil((this.#content + this.#reserved) / rule.amount);
  }

  isFresh(rule: Rule, tick: number): boolean {
    this.#leak(rule, tick);
    return this.#content === 0 && this.#reserved === 0;
  }

  #add(units: number): void {
    this.#content += units;
    if (!this.#isCorrected) return;
    this.#charges.push(units);
    if (this.#charges.length <= MAX_CHARGES) return;
    this.#older += this.#charges.shift() as number;
    this.#first++;
  }

  #giveBack(units: number, mark: number): void {
    const at = mark - this.#first;
    const left = this.#charges[at] ?? 0;
    const back = Math.min(units, left);
    if (back === 0) return;
    this.#charges[at] = left - back;
    this.#content -= back;
  }

  /** A changed amount holds from now on: what has passed leaked as it was. */
  #leak({ amount }: Rule, tick: number): void {
    if (tick > this.#tick) {
      const leaking = Math.min(this.#content, (tick - this.#tick) * this.#amount);
      this.#content -= leaking;
      if (this.#isCorrected) this.#leakOldest(leaking);
      this.#tick = tick;
    }
    this.#amount = amount;
  }

  #leakOldest(units: number): void {
    const older = Math.min(this.#older, units);
    this.#older -= older;
    let rest = units - older;
    for (let oldest = this.#charges[0]; oldest !== undefined && oldest <= rest; oldest = this.#charges[0]) {
      rest -= oldest;
      this.#charges.shift();
      this.#first++;
    }
    if (rest > 0) this.#charges[0] = (this.#charges[0] as number) - rest;
  }
}

/** Charges told apart: a call begun before so many others gets nothing back. */
const MAX_CHARGES = 2048;
