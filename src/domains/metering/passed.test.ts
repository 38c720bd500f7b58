import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import type { ModelEvent } from "../../kernel/events.ts";
import type { Dialect, Frame } from "../../kernel/frame.ts";
import { Tally } from "./passed.ts";

const frameOf = (bytes: string, notable = false, events: readonly ModelEvent[] = []): Frame => ({
  bytes: Buffer.from(bytes),
  notable,
  events: () => events,
});
const chunk = (delta: unknown, indentation?: number) =>
  `data: ${JSON.stringify({ id: "chatcmpl-1", object: "chat.completion.chunk", model: "m", choices: [{ index: 0, delta, logprobs: null, finish_reason: null }], usage: null }, null, indentation)}\n\n`;
const tallied = (frame: Frame, wire: Dialect | null = "openai") => {
  const tally = new Tally();
  tally.add(frame, wire);
  const { outputFrames, outputBytes, atMost } = tally;
  return { outputFrames, outputBytes, atMost };
};

const text = fc.oneof(
  fc.string({ unit: "binary", maxLength: 60 }),
  fc.constantFrom('"delta":{"content":"', '"}', '\\"', '"delta"', '{"a":{"b":"}"}}', "\\", "\n\ndata: [DONE]"),
);
const anyDelta = fc.oneof(
  fc.record({ role: fc.constant("assistant"), content: text }),
  fc.record({ content: text }),
  fc.record({ reasoning_content: text, content: fc.constant(null) }),
  fc.record({
    tool_calls: fc.array(
      fc.record({ index: fc.nat(3), id: fc.string(), type: fc.constant("function"), function: fc.record({ name: text, arguments: text }) }),
      { maxLength: 3 },
    ),
  }),
);

test("the bound of a frame is at least the bytes the model wrote in it, however they are quoted, nested or spaced", () => {
  fc.assert(
    fc.property(fc.array(anyDelta, { minLength: 1, maxLength: 3 }), fc.nat(3), (deltas, indentation) => {
      const bytes = `data: ${JSON.stringify({ model: "m", choices: deltas.map((delta, index) => ({ index, delta, finish_reason: null })) }, null, indentation)}\n\n`;
      const written = deltas.reduce((sum, delta) => sum + writtenBytes(delta), 0);
      const tally = tallied(frameOf(bytes));
      assert.ok(tally.atMost >= written, `${tally.atMost} < ${written} in ${bytes}`);
      assert.ok(tally.outputBytes >= written);
    }),
    { numRuns: 500 },
  );
});

test("the usual frame counts exactly the text it carries", () => {
  assert.deepEqual(tallied(frameOf(chunk({ content: " Hello" }))), { outputFrames: 1, outputBytes: 6, atMost: 6 });
  assert.deepEqual(tallied(frameOf(chunk({}))), { outputFrames: 0, outputBytes: 0, atMost: 0 });
});

test("of an Anthropic delta only what the model wrote counts, and of a message's end nothing", () => {
  const event = (delta: unknown) => frameOf(`event: x\ndata: ${JSON.stringify({ type: "content_block_delta", index: 0, delta })}\n\n`);
  const counted = (delta: unknown) => tallied(event(delta), "anthropic").outputBytes;
  assert.deepEqual(tallied(event({ type: "text_delta", text: " Hello" }), "anthropic"), { outputFrames: 1, outputBytes: 6, atMost: 6 });
  assert.equal(counted({ type: "input_json_delta", partial_json: "{}" }), 2);
  assert.equal(counted({ type: "thinking_delta", thinking: "hm" }), 2);
  assert.equal(counted({ stop_reason: "end_turn", stop_sequence: "END", stop_details: null, container: null }), 0);
  assert.equal(counted({ type: "delta_of_tomorrow", words: "abc" }), 3);
});

test("an opening frame's role, and the id and type of a tool's call, are not the model's writing", () => {
  assert.equal(tallied(frameOf(chunk({ role: "assistant", content: "" }))).outputBytes, 0);
  const call = { index: 0, id: "call_0123456789", type: "function", function: { name: "f", arguments: "{}" } };
  assert.equal(tallied(frameOf(chunk({ tool_calls: [call] }))).outputBytes, 3);
});

test("a frame in which no delta is found is bounded by its length and counted by its events, unless it is one that says something else", () => {
  assert.deepEqual(tallied(frameOf('data: {"choices":[{"text":"abc"}]}\n\n')), { outputFrames: 0, outputBytes: 0, atMost: 36 });
  assert.equal(tallied(frameOf("data: [DONE]\n\n", true, [{ type: "response-end" }])).atMost, 0);
});

test("events without a wire count their text in UTF-8 bytes", () => {
  const events: ModelEvent[] = [
    { type: "text-delta", choice: 0, text: "äö" },
    { type: "tool-call-delta", choice: 0, index: 0, arguments: "{}" },
  ];
  assert.deepEqual(tallied(frameOf("", false, events), null), { outputFrames: 2, outputBytes: 6, atMost: 6 });
});

test("bytes that are cut anywhere are walked without harm", () => {
  const whole = chunk({ content: 'a"b\\' });
  for (let end = 0; end < whole.length; end++) tallied(frameOf(whole.slice(0, end)));
});

function writtenBytes(delta: unknown): number {
  if (typeof delta === "string") return Buffer.byteLength(delta);
  if (typeof delta !== "object" || delta === null) return 0;
  return Object.entries(delta).reduce(
    (sum, [key, value]) => sum + (key === "role" || key === "type" || key === "id" ? 0 : writtenBytes(value)),
    0,
  );
}
