import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import { Problem } from "../../../kernel/problem.ts";
import type { Countable } from "./countable.ts";
import type { Encoding } from "./count.ts";

/** What the counting thread is sent, one at a time; it answers with a number. */
export interface CountOrder extends Countable {
  readonly encoding: Encoding;
  /** The fewest tokens of the encoding that can spell the texts, in place of those that its tokenizer makes. */
  readonly fewest?: boolean;
}

/** Bounds of counting. */
export interface CountingBounds {
  /** Prompts that wait, and their bytes. */
  readonly waitingPrompts: number;
  readonly waitingBytes: number;
  /** The time one prompt may take, ms. */
  readonly promptMs: number;
  /** The thread ends when nothing was asked for this long, ms: an encoding is tens of MB. */
  readonly idleMs: number;
}

const COUNTING_BOUNDS: CountingBounds = {
  waitingPrompts: 256,
  waitingBytes: 64 * 1024 * 1024,
  promptMs: 30_000,
  idleMs: 60_000,
};

/** Counts tokens on a thread of its own, started by the first prompt: loading an encoding alone would stop the event loop for 0.1 s and more. */
export class Counter {
  readonly #bounds: CountingBounds;
  readonly #waiting: Job[] = [];
  #waitingBytes = 0;
  #running: Job | null = null;
  #thread: Worker | null = null;
  #deadline: NodeJS.Timeout | null = null;
  #idle: NodeJS.Timeout | null = null;
  #closed = false;

  constructor(bounds: CountingBounds = COUNTING_BOUNDS) {
    this.#bounds = bounds;
  }

  /** Whether the thread lives now. */
  get running(): boolean {
    return this.#thread !== null;
  }

  /** Rejects with the problem `overloaded` where too much waits, where the thread died or was too slow, and while the server stops. */
  count(order: CountOrder): Promise<number> {
    const { waitingPrompts, waitingBytes } = this.#bounds;
    if (this.#closed || this.#waiting.length >= waitingPrompts || this.#waitingBytes + order.texts.length > waitingBytes)
      return Promise.reject(overloaded("too many prompts wait to be counted"));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ order, resolve, reject });
      this.#waitingBytes += order.texts.length;
      this.#next();
    });
  }

  /** Ends the thread; what waits or runs fails. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const job of this.#waiting.splice(0)) job.reject(overloaded("the server is stopping"));
    await this.#end();
  }

  #next(): void {
    if (this.#running !== null) return;
    const job = this.#waiting.shift();
    if (job === undefined) return this.#rest();
    this.#waitingBytes -= job.order.texts.length;
    this.#running = job;
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = null;
    const thread = (this.#thread ??= this.#start());
    thread.ref();
    this.#deadline = setTimeout(() => void this.#end(), this.#bounds.promptMs);
    thread.postMessage(job.order);
  }

  #start(): Worker {
    const thread = new Worker(ENTRY, { execArgv: [] });
    let failure: unknown = "the counting thread ended";
    thread.on("message", (tokens: number) => {
      this.#take()?.resolve(tokens);
      this.#next();
    });
    thread.on("error", (error) => (failure = error));
    thread.on("exit", () => {
      // One that was ended by us may have been replaced by then.
      if (this.#thread === thread) this.#thread = null;
      else return;
      this.#take()?.reject(overloaded(failure));
      if (!this.#closed) this.#next();
    });
    return thread;
  }

  #take(): Job | null {
    const job = this.#running;
    this.#running = null;
    if (this.#deadline !== null) clearTimeout(this.#deadline);
    this.#deadline = null;
    return job;
  }

  /** Nothing to do: the thread no longer holds the process, and ends if that lasts. */
  #rest(): void {
    this.#thread?.unref();
    if (this.#thread !== null) this.#idle ??= setTimeout(() => void this.#end(), this.#bounds.idleMs).unref();
  }

  /** What it had is refused at once, and a new thread may start while this one ends. */
  async #end(): Promise<void> {
    const thread = this.#thread;
    this.#thread = null;
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = null;
    this.#take()?.reject(overloaded("the prompt took too long to count, or the server is stopping"));
    if (!this.#closed && this.#waiting.length > 0) this.#next();
    await thread?.terminate();
  }
}

interface Job {
  readonly order: CountOrder;
  readonly resolve: (tokens: number) => void;
  readonly reject: (problem: Problem) => void;
}

function overloaded(cause: unknown): Problem {
  return new Problem("overloaded", { message: "Tokens cannot be counted now. Retry shortly.", retryAfterSeconds: 1, cause });
}

/** Beside this file and with its extension: `.ts` in the repository, `.js` in the packed package. */
const ENTRY = new URL(`./counting-worker${extname(import.meta.url)}`, import.meta.url);
