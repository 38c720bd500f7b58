import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ModelEvent } from "../../../kernel/events.ts";
import type { Frame } from "../../../kernel/frame.ts";
import { readAsAnthropic, readAsOpenAI } from "../testing/official-clients.ts";
import {
  blockDelta,
  blockStart,
  blockStop,
  MESSAGE_START,
  MESSAGE_STOP,
  messageDelta,
  messageEvent,
  PING,
  TEXT_BLOCK,
  THINKING_BLOCK,
  toolBlock,
} from "../testing/scripted-messages.ts";
import { chunkOf, DONE, sse, STOP_CHUNK, textChunk, USAGE } from "../testing/scripted-upstream.ts";
import { createMessageRenderer } from "./anthropic/render.ts";
import { anthropicWire } from "./anthropic/wire.ts";
import { createChunkRenderer } from "./openai/render.ts";
import { openaiWire } from "./openai/wire.ts";
import type { Wire } from "./wire.ts";

const GOLDEN = join(import.meta.dirname, "answers.golden.txt");

// The scripts are written from the official SDKs' own types: resources/messages/messages.d.ts and resources/chat/completions.

const FROM_ANTHROPIC: Record<string, readonly string[]> = {
  "thinking, text and two tools, with cached input": [
    messageEvent({
      ...MESSAGE_START,
      message: {
        ...MESSAGE_START.message,
        usage: { ...MESSAGE_START.message.usage, cache_read_input_tokens: 100, cache_creation_input_tokens: 20 },
      },
    }),
    blockStart(0, THINKING_BLOCK),
    messageEvent(PING),
    blockDelta(0, { type: "thinking_delta", thinking: "Paris, then Rome." }),
    blockDelta(0, { type: "signature_delta", signature: "c2ln" }),
    blockStop(0),
    blockStart(1, TEXT_BLOCK),
    blockDelta(1, { type: "text_delta", text: "I look both up: " }),
    blockDelta(1, { type: "text_delta", text: "☀️" }),
    blockStop(1),
    blockStart(2, toolBlock("toolu_1", "weather")),
    blockDelta(2, { type: "input_json_delta", partial_json: '{"city":' }),
    blockDelta(2, { type: "input_json_delta", partial_json: '"Paris"}' }),
    blockStop(2),
    blockStart(3, toolBlock("toolu_2", "now")),
    blockStop(3),
    messageDelta(
      "tool_use",
      {},
      { output_tokens: 60, output_tokens_details: { thinking_tokens: 25 }, cache_read_input_tokens: 100, cache_creation_input_tokens: 20 },
    ),
    messageEvent(MESSAGE_STOP),
  ],
  "a refusal": [
    messageEvent(MESSAGE_START),
    messageDelta("refusal", { stop_details: { type: "refusal", category: "bio", explanation: "That is not something to help with." } }),
    messageEvent(MESSAGE_STOP),
  ],
  "a stop sequence": [
    messageEvent(MESSAGE_START),
    blockStart(0, TEXT_BLOCK),
    blockDelta(0, { type: "text_delta", text: "one, two" }),
    blockStop(0),
    messageDelta("stop_sequence", { stop_sequence: "three" }),
    messageEvent(MESSAGE_STOP),
  ],
};

const toolChunk = (index: number, called: { id?: string; name?: string; arguments: string }): string =>
  sse(
    chunkOf([
      {
        index: 0,
        delta: {
          tool_calls: [
            {
              index,
              ...(called.id === undefined ? {} : { id: called.id, type: "function" as const }),
              function: { ...(called.name === undefined ? {} : { name: called.name }), arguments: called.arguments },
            },
          ],
        },
        finish_reason: null,
      },
    ]),
  );

const FROM_OPENAI: Record<string, readonly string[]> = {
  "text and two tools whose arguments interleave, with cached input": [
    sse(chunkOf([{ index: 0, delta: { role: "assistant", content: "" }, finish_reason: null }])),
    sse(textChunk("I look both up: ☀️")),
    toolChunk(0, { id: "call_1", name: "weather", arguments: "" }),
    toolChunk(1, { id: "call_2", name: "now", arguments: "" }),
    toolChunk(0, { arguments: '{"city":' }),
    toolChunk(1, { arguments: "{}" }),
    toolChunk(0, { arguments: '"Paris"}' }),
    sse(chunkOf([{ index: 0, delta: {}, finish_reason: "tool_calls" }])),
    sse(
      chunkOf([], {
        prompt_tokens: 130,
        completion_tokens: 60,
        total_tokens: 190,
        prompt_tokens_details: { cached_tokens: 100 },
        completion_tokens_details: { reasoning_tokens: 25 },
      }),
    ),
    DONE,
  ],
  "a refusal": [
    sse(chunkOf([{ index: 0, delta: { role: "assistant", refusal: "I can't " }, finish_reason: null }])),
    sse(chunkOf([{ index: 0, delta: { refusal: "help with that." }, finish_reason: null }])),
    sse(STOP_CHUNK),
    sse(chunkOf([], USAGE)),
    DONE,
  ],
  "cut by length": [
    sse(textChunk("one, two")),
    sse(chunkOf([{ index: 0, delta: {}, finish_reason: "length" }])),
    sse(chunkOf([], USAGE)),
    DONE,
  ],
};

test("what an upstream of one dialect streams reaches a caller of the other as the golden file says, and each official client takes it for whole", async () => {
  const sections = [
    ...Object.entries(FROM_ANTHROPIC).map(([name, upstream]) => {
      const renderer = createChunkRenderer({ includeUsage: true, systemFingerprint: "anthropic" });
      return told(`anthropic → openai: ${name}`, anthropicWire, upstream, renderer);
    }),
    ...Object.entries(FROM_OPENAI).map(([name, upstream]) =>
      told(`openai → anthropic: ${name}`, openaiWire, upstream, createMessageRenderer()),
    ),
  ];
  const description = sections.map((section) => section.description).join("\n");
  if (process.env["UPDATE_GOLDEN"] === "1") writeFileSync(GOLDEN, description);
  assert.equal(description, readFileSync(GOLDEN, "utf8"), "to accept the change: UPDATE_GOLDEN=1, and read the diff");
  for (const { name, caller } of sections) {
    const read = name.startsWith("anthropic") ? readAsOpenAI : readAsAnthropic;
    assert.deepEqual((await read({ pieces: [caller], broke: false })).clean, true, name);
  }
});

function told(name: string, wire: Wire, upstream: readonly string[], renderer: { render(events: readonly ModelEvent[]): Buffer }) {
  const frames: Frame[] = [];
  assert.equal(wire.decoder().push(Buffer.from(upstream.join("")), frames), "done", name);
  const events = frames.flatMap((frame) => frame.events());
  const caller = Buffer.concat(frames.map((frame) => renderer.render(frame.events())));
  const lines = events.map((event) => JSON.stringify(event)).join("\n");
  return {
    name,
    caller,
    description: `## ${name}\n\n# upstream\n\n${upstream.join("")}# events\n\n${lines}\n\n# caller\n\n${caller.toString()}`,
  };
}
