import { type Level, TICKS_PER_SECOND } from "./level.ts";
import type { Dimension, Limit, LimitFigure, LimitFigures } from "./model.ts";
import type { Plan } from "./plan.ts";

/** What is left under the tightest of the limits that count nobody but the caller's tenant. */
export function figuresOf(plan: Plan, counters: readonly Counted[], tick: number): LimitFigures {
  return { requests: tightest(plan, counters, tick, "requests"), tokens: tightest(plan, counters, tick, "tokens") };
}

export const NO_FIGURES: LimitFigures = { requests: null, tokens: null };

interface Counted {
  readonly level: Level;
  readonly limit: Limit;
}

function tightest(plan: Plan, counters: readonly Counted[], tick: number, dimension: Dimension): LimitFigure | null {
  let least = Number.POSITIVE_INFINITY;
  let found = -1;
  for (let index = 0; index < counters.length; index++) {
    const { level, limit } = counters[index] as Counted;
    if (limit.dimension !== dimension || plan.isShared[index] === true) continue;
    const remaining = level.remaining(limit, tick);
    if (remaining >= least) continue;
    least = remaining;
    found = index;
  }
  if (found < 0) return null;
  const { level, limit } = counters[found] as Counted;
  return { limit: limit.amount, remaining: least, resetSeconds: level.reset(limit, tick) / TICKS_PER_SECOND };
}
