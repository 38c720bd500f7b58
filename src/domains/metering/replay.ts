import { type JournalRecord, RECORD } from "../../storage/journal/index.ts";
import type { AttemptId } from "../../kernel/ids.ts";
import { boundLost, chargeOf } from "./decide.ts";
import type { Settlement } from "./model.ts";
import type { Recent } from "./recent.ts";
import { type Admission, decodeAdmission, decodeMark, decodeSettlement } from "./records.ts";

/** An attempt whose ADMIT was read and whose SETTLE was not yet. */
export interface OpenAttempt {
  readonly admission: Admission;
  /** Of its ADMIT. */
  readonly sequence: number;
  /** The highest mark; null while nothing says that the request left. */
  mark: number | null;
}

/** An attempt that is whole in the journal: what becomes a usage row and a ledger entry. */
export interface SettledAttempt {
  readonly admission: Admission;
  readonly settlement: Settlement;
  /** Of its SETTLE. */
  readonly sequence: number;
}

/** Records, in order, folded into attempts. Holds as many attempts as are in flight. */
export class Attempts {
  readonly #open = new Map<AttemptId, OpenAttempt>();
  readonly #admissions: Recent<Admission> | null;
  readonly #settlements: Recent<Settlement> | null;
  #lastAt = 0;

  /** Records that this process wrote need not be decoded where `recent` still knows what they say. */
  constructor(recent: { readonly admissions: Recent<Admission>; readonly settlements: Recent<Settlement> } | null = null) {
    this.#admissions = recent?.admissions ?? null;
    this.#settlements = recent?.settlements ?? null;
  }

  /**
   * Takes the next record; returns the attempt that it settles. A PROGRESS or SETTLE of an attempt that is not open is a
   * repetition: the attempt was settled before (a SETTLE whose durability was in doubt is written again), or its ADMIT
   * was never durable and so nothing of it left.
   */
  apply(record: JournalRecord): SettledAttempt | null {
    this.#lastAt = Math.max(this.#lastAt, record.at);
    if (record.kind === RECORD.admit) {
      const admission = this.#admissions?.take(record.sequence) ?? decodeAdmission(record.attempt, record.payload);
      this.#open.set(record.attempt, { admission, sequence: record.sequence, mark: null });
      return null;
    }
    const open = this.#open.get(record.attempt);
    if (open === undefined) return null;
    if (record.kind === RECORD.progress) {
      open.mark = Math.max(open.mark ?? 0, decodeMark(record.attempt, record.payload));
      return null;
    }
    this.#open.delete(record.attempt);
    const settlement = this.#settlements?.take(record.sequence) ?? decodeSettlement(record.attempt, record.payload);
    return { admission: open.admission, settlement, sequence: record.sequence };
  }

  get open(): ReadonlyMap<AttemptId, OpenAttempt> {
    return this.#open;
  }

  /** The sequence of the oldest ADMIT that is still open; null when none is. ADMITs come in order, so it is the map's first. */
  oldestOpen(): number | null {
    for (const open of this.#open.values()) return open.sequence;
    return null;
  }

  /** The time of the latest record, ms since the epoch: the last sign of life of whoever wrote it. */
  get lastAt(): number {
    return this.#lastAt;
  }
}

/**
 * How to charge an attempt that a crash cut off. `lastSignAt` is the time of the journal's last record, `foundAt` that of
 * the replay. Pure.
 */
export function settleLost({ admission, mark }: OpenAttempt, lastSignAt: number, foundAt: number): Settlement {
  const { facts } = admission;
  const elapsedMs = Math.max(0, Math.min(foundAt, lastSignAt + LONGEST_SILENCE_MS) - facts.startedAt);
  const usage = boundLost({ stream: facts.stream, mark, elapsedMs, tokensPerSecond: admission.tokensPerSecond }, facts.bound);
  const cost = BigInt(usage.tokens.input_uncached) * admission.inputRate + BigInt(usage.tokens.output) * admission.outputRate;
  return {
    attempt: facts.attempt,
    status: "lost",
    usage,
    cost,
    charge: chargeOf(cost, facts.markupMillionths),
    estimated: true,
    dispatchUnknown: mark === null,
    modelServed: facts.upstreamModel,
    latencyMs: Math.round(elapsedMs),
    firstTokenMs: null,
  };
}

/** A process at work is rarely silent for longer; the time that nobody restarted it after that is not charged. */
const LONGEST_SILENCE_MS = 10_000;
