import { test } from "node:test";
import assert from "node:assert/strict";
import type Anthropic from "@anthropic-ai/sdk";
import fc from "fast-check";
import type { FinishReason, ModelEvent } from "../../../../kernel/events.ts";
import type { Frame } from "../../../../kernel/frame.ts";
import { Problem } from "../../../../kernel/problem.ts";
import { NO_TOKENS } from "../../../../kernel/tokens.ts";
import { readAsAnthropic } from "../../testing/official-clients.ts";
import { createMessageRenderer, renderMessage } from "./render.ts";
import { anthropicWire } from "./wire.ts";

const START: ModelEvent = { type: "response-start", id: "msg_1", model: "m", createdSeconds: 0 };
const USAGE: ModelEvent = {
  type: "usage",
  usage: { source: "reported", tokens: { ...NO_TOKENS, input_uncached: 5, cache_read: 4, cache_write_5m: 6, output: 3, reasoning: 2 } },
};
const END: ModelEvent = { type: "response-end" };

const text = fc.string({ unit: "grapheme", minLength: 1 });
/** A tool's arguments, in pieces. */
const argumentPieces = fc
  .tuple(fc.dictionary(fc.string(), fc.jsonValue()), fc.array(fc.nat({ max: 60 }), { maxLength: 3 }))
  .map(([input, cuts]) => pieces(JSON.stringify(input), cuts));
const spoken: fc.Arbitrary<readonly ModelEvent[]> = fc.oneof(
  text.map((said): ModelEvent[] => [{ type: "text-delta", choice: 0, text: said }]),
  text.map((said): ModelEvent[] => [{ type: "reasoning-delta", choice: 0, text: said }]),
  fc.tuple(text, text).map(([said, signature]): ModelEvent[] => [
    { type: "reasoning-delta", choice: 0, text: said },
    { type: "reasoning-signature", choice: 0, signature },
  ]),
  text.map((data): ModelEvent[] => [{ type: "reasoning-hidden", choice: 0, data }]),
);

test("what is rendered parses back to the same events, however they are grouped into writes", () => {
  const called = fc
    .tuple(text, text, argumentPieces)
    .map(([id, name, written]): ModelEvent[] => [
      { type: "tool-call-start", choice: 0, index: 0, id, name },
      ...written.map((piece): ModelEvent => ({ type: "tool-call-delta", choice: 0, index: 0, arguments: piece })),
    ]);
  const end = fc.constantFrom<readonly [FinishReason, string | null]>(["length", null], ["tool_calls", null], ["content_filter", null]);
  fc.assert(
    fc.property(
      fc.array(fc.oneof({ weight: 3, arbitrary: spoken }, called), { maxLength: 8 }),
      end,
      fc.boolean(),
      (parts, [reason, stopSequence], asOne) => {
        const events: ModelEvent[] = [START, ...countTools(parts), { type: "choice-end", choice: 0, reason, stopSequence }, USAGE, END];
        const parsed = parse(render(events, asOne)).filter((event) => event.type !== "usage");
        assert.deepEqual(
          parsed,
          events.filter((event) => event.type !== "usage"),
        );
        const whole = anthropicWire.whole(renderMessage(events)).events();
        assert.deepEqual(merged(whole), merged(events));
      },
    ),
  );
});

