import type { Dialect } from "../../src/kernel/frame.ts";
import {
  blockDelta,
  blockStart,
  blockStop,
  MESSAGE_START,
  MESSAGE_STOP,
  messageDelta,
  messageEvent,
  TEXT_BLOCK,
} from "../../src/domains/providers/testing/scripted-messages.ts";
import { chunkOf, DONE, sse, STOP_CHUNK, textChunk, USAGE } from "../../src/domains/providers/testing/scripted-upstream.ts";

/** What an upstream sends, made up from a seed, and what a judge may know of it. */
export interface HostileStream {
  readonly dialect: Dialect;
  /** In the pieces in which it arrives: cut anywhere, inside characters and line ends too. */
  readonly pieces: readonly Buffer[];
  /** What was done to it. */
  readonly tricks: readonly string[];
  /** The whole answer's text, where every trick leaves the meaning as it was; null where one does not. */
  readonly meant: string | null;
}

/** The same seed gives the same stream. */
export function hostileStream(seed: number): HostileStream {
  const random = generator(seed);
  const dialect: Dialect = random(2) === 0 ? "openai" : "anthropic";
  const texts = Array.from({ length: random(5) }, () => pick(random, TEXTS));
  const state: State = { random, dialect, events: eventsOf(dialect, texts), tricks: [], keepsMeaning: true };
  for (let count = random(4); count > 0; count--) play(state, pick(random, EVENT_TRICKS));
  let bytes: Buffer = Buffer.from(state.events.join(""));
  for (let count = random(3); count > 0; count--) {
    const trick = pick(random, BYTE_TRICKS);
    state.tricks.push(trick.name);
    state.keepsMeaning &&= trick.keepsMeaning;
    bytes = trick.play(bytes, state);
  }
  return { dialect, pieces: cut(bytes, random), tricks: state.tricks, meant: state.keepsMeaning ? texts.join("") : null };
}

/** A number below `below`, evenly enough. */
type Random = (below: number) => number;

interface State {
  readonly random: Random;
  readonly dialect: Dialect;
  events: string[];
  readonly tricks: string[];
  keepsMeaning: boolean;
}

/** `keepsMeaning`: whether a reader by the standard finds the same answer, whole, afterwards. */
interface Trick<Of> {
  readonly name: string;
  readonly keepsMeaning: boolean;
  readonly play: (what: Of, state: State) => Of;
}

function play(state: State, trick: Trick<string[]>): void {
  state.tricks.push(trick.name);
  state.keepsMeaning &&= trick.keepsMeaning;
  state.events = trick.play(state.events, state);
}

function eventsOf(dialect: Dialect, texts: readonly string[]): string[] {
  if (dialect === "openai") {
    const opening = sse(chunkOf([{ index: 0, delta: { role: "assistant", content: "" }, finish_reason: null }]));
    return [opening, ...texts.map((text) => sse(textChunk(text))), sse(STOP_CHUNK), sse(chunkOf([], USAGE)), DONE];
  }
  const deltas = texts.map((text) => blockDelta(0, { type: "text_delta", text }));
  return [
    messageEvent(MESSAGE_START),
    blockStart(0, TEXT_BLOCK),
    ...deltas,
    blockStop(0),
    messageDelta("end_turn"),
    messageEvent(MESSAGE_STOP),
  ];
}

/** What a model may say: the protocol itself, and what parsers trip over. */
const TEXTS: readonly string[] = [
  "plain ",
  "\n\ndata: [DONE]\n\n",
  'event: message_stop\ndata: {"type":"message_stop"}\n\n',
  '{"error":{"message":"x"}}',
  '"finish_reason":"stop"',
  '"type":"content_block_stop"',
  "\r\n\r",
  "\ufeff",
  "\u2028\u2029\u0085",
  "😀é漢",
  '\\" \\\\ \\u0022',
  "[DONE]",
  "\u0000\u001f",
  " ",
];

const ERROR_EVENT: Readonly<Record<Dialect, string>> = {
  openai: 'data: {"error":{"message":"overloaded","code":503}}\n\n',
  anthropic: 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"overloaded"}}\n\n',
};

