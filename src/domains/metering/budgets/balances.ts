/**
 * What this process knows of one budget, one subject and one window: a grant is judged by it alone, in one step. `spent` is what is posted,
 * overage and adjustments included, in the budget's unit; `held` is reserved by attempts that are in flight here.
 */
export interface Balance {
  /** What open holds reserve. */
  held: bigint;
  /** What counts against the cap at `at`, ms since the epoch; holds apart. */
  spent(at: number): bigint;
  /** Adds what an attempt used that was admitted at `startedAt`. */
  post(startedAt: number, amount: bigint): void;
  /** Whether it can say what is spent at `at`; it must be read again where it cannot. */
  covers(at: number): boolean;
}

/** The balance of a window with fixed ends. */
export class WindowBalance implements Balance {
  held = 0n;
  #spent: bigint;

  constructor(spent: bigint) {
    this.#spent = spent;
  }

  spent(): bigint {
    return this.#spent;
  }

  post(_startedAt: number, amount: bigint): void {
    this.#spent += amount;
  }

  covers(): boolean {
    return true;
  }
}

/** The balance of a rolling window: what is spent in each of its buckets. A bucket counts until all of it is outside. */
export class RollingBalance implements Balance {
  held = 0n;
  readonly #windowMs: number;
  readonly #bucketMs: number;
  /** By the bucket's start, ms since the epoch. */
  readonly #buckets: Map<number, bigint>;
  /** The start of the oldest bucket that is known, and of the oldest that `#sum` counts. */
  #known: number;
  #oldest: number;
  #sum = 0n;

  /** `buckets` are all from the one that `readAt` less the window lies in. */
  constructor(windowMs: number, bucketMs: number, buckets: ReadonlyMap<number, bigint>, readAt: number) {
    this.#windowMs = windowMs;
    this.#bucketMs = bucketMs;
    this.#buckets = new Map(buckets);
    this.#known = this.#oldest = this.#oldestAt(readAt);
    this.#add();
  }

  spent(at: number): bigint {
    const oldest = this.#oldestAt(at);
    if (oldest !== this.#oldest) {
      this.#oldest = oldest;
      this.#forget(oldest - this.#windowMs);
      this.#add();
    }
    return this.#sum;
  }

  post(startedAt: number, amount: bigint): void {
    const start = startedAt - modulo(startedAt, this.#bucketMs);
    if (start < this.#known) return;
    this.#buckets.set(start, (this.#buckets.get(start) ?? 0n) + amount);
    if (start >= this.#oldest) this.#sum += amount;
  }

  /** A clock that was set back may ask for buckets that were let go. */
  covers(at: number): boolean {
    return this.#oldestAt(at) >= this.#known;
  }

  #oldestAt(at: number): number {
    const from = at - this.#windowMs;
    return from - modulo(from, this.#bucketMs);
  }

  #forget(before: number): void {
    for (const start of this.#buckets.keys()) if (start < before) this.#buckets.delete(start);
    this.#known = Math.max(this.#known, before);
  }

  #add(): void {
    this.#sum = 0n;
    for (const [start, amount] of this.#buckets) if (start >= this.#oldest) this.#sum += amount;
  }
}

function modulo(value: number, by: number): number {
  return ((value % by) + by) % by;
}
