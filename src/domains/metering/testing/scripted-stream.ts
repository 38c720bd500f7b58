import type { ModelEvent } from "../../../kernel/events.ts";
import type { Ending, Frame, FrameSink, FrameStream } from "../../../kernel/frame.ts";
import { NO_TOKENS } from "../../../kernel/tokens.ts";
import type { ProviderResponse } from "../../providers/index.ts";

/** A frame whose true number of output tokens the test knows: at most one a byte of its text. */
export interface TestFrame extends Frame {
  readonly outputTokens: number;
  readonly last: boolean;
}

/** As the OpenAI dialect writes it. */
export function deltaFrame(text: string, outputTokens: number): TestFrame {
  return {
    bytes: Buffer.from(
      `data: ${JSON.stringify({ id: "chatcmpl-1", object: "chat.completion.chunk", created: 1, model: "small-served", choices: [{ index: 0, delta: { content: text }, finish_reason: null }] })}\n\n`,
    ),
    notable: false,
    events: () => [
      { type: "response-start", id: "chatcmpl-1", model: "small-served", createdSeconds: 1 },
      { type: "text-delta", choice: 0, text },
    ],
    outputTokens,
    last: false,
  };
}

export function usageFrame(input: number, output: number): TestFrame {
  return eventFrame(
    `data: {"choices":[],"usage":{"prompt_tokens":${input}}}\n\n`,
    { type: "usage", usage: { tokens: { ...NO_TOKENS, input_uncached: input, output }, source: "reported" } },
    false,
  );
}

export function stopFrame(): TestFrame {
  const stop: ModelEvent = { type: "choice-end", choice: 0, reason: "stop", stopSequence: null };
  return eventFrame('data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n', stop, false);
}

export function doneFrame(): TestFrame {
  return eventFrame("data: [DONE]\n\n", { type: "response-end" }, true);
}

function eventFrame(text: string, event: ModelEvent, last: boolean): TestFrame {
  return { bytes: Buffer.from(text), notable: true, events: () => [event], outputTokens: 0, last };
}

/** An upstream's stream that a test drives. */
export class ScriptedStream implements FrameStream {
  #sink: FrameSink | null = null;
  paused = false;
  aborted = false;
  ended = false;
  /** Whether the end follows an abort at once, or when `end` is called: frames that were read may come between. */
  readonly #endsAtOnce: boolean;

  constructor(endsAtOnce = true) {
    this.#endsAtOnce = endsAtOnce;
  }

  pipe(sink: FrameSink): void {
    if (this.#sink !== null) throw new Error("piped twice");
    this.#sink = sink;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  abort(): void {
    this.aborted = true;
    if (this.#endsAtOnce) this.end({ kind: "aborted" });
  }

  emit(frames: readonly Frame[]): void {
    if (!this.ended) this.#sink?.frames(frames);
  }

  end(ending: Ending): void {
    if (this.ended) return;
    this.ended = true;
    this.#sink?.end(ending);
  }
}

export function streamed(stream: FrameStream): ProviderResponse {
  return { wire: "openai", upstreamRequestId: null, unknownFields: [], body: { kind: "stream", stream } } as unknown as ProviderResponse;
}

export function whole(events: readonly ModelEvent[]): ProviderResponse {
  return {
    wire: "openai",
    upstreamRequestId: null,
    unknownFields: [],
    body: { kind: "whole", whole: { bytes: Buffer.from("{}"), events: () => events } },
  } as unknown as ProviderResponse;
}
