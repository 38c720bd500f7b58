import { createHash } from "node:crypto";
import { textOf, type ChatRequest, type ChatTool } from "../../../kernel/chat.ts";
import type { FinishReason, ModelEvent } from "../../../kernel/events.ts";
import type { ModelRequest } from "../../../kernel/request.ts";
import { NO_TOKENS, type TokenCounts } from "../../../kernel/tokens.ts";
import { SCHEMA_PATHS } from "../dialects/settings.ts";
import { instanceOf } from "./instance.ts";
import { lastUserText, optionsFor, type SimulatedOptions } from "./options.ts";

/** An answer in the making: one step per output token, the last steps without one; then the counts. */
export interface Answer {
  readonly steps: Iterator<readonly ModelEvent[], TokenCounts>;
}

/** So much of a request as its answer is made of: small, however long the request. */
export interface Script {
  readonly options: SimulatedOptions;
  /** The caller's own maximum, tokens; null where it set none. */
  readonly maxOutputTokens: number | null;
  readonly inputTokens: number;
  /** One for each choice, 48 bits. */
  readonly seeds: readonly number[];
  readonly tool: ChatTool | null;
  readonly responseFormat: ChatRequest["responseFormat"];
  readonly paths: SchemaPaths;
  /** How the last message of the user begins. */
  readonly opening: string;
  readonly stop: readonly string[];
}

/** @param deployment the options of the deployment. @throws Problem for a directive that `simulated` does not understand */
export function scriptOf(request: ModelRequest, deployment: Readonly<Record<string, unknown>>): Script {
  const chat = request.chat();
  const options = optionsFor(chat, deployment);
  return {
    options,
    maxOutputTokens: chat.maxOutputTokens,
    inputTokens: countInput(chat),
    seeds: seedsOf(chat),
    tool: toolToCall(chat, options),
    responseFormat: chat.responseFormat,
    paths: SCHEMA_PATHS[request.dialect],
    opening: lastUserText(chat).replaceAll(/\s+/g, " ").slice(0, 60).toWellFormed(),
    stop: chat.stop,
  };
}

/**
 * What `simulated` says: the same for the same request and `seed` (without one, for the same request). Its tokenizer is its own: an input
 * message is 4 tokens and one per 4 UTF-8 bytes begun, tools are one per 4 bytes of their JSON, images, documents and earlier reasoning
 * are none; an output token is up to 4 characters with the white space before them.
 */
export function answer(script: Script, maxTokens: number): Answer {
  return { steps: write(script, maxTokens) };
}

/** The pieces that output is counted and streamed in. Joined they are the text. */
export function pieces(text: string): string[] {
  return text.match(/\s*\S{1,4}|\s+/gu) ?? [];
}

type SchemaPaths = (typeof SCHEMA_PATHS)["openai"];

/** Input tokens of a request, by the tokenizer above. */
export function countInput(chat: ChatRequest): number {
  const tools = chat.tools.map(({ name, description, parameters }) => ({ name, description, parameters }));
  let tokens = tools.length === 0 ? 0 : quarter(JSON.stringify(tools));
  for (const { content } of chat.messages) {
    tokens += 4 + quarter(textOf(content));
    for (const part of content) if (part.kind === "tool-call") tokens += quarter(part.name) + quarter(part.arguments);
  }
  return tokens;
}

function* write(script: Script, maxTokens: number): Generator<readonly ModelEvent[], TokenCounts> {
  const { tool, paths } = script;
  let output = 0;
  for (const [choice, seed] of script.seeds.entries()) {
    const random = seeded(seed);
    const whole = tool === null ? text(script, random) : JSON.stringify(instanceOf(tool.parameters, `${tool.at}.${paths.tool}`));
    const stopped = tool === null ? stopAt(whole, script.stop) : { text: whole, sequence: null };
    const all = pieces(stopped.text);
    const sent = all.slice(0, maxTokens);
    if (tool !== null)
      yield [{ type: "tool-call-start", choice, index: 0, id: `call_simulated_${random().toString(16)}`, name: tool.name }];
    for (const piece of sent)
      yield [tool === null ? { type: "text-delta", choice, text: piece } : { type: "tool-call-delta", choice, index: 0, arguments: piece }];
    output += sent.length;
    const reason: FinishReason = sent.length < all.length ? "length" : tool === null ? "stop" : "tool_calls";
    yield [{ type: "choice-end", choice, reason, stopSequence: reason === "stop" ? stopped.sequence : null }];
  }
  return { ...NO_TOKENS, input_uncached: script.inputTokens, output };
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

function text({ responseFormat, paths, options, opening }: Script, random: () => number): string {
  if (responseFormat.kind === "json_schema") return JSON.stringify(instanceOf(responseFormat.schema, paths.answer));
  if (responseFormat.kind === "json") return JSON.stringify({ simulated: true, number: random() % 1000 });
  const wanted = options.output_tokens ?? 24 + (random() % 73);
  const made = pieces(`[simulated] A simulated answer to "${opening}":`);
  while (made.length < wanted) made.push(...pieces(` ${WORDS[random() % WORDS.length] ?? ""}`));
  return made.slice(0, wanted).join("");
}

/** The text up to the stop sequence that comes first in it, and that sequence; null where none does. */
function stopAt(whole: string, stops: readonly string[]): { readonly text: string; readonly sequence: string | null } {
  const found = stops
    .filter((stop) => stop !== "" && whole.includes(stop))
    .toSorted((left, right) => whole.indexOf(left) - whole.indexOf(right));
  const [sequence] = found;
  return sequence === undefined ? { text: whole, sequence: null } : { text: whole.slice(0, whole.indexOf(sequence)), sequence };
}

function seedsOf(chat: ChatRequest): number[] {
  // Where the caller wrote a thing is no part of what it said: callers of all dialects are answered alike.
  const withoutPlaces = (key: string, value: unknown): unknown => (key === "at" ? undefined : value);
  const said = JSON.stringify([chat.messages, chat.tools.map((tool) => tool.name)], withoutPlaces).slice(1);
  return Array.from({ length: chat.choices }, (_, choice) =>
    createHash("sha256").update(`[${chat.seed},${choice},`).update(said).digest().readUIntBE(0, 6),
  );
}

/** Whole numbers below 2^31, by a linear congruence over 48 bits. */
function seeded(seed: number): () => number {
  let state = BigInt(seed);
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
