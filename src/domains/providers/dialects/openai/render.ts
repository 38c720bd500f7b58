import type { FinishReason, ModelEvent } from "../../../../kernel/events.ts";
import { Problem } from "../../../../kernel/problem.ts";
import type { Json, JsonObject } from "../../../../kernel/request.ts";
import type { TokenCounts } from "../../../../kernel/tokens.ts";
import { renderUsage } from "./usage.ts";

export interface RenderOptions {
  /** Whether the caller asked for usage in the stream. A whole answer always has it. */
  readonly includeUsage: boolean;
  /** Names what answered (`simulated`, `local`); null leaves the field out. */
  readonly systemFingerprint: string | null;
}

/**
 * Renders the events of one response, in order, as the bytes of a `text/event-stream` of `chat.completion.chunk`. Reasoning is said twice, as OpenRouter
 * does: under `reasoning_content` to be shown, and in `reasoning_details` with the signatures, so that a message
 * gathered by `index` can be sent back unchanged.
 */
export interface ChunkRenderer {
  /**
   * The events' chunks, each a whole SSE event; empty where the caller sees nothing of them.
   * @throws Problem `upstream_error` for an `error` event: the stream has no clean end
   */
  render(events: readonly ModelEvent[]): Buffer;
}

export function createChunkRenderer(options: RenderOptions): ChunkRenderer {
  return new ChunkWriter(options);
}

class ChunkWriter implements ChunkRenderer {
  readonly #options: RenderOptions;
  #head: JsonObject = {};
  #tokens: TokenCounts | null = null;
  /** The choices that have a chunk. */
  readonly #opened = new Set<number>();
  /** Each choice's open block of reasoning, by index. */
  readonly #blocks = new Map<number, number>();

  constructor(options: RenderOptions) {
    this.#options = options;
  }

