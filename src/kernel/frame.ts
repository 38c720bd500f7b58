import type { ModelEvent } from "./events.ts";
import type { Problem } from "./problem.ts";

/** A wire format: of a caller's surface, or of an upstream. */
export type Dialect = "openai" | "anthropic";

/**
 * One event of an upstream's stream, or a run of them: its raw bytes (terminator included) and, parsed only when somebody asks, its
 * meaning. A provider without a wire of its own (`simulated`, `local`) has empty bytes and ready events.
 */
export interface Frame {
  readonly bytes: Buffer;
  /** Whether the bytes can hold anything but a delta: usage, a finish reason, an error, the end. Cheap; may say true too often, never false wrongly. */
  readonly notable: boolean;
  /**
   * Where the frame is a run of events side by side that say nothing but text: how many carry any, and its bytes as the wire
   * escapes them, which are all that the run can hold of output.
   */
  readonly deltas?: { readonly events: number; readonly bytes: number };
  /** Parsed on first use and remembered. */
  events(): readonly ModelEvent[];
}

/** How a stream ended. Every stream ends exactly once. */
export type Ending =
  | { readonly kind: "complete" }
  /** The upstream broke off, misbehaved or timed out after its first frame: never a clean end for the caller. */
  | { readonly kind: "truncated"; readonly problem: Problem }
  /** We stopped it: the client left, or the process drains. */
  | { readonly kind: "aborted" };

/** Where frames go. Calls never overlap and never come after `end`. */
export interface FrameSink {
  /** The whole frames that one upstream chunk completed, in order; never empty. */
  frames(frames: readonly Frame[]): void;
  end(ending: Ending): void;
}

/** A stream of frames, pushed: no promise per frame. Nothing flows before `pipe`, which is called once. */
export interface FrameStream {
  pipe(sink: FrameSink): void;
  /** Back-pressure; frames already read may still arrive. */
  pause(): void;
  resume(): void;
  /** Stops the upstream at once. The sink then gets `end({ kind: "aborted" })`, unless the stream had ended. */
  abort(): void;
}

/** A response that came in one piece. */
export interface WholeBody {
  /** The upstream's body in `wire`; empty for a provider without a wire. */
  readonly bytes: Buffer;
  /** The whole answer as events, `response-start` to `response-end`. Parsed on first use and remembered. */
  events(): readonly ModelEvent[];
}

/** How many tokens a prompt is. `exact`: by the tokenizer that the deployment bills by; else an estimate. */
export interface TokenCount {
  readonly tokens: number;
  readonly exact: boolean;
}

export type ResponseBody =
  | { readonly kind: "whole"; readonly whole: WholeBody }
  | { readonly kind: "stream"; readonly stream: FrameStream }
  /** The answer to a request of kind `count`. */
  | { readonly kind: "count"; readonly count: TokenCount };
