/** Calls in flight, and the end of their time when the process stops. */
export interface Drain {
  /** Whether the process is stopping: new calls are refused. */
  readonly draining: boolean;
  /** Whether calls in flight have had their time. */
  readonly aborted: boolean;
  /** Calls `stop` when calls in flight have had their time; the function returned takes that back. */
  whenAborted(stop: () => void): () => void;
  readonly inFlight: number;
  /** Counts the call until its promise settles. */
  track(call: Promise<unknown>): void;
  /** Waits until no call is in flight; after `graceMs` aborts the rest and waits for them to settle, at most `ABORTED_MS`. */
  drain(graceMs: number): Promise<void>;
}

/** How long an aborted call may take to settle. */
const ABORTED_MS = 5_000;

export function createDrain(): Drain {
  const stops = new Stops();
  let draining = false;
  let aborted = false;
  let inFlight = 0;
  let idle: (() => void) | null = null;
  const untilIdle = (limitMs: number): Promise<void> =>
    new Promise((resolve) => {
      if (inFlight === 0) return resolve();
      const timer = setTimeout(resolve, limitMs);
      idle = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  return {
    get draining() {
      return draining;
    },
    get inFlight() {
      return inFlight;
    },
    get aborted() {
      return aborted;
    },
    whenAborted: (stop) => stops.add(stop),
    track(call) {
      inFlight += 1;
      const end = (): void => {
        inFlight -= 1;
        if (inFlight === 0) idle?.();
      };
      call.then(end, end);
    },
    async drain(graceMs) {
      draining = true;
      await untilIdle(graceMs);
      aborted = true;
      stops.callAll();
      await untilIdle(ABORTED_MS);
    },
  };
}

/**
 * Callbacks that come and go with every call: a list in which each knows its place. Not an AbortSignal, where adding and
 * removing a listener walks all others, and not a Set: its tables, remade every few dozen calls, each point to the next, so
 * that one dead table among the old objects kept every later call from dying young (11 kB a call, a tenth of its CPU).
 */
class Stops {
  readonly #entries: { readonly stop: () => void; place: number }[] = [];

  add(stop: () => void): () => void {
    const entry = { stop, place: this.#entries.length };
    this.#entries.push(entry);
    return () => this.#remove(entry);
  }

  callAll(): void {
    for (const { stop } of this.#entries.slice()) stop();
  }

  #remove(entry: { place: number }): void {
    const last = this.#entries.at(-1);
    if (last === undefined || this.#entries[entry.place] !== entry) return;
    this.#entries.pop();
    if (last === entry) return;
    last.place = entry.place;
    this.#entries[entry.place] = last;
  }
}
