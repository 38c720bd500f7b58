import assert from "node:assert/strict";
import { after, test } from "node:test";
import type Anthropic from "@anthropic-ai/sdk";
import type OpenAI from "openai";
import { systemClock } from "../../../../kernel/clock.ts";
import type { ModelEvent } from "../../../../kernel/events.ts";
import { createProviders } from "../../service.ts";
import { deploymentOf, dispatchOf } from "../../testing/dispatching.ts";
import { JSON_HEADERS, chunkOf, completionOf, scriptedUpstream, sse, DONE } from "../../testing/scripted-upstream.ts";
import { parseMessages } from "../anthropic/request.ts";
import { openaiWire } from "./wire.ts";

const providers = createProviders({ clock: systemClock });
after(() => providers.close());

/**
 * A request as the official Anthropic SDK types it (resources/messages/messages.d.ts) and the body that an upstream of this wire gets for it,
 * as the official OpenAI SDK types it (resources/chat/completions/completions.d.ts). `reasoning_content` and the like are the vendors' own.
 */
interface Pair {
  readonly name: string;
  readonly provider: string;
  /** Sampling is of API version 2023-06-01, which the SDK's types no longer have. */
  readonly caller: Anthropic.MessageCreateParams & { readonly temperature?: number; readonly top_p?: number; readonly top_k?: number };
  readonly upstream: OpenAI.ChatCompletionCreateParams & { readonly top_k?: number };
}

const TOOL_SCHEMA = { type: "object" as const, properties: { city: { type: "string" } }, required: ["city"] };

/** OpenRouter's own fields, which the SDK's types do not have. */
const CACHED = { type: "text" as const, text: "hi", cache_control: { type: "ephemeral", ttl: "5m" } };
const REASONED = {
  role: "assistant" as const,
  reasoning_details: [
    { type: "reasoning.text", text: "hm", signature: "c2ln", index: 0 },
    { type: "reasoning.encrypted", data: "eA==", index: 1 },
  ],
  content: "ho",
};

