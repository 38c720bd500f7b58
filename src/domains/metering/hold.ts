import { type Journal, RECORD } from "../../storage/journal/index.ts";
import type { Clock } from "../../kernel/clock.ts";
import type { PicoDollars } from "../../kernel/money.ts";
import { Problem } from "../../kernel/problem.ts";
import type { TokenBound } from "../../kernel/tokens.ts";
import type { Price } from "../catalog/index.ts";
import { mostOf } from "./budgets/flight.ts";
import type { Holds, Place } from "./budgets/holds.ts";
import type { Turn } from "./budgets/waiting.ts";
import { rateOf, worstCase } from "./decide.ts";
import type { AttemptFacts, Hold } from "./model.ts";
import type { Recent } from "./recent.ts";
import { type Admission, encodeAdmission, encodeMark } from "./records.ts";
import type { Speeds } from "./speeds.ts";

export interface HoldNeeds {
  readonly journal: Journal;
  readonly clock: Clock;
  readonly speeds: Speeds;
  /** Absent where nothing is budgeted. */
  readonly holds?: Holds;
  /** Where the shipper looks before it decodes. */
  readonly recent?: Recent<Admission>;
  /** Called when an ADMIT's fate is unknown: the attempt must not stay open, for it never left. */
  readonly voided: (held: Held) => void;
}

/** How long an attempt's answers may be, and what that makes of its bound. */
export interface Answers {
  /** The most tokens of one answer. */
  readonly each: number;
  /** Below this an answer is of no use: where a budget cannot pay for more, it refuses. */
  readonly least: number;
  readonly boundOf: (each: number) => TokenBound;
  /** The maximum to ask the upstream for in place of the caller's, tokens of one answer; null leaves that. */
  readonly outputBound: number | null;
}

/**
 * Reserves W for one dispatch of an attempt, under all of its budgets or none, and resolves once its ADMIT is durable: the only place a Hold is
 * minted. Where a budget bids clamp, the answers are made as short as it asks; without `answers` they are as `facts.bound` says.
 * Rejects with BudgetExceeded, and with the problem `overloaded` when the journal cannot keep it or a balance cannot be read.
 * `facts.attempt` is new; `turn` is the call's place among those that wait.
 */
export function hold(
  facts: AttemptFacts,
  price: Price,
  needs: HoldNeeds,
  answers: Answers | null = null,
  turn: Turn | null = null,
): Promise<Hold> {
  return new Promise((resolve, reject) => {
    const order = { facts, price, answers, turn, needs };
    const places = placesOf(order);
    if (places instanceof Promise) whenRead(order, places).then(resolve, reject);
    else admit(order, places, resolve, reject);
  });
}

interface Order {
  readonly facts: AttemptFacts;
  readonly price: Price;
  readonly answers: Answers | null;
  readonly turn: Turn | null;
  readonly needs: HoldNeeds;
}

/** What the attempt is judged by, or a promise until it is read. A count costs nothing and is judged by nothing. */
function placesOf({ facts, needs }: Order): readonly Place[] | Promise<void> {
  return facts.kind === "count" ? NO_PLACES : (needs.holds?.places(facts, facts.startedAt) ?? NO_PLACES);
}

/** Asks again after what was missing has been read: a budget may have changed meanwhile. */
async function whenRead(order: Order, reading: Promise<void>): Promise<Hold> {
  let waited = reading;
  for (let tries = 0; tries < MAX_READS; tries++) {
    await waited;
    const places = placesOf(order);
    if (!(places instanceof Promise)) return new Promise((resolve, reject) => admit(order, places, resolve, reject));
    waited = places;
  }
  waited.catch(() => {});
  throw overloaded("budgets change faster than they can be read");
}

/** One step from the balances to the journal's queue: nothing comes between what fits and what is held. */
function admit(order: Order, places: readonly Place[], resolve: (hold: Hold) => void, reject: (fault: unknown) => void): void {
  const { journal, recent, holds, voided } = order.needs;
  const held = fitted(order, places);
  const admission = held.admission();
  let sequence: number;
  try {
    sequence = journal.append(RECORD.admit, held.facts.attempt, encodeAdmission(admission));
  } catch (fault) {
    reject(overloaded(fault));
    return;
  }
  holds?.take(held.facts, held.worstCase, places);
  recent?.remember(sequence, admission);
  journal.whenDurable(sequence, (fault) => {
    if (fault === null) return resolve(held as unknown as Hold);
    voided(held);
    reject(overloaded(fault));
  });
}

/** What is to be held: with shorter answers where a budget bids it. @throws BudgetExceeded */
function fitted({ facts, price, answers, turn, needs }: Order, places: readonly Place[]): Held {
  const { clock, speeds, holds } = needs;
  const asked = answers?.outputBound ?? null;
  const make = (bounded: AttemptFacts, outputBound: number | null) =>
    new Held(bounded, price, clock.monotonic(), speeds.of(facts.deployment), outputBound);
  if (holds === undefined || places.length === 0) return make(facts, asked);
  const boundOf = answers?.boundOf ?? (() => facts.bound);
  const whole = answers?.each ?? facts.bound.output;
  const most = (each: number) => {
    const bound = boundOf(each);
    return mostOf({ bound }, worstCase(bound, price, facts.markupMillionths));
  };
  const each = holds.fit(places, most, { each: whole, least: answers?.least ?? whole }, facts.tenant, turn);
  return each === whole ? make(facts, asked) : make({ ...facts, bound: boundOf(each) }, each);
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
  readonly outputBound: number | null;
  readonly tokensPerSecond: number;
  /** On the monotonic clock, ms. */
  readonly heldAt: number;
  sentAt: number | null = null;
  settled = false;

  constructor(facts: AttemptFacts, price: Price, heldAt: number, tokensPerSecond: number, outputBound: number | null = null) {
    // An ADMIT that does not decode stops every reader of the journal, so a bug must not get as far as writing one.
    if (!isCount(facts.bound.input) || !isCount(facts.bound.output)) throw new Error("a token bound that no record can carry");
    this.facts = facts;
    this.price = price;
    this.outputBound = outputBound;
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

const NO_PLACES: readonly Place[] = [];
/** Of the same balances, in a row. */
const MAX_READS = 5;
/** The journal tries its disk again after 0.1 to 5 s. */
const JOURNAL_RETRY_SECONDS = 5;
