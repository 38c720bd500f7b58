import type { Problem } from "../../kernel/problem.ts";

/** The headers a problem is answered with, beside the envelope's own. */
export function problemHeaders(problem: Problem): Record<string, string> {
  const headers: Record<string, string> = { ...problem.headers };
  if (problem.retryAfterSeconds !== null) {
    headers["retry-after"] = String(Math.max(1, Math.ceil(problem.retryAfterSeconds)));
    headers["retry-after-ms"] = String(Math.ceil(problem.retryAfterSeconds * 1000));
  }
  if (problem.status === 401) headers["www-authenticate"] = "Bearer";
  return headers;
}
