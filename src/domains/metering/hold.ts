import { type Journal, RECORD } from "../../storage/journal/index.ts";
import type { Clock } from "../../kernel/clock.ts";
import type { PicoDollars } from "../../kernel/money.ts";
import { Problem } from "../../kernel/problem.ts";
import type { Price } from "../catalog/index.ts";
import { rateOf, worstCase } from "./decide.ts";
import type { AttemptFacts, Hold } from "./model.ts";
import type { Recent } from "./recent.ts";
import { type Admission, encodeAdmission, encodeMark } from "./records.ts";
import type { Speeds } from "./speeds.ts";

export interface HoldNeeds {
  readonly journal: Journal;
  readonly clock: Clock;
  readonly speeds: Speeds;
  /** Where the shipper looks before it decodes. */
  readonly recent?: Recent<Admission>;
  /** Called when an ADMIT's fate is unknown: the attempt must not stay open, for it never left. */
  readonly voided: (held: Held) => void;
}

/**
 * Reserves W for one dispatch of an attempt and resolves once its ADMIT is durable: the only place a Hold is minted.
 * Rejects with the problem `overloaded` when the journal cannot keep it. `facts.attempt` is new.
 */
export function hold(facts: AttemptFacts, price: Price, needs: HoldNeeds): Promise<Hold> {
  return new Promise((resolve, reject) => {
    const held = new Held(facts, price, needs.clock.monotonic(), needs.speeds.of(facts.deployment));
    const admission = held.admission();
    let sequence: number;
    try {
      sequence = needs.journal.append(RECORD.admit, facts.attempt, encodeAdmission(admission));
    } catch (fault) {
      reject(overloaded(fault));
      return;
    }
    needs.recent?.remember(sequence, admission);
    needs.journal.whenDurable(sequence, (fault) => {
      if (fault === null) return resolve(held as unknown as Hold);
      needs.voided(held);
      reject(overloaded(fault));
    });
  });
}

/** Says in the journal that the request may have reached the upstream. Not awaited: without it the attempt replays as `dispatch_unknown`. */
export function sent(hold: Hold, needs: Pick<HoldNeeds, "journal" | "clock">): void {
  const held = heldOf(hold);
  if (held.sentAt !== null) return;
  held.sentAt = needs.clock.monotonic();
  try {
    needs.journal.append(RECORD.progress, held.facts.attempt, encodeMark(0));
  } catch {
    // The next mark or the SETTLE meets the same journal and answers for it.
  }
}

/** What a Hold is inside this domain. */
export class Held {
  readonly facts: AttemptFacts;
  readonly price: Price;
  readonly worstCase: PicoDollars;
  readonly outputBound = null;
  readonly tokensPerSecond: number;
  /** On the monotonic clock, ms. */
  readonly heldAt: number;
  sentAt: number | null = null;
  settled = false;

  constructor(facts: AttemptFacts, price: Price, heldAt: number, tokensPerSecond: number) {
    // An ADMIT that does not decode stops every reader of the journal, so a bug must not get as far as writing one.
    if (!isCount(facts.bound.input) || !isCount(facts.bound.output)) throw new Error("a token bound that no record can carry");
    this.facts = facts;
    this.price = price;
    this.worstCase = worstCase(facts.bound, price, facts.markupMillionths);
    this.heldAt = heldAt;
    this.tokensPerSecond = tokensPerSecond;
  }

  admission(): Admission {
    const { facts, worstCase, price, tokensPerSecond } = this;
    const { input } = facts.bound;
    const [inputRate, outputRate] = [rateOf("input_uncached", price, input), rateOf("output", price, input)];
    return { facts, worstCase, inputRate, outputRate, tokensPerSecond };
  }
}

function isCount(tokens: number): boolean {
  return Number.isSafeInteger(tokens) && tokens >= 0;
}

/** A hold is a Held because only `hold` mints one; anything else is a bug. */
export function heldOf(hold: Hold): Held {
  if (!(hold instanceof Held)) throw new Error("a hold that metering did not mint");
  return hold;
}

/** The caller's side of a journal that cannot keep records. */
export function overloaded(fault: unknown): Problem {
  return new Problem("overloaded", { retryAfterSeconds: JOURNAL_RETRY_SECONDS, cause: fault });
}

/** The journal tries its disk again after 0.1 to 5 s. */
const JOURNAL_RETRY_SECONDS = 5;
