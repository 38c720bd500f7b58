import type { Clock } from "../../../kernel/clock.ts";

/** Something that ends, or changes, at a time of its own. */
export interface Expiring {
  /** On the clock's monotonic scale, ms. May move later unsaid; what moves earlier is said with `sooner`. */
  deadline(): number;
  /** The deadline has passed. */
  expire(now: number): void;
}

/** One timer for every deadline of a client: a call that ends in time costs no timer, and all are looked at only when the nearest is due. */
export class Deadlines {
  readonly #clock: Clock;
  readonly #watched = new Set<Expiring>();
  #nextAt = Infinity;
  #timer: NodeJS.Timeout | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  watch(expiring: Expiring): void {
    this.#watched.add(expiring);
  }

  forget(expiring: Expiring): void {
    this.#watched.delete(expiring);
    if (this.#watched.size === 0) this.#disarm();
  }

  /** A deadline at this time may be nearer than any before. */
  sooner(at: number): void {
    if (at < this.#nextAt) this.#arm(at);
  }

  #arm(at: number): void {
    this.#disarm();
    this.#nextAt = at;
    this.#timer = setTimeout(() => this.#look(), Math.max(RESOLUTION_MS, at - this.#clock.monotonic()));
    this.#timer.unref();
  }

  #disarm(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#nextAt = Infinity;
  }

  #look(): void {
    const now = this.#clock.monotonic();
    try {
      for (const expiring of this.#watched) if (expiring.deadline() <= now) expiring.expire(now);
    } finally {
      let next = Infinity;
      for (const expiring of this.#watched) next = Math.min(next, expiring.deadline());
      this.#disarm();
      if (next !== Infinity) this.#arm(next);
    }
  }
}

/** The least time between two looks, and so the most that a deadline is noticed late, ms. */
const RESOLUTION_MS = 10;
