import type { Rule } from "./model.ts";

/**
 * How full a limit is for one subject. Amounts are whole requests or tokens. Time counts in ticks of 10 µs on the monotonic clock, so that all
 * arithmetic is of integers below 2^53 and nothing drifts. Who charges has asked `wait` at the same tick.
 */
export interface Level {
  /** Ticks until the charge fits: 0 for now, Infinity for never. */
  wait(charge: number, rule: Rule, tick: number): number;
  /** Takes the charge; what is returned goes to `settle`. */
  take(charge: number, rule: Rule, tick: number): number;
  /** Puts what was used in the place of what was charged at the tick `taken`. */
  settle(settled: Settled, rule: Rule, tick: number): void;
  /** What would fit now. */
  remaining(rule: Rule, tick: number): number;
  /** Ticks until nothing is left of what was taken. */
  reset(rule: Rule, tick: number): number;
  /** Whether it is as if nothing had ever been taken: it may be forgotten. */
  isFresh(rule: Rule, tick: number): boolean;
}

export interface Settled {
  readonly charge: number;
  readonly used: number;
  readonly taken: number;
  /** As `take` returned it. */
  readonly mark: number;
}

export const TICKS_PER_SECOND = 100_000;
export const TICKS_PER_MINUTE = 60 * TICKS_PER_SECOND;
/** The largest limit and burst: times the ticks of a minute it is a third of 2^53. */
export const MAX_AMOUNT = 500_000_000;

/** `milliseconds` on the monotonic clock. */
export function tickOf(milliseconds: number): number {
  return Math.floor(milliseconds * (TICKS_PER_SECOND / 1000));
}
