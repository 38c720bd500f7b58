import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import type OpenAI from "openai";
import type { ModelEvent } from "../../../../kernel/events.ts";
import type { Frame } from "../../../../kernel/frame.ts";
import { Problem } from "../../../../kernel/problem.ts";
import type { Json, JsonObject } from "../../../../kernel/request.ts";
import { NO_TOKENS } from "../../../../kernel/tokens.ts";
import { withoutPlaces } from "../../testing/chat-requests.ts";
import { toChat } from "./chat.ts";
import { createChunkRenderer, renderWhole } from "./render.ts";
import { openaiWire } from "./wire.ts";

const START: ModelEvent = { type: "response-start", id: "chatcmpl-1", model: "m", createdSeconds: 1 };
const USAGE: ModelEvent = {
  type: "usage",
  usage: { source: "reported", tokens: { ...NO_TOKENS, input_uncached: 5, cache_read: 4, output: 3, reasoning: 2 } },
};
const OPTIONS = { includeUsage: true, systemFingerprint: null };

const text = fc.string({ unit: "grapheme", minLength: 1 });
const choice = fc.nat({ max: 2 });
const delta: fc.Arbitrary<ModelEvent> = fc.oneof(
  fc.record({ type: fc.constant("text-delta" as const), choice, text }),
  fc.record({ type: fc.constant("reasoning-delta" as const), choice, text }),
  fc.record({ type: fc.constant("reasoning-signature" as const), choice, signature: text }),
  fc.record({ type: fc.constant("reasoning-hidden" as const), choice, data: text }),
  fc.record({ type: fc.constant("refusal-delta" as const), choice, text }),
  fc.record({ type: fc.constant("tool-call-start" as const), choice, index: fc.nat({ max: 3 }), id: text, name: text }),
  fc.record({ type: fc.constant("tool-call-delta" as const), choice, index: fc.nat({ max: 3 }), arguments: text }),
);

test("what is rendered parses back to the same events, however they are grouped into writes", () => {
  fc.assert(
    fc.property(fc.array(delta, { maxLength: 12 }), fc.boolean(), (deltas, asOne) => {
      const events: ModelEvent[] = [
        START,
        ...deltas,
        { type: "choice-end", choice: 0, reason: "length", stopSequence: null },
        USAGE,
        { type: "response-end" },
      ];
      const renderer = createChunkRenderer(OPTIONS);
      const bytes = asOne ? renderer.render(events) : Buffer.concat(events.map((event) => renderer.render([event])));
      const frames: Frame[] = [];
      assert.equal(openaiWire.decoder().push(bytes, frames), "done");
      assert.deepEqual(
        frames.flatMap((frame) => frame.events()),
        events.map((event) => ({ ...event })),
      );
    }),
  );
});

test("a whole answer that is rendered parses back to an answer that says the same", () => {
  fc.assert(
    fc.property(fc.array(delta, { maxLength: 16 }), (deltas) => {
      const ends = [0, 1, 2].map((index): ModelEvent => ({ type: "choice-end", choice: index, reason: "tool_calls", stopSequence: null }));
      const events: ModelEvent[] = [START, ...deltas, ...ends, USAGE, { type: "response-end" }];
      const parsed = openaiWire.whole(renderWhole(events, OPTIONS)).events();
      assert.deepEqual(sayingOf(parsed), sayingOf(events));
      assert.deepEqual(parsed.slice(-2), events.slice(-2));
      assert.deepEqual(parsed[0], START);
    }),
    { numRuns: 500 },
  );
});

