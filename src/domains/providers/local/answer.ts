import type { ModelEvent } from "../../../kernel/events.ts";
import type { ResponseBody } from "../../../kernel/frame.ts";
import { Problem } from "../../../kernel/problem.ts";
import { DispatchError, type Dispatch, type DispatchFailure, type ProviderResponse } from "../contract.ts";
import { accepted } from "../dispatch.ts";
import { EventFrame, FramePipe } from "../frames.ts";
import type { Engine, EngineFailure } from "./engine.ts";

/**
 * One generation as the contract wants it: a response at the first token (or the whole answer), failures before it as
 * DispatchError, after it as a truncation.
 */
export class Answer {
  readonly #dispatch: Dispatch;
  readonly #outcome = Promise.withResolvers<ProviderResponse>();
  readonly #pipe: FramePipe;
  readonly #onAbort = (): void => this.#abort();
  /** The events of an answer in one piece, or those that came while the reader was paused: at most a context of tokens. */
  #events: ModelEvent[];
  #task: { abort(): void } | null = null;
  #answered = false;
  #paused = false;
  #over: (() => void) | null = null;
  #ended = false;
  #silence: NodeJS.Timeout;
  readonly #total: NodeJS.Timeout;

  constructor(dispatch: Dispatch, start: ModelEvent) {
    this.#dispatch = dispatch;
    this.#events = [start];
    this.#pipe = new FramePipe({ pause: () => void (this.#paused = true), resume: () => this.#resume(), stop: () => this.#stop() });
    const { firstTokenTimeoutMs, totalTimeoutMs } = dispatch.deployment.options;
    this.#silence = setTimeout(() => this.#timeOut("first_token"), firstTokenTimeoutMs);
    this.#total = setTimeout(() => this.#timeOut("total"), totalTimeoutMs);
  }

  /** Starts the generation. Rejects with DispatchError. */
  from(engine: Engine, generation: Buffer): Promise<ProviderResponse> {
    this.#dispatch.signal.addEventListener("abort", this.#onAbort, { once: true });
    this.#task = engine.generate(generation, {
      sent: () => this.#dispatch.onSent(),
      events: (events) => this.#receive(events),
      done: () => this.#complete(),
      failed: (failure) => this.#fail(failure),
      stopped: () => undefined,
    });
    return this.#outcome.promise;
  }

  #receive(events: readonly ModelEvent[]): void {
    if (this.#ended) return;
    if (this.#answered) this.#expectMore();
    if (events.length === 0) return;
    this.#events.push(...events);
    if (!this.#dispatch.request.stream) return;
    if (!this.#answered) this.#accept({ kind: "stream", stream: this.#pipe });
    this.#deliver();
  }

  #accept(body: ResponseBody): void {
    this.#answered = true;
    if (body.kind === "stream") this.#expectMore();
    this.#outcome.resolve(accepted({ wire: null, upstreamRequestId: null, body, unknownFields: [] }));
  }

  #deliver(): void {
    if (this.#paused) return;
    const frames = this.#events.splice(0).map((event) => new EventFrame([event]));
    this.#pipe.push(frames);
    if (!this.#paused) this.#over?.();
  }

  #resume(): void {
    this.#paused = false;
    this.#deliver();
  }

  #complete(): void {
    if (!this.#end()) return;
    const events = this.#events;
    if (!this.#dispatch.request.stream) return this.#accept({ kind: "whole", whole: { bytes: NO_BYTES, events: () => events } });
    this.#over = () => this.#pipe.end({ kind: "complete" });
    this.#deliver();
  }

  #fail(failure: EngineFailure): void {
    if (failure.kind === "refused") {
      const code = failure.code === "context_length_exceeded" ? failure.code : null;
      return this.#break(
        { kind: "status", status: 400, retryAfterSeconds: null, message: failure.message, param: "messages", code },
        failure.message,
      );
    }
    this.#break({ kind: "unavailable" }, failure.reason);
  }

  #timeOut(phase: "first_token" | "total"): void {
    this.#task?.abort();
    this.#break({ kind: "timeout", phase }, "the local model was too slow");
  }

  #break(failure: DispatchFailure, reason: string): void {
    if (!this.#end()) return;
    const cause = new Error(reason);
    if (!this.#answered) return this.#outcome.reject(new DispatchError(failure, { cause }));
    this.#over = () =>
      this.#pipe.end({
        kind: "truncated",
        problem: new Problem(failure.kind === "timeout" ? "upstream_timeout" : "upstream_error", { cause }),
      });
    this.#deliver();
  }

  #abort(): void {
    if (this.#answered) return this.#pipe.abort();
    this.#stop();
    this.#outcome.reject(new DispatchError({ kind: "aborted" }));
  }

  #stop(): void {
    this.#end();
    this.#task?.abort();
  }

  #expectMore(): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#timeOut("total"), this.#dispatch.deployment.options.idleTimeoutMs);
  }

  /** Whether this is the end, and not something after it. Releases the timers. */
  #end(): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    clearTimeout(this.#silence);
    clearTimeout(this.#total);
    this.#dispatch.signal.removeEventListener("abort", this.#onAbort);
    return true;
  }
}

const NO_BYTES = Buffer.alloc(0);
