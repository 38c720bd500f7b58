import type { LimitFigure, LimitFigures } from "../../domains/capacity/index.ts";

/**
 * As https://docs.anthropic.com/en/api/rate-limits has them. Our limits count input and output together, so what is left is what is left
 * of each.
 */
export function anthropicLimitHeaders({ requests, tokens }: LimitFigures, now: number): Record<string, string> {
  const headers: Record<string, string> = {};
  if (requests !== null) add(headers, "requests", requests, now);
  if (tokens !== null) for (const name of ["tokens", "input-tokens", "output-tokens"]) add(headers, name, tokens, now);
  return headers;
}

/** Whole seconds, as Anthropic sends them, and never sooner than it is. */
function add(headers: Record<string, string>, name: string, figure: LimitFigure, now: number): void {
  const reset = new Date(Math.ceil(now / 1000 + figure.resetSeconds) * 1000);
  headers[`anthropic-ratelimit-${name}-limit`] = String(figure.limit);
  headers[`anthropic-ratelimit-${name}-remaining`] = String(figure.remaining);
  headers[`anthropic-ratelimit-${name}-reset`] = reset.toISOString().replace(".000Z", "Z");
}
