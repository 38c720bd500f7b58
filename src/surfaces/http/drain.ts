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
  // Not an AbortSignal: adding and removing a listener there walks all others, one per call in flight.
  const stops = new Set<() => void>();
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
    whenAborted(stop) {
      stops.add(stop);
      return () => void stops.delete(stop);
    },
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
      for (const stop of stops) stop();
      await untilIdle(ABORTED_MS);
    },
  };
}
