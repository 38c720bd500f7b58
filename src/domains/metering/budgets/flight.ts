import { inputTokens, outputTokens } from "../../../kernel/tokens.ts";
import type { AttemptFacts, Settlement } from "../model.ts";
import type { Account } from "./accounts.ts";
import type { Amounts } from "./hold-decide.ts";

/** An attempt of this process that no balance of the database knows yet: in flight, or settled and not shipped. */
export interface Flight {
  readonly facts: AttemptFacts;
  readonly most: Amounts;
  /** Null until its SETTLE is durable: what is held until then is all that it could be charged after a crash. */
  used: Amounts | null;
  /** What of `most` it has used by now; null where nothing has come yet. For views alone: a grant sees what is used and what is held alike. */
  soFar: (() => Amounts) | null;
  /** Where it is counted. */
  accounts: readonly Account[];
}

/** What an attempt within its bound may use. */
export function mostOf({ bound }: Pick<AttemptFacts, "bound">, worstCase: bigint): Amounts {
  return { usd: worstCase, tokens: BigInt(bound.input + bound.output), requests: 1n };
}

/** What an attempt used, as the shipper posts it. */
export function usedBy({ charge, usage }: Pick<Settlement, "charge" | "usage">): Amounts {
  return { usd: charge, tokens: BigInt(inputTokens(usage.tokens) + outputTokens(usage.tokens)), requests: 1n };
}
