import { BOUNDS } from "../../../../kernel/bounds.ts";
import type { FinishReason, ModelEvent } from "../../../../kernel/events.ts";
import { Problem } from "../../../../kernel/problem.ts";
import type { JsonObject } from "../../../../kernel/request.ts";
import { NO_TOKENS, type TokenCounts } from "../../../../kernel/tokens.ts";
import { JsonEnd } from "./json-end.ts";
import { renderDeltaUsage, renderUsage } from "./usage.ts";

/** Renders the events of one response, in order, as the bytes of a `text/event-stream` of `RawMessageStreamEvent`. */
export interface MessageRenderer {
  /**
   * The events' bytes, each a whole SSE event; empty where the caller sees nothing of them yet.
   * @throws Problem where they cannot be told in this dialect: the stream then has no clean end
   */
  render(events: readonly ModelEvent[]): Buffer;
}

/**
 * Blocks follow one another in this dialect, while another's parallel tool calls may interleave: a block is told as it
 * comes once all before it are closed, and held back until then. A tool's block can be closed when its arguments are whole
 * JSON. The stop reason and the usage come last, in the write that ends the stream.
 */
export function createMessageRenderer(): MessageRenderer {
  const blocks = new BlockQueue();
  const end = new MessageEnd();
  const renderOne = (event: ModelEvent): string => {
    end.take(event);
    if (event.type === "response-start") return write("message_start", { message: { ...headOf(event), ...UNKNOWN_END } });
    if (event.type !== "response-end") return blocks.take(event);
    const delta = { delta: { ...end.fields(), container: null }, usage: renderDeltaUsage(end.tokens) };
    return blocks.finish() + write("message_delta", delta) + write("message_stop", {});
  };
  return { render: (events) => Buffer.from(events.map(renderOne).join("")) };
}

/**
 * Renders all events of one response as a `Message`. A tool's arguments become its `input` digit for digit; where a model
 * wrote something that is not JSON, `input` is that text.
 */
export function renderMessage(events: readonly ModelEvent[]): Buffer {
  const blocks: WholeBlock[] = [];
  const tools = new Map<number, WholeBlock>();
  const end = new MessageEnd();
  let head: Extract<ModelEvent, { readonly type: "response-start" }> = NO_HEAD;
  for (const event of events) {
    end.take(event);
    if (event.type === "response-start") head = event;
    else gather(blocks, tools, event);
  }
  const others = JSON.stringify({ ...headOf(head), ...end.fields(), usage: renderUsage(end.tokens) });
  return Buffer.from(`${others.slice(0, -1)},"content":[${blocks.map(renderBlock).join(",")}]}`);
}

/** What is known of the message's end: it is told whole, and only once. */
class MessageEnd {
  tokens: TokenCounts = NO_TOKENS;
  #reason: FinishReason = "stop";
  #stopSequence: string | null = null;
  #refusal = "";
  #calledTool = false;

  take(event: ModelEvent): void {
    if (event.type === "usage") this.tokens = event.usage.tokens;
    else if (!("choice" in event) || event.choice !== 0) return;
    else if (event.type === "tool-call-start") this.#calledTool = true;
    else if (event.type === "refusal-delta") {
      this.#refusal += event.text;
      if (this.#refusal.length > MAX_HELD) throw tooMuchHeld();
    } else if (event.type === "choice-end") {
      this.#reason = event.reason;
      this.#stopSequence = event.stopSequence;
    }
  }

  fields(): JsonObject {
    const stopReason = this.#stopReason();
    const explanation = this.#refusal === "" ? null : this.#refusal;
    return {
      stop_reason: stopReason,
      stop_sequence: stopReason === "stop_sequence" ? this.#stopSequence : null,
      stop_details: stopReason === "refusal" ? { type: "refusal", category: null, explanation } : null,
    };
  }

  /** Others may end a message with "stop" that calls a tool which the request demanded; here a tool's call always says so. */
  #stopReason(): string {
    if (this.#refusal !== "") return "refusal";
    switch (this.#reason) {
      case "stop":
        return this.#calledTool ? "tool_use" : this.#stopSequence === null ? "end_turn" : "stop_sequence";
      case "length":
        return "max_tokens";
      case "tool_calls":
        return "tool_use";
      case "content_filter":
        return "refusal";
      default:
        return this.#reason satisfies never;
    }
  }
}

/** The message's blocks in the order in which they began. The first is open, and told as it comes; what the others say is held. */
class BlockQueue {
  readonly #blocks: QueuedBlock[] = [];
  readonly #tools = new Map<number, QueuedBlock>();
  #index = 0;
  #held = 0;

