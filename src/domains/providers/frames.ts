import { BOUNDS } from "../../kernel/bounds.ts";
import type { ModelEvent } from "../../kernel/events.ts";
import type { Ending, Frame, FrameSink, FrameStream } from "../../kernel/frame.ts";

/** What a pipe drives: the connection, child or timer that makes the frames. `stop` is called at most once. */
export interface FrameSource {
  pause(): void;
  resume(): void;
  stop(): void;
}

/**
 * The one implementation of a frame stream: holds what comes before `pipe`, never overlaps two calls of the sink, ends
 * exactly once. The producer calls `push` and `end`; the consumer sees a `FrameStream`.
 */
export class FramePipe implements FrameStream {
  readonly #source: FrameSource;
  #sink: FrameSink | null = null;
  #held: Frame[] = [];
  #heldBytes = 0;
  #ending: Ending | null = null;
  #delivering = false;
  #paused = false;
  #told = false;

  constructor(source: FrameSource) {
    this.#source = source;
  }

  /** Whether the stream has ended, also when the sink has not been told yet. */
  get ended(): boolean {
    return this.#ending !== null;
  }

  push(frames: readonly Frame[]): void {
    if (this.#ending !== null || frames.length === 0) return;
    if (this.#sink !== null && !this.#delivering) return this.#deliver(this.#sink, frames);
    for (const frame of frames) {
      this.#held.push(frame);
      this.#heldBytes += frame.bytes.length;
    }
    if (this.#heldBytes > BOUNDS.streamBufferBytes && !this.#paused) this.#source.pause();
  }

  end(ending: Ending): void {
    if (this.#ending !== null) return;
    this.#ending = ending;
    this.#tell();
  }

  pipe(sink: FrameSink): void {
    this.#sink = sink;
    const wasFull = this.#heldBytes > BOUNDS.streamBufferBytes;
    this.#deliver(sink, this.#takeHeld());
    if (wasFull && !this.#paused && this.#ending === null) this.#source.resume();
    this.#tell();
  }

  pause(): void {
    if (this.#paused || this.#ending !== null) return;
    this.#paused = true;
    this.#source.pause();
  }

  resume(): void {
    if (!this.#paused || this.#ending !== null) return;
    this.#paused = false;
    this.#source.resume();
  }

  abort(): void {
    if (this.#ending !== null) return;
    this.#held = [];
    this.#heldBytes = 0;
    this.end({ kind: "aborted" });
    this.#source.stop();
  }

  #takeHeld(): Frame[] {
    const held = this.#held;
    this.#held = [];
    this.#heldBytes = 0;
    return held;
  }

  #deliver(sink: FrameSink, first: readonly Frame[]): void {
    this.#delivering = true;
    try {
      if (first.length > 0) sink.frames(first);
      while (this.#held.length > 0) sink.frames(this.#takeHeld());
    } finally {
      this.#delivering = false;
    }
    this.#tell();
  }

  #tell(): void {
    if (this.#told || this.#ending === null || this.#sink === null || this.#delivering) return;
    this.#told = true;
    this.#sink.end(this.#ending);
  }
}

/** A frame of a provider without a wire: no bytes, ready events. */
export class EventFrame implements Frame {
  readonly bytes: Buffer = NO_BYTES;
  readonly notable: boolean;
  readonly #events: readonly ModelEvent[];

  constructor(events: readonly ModelEvent[]) {
    this.#events = events;
    this.notable = events.some((event) => !PLAIN.has(event.type));
  }

  events(): readonly ModelEvent[] {
    return this.#events;
  }
}

const NO_BYTES = Buffer.alloc(0);
const PLAIN: ReadonlySet<ModelEvent["type"]> = new Set([
  "response-start",
  "text-delta",
  "reasoning-delta",
  "reasoning-signature",
  "reasoning-hidden",
  "refusal-delta",
  "tool-call-start",
  "tool-call-delta",
]);