const PAIRS: readonly Pair[] = [
  {
    name: "text, system and settings",
    provider: "openai",
    caller: {
      model: "demo",
      max_tokens: 100,
      system: "Be brief.",
      messages: [{ role: "user", content: "hi" }],
      temperature: 0.5,
      top_p: 0.9,
      stop_sequences: ["END"],
      stream: true,
    },
    upstream: {
      model: "upstream-model",
      messages: [
        { role: "system", content: "Be brief." },
        { role: "user", content: "hi" },
      ],
      stream: true,
      stream_options: { include_usage: true },
      max_completion_tokens: 100,
      temperature: 0.5,
      top_p: 0.9,
      stop: ["END"],
    },
  },
  {
    name: "two tools called at once, one of them failed, and the prompt's prefix kept",
    provider: "openai",
    caller: {
      model: "demo",
      max_tokens: 100,
      system: [{ type: "text", text: "Be brief.", cache_control: { type: "ephemeral", ttl: "1h" } }],
      tools: [
        { name: "weather", description: "The weather.", input_schema: TOOL_SCHEMA, strict: true },
        { name: "time", input_schema: TOOL_SCHEMA, cache_control: { type: "ephemeral" } },
      ],
      tool_choice: { type: "any", disable_parallel_tool_use: true },
      messages: [
        { role: "user", content: "weather and time?" },
        {
          role: "assistant",
          content: [
            { type: "thinking", thinking: "hm", signature: "c2ln" },
            { type: "text", text: "Let me look." },
            { type: "tool_use", id: "toolu_1", name: "weather", input: { city: "Bern" } },
            { type: "tool_use", id: "toolu_2", name: "time", input: { city: "Bern" } },
          ],
        },
        {
          role: "user",
          content: [
            { type: "tool_result", tool_use_id: "toolu_1", content: "sun" },
            { type: "tool_result", tool_use_id: "toolu_2", content: [{ type: "text", text: "no such city" }], is_error: true },
            { type: "text", text: "so?", cache_control: { type: "ephemeral" } },
          ],
        },
      ],
    },
    upstream: {
      model: "upstream-model",
      messages: [
        { role: "system", content: [{ type: "text", text: "Be brief.", prompt_cache_breakpoint: { mode: "explicit", ttl: "12h" } }] },
        { role: "user", content: "weather and time?" },
        {
          role: "assistant",
          content: "Let me look.",
          tool_calls: [
            { id: "toolu_1", type: "function", function: { name: "weather", arguments: '{"city":"Bern"}' } },
            { id: "toolu_2", type: "function", function: { name: "time", arguments: '{"city":"Bern"}' } },
          ],
        },
        { role: "tool", tool_call_id: "toolu_1", content: "sun" },
        { role: "tool", tool_call_id: "toolu_2", content: "no such city" },
        { role: "user", content: [{ type: "text", text: "so?", prompt_cache_breakpoint: { mode: "explicit" } }] },
      ],
      tools: [
        { type: "function", function: { name: "weather", description: "The weather.", parameters: TOOL_SCHEMA, strict: true } },
        { type: "function", function: { name: "time", parameters: TOOL_SCHEMA } },
      ],
      tool_choice: "required",
      parallel_tool_calls: false,
      max_completion_tokens: 100,
    },
  },
  {
    name: "an image and a document, a schema for the answer, and an effort",
    provider: "openai",
    caller: {
      model: "demo",
      max_tokens: 100,
      messages: [
        {
          role: "user",
          content: [
            { type: "image", source: { type: "url", url: "https://example.com/a.png" } },
            { type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } },
            { type: "document", title: "a.pdf", source: { type: "base64", media_type: "application/pdf", data: "BBBB" } },
            { type: "text", text: "what?" },
          ],
        },
      ],
      thinking: { type: "adaptive" },
      output_config: { effort: "low", format: { type: "json_schema", schema: TOOL_SCHEMA } },
    },
    upstream: {
      model: "upstream-model",
      messages: [
        {
          role: "user",
          content: [
            { type: "image_url", image_url: { url: "https://example.com/a.png" } },
            { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } },
            { type: "file", file: { filename: "a.pdf", file_data: "data:application/pdf;base64,BBBB" } },
            { type: "text", text: "what?" },
          ],
        },
      ],
      response_format: { type: "json_schema", json_schema: { name: "answer", schema: TOOL_SCHEMA, strict: true } },
      reasoning_effort: "low",
      max_completion_tokens: 100,
    },
  },
  {
    name: "OpenRouter takes signed reasoning, cache_control and top_k",
    provider: "openrouter",
    caller: {
      model: "demo",
      max_tokens: 100,
      top_k: 5,
      messages: [
        { role: "user", content: [{ type: "text", text: "hi", cache_control: { type: "ephemeral", ttl: "5m" } }] },
        {
          role: "assistant",
          content: [
            { type: "thinking", thinking: "hm", signature: "c2ln" },
            { type: "redacted_thinking", data: "eA==" },
            { type: "text", text: "ho" },
          ],
        },
        { role: "user", content: "and?" },
      ],
    },
    upstream: {
      model: "upstream-model",
      messages: [{ role: "user", content: [CACHED] }, REASONED, { role: "user", content: "and?" }],
      max_completion_tokens: 100,
      top_k: 5,
    },
  },
];

test("an Anthropic caller's request reaches an upstream of this wire as the official SDK's types have it", async (t) => {
  const upstream = await scriptedUpstream((exchange) => {
    exchange.head(200, JSON_HEADERS);
    exchange.end(JSON.stringify(completionOf("a")));
  });
  t.after(() => upstream.close());
  for (const { name, provider: id, caller, upstream: expected } of PAIRS) {
    const provider = providers.get(id);
    assert.ok(provider);
    const request = parseMessages(Buffer.from(JSON.stringify(caller)));
    const dispatch = dispatchOf(
      deploymentOf({ provider: id, baseUrl: upstream.baseUrl }),
      { model: "demo", messages: [{ role: "user" }] },
      { request },
    );
    provider.accept(request, dispatch.deployment);
    await provider.dispatch(dispatch).catch((error: unknown) => assert.ok(caller.stream, String(error)));
    assert.deepEqual(JSON.parse(upstream.exchanges.at(-1)?.body.toString() ?? ""), expected, name);
  }
  assert.equal(upstream.exchanges.length, PAIRS.length);
});

