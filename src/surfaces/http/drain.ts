import type { Principal } from "../../domains/identity/index.ts";
import { Problem } from "../../kernel/problem.ts";

/** A call in flight, which can be stopped. */
export interface InFlight {
  /** Whose it is; null while that is not known. */
  readonly principal: Principal | null;
  /** Ends it as it stands, with this problem as its last word. Only the first counts. */
  stop(problem: Problem): void;
}

/** Calls in flight, and the end of their time when the process stops. */
export interface Drain {
  /** Whether the process is stopping: new calls are refused. */
  readonly draining: boolean;
  /** Takes a call in; the function returned takes it out. Those that are left when calls in flight have had their time are stopped. */
  enter(call: InFlight): () => void;
  /** Every call that is in now. */
  each(visit: (call: InFlight) => void): void;
  readonly inFlight: number;
  /** Counts the call until its promise settles. */
  track(call: Promise<unknown>): void;
  /** Waits until no call is in flight; after `graceMs` aborts the rest and waits for them to settle, at most `ABORTED_MS`. */
  drain(graceMs: number): Promise<void>;
}

/** How long an aborted call may take to settle. */
const ABORTED_MS = 5_000;

const STOPPING = { message: "The server is stopping. Send the request again.", retryAfterSeconds: 1 };

export function createDrain(): Drain {
  const calls = new Calls();
  let draining = false;
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
    enter: (call) => calls.add(call),
    each: (visit) => calls.each(visit),
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
      calls.each((call) => call.stop(new Problem("overloaded", STOPPING)));
      await untilIdle(ABORTED_MS);
    },
  };
}

/**
 * What comes and goes with every call: a list in which each knows its place. Not an AbortSignal, where adding and
 * removing a listener walks all others, and not a Set: its tables, remade every few dozen calls, each point to the next, so
 * that one dead table among the old objects kept every later call from dying young (11 kB a call, a tenth of its CPU).
 */
class Calls {
  readonly #entries: { readonly call: InFlight; place: number }[] = [];

  add(call: InFlight): () => void {
    const entry = { call, place: this.#entries.length };
    this.#entries.push(entry);
    return () => this.#remove(entry);
  }

  each(visit: (call: InFlight) => void): void {
    for (const { call } of this.#entries.slice()) visit(call);
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