  take(event: ModelEvent): string {
    if (!("choice" in event) || event.choice !== 0) return "";
    switch (event.type) {
      case "text-delta":
        return this.#say(this.#last("text", TEXT_BLOCK), { type: "text_delta", text: event.text }, event.text.length);
      case "reasoning-delta":
        return this.#say(this.#last("thinking", THINKING_BLOCK), { type: "thinking_delta", thinking: event.text }, event.text.length);
      case "reasoning-signature": {
        const block = this.#last("thinking", THINKING_BLOCK);
        block.whole = true;
        return this.#say(block, { type: "signature_delta", signature: event.signature }, event.signature.length);
      }
      case "reasoning-hidden":
        this.#add("hidden", { type: "redacted_thinking", data: event.data }, event.data.length).whole = true;
        return this.#advance();
      case "tool-call-start":
        if (isSameCall(this.#tools.get(event.index), event)) return "";
        this.#tools.set(event.index, this.#add("tool", toolBlock(event), event.id.length + event.name.length));
        return this.#advance();
      case "tool-call-delta":
        return this.#sayArguments(this.#tools.get(event.index), event.arguments);
      case "refusal-delta":
      case "choice-end":
        return "";
      default:
        return event satisfies never;
    }
  }

  /** Everything that is held, and the end of the last block. */
  finish(): string {
    for (const block of this.#blocks) block.whole = true;
    return this.#advance() + this.#close();
  }

  #sayArguments(block: QueuedBlock | undefined, text: string): string {
    if (block === undefined) throw new Problem("upstream_error", { cause: "arguments of a tool call that had not begun" });
    block.arguments.take(text);
    if (block.closed) {
      if (text.trim() !== "") throw new Problem("upstream_error", { cause: "a tool call went on after its arguments were whole" });
      return "";
    }
    block.whole = block.arguments.isWhole;
    return this.#say(block, { type: "input_json_delta", partial_json: text }, text.length);
  }

  /** The block that the newest event belongs to: the last one, if it is of that kind and not whole, else a new one. */
  #last(kind: QueuedBlock["kind"], content: JsonObject): QueuedBlock {
    const last = this.#blocks.at(-1);
    return last !== undefined && last.kind === kind && !last.whole ? last : this.#add(kind, content, 0);
  }

  #add(kind: QueuedBlock["kind"], content: JsonObject, length: number): QueuedBlock {
    const last = this.#blocks.at(-1);
    if (last !== undefined && last.kind !== "tool") last.whole = true;
    const block = { kind, content, whole: false, closed: false, open: false, held: [], heldLength: length, arguments: new JsonEnd() };
    this.#held += length;
    this.#blocks.push(block);
    return block;
  }

  #say(block: QueuedBlock, delta: JsonObject, length: number): string {
    block.held.push(delta);
    block.heldLength += length;
    this.#held += length;
    return this.#advance();
  }

