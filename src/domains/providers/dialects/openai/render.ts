import type { FinishReason, ModelEvent } from "../../../../kernel/events.ts";
import type { Json, JsonObject } from "../../../../kernel/request.ts";
import type { TokenCounts } from "../../../../kernel/tokens.ts";
import { renderUsage } from "./usage.ts";

export interface RenderOptions {
  /** Whether the caller asked for usage in the stream. A whole answer always has it. */
  readonly includeUsage: boolean;
  /** Names what answered (`simulated`, `local`); null leaves the field out. */
  readonly systemFingerprint: string | null;
}

/** Renders the events of one response, in order, as the bytes of a `text/event-stream` of `chat.completion.chunk`. */
export interface ChunkRenderer {
  /** The events' chunks, each a whole SSE event; empty where the caller sees nothing of them. */
  render(events: readonly ModelEvent[]): Buffer;
}

export function createChunkRenderer(options: RenderOptions): ChunkRenderer {
  let head: JsonObject = {};
  const opened = new Set<number>();
  const chunk = (fields: JsonObject): string =>
    `data: ${JSON.stringify({ ...head, ...fields, ...(options.includeUsage && fields["usage"] === undefined ? { usage: null } : {}) })}\n\n`;
  const delta = (choice: number, fields: JsonObject, reason: FinishReason | null = null): string => {
    const role = opened.has(choice) ? {} : { role: "assistant" };
    opened.add(choice);
    return chunk({ choices: [{ index: choice, delta: { ...role, ...fields }, logprobs: null, finish_reason: reason }] });
  };
  const renderOne = (event: ModelEvent): string => {
    switch (event.type) {
      case "response-start":
        head = headOf(event, "chat.completion.chunk", options);
        return "";
      case "text-delta":
        return delta(event.choice, { content: event.text });
      case "reasoning-delta":
        return delta(event.choice, { reasoning_content: event.text });
      case "refusal-delta":
        return delta(event.choice, { refusal: event.text });
      case "tool-call-start":
        return delta(event.choice, {
          tool_calls: [{ index: event.index, id: event.id, type: "function", function: { name: event.name, arguments: "" } }],
        });
      case "tool-call-delta":
        return delta(event.choice, { tool_calls: [{ index: event.index, function: { arguments: event.arguments } }] });
      case "choice-end":
        return delta(event.choice, {}, event.reason);
      case "usage":
        return options.includeUsage ? chunk({ choices: [], usage: renderUsage(event.usage.tokens) }) : "";
      case "response-end":
        return "data: [DONE]\n\n";
      case "error":
        return "";
      default:
        return event satisfies never;
    }
  };
  return { render: (events) => Buffer.from(events.map(renderOne).join("")) };
}

/** Renders all events of one response as a `chat.completion`. */
export function renderWhole(events: readonly ModelEvent[], options: RenderOptions): Buffer {
  let head: JsonObject = {};
  let tokens: TokenCounts | null = null;
  const choices = new Map<number, Gathered>();
  const choiceOf = (index: number): Gathered => {
    const gathered = choices.get(index) ?? { text: null, reasoning: null, refusal: null, toolCalls: new Map(), reason: "stop" };
    choices.set(index, gathered);
    return gathered;
  };
  for (const event of events) {
    if (event.type === "response-start") head = headOf(event, "chat.completion", options);
    else if (event.type === "usage") tokens = event.usage.tokens;
    else if (event.type !== "error" && event.type !== "response-end") gather(choiceOf(event.choice), event);
  }
  const rendered = [...choices].toSorted(([a], [b]) => a - b).map(([index, gathered]) => renderChoice(index, gathered));
  return Buffer.from(JSON.stringify({ ...head, choices: rendered, ...(tokens === null ? {} : { usage: renderUsage(tokens) }) }));
}

interface Gathered {
  text: string | null;
  reasoning: string | null;
  refusal: string | null;
  readonly toolCalls: Map<number, { readonly id: string; readonly name: string; arguments: string }>;
  reason: FinishReason;
}

function gather(choice: Gathered, event: Extract<ModelEvent, { readonly choice: number }>): void {
  switch (event.type) {
    case "text-delta":
      choice.text = (choice.text ?? "") + event.text;
      return;
    case "reasoning-delta":
      choice.reasoning = (choice.reasoning ?? "") + event.text;
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
      ...(choice.reasoning === null ? {} : { reasoning_content: choice.reasoning }),
      ...(toolCalls.length === 0 ? {} : { tool_calls: toolCalls }),
    },
    logprobs: null,
    finish_reason: choice.reason,
  };
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
