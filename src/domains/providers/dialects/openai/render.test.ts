import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import type OpenAI from "openai";
import type { ModelEvent } from "../../../../kernel/events.ts";
import type { Frame } from "../../../../kernel/frame.ts";
import { NO_TOKENS } from "../../../../kernel/tokens.ts";
import { createChunkRenderer, renderWhole } from "./render.ts";
import { openaiWire } from "./wire.ts";

const START: ModelEvent = { type: "response-start", id: "chatcmpl-1", model: "m", createdSeconds: 1 };
const USAGE: ModelEvent = {
  type: "usage",
  usage: { source: "reported", tokens: { ...NO_TOKENS, input_uncached: 5, cache_read: 4, output: 3, reasoning: 2 } },
};
const OPTIONS = { includeUsage: true, systemFingerprint: null };

test("what is rendered parses back to the same events, however they are grouped into writes", () => {
  const text = fc.string({ unit: "grapheme", minLength: 1 });
  const choice = fc.nat({ max: 2 });
  const delta: fc.Arbitrary<ModelEvent> = fc.oneof(
    fc.record({ type: fc.constant("text-delta" as const), choice, text }),
    fc.record({ type: fc.constant("reasoning-delta" as const), choice, text }),
    fc.record({ type: fc.constant("refusal-delta" as const), choice, text }),
    fc.record({ type: fc.constant("tool-call-start" as const), choice, index: fc.nat({ max: 3 }), id: text, name: text }),
    fc.record({ type: fc.constant("tool-call-delta" as const), choice, index: fc.nat({ max: 3 }), arguments: text }),
  );
  fc.assert(
    fc.property(fc.array(delta, { maxLength: 12 }), fc.boolean(), (deltas, asOne) => {
      const events: ModelEvent[] = [START, ...deltas, { type: "choice-end", choice: 0, reason: "length" }, USAGE, { type: "response-end" }];
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

test("usage is a frame of its own that only a caller who asked sees, and then every chunk has the field", () => {
  const events: ModelEvent[] = [
    START,
    { type: "text-delta", choice: 0, text: "a" },
    { type: "choice-end", choice: 0, reason: "stop" },
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
    { type: "choice-end", choice: 0, reason: "tool_calls" },
    { type: "choice-end", choice: 1, reason: "stop" },
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
      prompt_tokens_details: { cached_tokens: 4, audio_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: 2, audio_tokens: 0, accepted_prediction_tokens: 0, rejected_prediction_tokens: 0 },
    },
  } satisfies OpenAI.ChatCompletion);
});
