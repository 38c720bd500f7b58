import { type Level, type Settled, TICKS_PER_MINUTE } from "./level.ts";
import type { Rule } from "./model.ts";

/**
 * GCRA as a bucket that leaks `amount` a minute: in any t seconds at most burst + amount × t / 60 pass. Its content is in units of one
 * `TICKS_PER_MINUTE`-th of a request or token, of which exactly `amount` leave each tick.
 *
 * Strict charges do not leak: they stay whole until the call has ended, and what it used begins to leak then. So the promise holds for
 * tokens really used, whether they are counted when a call begins, when it ends, or between.
 */
export class LeakyBucket implements Level {
  #content = 0;
  #reserved = 0;
  #tick = 0;

  wait(charge: number, rule: Rule, tick: number): number {
    if (charge > rule.burst) return Number.POSITIVE_INFINITY;
    this.#leak(rule, tick);
    const over = this.#content + this.#reserved + (charge - rule.burst) * TICKS_PER_MINUTE;
    return over <= 0 ? 0 : Math.ceil(over / rule.amount);
  }

  take(charge: number, rule: Rule, tick: number): number {
    this.#leak(rule, tick);
    if (rule.strict) this.#reserved += charge * TICKS_PER_MINUTE;
    else this.#content += charge * TICKS_PER_MINUTE;
    return this.#content;
  }

  settle({ charge, used, taken, mark }: Settled, rule: Rule, tick: number): void {
    this.#leak(rule, tick);
    if (rule.strict) {
      this.#reserved -= charge * TICKS_PER_MINUTE;
      this.#content += used * TICKS_PER_MINUTE;
    } else if (used >= charge) this.#content += (used - charge) * TICKS_PER_MINUTE;
    // What has leaked of the charge is spent: giving it back would let others pass twice.
    else this.#content -= Math.min((charge - used) * TICKS_PER_MINUTE, this.#content, Math.max(0, mark - (tick - taken) * rule.amount));
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

  #leak(rule: Rule, tick: number): void {
    if (tick <= this.#tick) return;
    this.#content = Math.max(0, this.#content - (tick - this.#tick) * rule.amount);
    this.#tick = tick;
  }
}
