import type { RouteFamily } from "../../domains/identity/index.ts";
import type { ParserName } from "../../domains/providers/index.ts";
import type { LimitFigures } from "../../domains/capacity/index.ts";
import type { ModelEvent } from "../../kernel/events.ts";
import type { Dialect } from "../../kernel/frame.ts";
import type { Problem } from "../../kernel/problem.ts";
import type { ModelRequest } from "../../kernel/request.ts";

/** A surface's wire format: what differs between dialects when a call is read and answered. */
export interface SurfaceWire {
  readonly dialect: Dialect;
  /** For records and metrics, e.g. `openai.chat.completions`. */
  readonly endpoint: string;
  /** For keys that are for some endpoints only. */
  readonly family: RouteFamily;
  /** What makes a request of a body. */
  readonly parser: ParserName;
  /** Stream bytes for events that came without this wire from the provider named. Stateful: one per response. What it returns throws a Problem for what it cannot tell. */
  streamRenderer(request: ModelRequest, provider: string): (events: readonly ModelEvent[]) => Buffer;
  /** A whole body for events that came without this wire from the provider named. */
  renderWhole(events: readonly ModelEvent[], provider: string): Buffer;
  /** The answer to a request that asks for a count, of surfaces that take one. */
  readonly renderCount?: (tokens: number) => Buffer;
  /** The terminal error event of a stream; `requestId` is ours. */
  renderError(problem: Problem, requestId: string): Buffer;
  envelope(problem: Problem, requestId: string): object;
  /** What is left under the caller's limits, in this dialect's names; `now` is ms since the epoch. */
  limitHeaders(figures: LimitFigures, now: number): Readonly<Record<string, string>>;
  /** The header in which this dialect's clients look for the request's id, beside `x-request-id`. */
  readonly requestIdHeader?: string;
}
