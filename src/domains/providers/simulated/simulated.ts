import type { Clock } from "../../../kernel/clock.ts";
import type { ModelEvent } from "../../../kernel/events.ts";
import type { ResponseBody } from "../../../kernel/frame.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { ModelRequest } from "../../../kernel/request.ts";
import type { RequestBound, TokenCounts } from "../../../kernel/tokens.ts";
import type { Deployment, Model } from "../../catalog/index.ts";
import { DispatchError, type Dispatch, type DispatchFailure, type DispatchOf, type Provider, type ProviderResponse } from "../contract.ts";
import { accepted } from "../dispatch.ts";
import { EventFrame, FramePipe, type FrameSource } from "../frames.ts";
import { answer, countInput, scriptOf, type Script } from "./answer.ts";
import { simulatedOptions, type SimulatedOptions } from "./options.ts";

/** A provider without a model: seeded text, delays, tool calls and faults on request. Everything it says is labelled as simulated. */
export function simulated(needs: { readonly clock: Clock }): Provider<Script> {
  return {
    id: "simulated",
    label: "Simulated (no model)",
    nature: "inside",
    defaultBaseUrl: null,
    secretField: null,
    freeByDefault: true,
    options: simulatedOptions,
    bound,
    accept,
    render,
    dispatch: (dispatch) =>
      dispatch.request.kind === "count"
        ? count(dispatch)
        : new Promise((resolve, reject) => new Player(dispatch, needs.clock, resolve, reject).start()),
  };
}

/** Exact for the input: its tokenizer is its own. */
function bound(request: ModelRequest, model: Model): RequestBound {
  const chat = request.chat();
  const each = chat.maxOutputTokens ?? model.maxOutputTokens ?? model.contextWindow;
  const isStated = chat.maxOutputTokens !== null;
  return { input: countInput(chat), output: chat.choices * each, certainty: "proof", answers: chat.choices, each, isStated };
}

function accept(request: ModelRequest, deployment: Deployment): void {
  answer(render(request, deployment), 1).steps.next();
}

function render(request: ModelRequest, deployment: Deployment): Script {
  return scriptOf(request, deployment.options.provider);
}

/** Its tokenizer is its own; faults and delays are an answer's. */
async function count({ request, deployment, attempt, rendered }: DispatchOf<Script>): Promise<ProviderResponse> {
  const { inputTokens: tokens } = rendered ?? render(request, deployment);
  const body: ResponseBody = { kind: "count", count: { tokens, exact: true } };
  return accepted({ wire: null, upstreamRequestId: `simulated-${attempt}`, body, unknownFields: [] });
}

type Phase = "first" | "playing" | "over";

/** Plays one answer against the timeouts of its deployment. */
class Player implements FrameSource {
  readonly #dispatch: Dispatch;
  readonly #clock: Clock;
  readonly #resolve: (response: ProviderResponse) => void;
  readonly #reject: (error: Error) => void;
  readonly #options: SimulatedOptions;
  readonly #steps: Iterator<readonly ModelEvent[], TokenCounts>;
  readonly #startedAt: number;
  readonly #faultAfter: number;
  readonly #collected: ModelEvent[] = [];
  #phase: Phase = "first";
  #pipe: FramePipe | null = null;
  #timer: NodeJS.Timeout | null = null;
  #tokens = 0;
  #paused = false;
  /** Whether playing stopped because of a pause. */
  #stalled = false;

  constructor(dispatch: DispatchOf<Script>, clock: Clock, resolve: (response: ProviderResponse) => void, reject: (error: Error) => void) {
    this.#dispatch = dispatch;
    this.#clock = clock;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#startedAt = clock.monotonic();
    const { request, deployment, outputBound } = dispatch;
    const script = dispatch.rendered ?? render(request, deployment);
    this.#options = script.options;
    const modelMax = deployment.model.maxOutputTokens ?? deployment.model.contextWindow;
    this.#steps = answer(script, Math.min(script.maxOutputTokens ?? modelMax, modelMax, outputBound ?? modelMax)).steps;
    this.#faultAfter = meetsFault(this.#options, dispatch.attempt) ? (this.#options.fault?.after_tokens ?? 0) : Infinity;
  }

