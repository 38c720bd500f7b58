import { createHash } from "node:crypto";
import type { ChatRequest, ChatTool } from "../../../kernel/chat.ts";
import type { FinishReason, ModelEvent } from "../../../kernel/events.ts";
import { NO_TOKENS, type TokenCounts } from "../../../kernel/tokens.ts";
import { instanceOf } from "./instance.ts";
import { lastUserText, type SimulatedOptions } from "./options.ts";

/** An answer in the making: one step per output token, the last steps without one; then the counts. */
export interface Answer {
  readonly steps: Iterator<readonly ModelEvent[], TokenCounts>;
}

/**
 * What `simulated` says: the same for the same request and `seed` (without one, for the same request). Its tokenizer is its own: an input
 * message is 4 tokens and one per 4 UTF-8 bytes begun, tools are one per 4 bytes of their JSON; an output token is up to
 * 4 characters with the white space before them.
 */
export function answer(chat: ChatRequest, options: SimulatedOptions, maxTokens: number): Answer {
  return { steps: write(chat, options, maxTokens) };
}

/** The pieces that output is counted and streamed in. Joined they are the text. */
export function pieces(text: string): string[] {
  return text.match(/\s*\S{1,4}|\s+/gu) ?? [];
}

function countInput(chat: ChatRequest): number {
  let tokens = chat.tools.length === 0 ? 0 : quarter(JSON.stringify(chat.tools));
  for (const message of chat.messages) {
    tokens += 4 + quarter(message.text);
    if (message.role === "assistant") for (const call of message.toolCalls) tokens += quarter(call.name) + quarter(call.arguments);
  }
  return tokens;
}

function* write(chat: ChatRequest, options: SimulatedOptions, maxTokens: number): Generator<readonly ModelEvent[], TokenCounts> {
  let output = 0;
  for (let choice = 0; choice < chat.choices; choice++) {
    const random = seeded(chat, choice);
    const tool = toolToCall(chat, options);
    const whole = tool === null ? text(chat, options, random) : JSON.stringify(instanceOf(tool.parameters, "tools"));
    const stopped = tool === null ? stopAt(whole, chat.stop) : whole;
    const all = pieces(stopped);
    const sent = all.slice(0, maxTokens);
    if (tool !== null)
      yield [{ type: "tool-call-start", choice, index: 0, id: `call_simulated_${random().toString(16)}`, name: tool.name }];
    for (const piece of sent)
      yield [tool === null ? { type: "text-delta", choice, text: piece } : { type: "tool-call-delta", choice, index: 0, arguments: piece }];
    output += sent.length;
    const reason: FinishReason = sent.length < all.length ? "length" : tool === null ? "stop" : "tool_calls";
    yield [{ type: "choice-end", choice, reason }];
  }
  return { ...NO_TOKENS, input_uncached: countInput(chat), output };
}

/** A tool is called when `tool_choice` demands one, when the prompt names it, or when a directive says `tool` — but a result is answered in words. */
function toolToCall(chat: ChatRequest, options: SimulatedOptions): ChatTool | null {
  const { toolChoice, tools } = chat;
  if (toolChoice === "none") return null;
  if (typeof toolChoice === "object") return tools.find((tool) => tool.name === toolChoice.name) ?? null;
  if (toolChoice === "required") return tools[0] ?? null;
  if (chat.messages.at(-1)?.role === "tool") return null;
  const prompt = lastUserText(chat);
  return tools.find((tool) => prompt.includes(tool.name)) ?? (options.tool ? (tools[0] ?? null) : null);
}

function text(chat: ChatRequest, options: SimulatedOptions, random: () => number): string {
  if (chat.responseFormat.kind === "json_schema")
    return JSON.stringify(instanceOf(chat.responseFormat.schema, "response_format.json_schema.schema"));
  if (chat.responseFormat.kind === "json") return JSON.stringify({ simulated: true, number: random() % 1000 });
  const wanted = options.output_tokens ?? 24 + (random() % 73);
  const made = pieces(`[simulated] A simulated answer to "${lastUserText(chat).replaceAll(/\s+/g, " ").slice(0, 60).toWellFormed()}":`);
  while (made.length < wanted) made.push(...pieces(` ${WORDS[random() % WORDS.length] ?? ""}`));
  return made.slice(0, wanted).join("");
}

function stopAt(whole: string, stops: readonly string[]): string {
  const found = stops
    .filter((stop) => stop !== "")
    .map((stop) => whole.indexOf(stop))
    .filter((index) => index !== -1);
  return found.length === 0 ? whole : whole.slice(0, Math.min(...found));
}

/** Whole numbers below 2^31, by a linear congruence over 48 bits. */
function seeded(chat: ChatRequest, choice: number): () => number {
  const hash = createHash("sha256")
    .update(JSON.stringify([chat.seed, choice, chat.messages, chat.tools.map((tool) => tool.name)]))
    .digest();
  let state = BigInt(hash.readUIntBE(0, 6));
  return () => {
    state = (state * 25_214_903_917n + 11n) & 0xffff_ffff_ffffn;
    return Number(state >> 17n);
  };
}

function quarter(text: string): number {
  return Math.ceil(Buffer.byteLength(text) / 4);
}

const WORDS =
  "amber basin cedar delta ember field grove harbor island jasper kettle lantern meadow north orchard pebble quarry river stone timber umber valley willow yarrow".split(
    " ",
  );
