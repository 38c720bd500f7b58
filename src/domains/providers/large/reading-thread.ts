import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import { Problem } from "../../../kernel/problem.ts";
import { thrownBy, type Order, type Reply } from "./protocol.ts";

/** The bounds of reading large bodies. */
export interface ReadingBounds {
  /** Requests, and bytes of them, that wait to be parsed for the first time. Questions about those that were are at most one each. */
  readonly waitingRequests: number;
  readonly waitingBytes: number;
  /** The time one question may take, ms. */
  readonly questionMs: number;
  /** JavaScript heap of the thread, MiB: a bound behind the one on values (`reading-worker.ts`), which keeps every body well below it. */
  readonly heapMiB: number;
  /** The thread ends when nothing was asked for this long, ms: its memory is given back. */
  readonly idleMs: number;
}

export const READING_BOUNDS: ReadingBounds = {
  waitingRequests: 64,
  waitingBytes: 128 * 1024 * 1024,
  questionMs: 30_000,
  heapMiB: 2048,
  idleMs: 5_000,
};

/**
 * The one thread on which large bodies are parsed, started by the first. It answers one order at a time: what was begun before what
 * has only arrived. When it dies, the order it had fails, and the next one gets a new thread.
 */
export class ReadingThread {
  readonly #bounds: ReadingBounds;
  readonly #begun: Job[] = [];
  readonly #arrived: Job[] = [];
  #arrivedBytes = 0;
  #running: Job | null = null;
  #thread: Worker | null = null;
  #failure: Error | null = null;
  #deadline: NodeJS.Timeout | null = null;
  #idle: NodeJS.Timeout | null = null;
  #closed = false;

  constructor(bounds: ReadingBounds) {
    this.#bounds = bounds;
  }

  /** Whether a thread lives now. */
  get running(): boolean {
    return this.#thread !== null;
  }

  /**
   * Rejects with the Problem that the thread threw, with `overloaded` where the queue is full or the server stops, and with
   * `request_too_large` for an order that takes more memory or time than one may.
   */
  ask(order: Order, signal: AbortSignal | null): Promise<unknown> {
    if (this.#closed) return Promise.reject(stopping());
    const isNew = order.question.verb === "parse";
    const bytes = order.body.memory.byteLength;
    if (isNew && (this.#arrived.length >= this.#bounds.waitingRequests || this.#arrivedBytes + bytes > this.#bounds.waitingBytes))
      return Promise.reject(
        new Problem("overloaded", { message: "Too many large requests wait to be read. Retry shortly.", retryAfterSeconds: 1 }),
      );
    return new Promise((resolve, reject) => {
      const job: Job = { order, signal, resolve, reject };
      if (isNew) this.#arrivedBytes += bytes;
      (isNew ? this.#arrived : this.#begun).push(job);
      this.#next();
    });
  }

  /** Ends the thread; what waits or runs fails. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const job of [...this.#begun.splice(0), ...this.#arrived.splice(0)]) job.reject(stopping());
    await this.#end(stopping());
  }

  #next(): void {
    if (this.#running !== null || this.#failure !== null || this.#closed) return;
    const job = this.#begun.shift() ?? this.#takeArrived();
    if (job === undefined) return this.#rest();
    if (job.signal?.aborted === true) {
      job.reject(new Problem("request_timeout", { message: "The connection closed before the body was read." }));
      return this.#next();
    }
    this.#running = job;
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = null;
    this.#thread ??= this.#start();
    this.#thread.ref();
    this.#deadline = setTimeout(() => void this.#end(tooMuch("time")), this.#bounds.questionMs);
    this.#thread.postMessage(job.order);
  }

  #takeArrived(): Job | undefined {
    const job = this.#arrived.shift();
    if (job !== undefined) this.#arrivedBytes -= job.order.body.memory.byteLength;
    return job;
  }

  #start(): Worker {
    const thread = new Worker(ENTRY, { execArgv: [], resourceLimits: { maxOldGenerationSizeMb: this.#bounds.heapMiB } });
    thread.on("message", (reply: Reply) => {
      const job = this.#take();
      if ("answer" in reply) job?.resolve(reply.answer);
      else job?.reject(thrownBy(reply));
      this.#next();
    });
    thread.on("error", (error) => (this.#failure ??= error));
    thread.on("exit", () => this.#gone());
    return thread;
  }

  #take(): Job | null {
    const job = this.#running;
    this.#running = null;
    if (this.#deadline !== null) clearTimeout(this.#deadline);
    this.#deadline = null;
    return job;
  }

  #gone(): void {
    const failure = this.#failure ?? new Error("the reading thread ended");
    this.#thread = null;
    this.#failure = null;
    this.#take()?.reject(isOutOfMemory(failure) ? tooMuch("memory", failure) : failure);
    this.#next();
  }

  /** Nothing to do: the thread no longer holds the process, and ends if that lasts. */
  #rest(): void {
    if (this.#thread === null) return;
    this.#thread.unref();
    this.#idle ??= setTimeout(() => void this.#end(null), this.#bounds.idleMs).unref();
  }

  async #end(failure: Error | null): Promise<void> {
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = null;
    // Set before the end is near: nothing is given to a thread that ends.
    if (this.#thread !== null) this.#failure = failure ?? new Error("the reading thread was idle");
    await this.#thread?.terminate();
  }
}

interface Job {
  readonly order: Order;
  readonly signal: AbortSignal | null;
  readonly resolve: (answer: unknown) => void;
  readonly reject: (error: Error) => void;
}

function isOutOfMemory(error: Error): boolean {
  return "code" in error && error.code === "ERR_WORKER_OUT_OF_MEMORY";
}

function tooMuch(what: "memory" | "time", cause?: Error): Problem {
  return new Problem("request_too_large", {
    message: `Reading the body takes more ${what} than one body may take. Send fewer values in it.`,
    cause,
  });
}

function stopping(): Problem {
  return new Problem("overloaded", { message: "The server is stopping. Send the request again.", retryAfterSeconds: 1 });
}

/** Beside this file and with its extension: `.ts` in the repository, `.js` in the packed package. */
const ENTRY = new URL(`./reading-worker${extname(import.meta.url)}`, import.meta.url);