test("a client that sends a message back, gathered from a stream or whole, sends back the reasoning that was signed", () => {
  const events: ModelEvent[] = [
    START,
    { type: "reasoning-delta", choice: 0, text: "h" },
    { type: "reasoning-delta", choice: 0, text: "m" },
    { type: "reasoning-signature", choice: 0, signature: "s1" },
    { type: "reasoning-hidden", choice: 0, data: "x" },
    { type: "reasoning-delta", choice: 0, text: "ah" },
    { type: "reasoning-signature", choice: 0, signature: "s2" },
    { type: "text-delta", choice: 0, text: "ho" },
    { type: "choice-end", choice: 0, reason: "stop", stopSequence: null },
    { type: "response-end" },
  ];
  const chunks = createChunkRenderer(OPTIONS).render(events).toString().split("\n\n").slice(0, -2);
  const details = chunks.flatMap((chunk) => {
    const { choices } = JSON.parse(chunk.slice("data: ".length)) as { choices: { delta: { reasoning_details?: Json[] } }[] };
    return choices[0]?.delta.reasoning_details ?? [];
  });
  const whole = JSON.parse(renderWhole(events, OPTIONS).toString()) as { choices: { message: JsonObject }[] };
  const expected = [
    { kind: "reasoning", at: "", text: "hm", signature: "s1" },
    { kind: "hidden-reasoning", at: "", data: "x" },
    { kind: "reasoning", at: "", text: "ah", signature: "s2" },
    { kind: "text", at: "", text: "ho", cache: null },
  ];
  for (const message of [{ role: "assistant", content: "ho", reasoning_details: details }, whole.choices[0]?.message ?? {}])
    assert.deepEqual(withoutPlaces(toChat({ messages: [message] })).messages[0]?.content, expected);
});

test("of several reports of usage the last counts, once, at the end", () => {
  const report = (output: number): ModelEvent => ({
    type: "usage",
    usage: { source: "reported", tokens: { ...NO_TOKENS, input_uncached: 5, cache_write_5m: 2, cache_write_1h: 1, output } },
  });
  const renderer = createChunkRenderer(OPTIONS);
  const events: ModelEvent[] = [START, report(1), { type: "text-delta", choice: 0, text: "a" }, report(7), { type: "response-end" }];
  const written = events.map((event) => renderer.render([event]).toString());
  assert.deepEqual([written[1], written[3]], ["", ""]);
  assert.match(written[4] ?? "", /"completion_tokens":7[^]*"cache_write_tokens":3[^]*\n\ndata: \[DONE\]\n\n$/);
  const usage = JSON.parse(renderWhole(events, OPTIONS).toString()) as OpenAI.ChatCompletion;
  assert.equal(usage.usage?.completion_tokens, 7);
});

test("a failure that the upstream reports inside its answer is a problem with its message, never a clean end", () => {
  const renderer = createChunkRenderer(OPTIONS);
  const boom = (thrown: unknown): boolean => thrown instanceof Problem && thrown.code === "upstream_error" && thrown.message === "boom";
  renderer.render([START, { type: "text-delta", choice: 0, text: "a" }]);
  assert.throws(() => renderer.render([{ type: "error", message: "boom" }]), boom);
  assert.throws(() => renderWhole([START, { type: "error", message: "boom" }, { type: "response-end" }], OPTIONS), boom);
});

test("usage is a frame of its own that only a caller who asked sees, and then every chunk has the field", () => {
  const events: ModelEvent[] = [
    START,
    { type: "text-delta", choice: 0, text: "a" },
    { type: "choice-end", choice: 0, reason: "stop", stopSequence: null },
    USAGE,
    { type: "response-end" },
  ];
  const chunks = (includeUsage: boolean): OpenAI.ChatCompletionChunk[] =>
    createChunkRenderer({ includeUsage, systemFingerprint: "simulated" })
      .render(events)
      .toString()
      .split("\n\n")
      .slice(0, -2)
      .map((line) => JSON.parse(line.slice("data: ".length)) as OpenAI.ChatCompletionChunk);
  assert.deepEqual(
    chunks(false).map((chunk) => "usage" in chunk),
    [false, false],
  );
  assert.deepEqual(
    chunks(true).map((chunk) => chunk.usage?.total_tokens ?? null),
    [null, null, 14],
  );
  assert.deepEqual(chunks(true).at(-1)?.choices, []);
  assert.deepEqual(chunks(true)[0]?.choices[0]?.delta, { role: "assistant", content: "a" });
  assert.equal(chunks(true)[0]?.system_fingerprint, "simulated");
});

