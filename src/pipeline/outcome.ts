import type { Used } from "../domains/capacity/index.ts";
import type { Settlement } from "../domains/metering/index.ts";
import type { Problem } from "../kernel/problem.ts";
import { inputTokens, outputTokens } from "../kernel/tokens.ts";
import type { Abandoned, Hop } from "./evidence.ts";

/** How a call ended. Every call has exactly one; it is carried to `record`. */
export type Outcome =
  | { readonly kind: "answered"; readonly settlement: Settlement }
  /** Something failed after the first byte had left. */
  | { readonly kind: "truncated"; readonly settlement: Settlement; readonly problem: Problem }
  /** With a settlement where a response had begun. */
  | { readonly kind: "client_left"; readonly settlement?: Settlement }
  | { readonly kind: "problem"; readonly problem: Problem };

/** How the call's last hop was charged; null where it was not. A hop without a response carries it itself. */
export function settlementOf(hops: readonly Hop[], outcome: Outcome | null): Settlement | null {
  const hop = hops.at(-1) as Partial<Abandoned> | undefined;
  return (outcome !== null && "settlement" in outcome ? outcome.settlement : hop?.settlement) ?? null;
}

/** What the call used of its limits: nothing where no hop was held, and nobody knows where a hop was held and not settled. */
export function usedBy(hops: readonly Hop[], outcome: Outcome | null): Used {
  const settlement = settlementOf(hops, outcome);
  if (settlement !== null) return { input: inputTokens(settlement.usage.tokens), output: outputTokens(settlement.usage.tokens) };
  const hop = hops.at(-1) as Partial<Abandoned> | undefined;
  return hop?.hold === undefined ? NOTHING_USED : "unknown";
}

const NOTHING_USED: Used = { input: 0, output: 0 };
