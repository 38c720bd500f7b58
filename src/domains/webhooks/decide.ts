/** What came of one attempt: the endpoint's status, or why there is none. */
export type Outcome = { readonly status: number } | { readonly error: string };

export type Verdict =
  | { readonly kind: "delivered" }
  | { readonly kind: "retry"; readonly afterMs: number }
  /** Given up. */
  | { readonly kind: "failed" }
  /** Given up, and the endpoint wants no more. */
  | { readonly kind: "gone" };

/** `attempts` counts this one. `chance` is even in [0, 1): it spreads retries, so that what failed together does not come back together. */
export function judge(outcome: Outcome, attempts: number, chance: number): Verdict {
  if ("status" in outcome) {
    if (outcome.status >= 200 && outcome.status < 300) return { kind: "delivered" };
    if (outcome.status === GONE) return { kind: "gone" };
  }
  const delay = DELAYS_MS[attempts - 1];
  if (delay === undefined) return { kind: "failed" };
  return { kind: "retry", afterMs: Math.round(delay * (1 - SPREAD + 2 * SPREAD * chance)) };
}

const GONE = 410;
const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
/** After the first attempt, the second, and so on. */
const DELAYS_MS = [5 * SECOND, MINUTE, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 8 * HOUR];
const SPREAD = 0.2;
export const MAX_ATTEMPTS = DELAYS_MS.length + 1;
