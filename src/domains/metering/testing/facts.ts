import type { Clock } from "../../../kernel/clock.ts";
import { systemClock } from "../../../kernel/clock.ts";
import { createIdMaker, type KeyId, type TenantId } from "../../../kernel/ids.ts";
import { systemRandom } from "../../../kernel/random.ts";
import type { Price } from "../../catalog/index.ts";
import { NO_MARKUP } from "../decide.ts";
import type { AttemptFacts } from "../model.ts";
import type { MeteringLog } from "../settle.ts";

export const newId = createIdMaker(systemClock, systemRandom);

const TENANT: TenantId = newId();

/** $0.15 and $0.60 per million, as 150,000 and 600,000 pd a token. */
export const PRICE: Price = { version: newId(), source: "stated", rates: { input_uncached: 150_000n, output: 600_000n } };

export function factsOf(changes: Partial<AttemptFacts> = {}): AttemptFacts {
  return {
    attempt: newId(),
    hop: newId(),
    call: newId(),
    tenant: TENANT,
    project: newId(),
    key: "0123456789" as KeyId,
    user: "ada",
    feature: "search",
    trace: null,
    kind: "generate",
    provider: "simulated",
    modelRequested: "small",
    model: newId(),
    upstreamModel: "small-2026",
    deployment: newId(),
    region: null,
    priceVersion: PRICE.version,
    stream: true,
    bound: { input: 1_000, output: 1_000, certainty: "proof" },
    startedAt: Date.now(),
    markupMillionths: NO_MARKUP,
    ...changes,
  };
}

/** A clock that a test moves. */
export class TestClock implements Clock {
  #at = 1_800_000_000_000;

  now(): number {
    return this.#at;
  }

  monotonic(): number {
    return this.#at;
  }

  advance(milliseconds: number): void {
    this.#at += milliseconds;
  }
}

export const silent: MeteringLog = { info() {}, warn() {}, error() {} };