test("a whole answer is a chat.completion of the official SDK's type", () => {
  const events: ModelEvent[] = [
    START,
    { type: "text-delta", choice: 1, text: "b" },
    { type: "tool-call-start", choice: 0, index: 1, id: "c2", name: "g" },
    { type: "tool-call-start", choice: 0, index: 0, id: "c1", name: "f" },
    { type: "tool-call-delta", choice: 0, index: 0, arguments: "{}" },
    { type: "choice-end", choice: 0, reason: "tool_calls", stopSequence: null },
    { type: "choice-end", choice: 1, reason: "stop", stopSequence: null },
    USAGE,
    { type: "response-end" },
  ];
  const completion = JSON.parse(renderWhole(events, OPTIONS).toString()) as OpenAI.ChatCompletion;
  assert.deepEqual(completion, {
    id: "chatcmpl-1",
    object: "chat.completion",
    created: 1,
    model: "m",
    choices: [
      {
        index: 0,
        logprobs: null,
        finish_reason: "tool_calls",
        message: {
          role: "assistant",
          content: null,
          refusal: null,
          tool_calls: [
            { id: "c1", type: "function", function: { name: "f", arguments: "{}" } },
            { id: "c2", type: "function", function: { name: "g", arguments: "" } },
          ],
        },
      },
      { index: 1, logprobs: null, finish_reason: "stop", message: { role: "assistant", content: "b", refusal: null } },
    ],
    usage: {
      prompt_tokens: 9,
      completion_tokens: 5,
      total_tokens: 14,
      prompt_tokens_details: { cached_tokens: 4, cache_write_tokens: 0, audio_tokens: 0, image_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: 2, audio_tokens: 0, accepted_prediction_tokens: 0, rejected_prediction_tokens: 0 },
    },
  } satisfies OpenAI.ChatCompletion);
});

/** What each choice says, however it is cut: blocks of reasoning, text, refusal, calls in order of index, and how it ended. */
function sayingOf(events: readonly ModelEvent[]): unknown {
  return [0, 1, 2].map((index) => {
    const own = events.filter((event) => "choice" in event && event.choice === index);
    const reasoning: { text: string; signature: string | null; hidden: string | null }[] = [];
    const calls = new Map<number, { id: string; name: string; arguments: string }>();
    const said = { text: "", refusal: "", ends: [] as ModelEvent[] };
    for (const event of own) {
      const last = reasoning.at(-1);
      const isOpen = last !== undefined && last.signature === null && last.hidden === null;
      if (event.type === "text-delta") said.text += event.text;
      else if (event.type === "refusal-delta") said.refusal += event.text;
      else if (event.type === "choice-end") said.ends.push(event);
      else if (event.type === "reasoning-hidden") reasoning.push({ text: "", signature: null, hidden: event.data });
      else if (event.type === "tool-call-start") {
        if (!calls.has(event.index)) calls.set(event.index, { id: event.id, name: event.name, arguments: "" });
      } else if (event.type === "tool-call-delta") {
        const call = calls.get(event.index);
        if (call !== undefined) call.arguments += event.arguments;
      } else if (event.type === "reasoning-delta") {
        if (isOpen) last.text += event.text;
        else reasoning.push({ text: event.text, signature: null, hidden: null });
      } else if (event.type === "reasoning-signature") {
        if (isOpen) last.signature = event.signature;
        else reasoning.push({ text: "", signature: event.signature, hidden: null });
      }
    }
    return { ...said, reasoning, calls: [...calls].toSorted(([a], [b]) => a - b).map(([, call]) => call) };
  });
}