test("parallel tool calls whose arguments interleave become blocks one after another, and the official SDK puts together each call's own input", async () => {
  const calls = fc.array(argumentPieces, { minLength: 2, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(calls, fc.array(fc.nat(), { maxLength: 40 }), fc.boolean(), async (written, picks, saysText) => {
      const queues = written.map((parts, index): ModelEvent[] => [
        { type: "tool-call-start", choice: 0, index, id: `call_${index}`, name: `tool_${index}` },
        ...parts.map((piece): ModelEvent => ({ type: "tool-call-delta", choice: 0, index, arguments: piece })),
        ...(saysText ? [{ type: "text-delta" as const, choice: 0, text: `after ${index}.` }] : []),
      ]);
      const events = [
        START,
        ...interleave(queues, picks),
        { type: "choice-end" as const, choice: 0, reason: "tool_calls" as const, stopSequence: null },
        USAGE,
        END,
      ];
      const bytes = render(events, false);
      parse(bytes);
      const { message } = await readAsAnthropic({ pieces: [bytes], broke: false });
      assert.deepEqual(inputs(message), Object.fromEntries(written.map((parts, index) => [`call_${index}`, JSON.parse(parts.join(""))])));
      assert.deepEqual(inputs(JSON.parse(renderMessage(events).toString()) as Anthropic.Message), inputs(message));
    }),
    { numRuns: 150 },
  );
});

test("a call's arguments are told as they come, and the next call's as soon as the earlier's are whole", () => {
  const { render: write } = createMessageRenderer();
  const call = (index: number): ModelEvent => ({ type: "tool-call-start", choice: 0, index, id: `t${index}`, name: "f" });
  const said = (index: number, piece: string): ModelEvent => ({ type: "tool-call-delta", choice: 0, index, arguments: piece });
  const told = (event: ModelEvent): string => write([event]).toString();
  told(START);
  assert.match(told(call(0)), /"index":0,"content_block":\{"type":"tool_use"/);
  assert.match(told(said(0, '{"a":"}')), /"partial_json":"\{\\"a\\":\\"\}"/);
  assert.equal(told(call(1)), "");
  assert.equal(told(said(1, '{"b":')), "");
  assert.match(told(said(0, '"}')), /"index":0.*content_block_stop.*"index":1,"content_block".*\{\\"b\\":/s);
  assert.match(told(said(1, "1}")), /"index":1.*"partial_json":"1\}"/);
  assert.equal(told(said(0, "\n")), "");
  assert.throws(() => told(said(0, "more")), Problem);
  assert.throws(() => told(said(7, "{}")), Problem);
});

test("what must be held back has a bound, beyond which the stream fails", () => {
  const { render: write } = createMessageRenderer();
  write([
    START,
    { type: "tool-call-start", choice: 0, index: 0, id: "a", name: "f" },
    { type: "tool-call-start", choice: 0, index: 1, id: "b", name: "g" },
  ]);
  const piece: ModelEvent = { type: "tool-call-delta", choice: 0, index: 1, arguments: `"${"x".repeat(65_536)}` };
  assert.throws(() => {
    for (let sent = 0; sent < 64; sent++) write([piece]);
  }, Problem);
});

test("finish reasons become stop reasons, and a stop that called a tool says so", async () => {
  const text0: ModelEvent = { type: "text-delta", choice: 0, text: "a" };
  const tool: ModelEvent = { type: "tool-call-start", choice: 0, index: 0, id: "t", name: "f" };
  const refused: ModelEvent = { type: "refusal-delta", choice: 0, text: "I can't" };
  const cases: readonly (readonly [ModelEvent, FinishReason, string | null, Anthropic.StopReason])[] = [
    [text0, "stop", null, "end_turn"],
    [text0, "stop", "END", "stop_sequence"],
    [text0, "length", null, "max_tokens"],
    [tool, "tool_calls", null, "tool_use"],
    [tool, "stop", null, "tool_use"],
    [tool, "length", null, "max_tokens"],
    [text0, "content_filter", null, "refusal"],
    [refused, "stop", null, "refusal"],
  ];
  for (const [said, reason, stopSequence, expected] of cases) {
    const events: ModelEvent[] = [START, said, { type: "choice-end", choice: 0, reason, stopSequence }, USAGE, END];
    const streamed = (await readAsAnthropic({ pieces: [render(events, false)], broke: false })).message;
    const whole = JSON.parse(renderMessage(events).toString()) as Anthropic.Message;
    for (const message of [streamed, whole]) {
      assert.equal(message?.stop_reason, expected, reason);
      assert.equal(message.stop_sequence, expected === "stop_sequence" ? "END" : null);
      const explanation: string | null = said === refused ? "I can't" : null;
      assert.deepEqual(message.stop_details, expected === "refusal" ? { type: "refusal", category: null, explanation } : null);
    }
  }
});

test("the usage that comes last is what the official SDK shows, and a whole message has it in full", async () => {
  const events: ModelEvent[] = [
    START,
    { type: "text-delta", choice: 0, text: "a" },
    { type: "choice-end", choice: 0, reason: "stop", stopSequence: null },
    USAGE,
    END,
  ];
  const { message } = await readAsAnthropic({ pieces: [render(events, true)], broke: false });
  const reported = {
    input_tokens: 5,
    cache_creation_input_tokens: 6,
    cache_read_input_tokens: 4,
    output_tokens: 5,
    output_tokens_details: { thinking_tokens: 2 },
    server_tool_use: null,
    inference_geo: null,
    service_tier: null,
    speed: null,
  };
  assert.deepEqual(message?.usage, { ...reported, cache_creation: null });
  const whole: Anthropic.Message = {
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "m",
    container: null,
    diagnostics: null,
    content: [{ type: "text", text: "a", citations: null }],
    stop_reason: "end_turn",
    stop_sequence: null,
    stop_details: null,
    usage: { ...reported, cache_creation: { ephemeral_1h_input_tokens: 0, ephemeral_5m_input_tokens: 6 } },
  };
  assert.deepEqual(JSON.parse(renderMessage(events).toString()), whole);
});

test("a whole tool input keeps its digits; arguments that are not JSON are the input as text; none are an empty object", () => {
  const inputOf = (written: string): string => {
    const events: ModelEvent[] = [
      START,
      { type: "tool-call-start", choice: 0, index: 0, id: "t", name: "f" },
      { type: "tool-call-delta", choice: 0, index: 0, arguments: written },
      END,
    ];
    return /"input":(.*)\}\]\}$/.exec(renderMessage(events).toString())?.[1] ?? "";
  };
  assert.equal(inputOf('{"n":12345678901234567890,"z":1.0}'), '{"n":12345678901234567890,"z":1.0}');
  assert.equal(inputOf('{"n":'), '"{\\"n\\":"');
  assert.equal(inputOf(" "), "{}");
});

