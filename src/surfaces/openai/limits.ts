import type { LimitFigures } from "../../domains/capacity/index.ts";

/** As https://platform.openai.com/docs/guides/rate-limits has them: `reset` is how long until nothing counts any more. */
export function openaiLimitHeaders({ requests, tokens }: LimitFigures): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [name, figure] of [
    ["requests", requests],
    ["tokens", tokens],
  ] as const) {
    if (figure === null) continue;
    headers[`x-ratelimit-limit-${name}`] = String(figure.limit);
    headers[`x-ratelimit-remaining-${name}`] = String(figure.remaining);
    headers[`x-ratelimit-reset-${name}`] = duration(figure.resetSeconds);
  }
  return headers;
}

/** `1m12s`, `1.5s`, `20ms`: never less than it is. */
function duration(seconds: number): string {
  const milliseconds = Math.ceil(seconds * 1000);
  if (milliseconds < 1000) return milliseconds === 0 ? "0s" : `${milliseconds}ms`;
  const minutes = Math.floor(milliseconds / 60_000);
  const rest = `${(milliseconds % 60_000) / 1000}s`;
  return minutes === 0 ? rest : `${minutes}m${rest}`;
}