test("the bytes of an upstream of this wire are these events", () => {
  const delta = (given: OpenAI.ChatCompletionChunk.Choice.Delta & Record<string, unknown>): string =>
    sse(chunkOf([{ index: 0, delta: given, finish_reason: null }]));
  const call = (index: number, id: string | undefined, name: string | undefined, written: string): string =>
    delta({
      tool_calls: [
        {
          index,
          ...(id === undefined ? {} : { id, type: "function" }),
          function: { ...(name === undefined ? {} : { name }), arguments: written },
        },
      ],
    });
  const bytes = [
    delta({ role: "assistant", content: "" }),
    delta({ reasoning: "hm", reasoning_details: [{ type: "reasoning.text", text: "hm", format: "anthropic-claude-v1", index: 0 }] }),
    delta({ reasoning_details: [{ type: "reasoning.text", signature: "c2ln", index: 0 }] }),
    delta({ reasoning_details: [{ type: "reasoning.encrypted", data: "eA==", index: 1 }] }),
    delta({ content: "Let me look." }),
    call(0, "call_1", "weather", ""),
    call(1, "call_2", "time", ""),
    call(0, undefined, undefined, '{"city"'),
    call(1, undefined, undefined, "{}"),
    call(0, undefined, undefined, ':"Bern"}'),
    sse(chunkOf([{ index: 0, delta: {}, finish_reason: "tool_calls" }])),
    sse(
      chunkOf([], {
        prompt_tokens: 20,
        completion_tokens: 9,
        total_tokens: 29,
        prompt_tokens_details: { cached_tokens: 12, cache_write_tokens: 3 },
        completion_tokens_details: { reasoning_tokens: 4 },
      }),
    ),
    DONE,
  ];
  const choice = 0;
  const expected: ModelEvent[] = [
    { type: "response-start", id: "chatcmpl-1", model: "upstream-model", createdSeconds: 1_700_000_000 },
    { type: "reasoning-delta", choice, text: "hm" },
    { type: "reasoning-signature", choice, signature: "c2ln" },
    { type: "reasoning-hidden", choice, data: "eA==" },
    { type: "text-delta", choice, text: "Let me look." },
    { type: "tool-call-start", choice, index: 0, id: "call_1", name: "weather" },
    { type: "tool-call-start", choice, index: 1, id: "call_2", name: "time" },
    { type: "tool-call-delta", choice, index: 0, arguments: '{"city"' },
    { type: "tool-call-delta", choice, index: 1, arguments: "{}" },
    { type: "tool-call-delta", choice, index: 0, arguments: ':"Bern"}' },
    { type: "choice-end", choice, reason: "tool_calls", stopSequence: null },
    {
      type: "usage",
      usage: {
        source: "reported",
        tokens: {
          input_uncached: 5,
          cache_read: 12,
          cache_write_5m: 3,
          cache_write_1h: 0,
          output: 5,
          reasoning: 4,
          audio_input: 0,
          audio_output: 0,
          image: 0,
        },
      },
    },
    { type: "response-end" },
  ];
  const frames: Parameters<ReturnType<typeof openaiWire.decoder>["push"]>[1] = [];
  assert.equal(openaiWire.decoder().push(Buffer.from(bytes.join("")), frames), "done");
  assert.deepEqual(
    frames.flatMap((frame) => frame.events()),
    expected,
  );
});

test("an engine says which of the caller's sequences ended its answer, and any other ending names none", () => {
  const ended = (finish: string, more: object): unknown => {
    const completion = completionOf("a");
    const [first] = completion.choices;
    const body = { ...completion, choices: [{ ...first, finish_reason: finish, ...more }] };
    return openaiWire
      .whole(Buffer.from(JSON.stringify(body)))
      .events()
      .find((event) => event.type === "choice-end");
  };
  const end = (reason: string, stopSequence: string | null): unknown => ({ type: "choice-end", choice: 0, reason, stopSequence });
  assert.deepEqual(ended("stop", { stop_reason: "END" }), end("stop", "END"));
  assert.deepEqual(ended("stop", { matched_stop: "END" }), end("stop", "END"));
  assert.deepEqual(ended("stop", { stop_reason: 128_009 }), end("stop", null));
  assert.deepEqual(ended("stop", {}), end("stop", null));
  assert.deepEqual(ended("length", { stop_reason: "END" }), end("length", null));
});