  /** Tells what the first block holds; closes it when it is whole and another waits, and so on. */
  #advance(): string {
    let written = "";
    for (let block = this.#blocks[0]; block !== undefined; block = this.#blocks[0]) {
      if (!block.open) written += write("content_block_start", { index: this.#index, content_block: block.content });
      block.open = true;
      for (const delta of block.held.splice(0)) written += write("content_block_delta", { index: this.#index, delta });
      this.#held -= block.heldLength;
      block.heldLength = 0;
      if (!block.whole || this.#blocks.length === 1) break;
      written += this.#close();
    }
    if (this.#held > MAX_HELD) throw tooMuchHeld();
    return written;
  }

  #close(): string {
    const block = this.#blocks.shift();
    if (block === undefined) return "";
    block.closed = true;
    return write("content_block_stop", { index: this.#index++ });
  }
}

interface QueuedBlock {
  readonly kind: "text" | "thinking" | "hidden" | "tool";
  /** As it starts. */
  readonly content: JsonObject;
  /** Whether nothing more belongs to it. */
  whole: boolean;
  open: boolean;
  closed: boolean;
  readonly held: JsonObject[];
  heldLength: number;
  readonly arguments: JsonEnd;
}

/** Whether a call is begun again, not another: some upstreams repeat a call's id and name, others give every call the index 0. */
function isSameCall(begun: Pick<WholeBlock, "content"> | undefined, { id }: Extract<ModelEvent, { type: "tool-call-start" }>): boolean {
  return begun !== undefined && (id === "" || begun.content["id"] === id);
}

interface WholeBlock {
  readonly kind: QueuedBlock["kind"];
  readonly content: JsonObject;
  text: string;
  signature: string;
}

/** `tools` are the blocks of tool calls, by the index of their newest. */
function gather(blocks: WholeBlock[], tools: Map<number, WholeBlock>, event: ModelEvent): void {
  if (!("choice" in event) || event.choice !== 0) return;
  const add = (kind: WholeBlock["kind"], content: JsonObject): WholeBlock => {
    const block = { kind, content, text: "", signature: "" };
    blocks.push(block);
    return block;
  };
  const last = (kind: WholeBlock["kind"], content: JsonObject): WholeBlock => {
    const block = blocks.at(-1);
    return block !== undefined && block.kind === kind && block.signature === "" ? block : add(kind, content);
  };
  switch (event.type) {
    case "text-delta":
      last("text", TEXT_BLOCK).text += event.text;
      return;
    case "reasoning-delta":
      last("thinking", THINKING_BLOCK).text += event.text;
      return;
    case "reasoning-signature":
      last("thinking", THINKING_BLOCK).signature = event.signature;
      return;
    case "reasoning-hidden":
      add("hidden", { type: "redacted_thinking", data: event.data });
      return;
    case "tool-call-start":
      if (!isSameCall(tools.get(event.index), event)) tools.set(event.index, add("tool", toolBlock(event)));
      return;
    case "tool-call-delta": {
      const block = tools.get(event.index);
      if (block === undefined) throw new Problem("upstream_error", { cause: "arguments of a tool call that had not begun" });
      block.text += event.arguments;
      return;
    }
    case "refusal-delta":
    case "choice-end":
      return;
    default:
      event satisfies never;
  }
}

function renderBlock({ kind, content, text, signature }: WholeBlock): string {
  switch (kind) {
    case "text":
      return JSON.stringify({ ...content, text });
    case "thinking":
      return JSON.stringify({ ...content, thinking: text, signature });
    case "hidden":
      return JSON.stringify(content);
    case "tool": {
      const { input: _, ...others } = content;
      return `${JSON.stringify(others).slice(0, -1)},"input":${inputOf(text)}}`;
    }
    default:
      return kind satisfies never;
  }
}

function inputOf(text: string): string {
  if (text.trim() === "") return "{}";
  try {
    JSON.parse(text);
    return text;
  } catch {
    return JSON.stringify(text);
  }
}

function write(type: string, fields: JsonObject): string {
  return `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`;
}

/** What a `Message` of the SDK's messages.d.ts says besides its content and its end. */
function headOf(start: Extract<ModelEvent, { readonly type: "response-start" }>): JsonObject {
  return { id: start.id, type: "message", role: "assistant", model: start.model, container: null, diagnostics: null };
}

function toolBlock({ id, name }: Extract<ModelEvent, { readonly type: "tool-call-start" }>): JsonObject {
  return { type: "tool_use", id, name, input: {}, caller: { type: "direct" } };
}

function tooMuchHeld(): Problem {
  return new Problem("upstream_error", { cause: "more of an answer had to be held back than may be" });
}

/** As a stream begins: the usage comes with its end, whose figures replace these. */
const UNKNOWN_END: JsonObject = {
  content: [],
  stop_reason: null,
  stop_sequence: null,
  stop_details: null,
  usage: { ...renderUsage(NO_TOKENS), cache_creation: null },
};
const TEXT_BLOCK: JsonObject = { type: "text", text: "", citations: null };
const THINKING_BLOCK: JsonObject = { type: "thinking", thinking: "", signature: "" };
const NO_HEAD = { type: "response-start", id: "", model: "", createdSeconds: 0 } as const;
/** Of one stream, what waits for an earlier block or the end, characters. */
const MAX_HELD = BOUNDS.streamBufferBytes * 4;
