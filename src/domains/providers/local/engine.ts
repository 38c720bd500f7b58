import { spawn, type ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { extname } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import type { Clock } from "../../../kernel/clock.ts";
import type { ModelEvent } from "../../../kernel/events.ts";
import { line, lineReader } from "./lines.ts";
import type { LoadOrder, Order, Report } from "./protocol.ts";

export interface Log {
  info(fields: Readonly<Record<string, unknown>>, message: string): void;
  warn(fields: Readonly<Record<string, unknown>>, message: string): void;
}

export interface EngineSpec extends LoadOrder {
  /** Resident memory at which the child is ended, bytes. */
  readonly memoryLimitBytes: number;
  /** The child is ended after this long without a request, ms. */
  readonly unloadAfterIdleMs: number;
}

/** Why a generation has no (whole) answer. */
export type EngineFailure =
  /** The child died, could not load, is between two starts, or has too much waiting. */
  | { readonly kind: "unavailable"; readonly reason: string }
  | { readonly kind: "refused"; readonly code: "context_length_exceeded" | "invalid_request"; readonly message: string };

/** Told of one generation, in order: `sent` at most once, then any `events`, then `done` or `failed`; nothing after an abort but `stopped`. */
export interface GenerationListener {
  /** The request was handed to the child. */
  sent(): void;
  /** May be empty: a sign of life. */
  events(events: readonly ModelEvent[]): void;
  done(): void;
  failed(failure: EngineFailure): void;
  /** After `abort`: the child computes nothing more for it (or never began). */
  stopped(): void;
}

/**
 * One GGUF file in a process of its own: started at the first request, again with growing pauses after a death. A file that
 * crashes llama.cpp (a truncated one aborts the process, exit 134) therefore ends requests, never the server.
 */
export class Engine {
  readonly #spec: EngineSpec;
  readonly #clock: Clock;
  readonly #log: Log;
  #child: Child | null = null;
  readonly #waiting: Task[] = [];
  readonly #running = new Map<number, Task>();
  #nextId = 1;
  #deaths = 0;
  #restartNotBefore = 0;
  #lastReason = "";
  #closed = false;
  #idle: NodeJS.Timeout | null = null;

  constructor(spec: EngineSpec, clock: Clock, log: Log) {
    this.#spec = spec;
    this.#clock = clock;
    this.#log = log;
  }

  /** Whether nothing waits or runs. */
  get idle(): boolean {
    return this.#waiting.length === 0 && this.#running.size === 0;
  }

  /** The child's process id, while there is one. */
  get pid(): number | null {
    return this.#child?.process.pid ?? null;
  }

  /** Queues a generation (`Prompt`). The listener may be called before this returns. `abort` is idempotent. */
  generate(generation: Buffer, listener: GenerationListener): { abort(): void } {
    const task: Task = { id: this.#nextId++, generation, listener, aborted: false, deadline: null };
    const refusal = this.#refusal();
    if (refusal !== null) {
      listener.failed({ kind: "unavailable", reason: refusal });
      return { abort: () => undefined };
    }
    this.#waiting.push(task);
    this.#stopIdleTimer();
    this.#child ??= this.#start();
    this.#feed();
    return { abort: () => this.#abort(task) };
  }

  /** Ends the child; what waits or runs fails. Resolves when the process is gone. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#stopIdleTimer();
    const child = this.#child;
    if (child === null) return;
    child.end("the server is closing");
    await child.gone;
  }

  #refusal(): string | null {
    if (this.#closed) return "the server is closing";
    if (this.#waiting.length >= WAITING_AT_MOST) return `${WAITING_AT_MOST} requests are waiting for this model already`;
    const pause = this.#restartNotBefore - this.#clock.monotonic();
    if (this.#child === null && pause > 0) return `its process ended and starts again in ${Math.ceil(pause)} ms: ${this.#lastReason}`;
    return null;
  }

  #start(): Child {
    const child = new Child(this.#spec, this.#clock, { report: (report) => this.#receive(report), gone: (reason) => this.#gone(reason) });
    this.#log.info({ file: this.#spec.file, pid: child.process.pid }, "local model: process started");
    return child;
  }

  #feed(): void {
    const child = this.#child;
    if (child === null || !child.ready || child.ending) return;
    while (this.#running.size < this.#spec.sequences) {
      const task = this.#waiting.shift();
      if (task === undefined) return;
      this.#running.set(task.id, task);
      child.generate(task.id, task.generation);
      task.listener.sent();
    }
  }

  #receive(report: Report): void {
    switch (report.type) {
      case "ready":
        return this.#feed();
      case "unusable":
        return this.#child?.end(report.reason);
      case "beat":
        return;
      case "events": {
        const task = this.#running.get(report.id);
        if (task !== undefined && !task.aborted) task.listener.events(report.events);
        return;
      }
      case "done":
      case "refused":
      case "stopped":
      case "broken":
        return this.#finish(report);
      default:
        report satisfies never;
    }
  }

  #finish(report: Extract<Report, { type: "done" | "refused" | "stopped" | "broken" }>): void {
    const task = this.#running.get(report.id);
    if (task === undefined) return;
    this.#running.delete(report.id);
    if (task.deadline !== null) clearTimeout(task.deadline);
    if (report.type !== "broken") this.#deaths = 0;
    if (task.aborted || report.type === "stopped") task.listener.stopped();
    else if (report.type === "done") task.listener.done();
    else if (report.type === "refused") task.listener.failed({ kind: "refused", code: report.code, message: report.message });
    else task.listener.failed({ kind: "unavailable", reason: report.reason });
    this.#feed();
    this.#startIdleTimer();
  }

  #abort(task: Task): void {
    if (task.aborted) return;
    task.aborted = true;
    const place = this.#waiting.indexOf(task);
    if (place >= 0) {
      this.#waiting.splice(place, 1);
      task.listener.stopped();
      return this.#startIdleTimer();
    }
    if (!this.#running.has(task.id)) return;
    this.#child?.send({ type: "abort", id: task.id });
    task.deadline = setTimeout(
      () => this.#child?.end(`it did not stop an aborted request within ${ABORT_DEADLINE_MS} ms`),
      ABORT_DEADLINE_MS,
    );
  }

  #gone(reason: string): void {
    this.#child = null;
    if (reason === UNLOADED && !this.#closed) {
      // A request may have come while it went.
      if (this.#waiting.length > 0) this.#child = this.#start();
      return;
    }
    this.#lastReason = reason;
    const lost = [...this.#running.values(), ...this.#waiting.splice(0)];
    this.#running.clear();
    if (!this.#closed) {
      this.#deaths += 1;
      const pauseMs = Math.min(RESTART_PAUSE_AT_MOST_MS, FIRST_RESTART_PAUSE_MS * 2 ** (this.#deaths - 1));
      this.#restartNotBefore = this.#clock.monotonic() + pauseMs;
      this.#log.warn({ file: this.#spec.file, reason, lost: lost.length, pauseMs }, "local model: process ended");
    }
    for (const task of lost) {
      if (task.deadline !== null) clearTimeout(task.deadline);
      if (task.aborted) task.listener.stopped();
      else task.listener.failed({ kind: "unavailable", reason });
    }
  }

  #startIdleTimer(): void {
    if (!this.idle || this.#closed || this.#child === null) return;
    this.#stopIdleTimer();
    this.#idle = setTimeout(() => this.#child?.end(UNLOADED), this.#spec.unloadAfterIdleMs);
    this.#idle.unref();
  }

  #stopIdleTimer(): void {
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = null;
  }
}

/** Generations that wait for a free sequence, for each engine. */
const WAITING_AT_MOST = 64;
const FIRST_RESTART_PAUSE_MS = 250;
const RESTART_PAUSE_AT_MOST_MS = 30_000;
/** An abort takes effect between two decoding steps; a child that needs longer than this is stuck. */
const ABORT_DEADLINE_MS = 60_000;
const UNLOADED = "it was unloaded after being idle";

interface Task {
  readonly id: number;
  readonly generation: Buffer;
  readonly listener: GenerationListener;
  aborted: boolean;
  deadline: NodeJS.Timeout | null;
}

interface ChildOwner {
  report(report: Report): void;
  /** Once. */
  gone(reason: string): void;
}

/** One process, from spawn to exit. */
class Child {
  readonly process: ChildProcess;
  /** Resolves after the exit was told to the owner. */
  readonly gone: Promise<void>;
  ready = false;
  #reason: string | null = null;
  #errorTail = "";
  readonly #clock: Clock;
  #lastSign: number;

  constructor(spec: EngineSpec, clock: Clock, owner: ChildOwner) {
    this.#clock = clock;
    this.#lastSign = clock.monotonic();
    const { file, contextSize, threads, sequences } = spec;
    // Only what the dynamic loader needs: the server's environment holds secrets, and the child reads files it did not write.
    const env = Object.fromEntries(
      ["PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR"].flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
    );
    this.process = spawn(process.execPath, [`--max-old-space-size=${HEAP_MIB}`, INFERENCE], {
      stdio: ["pipe", "ignore", "pipe", "pipe"],
      env,
    });
    this.gone = new Promise((resolve) => {
      const finish = (reason: string): void => {
        clearInterval(watch);
        resolve();
        owner.gone(reason);
      };
      this.process.once("error", (error) => finish(`its process could not start: ${error.message}`));
      // Not `exit`: what the child reported last may still be in the pipe then.
      this.process.once("close", (code, signal) =>
        finish(this.#reason ?? `its process ended with ${signal ?? `exit code ${code}`}. ${this.#errorTail}`.trim()),
      );
    });
    const watch = setInterval(() => this.#watch(spec.memoryLimitBytes), WATCH_EVERY_MS);
    watch.unref();
    this.#listen(owner);
    this.send({ type: "load", file, contextSize, threads, sequences });
  }

  /** Whether it was killed and is not gone yet. */
  get ending(): boolean {
    return this.#reason !== null;
  }

  send(order: Order): void {
    this.process.stdin?.write(line(order));
  }

  /** The order of that name, with the generation's own bytes in it. */
  generate(id: number, generation: Buffer): void {
    const type: Order["type"] = "generate";
    const { stdin } = this.process;
    stdin?.write(`{"type":"${type}","id":${id},"generation":`);
    stdin?.write(generation);
    stdin?.write("}\n");
  }

  /** Kills: llama.cpp has nothing to save, and a stuck one answers nothing milder. */
  end(reason: string): void {
    this.#reason ??= reason;
    this.process.kill("SIGKILL");
  }

  #listen(owner: ChildOwner): void {
    const read = lineReader(REPORT_BYTES, (value) => {
      const report = value as Report;
      this.#lastSign = this.#clock.monotonic();
      if (report.type === "ready") this.ready = true;
      owner.report(report);
    });
    const reports = this.process.stdio[3] as Readable;
    reports.on("data", (chunk: Buffer) => {
      if (this.#reason !== null) return;
      try {
        read(chunk);
      } catch (error) {
        this.end(`it sent what is no report: ${String(error)}`);
      }
    });
    this.process.stderr?.on("data", (chunk: Buffer) => {
      this.#errorTail = (this.#errorTail + chunk.toString("utf8")).slice(-ERROR_TAIL_CHARACTERS);
    });
    // A pipe to a dead child breaks; its exit is what counts.
    for (const pipe of [this.process.stdin, reports, this.process.stderr]) pipe?.on("error", () => undefined);
  }

  #watch(memoryLimitBytes: number): void {
    const resident = residentBytes(this.process.pid);
    if (resident > memoryLimitBytes)
      this.end(`it used ${mebibytes(resident)} MiB of memory; its limit is ${mebibytes(memoryLimitBytes)} MiB (option memory_limit_mb)`);
    if (this.#clock.monotonic() - this.#lastSign > SILENCE_AT_MOST_MS) this.end(`it gave no sign of life for ${SILENCE_AT_MOST_MS} ms`);
  }
}

/** The resident set of a process on Linux, the one system that the plug-in is built for; 0 once it is gone. */
function residentBytes(pid: number | undefined): number {
  try {
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 1024 / 1024);
}

// Beside this file's own form: .ts in a checkout, .js in a package, where Node strips no types.
const INFERENCE = fileURLToPath(new URL(`../../../../plugins/local/inference${extname(import.meta.url)}`, import.meta.url));
/** The child's JavaScript heap; weights and contexts live outside it. */
const HEAP_MIB = 1024;
/** One report: a text delta, or the arguments of one tool call. */
const REPORT_BYTES = 8 * 1024 * 1024;
const ERROR_TAIL_CHARACTERS = 2000;
/** RSS is sampled, so a limit can be passed for this long. RLIMIT_AS would count V8's reserved addresses (gigabytes) as used. */
const WATCH_EVERY_MS = 100;
/** The child's event loop reports every second, whatever its threads compute. */
const SILENCE_AT_MOST_MS = 30_000;
