import { type Level, TICKS_PER_SECOND } from "./level.ts";
import type { Rule } from "./model.ts";

/** Calls at once. */
export class Semaphore implements Level {
  #held = 0;

  wait(charge: number, rule: Rule): number {
    return this.#held + charge <= rule.amount ? 0 : RETRY_TICKS;
  }

  take(charge: number): number {
    this.#held += charge;
    return 0;
  }

  settle({ charge }: { readonly charge: number }): void {
    this.#held -= charge;
  }

  remaining(rule: Rule): number {
    return Math.max(0, rule.amount - this.#held);
  }

  reset(): number {
    return this.#held === 0 ? 0 : RETRY_TICKS;
  }

  isFresh(): boolean {
    return this.#held === 0;
  }
}

/** Nobody knows when a call ends. */
const RETRY_TICKS = TICKS_PER_SECOND;
