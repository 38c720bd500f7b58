import type { ModelEvent } from "../../kernel/events.ts";
import type { Dialect } from "../../kernel/frame.ts";
import type { Problem } from "../../kernel/problem.ts";
import type { Attribution, ModelRequest } from "../../kernel/request.ts";

/** A surface's wire format: what differs between dialects when a call is read and answered. */
export interface SurfaceWire {
  readonly dialect: Dialect;
  /** For records and metrics, e.g. `openai.chat.completions`. */
  readonly endpoint: string;
  /** @throws Problem with `param` set */
  parse(body: Buffer, attribution: Attribution): ModelRequest;
  /** Stream bytes for events that came without this wire from the provider named. Stateful: one per response. */
  streamRenderer(request: ModelRequest, provider: string): (events: readonly ModelEvent[]) => Buffer;
  /** A whole body for events that came without this wire from the provider named. */
  renderWhole(events: readonly ModelEvent[], provider: string): Buffer;
  /** The terminal error event of a stream. */
  renderError(problem: Problem): Buffer;
  envelope(problem: Problem): object;
}