const EVENT_TRICKS: readonly Trick<string[]>[] = [
  {
    name: "comments",
    keepsMeaning: true,
    play: (events, { random }) => insert(events, random(events.length + 1), pick(random, [": hello\n\n", ":\n", ": data: [DONE]\n\n"])),
  },
  {
    name: "fields that nobody reads",
    keepsMeaning: true,
    play: (events, { random }) => change(events, random(events.length), (event) => `id: 7\nretry: 1\n${event}`),
  },
  {
    name: "an event without data",
    keepsMeaning: true,
    play: (events, { random }) =>
      insert(events, random(events.length + 1), pick(random, ["event: message_stop\n\n", "event: ping\n\n", "\n"])),
  },
  {
    name: "a block that a BOM hides",
    keepsMeaning: true,
    play: (events, { random }) => insert(events, 1 + random(events.length - 1), "\ufeffdata: [DONE]\n\n"),
  },
  {
    name: "several data lines",
    keepsMeaning: true,
    play: (events, { random }) => change(events, random(events.length), (event) => event.replace(/^data: \{/m, "data: {\ndata: ")),
  },
  {
    name: "spaces where Anthropic pads",
    keepsMeaning: true,
    play: (events, { random }) => change(events, random(events.length), (event) => event.replace(/\}\n\n$/, "     }\n\n")),
  },
  {
    name: "an error",
    keepsMeaning: false,
    play: (events, { random, dialect }) => insert(events, random(events.length), ERROR_EVENT[dialect]),
  },
  { name: "an event missing", keepsMeaning: false, play: (events, { random }) => events.toSpliced(random(events.length), 1) },
  { name: "no end", keepsMeaning: false, play: (events) => events.slice(0, -1) },
  {
    name: "an event twice",
    keepsMeaning: false,
    play: (events, { random }) => insert(events, random(events.length), events[random(events.length)] ?? ""),
  },
  { name: "two events changed places", keepsMeaning: false, play: (events, { random }) => swap(events, random(events.length - 1)) },
  {
    name: "an end too early",
    keepsMeaning: false,
    play: (events, { random }) => insert(events, random(events.length), events.at(-1) ?? ""),
  },
  {
    name: "another name",
    keepsMeaning: false,
    play: (events, { random }) =>
      change(
        events,
        random(events.length),
        (event) => `event: ${pick(random, ["ping", "error", "message_stop", "thread.x"])}\n${event.replace(/^event: .*\n/, "")}`,
      ),
  },
  {
    name: "no name",
    keepsMeaning: true,
    play: (events, { random }) => change(events, random(events.length), (event) => event.replace(/^event: .*\n/m, "")),
  },
  {
    name: "no JSON",
    keepsMeaning: false,
    play: (events, { random }) =>
      insert(
        events,
        random(events.length),
        pick(random, ["data: {oops}\n\n", "data: garbage\n\n", "data: []\n\n", "data: null\n\n", "data: {\n\n"]),
      ),
  },
  {
    name: "a bad escape",
    keepsMeaning: false,
    play: (events, { random }) => change(events, random(events.length), (event) => event.replace(/("content"|"text"): ?"/, "$&\\x")),
  },
  {
    name: "text after the end",
    keepsMeaning: true,
    play: (events, { random }) => [...events, pick(random, ["garbage", "data: {}\n\n", events[1] ?? "", "\n\n"])],
  },
];

const BYTE_TRICKS: readonly Trick<Buffer>[] = [
  { name: "CRLF", keepsMeaning: true, play: (bytes) => Buffer.from(bytes.toString("latin1").replaceAll(/\r\n|\n|\r/g, "\r\n"), "latin1") },
  { name: "bare CR", keepsMeaning: true, play: (bytes) => Buffer.from(bytes.toString("latin1").replaceAll(/\r\n|\n|\r/g, "\r"), "latin1") },
  {
    name: "mixed line ends",
    keepsMeaning: true,
    play: (bytes, { random }) =>
      Buffer.from(
        bytes.toString("latin1").replaceAll(/\r\n|\n|\r/g, () => pick(random, ["\n", "\r\n"])),
        "latin1",
      ),
  },
  {
    name: "no space after the colon",
    keepsMeaning: true,
    play: (bytes) => Buffer.from(bytes.toString("latin1").replaceAll(/^(data|event): /gm, "$1:"), "latin1"),
  },
  { name: "BOM", keepsMeaning: true, play: (bytes) => (bytes[0] === 0xef ? bytes : Buffer.concat([Buffer.from("\ufeff"), bytes])) },
  { name: "no blank line at the end", keepsMeaning: false, play: (bytes) => Buffer.from(bytes.toString("latin1").trimEnd(), "latin1") },
  { name: "cut short", keepsMeaning: false, play: (bytes, { random }) => bytes.subarray(0, random(bytes.length + 1)) },
  {
    name: "a byte changed",
    keepsMeaning: false,
    play: (bytes, { random }) => {
      const changed = Buffer.from(bytes);
      if (changed.length > 0)
        changed[random(changed.length)] = pick(random, [0x0a, 0x0d, 0x20, 0x22, 0x3a, 0x5c, 0x7b, 0x7d, 0xff, 0x00, random(256)]);
      return changed;
    },
  },
];

/** What a reader by the HTML standard and the dialect's own rules makes of the whole bytes: slow, simple, and none of our code. */
export function reference(dialect: Dialect, bytes: Buffer): { readonly whole: boolean; readonly text: string } {
  const payloads = payloadsOf(new TextDecoder("utf-8").decode(bytes));
  let text = "";
  let stopped = false;
  const blocks: unknown[] = [];
  for (const { name, data } of payloads) {
    if (dialect === "openai" && data === "[DONE]") return { whole: stopped, text };
    let event: Readonly<Record<string, unknown>>;
    try {
      event = JSON.parse(data) as typeof event;
    } catch {
      return { whole: false, text };
    }
    if (event === null || typeof event !== "object" || name === "error" || event["error"] !== undefined || event["type"] === "error")
      return { whole: false, text };
    const said = dialect === "openai" ? chunkSays(event) : messageSays(event, blocks);
    text += said.text;
    stopped ||= said.stopped;
    if (event["type"] === "message_stop") return { whole: stopped, text };
  }
  return { whole: false, text };
}

interface Said {
  readonly text: string;
  readonly stopped: boolean;
}

function chunkSays(event: Readonly<Record<string, unknown>>): Said {
  const { choices } = event as { choices?: readonly { delta?: { content?: unknown }; finish_reason?: unknown }[] };
  const choice = Array.isArray(choices) ? choices[0] : undefined;
  return {
    text: typeof choice?.delta?.content === "string" ? choice.delta.content : "",
    stopped: typeof choice?.finish_reason === "string",
  };
}

/** A text belongs to the message when its block is one of text: `blocks` are the types of those that have begun. */
function messageSays(event: Readonly<Record<string, unknown>>, blocks: unknown[]): Said {
  const { type, index, content_block, delta } = event as {
    type?: unknown;
    index?: unknown;
    content_block?: { type?: unknown };
    delta?: { type?: unknown; text?: unknown; stop_reason?: unknown };
  };
  if (type === "content_block_start") blocks.push(content_block?.type);
  const isText = type === "content_block_delta" && delta?.type === "text_delta" && blocks[Number(index)] === "text";
  return {
    text: isText && typeof delta.text === "string" ? delta.text : "",
    stopped: type === "message_delta" && typeof delta?.stop_reason === "string",
  };
}

function payloadsOf(text: string): { readonly name: string; readonly data: string }[] {
  const payloads: { name: string; data: string }[] = [];
  let name = "";
  let data: string[] = [];
  for (const line of [...text.split(/\r\n|\n|\r/), ""]) {
    if (line === "") {
      if (data.length > 0) payloads.push({ name, data: data.join("\n") });
      name = "";
      data = [];
      continue;
    }
    const [, field, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (field === "data") data.push(value);
    else if (field === "event") name = value.trim();
  }
  return payloads;
}

function cut(bytes: Buffer, random: Random): Buffer[] {
  const style = random(8);
  if (style === 0) return [bytes];
  const most = style === 1 ? 1 : style < 4 ? 20 : 400;
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = 1 + random(most);
    pieces.push(bytes.subarray(at, at + length));
    at += length;
  }
  return pieces;
}

function insert(events: readonly string[], at: number, event: string): string[] {
  return events.toSpliced(at, 0, event);
}

function change(events: readonly string[], at: number, by: (event: string) => string): string[] {
  const event = events[at];
  return event === undefined ? [...events] : events.with(at, by(event));
}

function swap(events: readonly string[], at: number): string[] {
  const [first, second] = [events[at], events[at + 1]];
  return first === undefined || second === undefined ? [...events] : events.with(at, second).with(at + 1, first);
}

function pick<Item>(random: Random, items: readonly Item[]): Item {
  return items[random(items.length)] as Item;
}

/** mulberry32. */
function generator(seed: number): Random {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * Math.max(1, below));
  };
}
