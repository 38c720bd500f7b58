import { Problem } from "../../kernel/problem.ts";
import { LeakyBucket } from "./leaky-bucket.ts";
import { type Level, TICKS_PER_MINUTE } from "./level.ts";
import type { Limit } from "./model.ts";
import { PrefixLevel } from "./prefixes.ts";
import { Semaphore } from "./semaphore.ts";
import { SlidingWindow } from "./sliding-window.ts";

/** A level, and under which limit. */
export interface Counter {
  readonly name: string;
  readonly level: Level;
  /** As it was at the last call. */
  limit: Limit;
  /** When it was last asked for. */
  tick: number;
  /** Calls that hold something of it: it is kept for them. */
  running: number;
  /** False once it is forgotten: who asks again gets another. */
  isKept: boolean;
}

/** The levels of this process, made at a subject's first call and forgotten once they are as if it had made none. */
export class Counters {
  readonly #counters = new Map<string, Counter>();
  readonly #most: number;
  #round = this.#counters.values();

  constructor(most = MAX_COUNTERS) {
    this.#most = most;
  }

  get size(): number {
    return this.#counters.size;
  }

  /** @throws Problem overloaded where there are as many as can be */
  of(name: string, limit: Limit, tick: number): Counter {
    const known = this.#counters.get(name);
    if (known !== undefined) return known;
    if (this.#counters.size >= this.#most) throw new Problem("overloaded", { retryAfterSeconds: FULL_RETRY_SECONDS });
    const counter = { name, level: levelOf(limit), limit, tick, running: 0, isKept: true };
    this.#counters.set(name, counter);
    return counter;
  }

  /** Looks at a few, in turn, so that none stays for long and none costs a pause. */
  sweep(tick: number): void {
    for (let looked = 0; looked < LOOKS; looked++) {
      const counter = this.#round.next().value;
      if (counter === undefined) {
        this.#round = this.#counters.values();
        return;
      }
      if (counter.running > 0 || tick - counter.tick < IDLE_TICKS || !counter.level.isFresh(counter.limit, tick)) continue;
      counter.isKept = false;
      this.#counters.delete(counter.name);
    }
  }
}

/** Of each call. */
const LOOKS = 2;
/** A slot is free after every call, and needed again for the next. */
const IDLE_TICKS = TICKS_PER_MINUTE;

function levelOf(limit: Limit): Level {
  if (limit.dimension === "concurrency") return new Semaphore();
  const rate = limit.window === "sliding" ? new SlidingWindow() : new LeakyBucket(limit.dimension === "tokens");
  return limit.dimension === "prefix_tokens" ? new PrefixLevel(rate) : rate;
}

/** Limits × subjects that called within about a minute. */
const MAX_COUNTERS = 1_000_000;
const FULL_RETRY_SECONDS = 5;
