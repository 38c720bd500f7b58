import type { Level } from "./level.ts";
import type { Rule } from "./model.ts";

/**
 * Which of a call's limits refuses it: its position, or -1 where every charge fits. The one that waits longest is named, for a retry sooner
 * would only meet it; one that never lets the charge pass before all.
 */
export function refusing(
  counters: readonly { readonly level: Level }[],
  rules: readonly Rule[],
  charges: readonly number[],
  tick: number,
): number {
  let longest = 0;
  let refused = -1;
  for (let index = 0; index < counters.length; index++) {
    const wait = counters[index]?.level.wait(charges[index] as number, rules[index] as Rule, tick) ?? 0;
    if (wait <= longest) continue;
    longest = wait;
    refused = index;
  }
  return refused;
}