  render(events: readonly ModelEvent[]): Buffer {
    return Buffer.from(events.map((event) => this.#event(event)).join(""));
  }

  #event(event: ModelEvent): string {
    switch (event.type) {
      case "response-start":
        this.#head = headOf(event, "chat.completion.chunk", this.#options);
        return "";
      case "usage":
        this.#tokens = event.usage.tokens;
        return "";
      case "response-end":
        return `${this.#usage()}data: [DONE]\n\n`;
      case "error":
        throw failed(event);
      case "choice-end":
        return this.#chunk(event.choice, {}, event.reason);
      case "text-delta":
      case "refusal-delta":
      case "reasoning-delta":
      case "reasoning-signature":
      case "reasoning-hidden":
      case "tool-call-start":
      case "tool-call-delta":
        return this.#chunk(event.choice, this.#delta(event), null);
      default:
        return event satisfies never;
    }
  }

  #delta(event: DeltaEvent): JsonObject {
    switch (event.type) {
      case "text-delta":
        return { content: event.text };
      case "refusal-delta":
        return { refusal: event.text };
      case "reasoning-delta":
        return {
          reasoning_content: event.text,
          reasoning_details: [{ type: "reasoning.text", text: event.text, index: this.#block(event.choice) }],
        };
      case "reasoning-signature":
        return { reasoning_details: [{ type: "reasoning.text", signature: event.signature, index: this.#endBlock(event.choice) }] };
      case "reasoning-hidden":
        this.#endBlock(event.choice);
        return { reasoning_details: [{ type: "reasoning.encrypted", data: event.data, index: this.#endBlock(event.choice) }] };
      case "tool-call-start": {
        const { index, id, name } = event;
        return { tool_calls: [{ index, id, type: "function", function: { name, arguments: "" } }] };
      }
      case "tool-call-delta":
        return { tool_calls: [{ index: event.index, function: { arguments: event.arguments } }] };
      default:
        return event satisfies never;
    }
  }

  #block(choice: number): number {
    return this.#blocks.get(choice) ?? 0;
  }

  /** The index of the block that ends here; the next one gets another. */
  #endBlock(choice: number): number {
    const index = this.#block(choice);
    this.#blocks.set(choice, index + 1);
    return index;
  }

  #usage(): string {
    return this.#tokens !== null && this.#options.includeUsage
      ? frame({ ...this.#head, choices: [], usage: renderUsage(this.#tokens) })
      : "";
  }

  #chunk(choice: number, delta: JsonObject, reason: FinishReason | null): string {
    const role = this.#opened.has(choice) ? {} : { role: "assistant" };
    this.#opened.add(choice);
    return frame({
      ...this.#head,
      choices: [{ index: choice, delta: { ...role, ...delta }, logprobs: null, finish_reason: reason }],
      ...(this.#options.includeUsage ? { usage: null } : {}),
    });
  }
}

type DeltaEvent = Exclude<Extract<ModelEvent, { readonly choice: number }>, { readonly type: "choice-end" }>;

/** The upstream's failure as a problem, for the surface to tell as it tells all others. */
function failed({ message }: Extract<ModelEvent, { readonly type: "error" }>): Problem {
  return new Problem("upstream_error", { message: message === "" ? null : message });
}

function frame(body: JsonObject): string {
  return `data: ${JSON.stringify(body)}\n\n`;
}

/**
 * Renders all events of one response as a `chat.completion`.
 * @throws Problem `upstream_error` for an `error` event
 */
export function renderWhole(events: readonly ModelEvent[], options: RenderOptions): Buffer {
  let head: JsonObject = {};
  let tokens: TokenCounts | null = null;
  const choices = new Map<number, Gathered>();
  const choiceOf = (index: number): Gathered => {
    const gathered = choices.get(index) ?? { text: null, reasoning: [], refusal: null, toolCalls: new Map(), reason: "stop" };
    choices.set(index, gathered);
    return gathered;
  };
  for (const event of events) {
    if (event.type === "response-start") head = headOf(event, "chat.completion", options);
    else if (event.type === "usage") tokens = event.usage.tokens;
    else if (event.type === "error") throw failed(event);
    else if (event.type !== "response-end") gather(choiceOf(event.choice), event);
  }
  const rendered = [...choices].toSorted(([a], [b]) => a - b).map(([index, gathered]) => renderChoice(index, gathered));
  return Buffer.from(JSON.stringify({ ...head, choices: rendered, ...(tokens === null ? {} : { usage: renderUsage(tokens) }) }));
}

interface Gathered {
  text: string | null;
  readonly reasoning: Reasoning[];
  refusal: string | null;
  readonly toolCalls: Map<number, { readonly id: string; readonly name: string; arguments: string }>;
  reason: FinishReason;
}

/** A block of reasoning: text until it is signed, or encrypted whole. */
type Reasoning = { readonly kind: "text"; text: string; signature: string | null } | { readonly kind: "hidden"; readonly data: string };

function gather(choice: Gathered, event: Extract<ModelEvent, { readonly choice: number }>): void {
  switch (event.type) {
    case "text-delta":
      choice.text = (choice.text ?? "") + event.text;
      return;
    case "reasoning-delta":
      openReasoning(choice).text += event.text;
      return;
    case "reasoning-signature":
      openReasoning(choice).signature = event.signature;
      return;
    case "reasoning-hidden":
      choice.reasoning.push({ kind: "hidden", data: event.data });
      return;
    case "refusal-delta":
      choice.refusal = (choice.refusal ?? "") + event.text;
      return;
    case "tool-call-start":
      if (!choice.toolCalls.has(event.index)) choice.toolCalls.set(event.index, { id: event.id, name: event.name, arguments: "" });
      return;
    case "tool-call-delta": {
      const call = choice.toolCalls.get(event.index);
      if (call !== undefined) call.arguments += event.arguments;
      return;
    }
    case "choice-end":
      choice.reason = event.reason;
      return;
    default:
      event satisfies never;
  }
}

function openReasoning({ reasoning }: Gathered): Extract<Reasoning, { readonly kind: "text" }> {
  const last = reasoning.at(-1);
  if (last?.kind === "text" && last.signature === null) return last;
  const opened = { kind: "text" as const, text: "", signature: null };
  reasoning.push(opened);
  return opened;
}

function renderChoice(index: number, choice: Gathered): Json {
  const toolCalls = [...choice.toolCalls]
    .toSorted(([a], [b]) => a - b)
    .map(([, call]) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
  return {
    index,
    message: {
      role: "assistant",
      content: choice.text,
      refusal: choice.refusal,
      ...renderReasoning(choice.reasoning),
      ...(toolCalls.length === 0 ? {} : { tool_calls: toolCalls }),
    },
    logprobs: null,
    finish_reason: choice.reason,
  };
}

/** The text for those who show it; the list, with what must come back unchanged, only where there is something of the kind. */
function renderReasoning(reasoning: readonly Reasoning[]): JsonObject {
  const text = reasoning.map((block) => (block.kind === "text" ? block.text : "")).join("");
  const isBound = reasoning.some((block) => block.kind === "hidden" || block.signature !== null);
  const details = reasoning.map((block, index): JsonObject =>
    block.kind === "hidden"
      ? { type: "reasoning.encrypted", data: block.data, index }
      : { type: "reasoning.text", text: block.text, ...(block.signature === null ? {} : { signature: block.signature }), index },
  );
  return { ...(text === "" ? {} : { reasoning_content: text }), ...(isBound ? { reasoning_details: details } : {}) };
}

function headOf(start: Extract<ModelEvent, { readonly type: "response-start" }>, object: string, options: RenderOptions): JsonObject {
  return {
    id: start.id,
    object,
    created: start.createdSeconds,
    model: start.model,
    ...(options.systemFingerprint === null ? {} : { system_fingerprint: options.systemFingerprint }),
  };
}