  start(): void {
    const { signal, onSent } = this.#dispatch;
    if (signal.aborted) return this.#fail({ kind: "aborted" });
    signal.addEventListener("abort", this.#onAbort);
    if (this.#faultAfter === 0 && this.#options.fault?.kind === "connect") return this.#fail({ kind: "connect" });
    onSent();
    this.#wait(this.#options.first_token_ms);
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    if (!this.#stalled || this.#phase === "over") return;
    this.#stalled = false;
    this.#wait(this.#options.per_token_ms);
  }

  stop(): void {
    this.#settle();
  }

  readonly #onAbort = (): void => {
    if (this.#pipe !== null) this.#pipe.abort();
    else this.#fail({ kind: "aborted" });
  };

  /** Plays on after the delay, unless a timeout of the deployment comes first. */
  #wait(delayMs: number): void {
    const { firstTokenTimeoutMs, idleTimeoutMs, totalTimeoutMs } = this.#dispatch.deployment.options;
    const passed = this.#clock.monotonic() - this.#startedAt;
    const silence = this.#pipe === null ? firstTokenTimeoutMs - passed : idleTimeoutMs;
    const left = Math.min(silence, totalTimeoutMs - passed);
    this.#timer =
      delayMs < left
        ? setTimeout(() => this.#play(), delayMs)
        : setTimeout(
            () => this.#fail({ kind: "timeout", phase: silence < totalTimeoutMs - passed ? "first_token" : "total" }),
            Math.max(0, left),
          );
  }

  #play(): void {
    this.#timer = null;
    const { per_token_ms: perTokenMs } = this.#options;
    const batch = perTokenMs === 0 ? BATCH : 1;
    for (let played = 0; played < batch && this.#phase !== "over"; played++) {
      if (this.#paused) {
        this.#stalled = true;
        return;
      }
      if (this.#tokens >= this.#faultAfter) return this.#meetFault();
      const step = this.#steps.next();
      if (step.done === true) return this.#finish(step.value);
      if (step.value.some((event) => event.type === "text-delta" || event.type === "tool-call-delta")) this.#tokens++;
      this.#emit(step.value);
    }
    if (this.#phase !== "over") this.#wait(perTokenMs);
  }

  #emit(events: readonly ModelEvent[]): void {
    const started = this.#phase === "first" ? [this.#responseStart(), ...events] : events;
    this.#phase = "playing";
    if (!this.#dispatch.request.stream) {
      this.#collected.push(...started);
      return;
    }
    const frame = new EventFrame(started);
    if (this.#pipe !== null) return this.#pipe.push([frame]);
    this.#pipe = new FramePipe(this);
    this.#pipe.push([frame]);
    this.#accept({ kind: "stream", stream: this.#pipe });
  }

  #finish(tokens: TokenCounts): void {
    this.#emit([{ type: "usage", usage: { tokens, source: "reported" } }]);
    this.#emit([{ type: "response-end" }]);
    this.#settle();
    if (this.#pipe !== null) return this.#pipe.end({ kind: "complete" });
    const events = this.#collected;
    this.#accept({ kind: "whole", whole: { bytes: Buffer.alloc(0), events: () => events } });
  }

  #meetFault(): void {
    const { fault } = this.#options;
    if (fault?.kind === "hang") return this.#wait(Infinity);
    if (fault?.kind === "error")
      return this.#fail({
        kind: "status",
        status: fault.status,
        retryAfterSeconds: fault.retry_after_seconds ?? null,
        message: "simulated failure",
        param: null,
        code: "simulated",
      });
    this.#fail({ kind: fault?.kind === "malformed" ? "malformed" : "connect" });
  }

  #fail(failure: DispatchFailure): void {
    const pipe = this.#pipe;
    this.#settle();
    if (pipe === null) return this.#reject(new DispatchError(failure));
    pipe.end({
      kind: "truncated",
      problem: new Problem(failure.kind === "timeout" ? "upstream_timeout" : "upstream_error", { cause: failure }),
    });
  }

  #settle(): void {
    this.#phase = "over";
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#dispatch.signal.removeEventListener("abort", this.#onAbort);
  }

  #accept(body: ResponseBody): void {
    this.#resolve(accepted({ wire: null, upstreamRequestId: `simulated-${this.#dispatch.attempt}`, body, unknownFields: [] }));
  }

  #responseStart(): ModelEvent {
    const { attempt, deployment } = this.#dispatch;
    const name = deployment.upstreamModel;
    return {
      type: "response-start",
      id: `chatcmpl-simulated-${attempt}`,
      model: name.includes("simulated") ? name : `simulated/${name}`,
      createdSeconds: Math.floor(this.#clock.now() / 1000),
    };
  }
}

/** Whether this attempt is among the share that meets the fault: the last 32 bits of its id are random. */
function meetsFault({ fault }: SimulatedOptions, attempt: string): boolean {
  return fault !== undefined && (fault.rate === 1 || Number.parseInt(attempt.slice(-8), 16) / 2 ** 32 < fault.rate);
}

/** Tokens played in one turn of the event loop when there is no delay between them. */
const BATCH = 16;
