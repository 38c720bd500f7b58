import type { ModelEvent } from "../../kernel/events.ts";
import { Problem } from "../../kernel/problem.ts";

/**
 * The events of an answer as a caller of another dialect may be told them: one that its upstream does not date bears the
 * call's own time (`startedAt`, ms since the epoch).
 * @throws Problem upstream_error where the upstream said something that cannot be told: leaving it out would pass for an answer
 */
export function retell(events: readonly ModelEvent[], startedAt: number): readonly ModelEvent[] {
  const failed = events.find((event) => event.type === "error");
  if (failed !== undefined) throw new Problem("upstream_error", { cause: failed.message });
  const first = events[0];
  if (first?.type !== "response-start" || first.createdSeconds !== 0) return events;
  return [{ ...first, createdSeconds: Math.floor(startedAt / 1000) }, ...events.slice(1)];
}
