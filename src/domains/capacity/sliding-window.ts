import { type Level, type Settled, TICKS_PER_SECOND } from "./level.ts";
import type { Rule } from "./model.ts";

/**
 * A hard minute: one-second buckets whose sum never passes `amount`, so neither does what passes in any 60 s. There are 61: a window
 * that begins within a second ends within another. Strict charges are in no bucket until the call has ended.
 */
export class SlidingWindow implements Level {
  readonly #buckets = new Float64Array(BUCKETS);
  #sum = 0;
  #reserved = 0;
  #second = 0;

  wait(charge: number, rule: Rule, tick: number): number {
    if (charge > rule.amount) return Number.POSITIVE_INFINITY;
    this.#advance(tick);
    let over = this.#sum + this.#reserved + charge - rule.amount;
    if (over <= 0) return 0;
    for (let second = this.#second - BUCKETS + 1; second <= this.#second; second++) {
      over -= this.#at(second);
      if (over <= 0) return (second + BUCKETS) * TICKS_PER_SECOND - tick;
    }
    return RESERVED_RETRY_TICKS;
  }

  take(charge: number, rule: Rule, tick: number): number {
    this.#advance(tick);
    if (rule.strict) this.#reserved += charge;
    else this.#add(this.#second, charge);
    return this.#second;
  }

  settle({ charge, used, mark }: Settled, rule: Rule, tick: number): void {
    this.#advance(tick);
    if (rule.strict) {
      this.#reserved -= charge;
      this.#add(this.#second, used);
    } else if (used >= charge) this.#add(this.#second, used - charge);
    else if (mark > this.#second - BUCKETS) this.#add(mark, used - charge);
  }

  remaining(rule: Rule, tick: number): number {
    this.#advance(tick);
    return Math.max(0, rule.amount - this.#sum - this.#reserved);
  }

  reset(_rule: Rule, tick: number): number {
    this.#advance(tick);
    for (let second = this.#second; second > this.#second - BUCKETS; second--)
      if (this.#at(second) > 0) return (second + BUCKETS) * TICKS_PER_SECOND - tick;
    return this.#reserved > 0 ? RESERVED_RETRY_TICKS : 0;
  }

  isFresh(_rule: Rule, tick: number): boolean {
    this.#advance(tick);
    return this.#sum === 0 && this.#reserved === 0;
  }

  #at(second: number): number {
    return second < 0 ? 0 : (this.#buckets[second % BUCKETS] as number);
  }

  #add(second: number, amount: number): void {
    const index = second % BUCKETS;
    this.#buckets[index] = (this.#buckets[index] as number) + amount;
    this.#sum += amount;
  }

  #advance(tick: number): void {
    const now = Math.floor(tick / TICKS_PER_SECOND);
    for (let second = Math.max(this.#second + 1, now - BUCKETS + 1); second <= now; second++) {
      this.#sum -= this.#at(second);
      this.#buckets[second % BUCKETS] = 0;
    }
    if (now > this.#second) this.#second = now;
  }
}

const BUCKETS = 61;
/** Nobody knows when a call ends that holds what is missing. */
const RESERVED_RETRY_TICKS = TICKS_PER_SECOND;
