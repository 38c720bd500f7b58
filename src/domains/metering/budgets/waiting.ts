import { Problem } from "../../../kernel/problem.ts";

/** Calls that wait for money of one balance, in the order in which they came. They hold nothing. */
export class WaitingLines {
  readonly #lines = new Map<string, Set<Turn>>();
  #size = 0;

  /** Calls that wait now. */
  get size(): number {
    return this.#size;
  }

  /** Whether somebody other than `turn` is to be served first. */
  isAhead(key: string, turn: Turn | null): boolean {
    const line = this.#lines.get(key);
    return line !== undefined && firstOf(line) !== turn;
  }

  /** Takes a place in the line of the balance; the one that the turn had is kept. @throws Problem capacity_exceeded when too many wait */
  join(key: string, turn: Turn): void {
    if (turn.key === key) return;
    this.leave(turn);
    let line = this.#lines.get(key);
    if (this.#size >= MAX_WAITING || (line?.size ?? 0) >= MAX_WAITING_IN_LINE)
      throw new Problem("capacity_exceeded", {
        message: "Too many calls wait for the budget. Retry after the time in 'retry-after'.",
        retryAfterSeconds: 1,
      });
    if (line === undefined) this.#lines.set(key, (line = new Set()));
    line.add(turn);
    turn.key = key;
    this.#size += 1;
  }

  /** Gives up the place; who is first then may try. */
  leave(turn: Turn): void {
    const { key } = turn;
    const line = key === null ? undefined : this.#lines.get(key);
    turn.key = null;
    if (key === null || line?.delete(turn) !== true) return;
    this.#size -= 1;
    if (line.size === 0) this.#lines.delete(key);
    else this.wake(key);
  }

  /** Money came back, or may have: the first in line tries again. */
  wake(key: string): void {
    const line = this.#lines.get(key);
    if (line !== undefined) firstOf(line)?.call();
  }
}

function firstOf(line: ReadonlySet<Turn>): Turn | null {
  for (const turn of line) return turn;
  return null;
}

/** The place of one call among those that wait, kept through all of its tries. */
export class Turn {
  /** The balance in whose line it stands; null where in none. */
  key: string | null = null;
  readonly #until: number;
  #called = false;
  #try: (() => void) | null = null;

  /** `now` is on the monotonic clock, ms. */
  constructor(now: number) {
    this.#until = now + LONGEST_WAIT_MS;
  }

  /**
   * Resolves when it is worth trying again: true; or when the time is up or the signal aborted: false. Who is not first is called when it becomes
   * so, and has nothing to look for before: thousands that tried each second were two thirds of a processor.
   */
  called(now: number, signal: AbortSignal, isFirst: boolean): Promise<boolean> {
    if (signal.aborted || now >= this.#until) return Promise.resolve(false);
    if (this.#called) {
      this.#called = false;
      return Promise.resolve(true);
    }
    const left = this.#until - now;
    return new Promise((resolve) => {
      const end = (again: boolean): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", onAbort);
        this.#try = null;
        this.#called = false;
        resolve(again);
      };
      const onAbort = (): void => end(false);
      // A window that begins, a cap that is raised and an adjustment wake nobody.
      const looksAgain = isFirst && left > LOOK_AGAIN_MS;
      const timer = setTimeout(() => end(looksAgain), looksAgain ? LOOK_AGAIN_MS : left);
      signal.addEventListener("abort", onAbort);
      this.#try = () => end(true);
    });
  }

  call(): void {
    this.#called = true;
    this.#try?.();
  }
}

/** Calls that wait in one process, and for one balance. */
const MAX_WAITING = 10_000;
const MAX_WAITING_IN_LINE = 1_000;
const LONGEST_WAIT_MS = 30_000;
const LOOK_AGAIN_MS = 1_000;
