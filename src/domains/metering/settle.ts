import { type Journal, type JournalFault, RECORD } from "../../storage/journal/index.ts";
import type { Clock } from "../../kernel/clock.ts";
import type { AttemptId } from "../../kernel/ids.ts";
import { formatUsd, type PicoDollars } from "../../kernel/money.ts";
import { NO_TOKENS, outputTokens, type TokenClass, type Usage } from "../../kernel/tokens.ts";
import type { DispatchFailure } from "../providers/index.ts";
import { countUnanswered, priceOf } from "./decide.ts";
import type { Held } from "./hold.ts";
import type { AttemptStatus, Settlement } from "./model.ts";
import type { Recent } from "./recent.ts";
import { encodeSettlement } from "./records.ts";
import type { Speeds } from "./speeds.ts";

export interface SettlerNeeds {
  readonly journal: Journal;
  readonly clock: Clock;
  readonly speeds: Speeds;
  readonly log: MeteringLog;
  /** Where the shipper looks before it decodes. */
  readonly recent?: Recent<Settlement>;
  /** A SETTLE became durable. Told again where one was written twice. */
  readonly settled: (settlement: Settlement) => void;
}

export interface MeteringLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** What somebody should look into; each but `unkept` counts since the process began. */
export interface MoneyAlarms {
  /** Settlements that wait for the journal to recover. */
  readonly unkept: number;
  /** Attempts that were billed for a class without a price. */
  readonly unpriced: number;
  /** Attempts that were charged more than their worst case. */
  readonly overBound: number;
}

/** What was learnt of a response by its end. */
export interface Outcome {
  readonly status: AttemptStatus;
  readonly usage: Usage;
  /** As the upstream said it; null or empty where it did not. */
  readonly modelServed: string | null;
  readonly firstTokenMs: number | null;
}

/**
 * Writes SETTLE records, one an attempt. A settlement that the journal could not keep is kept in memory and written again
 * until it can: should the process die first, the next one finds the attempt open and charges its bound.
 */
export class Settler {
  readonly #needs: SettlerNeeds;
  readonly #unkept = new Map<AttemptId, Settlement>();
  #timer: NodeJS.Timeout | null = null;
  #unpriced = 0;
  #overBound = 0;

  constructor(needs: SettlerNeeds) {
    this.#needs = needs;
  }

  /** Settles a hold, once; a second time is a bug. Calls back when the SETTLE is durable, or with the fault. */
  settle(held: Held, outcome: Outcome, done: (fault: JournalFault | null) => void): Settlement {
    if (held.settled) throw new Error(`attempt ${held.facts.attempt} settles twice`);
    held.settled = true;
    const settlement = this.#settlement(held, outcome);
    this.#write(settlement, done);
    return settlement;
  }

  /** Settles an attempt whose dispatch failed before a response. */
  settleFailed(held: Held, failure: DispatchFailure, done: (fault: JournalFault | null) => void): Settlement {
    const status = failure.kind === "aborted" ? "aborted" : "failed";
    const usage = held.sentAt !== null && mayBeBilled(failure) ? this.#unanswered(held, held.sentAt) : NOTHING;
    return this.settle(held, { status, usage, modelServed: null, firstTokenMs: null }, done);
  }

  /** Settles an attempt that was refused: its ADMIT may yet be in the journal, and it never left. */
  void(held: Held): void {
    this.settle(held, { status: "failed", usage: NOTHING, modelServed: null, firstTokenMs: null }, ignore);
  }

  alarms(): MoneyAlarms {
    return { unkept: this.#unkept.size, unpriced: this.#unpriced, overBound: this.#overBound };
  }

  /** Tries what is unkept a last time. */
  async close(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const waiting = [...this.#unkept].map(([, settlement]) => new Promise<void>((resolve) => this.#write(settlement, () => resolve())));
    await Promise.all(waiting);
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#unkept.size > 0)
      this.#needs.log.error(
        { attempts: this.#unkept.size },
        "the journal could not keep settlements: the next start charges these attempts by their bounds",
      );
  }

  #settlement(held: Held, { status, usage, modelServed, firstTokenMs }: Outcome): Settlement {
    const { facts } = held;
    const { cost, charge, unpriced } = priceOf(usage.tokens, held.price, facts.markupMillionths);
    const latencyMs = Math.round(this.#needs.clock.monotonic() - held.heldAt);
    if (unpriced.length > 0 || charge > held.worstCase) this.#alarm(held, charge, unpriced);
    if (status === "completed") this.#needs.speeds.observe(facts.deployment, outputTokens(usage.tokens), latencyMs);
    const estimated = (usage.source === "counted" && usage !== NOTHING) || unpriced.length > 0;
    return {
      attempt: facts.attempt,
      status,
      usage,
      cost,
      charge,
      estimated,
      dispatchUnknown: false,
      modelServed: (modelServed || facts.upstreamModel).slice(0, MODEL_SERVED_LENGTH),
      latencyMs,
      firstTokenMs,
    };
  }

  #alarm({ facts, worstCase }: Held, charge: PicoDollars, unpriced: readonly TokenClass[]): void {
    const { attempt, deployment, bound } = facts;
    if (unpriced.length > 0) {
      this.#unpriced += 1;
      this.#needs.log.warn(
        { attempt, deployment, unpriced },
        "a billed class has no price: charged at the dearest rate of its side; state its price",
      );
    }
    if (charge > worstCase) {
      this.#overBound += 1;
      this.#needs.log.warn(
        { attempt, deployment, chargeUsd: formatUsd(charge), worstCaseUsd: formatUsd(worstCase), bound },
        "an attempt was charged more than its worst case",
      );
    }
  }

  #unanswered(held: Held, sentAt: number): Usage {
    return countUnanswered(held.facts.stream, this.#needs.clock.monotonic() - sentAt, held.tokensPerSecond, held.facts.bound);
  }

  #write(settlement: Settlement, done: (fault: JournalFault | null) => void): void {
    let sequence: number;
    try {
      sequence = this.#needs.journal.append(RECORD.settle, settlement.attempt, encodeSettlement(settlement));
    } catch (thrown) {
      this.#keep(settlement);
      done(thrown as JournalFault);
      return;
    }
    this.#needs.recent?.remember(sequence, settlement);
    this.#needs.journal.whenDurable(sequence, (fault) => {
      if (fault === null) {
        if (this.#unkept.size > 0) this.#unkept.delete(settlement.attempt);
        this.#needs.settled(settlement);
      } else this.#keep(settlement);
      done(fault);
    });
  }

  /** No hold is granted while the journal refuses, so this holds what was in flight when it began to. */
  #keep(settlement: Settlement): void {
    this.#unkept.set(settlement.attempt, settlement);
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      for (const waiting of this.#unkept.values()) this.#write(waiting, ignore);
    }, REWRITE_MS).unref();
  }
}

/**
 * Whether an upstream that was sent the request may bill it. An answered status is not billed, nor did a child that was not there do any
 * work; a connection that broke after the request was sent may have carried it.
 */
function mayBeBilled(failure: DispatchFailure): boolean {
  switch (failure.kind) {
    case "unavailable":
    case "status":
      return false;
    case "timeout":
      return failure.phase !== "connect";
    case "connect":
    case "malformed":
    case "aborted":
      return true;
    default:
      return failure satisfies never;
  }
}

const NOTHING: Usage = { tokens: NO_TOKENS, source: "counted" };
const REWRITE_MS = 250;
/** An upstream's word for its model, characters. */
const MODEL_SERVED_LENGTH = 200;
const ignore = (): void => {};