test("nothing ends the stream but its end", async () => {
  const events: ModelEvent[] = [
    START,
    { type: "text-delta", choice: 0, text: "a" },
    { type: "choice-end", choice: 0, reason: "stop", stopSequence: null },
    USAGE,
  ];
  const { clean } = await readAsAnthropic({ pieces: [render(events, false)], broke: false });
  assert.equal(clean, false);
});

function render(events: readonly ModelEvent[], asOne: boolean): Buffer {
  const renderer = createMessageRenderer();
  return asOne ? renderer.render(events) : Buffer.concat(events.map((event) => renderer.render([event])));
}

function parse(bytes: Buffer): ModelEvent[] {
  const frames: Frame[] = [];
  assert.equal(anthropicWire.decoder().push(bytes, frames), "done");
  assert.equal(Buffer.concat(frames.map((frame) => frame.bytes)).toString(), bytes.toString());
  return frames.flatMap((frame) => frame.events());
}

/** Tools are numbered as they come. */
function countTools(parts: readonly (readonly ModelEvent[])[]): ModelEvent[] {
  let tools = 0;
  return parts.flatMap((part) => {
    const index = part[0]?.type === "tool-call-start" ? tools++ : 0;
    return part.map((event) => ("index" in event ? { ...event, index } : event));
  });
}

/** Neighbouring deltas as one: what a whole answer says at once. */
function merged(events: readonly ModelEvent[]): ModelEvent[] {
  const result: ModelEvent[] = [];
  for (const event of events) {
    const last = result.at(-1);
    if (event.type === "text-delta" && last?.type === event.type) result[result.length - 1] = { ...last, text: last.text + event.text };
    else if (event.type === "reasoning-delta" && last?.type === event.type)
      result[result.length - 1] = { ...last, text: last.text + event.text };
    else if (event.type === "tool-call-delta" && last?.type === event.type && last.index === event.index)
      result[result.length - 1] = { ...last, arguments: last.arguments + event.arguments };
    else result.push(event);
  }
  return result;
}

function interleave(queues: readonly ModelEvent[][], picks: readonly number[]): ModelEvent[] {
  const left = queues.map((queue) => [...queue]);
  const result: ModelEvent[] = [];
  for (let turn = 0; left.some((queue) => queue.length > 0); turn++) {
    const open = left.filter((queue) => queue.length > 0);
    const event = open[(picks[turn] ?? 0) % open.length]?.shift();
    if (event !== undefined) result.push(event);
  }
  return result;
}

function pieces(whole: string, cuts: readonly number[]): string[] {
  const at = [...new Set(cuts.map((cut) => cut % whole.length))].filter((cut) => cut > 0).toSorted((a, b) => a - b);
  return [0, ...at].map((start, index) => whole.slice(start, at[index] ?? whole.length));
}

function inputs(message: Anthropic.Message | null): Record<string, unknown> {
  const calls = message?.content.filter((block) => block.type === "tool_use") ?? [];
  return Object.fromEntries(calls.map((block) => [block.id, JSON.parse(JSON.stringify(block.input)) as unknown]));
}

test("parallel calls that all have the index 0 stay apart, streamed and whole", async () => {
  const call = (id: string, written: string): ModelEvent[] => [
    { type: "tool-call-start", choice: 0, index: 0, id, name: `f${id}` },
    // Some upstreams repeat what a call is.
    { type: "tool-call-start", choice: 0, index: 0, id, name: `f${id}` },
    { type: "tool-call-delta", choice: 0, index: 0, arguments: written },
  ];
  const events: ModelEvent[] = [
    START,
    ...call("a", '{"x":1}'),
    ...call("b", '{"y":2}'),
    { type: "choice-end", choice: 0, reason: "tool_calls", stopSequence: null },
    END,
  ];
  const called = (content: readonly Anthropic.ContentBlock[]): unknown[] =>
    content.map((block) => block.type === "tool_use" && [block.id, block.name, block.input]);
  const expected = [
    ["a", "fa", { x: 1 }],
    ["b", "fb", { y: 2 }],
  ];
  const whole = JSON.parse(renderMessage(events).toString()) as Anthropic.Message;
  assert.deepEqual(called(whole.content), expected);
  const streamed = anthropicWire.decoder();
  const frames: Frame[] = [];
  const renderer = createMessageRenderer();
  for (const event of events) streamed.push(renderer.render([event]), frames);
  const starts = frames.flatMap((frame) => frame.events()).filter((event) => event.type === "tool-call-start");
  assert.deepEqual(
    starts.map(({ id, index }) => [id, index]),
    [
      ["a", 0],
      ["b", 1],
    ],
  );
});
