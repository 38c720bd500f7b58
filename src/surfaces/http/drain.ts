/** Calls in flight, and the end of their time when the process stops. */
export interface Drain {
  /** Whether the process is stopping: new calls are refused. */
  readonly draining: boolean;
  /** Aborted when calls in flight have had their time. */
  readonly signal: AbortSignal;
  readonly inFlight: number;
  /** Counts the call until its promise settles. */
  track(call: Promise<unknown>): void;
  /** Waits until no call is in flight; after `graceMs` aborts the rest and waits for them to settle, at most `ABORTED_MS`. */
  drain(graceMs: number): Promise<void>;
}

/** How long an aborted call may take to settle. */
const ABORTED_MS = 5_000;

export function createDrain(): Drain {
  const abort = new AbortController();
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
    signal: abort.signal,
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
      abort.abort();
      await untilIdle(ABORTED_MS);
    },
  };
}
