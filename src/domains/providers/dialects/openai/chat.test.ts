import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type OpenAI from "openai";
import type { ChatMessage } from "../../../../kernel/chat.ts";
import { Problem } from "../../../../kernel/problem.ts";
import type { Json, JsonObject } from "../../../../kernel/request.ts";
import { toChat } from "./chat.ts";
import { FIELDS } from "./fields.ts";

const HI: JsonObject = { messages: [{ role: "user", content: "hi" }] };

test("a field that asks for something is translated, ours, or refused by its name: none is dropped unseen", () => {
  const plain = toChat(HI);
  const fates = new Map<string, string>();
  for (const [name, rule] of FIELDS) {
    if (name === "messages") continue;
    const fate = fateOf(name, ASKING[name] ?? "asking");
    fates.set(name, fate);
    if (rule.class === "ours" && rule.policy.kind !== "refuse") continue;
    assert.notEqual(fate, "dropped", name);
  }
  assert.deepEqual(
    [...fates]
      .filter(([, fate]) => fate === "translated")
      .map(([name]) => name)
      .toSorted(),
    Object.keys(ASKING)
      .filter((name) => name !== "prompt_cache_options" && name !== "stream")
      .toSorted(),
  );

  function fateOf(name: string, value: Json): string {
    try {
      const chat = toChat({ ...HI, [name]: value });
      if (name === "prompt_cache_options" || name === "stream") return "about cost or transport";
      return JSON.stringify(chat) === JSON.stringify(plain) ? "dropped" : "translated";
    } catch (thrown) {
      assert.ok(thrown instanceof Problem && thrown.code === "unsupported_field", name);
      assert.equal(thrown.param, name);
      return "refused";
    }
  }
});

/** A value by which each field that is not refused outright asks for something. */
const ASKING: Readonly<Record<string, Json>> = {
  frequency_penalty: 0.5,
  max_completion_tokens: 5,
  max_tokens: 5,
  n: 2,
  parallel_tool_calls: false,
  presence_penalty: -0.5,
  prompt_cache_options: { mode: "explicit" },
  reasoning_effort: "none",
  response_format: { type: "json_object" },
  safety_identifier: "alice",
  seed: 0,
  stop: "x",
  stream: true,
  temperature: 0,
  tool_choice: "required",
  tools: [{ type: "function", function: { name: "f" } }],
  top_k: 5,
  top_p: 1,
  user: "alice",
};

test("a field that no table names is refused by its name, whatever its value; null says nothing", () => {
  fc.assert(
    fc.property(
      fc.string().filter((key) => !FIELDS.has(key) && key !== "__proto__"),
      fc.jsonValue(),
      (key, value) => {
        assert.equal(refusalOf({ [key]: value as Json }), value === null ? null : key);
      },
    ),
  );
});

test("a field at its documented default asks for nothing", () => {
  const asked = toChat(HI);
  const defaults: JsonObject = {
    best_of: 1,
    frequency_penalty: 0,
    functions: [],
    function_call: null,
    logit_bias: {},
    logprobs: false,
    metadata: { feature: "chat" },
    modalities: ["text"],
    n: 1,
    presence_penalty: 0,
    prompt_cache_key: "k",
    prompt_cache_retention: "in_memory",
    response_format: { type: "text" },
    service_tier: "auto",
    store: false,
    stream: true,
    stream_options: { include_usage: true },
    tool_choice: "auto",
    tools: [],
    top_k: -1,
    top_logprobs: 0,
    verbosity: "medium",
  };
  for (const [key, value] of Object.entries(defaults)) assert.deepEqual(toChat({ ...HI, [key]: value }), asked, key);
  for (const [key, value] of Object.entries({
    logprobs: true,
    modalities: ["text", "audio"],
    verbosity: "low",
    service_tier: "flex",
    functions: [{}],
  }))
    assert.equal(refusalOf({ [key]: value }), key);
});

test("what a message holds beyond our words is refused by its path", () => {
  const cases: [JsonObject, string][] = [
    [{ role: "user", name: "bob", content: "" }, "name"],
    [{ role: "function", name: "f", content: "" }, "role"],
    [{ role: "assistant", content: "", audio: { id: "a" } }, "audio"],
    [{ role: "assistant", content: "", function_call: { name: "f", arguments: "" } }, "function_call"],
    [{ role: "assistant", content: "", prefix: true }, "prefix"],
    [{ role: "assistant", tool_calls: [{ id: "c", type: "custom", custom: { name: "f", input: "" } }] }, "tool_calls[0].type"],
    [{ role: "assistant", reasoning_details: [{ type: "reasoning.odd" }] }, "reasoning_details[0].type"],
    [{ role: "user", content: [{ type: "input_audio", input_audio: { data: "", format: "wav" } }] }, "content[0].type"],
    [{ role: "user", content: [{ type: "text", text: "", mood: 1 }] }, "content[0].mood"],
    [{ role: "user", content: [{ type: "image_url", image_url: { url: "data:image/png,AAAA" } }] }, "content[0].image_url.url"],
    [
      { role: "user", content: [{ type: "image_url", image_url: { url: "https://a/b", detail: "original" } }] },
      "content[0].image_url.detail",
    ],
    [{ role: "user", content: [{ type: "file", file: { filename: "a" } }] }, "content[0].file"],
    [
      { role: "user", content: [{ type: "text", text: "", prompt_cache_breakpoint: { mode: "implicit" } }] },
      "content[0].prompt_cache_breakpoint.mode",
    ],
    [
      { role: "user", content: [{ type: "text", text: "", prompt_cache_breakpoint: { mode: "explicit", ttl: "1y" } }] },
      "content[0].prompt_cache_breakpoint.ttl",
    ],
    [{ role: "tool", tool_call_id: "c", content: [{ type: "image_url", image_url: { url: "https://a/b" } }] }, "content[0].type"],
  ];
  for (const [message, path] of cases)
    assert.equal(refusalOf({ messages: [{ role: "user", content: "" }, message] }), `messages[1].${path}`);
  for (const [fields, path] of [
    [{ tools: [{ type: "custom", custom: { name: "f" } }] }, "tools[0].type"],
    [{ tools: [{ type: "function", function: { name: "f", returns: {} } }] }, "tools[0].function.returns"],
    [{ tool_choice: { type: "allowed_tools", allowed_tools: { mode: "auto", tools: [] } } }, "tool_choice"],
    [{ response_format: { type: "grammar" } }, "response_format.type"],
  ] as const)
    assert.equal(refusalOf(fields), path);
});

test("a conversation of the official SDK's types is read whole, and each part knows its path", () => {
  const messages: OpenAI.ChatCompletionMessageParam[] = [
    { role: "developer", content: "be brief" },
    {
      role: "user",
      content: [
        { type: "text", text: "see", prompt_cache_breakpoint: { mode: "explicit", ttl: "12h" } },
        { type: "image_url", image_url: { url: "data:image/PNG;base64,AAAA", detail: "low" } },
        { type: "image_url", image_url: { url: "https://example.com/a.png" } },
        { type: "file", file: { filename: "a.pdf", file_data: "data:application/pdf;base64,BBBB" } },
      ],
    },
    {
      role: "assistant",
      content: [{ type: "refusal", refusal: "no" }],
      tool_calls: [{ id: "c", type: "function", function: { name: "f", arguments: '{"a": 1.0}' } }],
    },
    { role: "tool", tool_call_id: "c", content: [{ type: "text", text: "sun" }] },
  ];
  const part = { cache: null };
  assert.deepEqual(toChat({ messages: messages as unknown as Json }).messages, [
    { role: "system", at: "messages[0]", content: [{ kind: "text", at: "messages[0].content", text: "be brief", ...part }] },
    {
      role: "user",
      at: "messages[1]",
      content: [
        { kind: "text", at: "messages[1].content[0]", text: "see", cache: { ttl: "12h" } },
        {
          kind: "image",
          at: "messages[1].content[1]",
          source: { kind: "data", mediaType: "image/png", base64: "AAAA" },
          detail: "low",
          ...part,
        },
        { kind: "image", at: "messages[1].content[2]", source: { kind: "url", url: "https://example.com/a.png" }, detail: null, ...part },
        {
          kind: "document",
          at: "messages[1].content[3]",
          source: { kind: "data", mediaType: "application/pdf", base64: "BBBB" },
          name: "a.pdf",
          ...part,
        },
      ],
    },
    {
      role: "assistant",
      at: "messages[2]",
      content: [
        { kind: "refusal", at: "messages[2].content[0]", text: "no" },
        { kind: "tool-call", at: "messages[2].tool_calls[0]", id: "c", name: "f", arguments: '{"a": 1.0}', ...part },
      ],
    },
    {
      role: "tool",
      at: "messages[3]",
      toolCallId: "c",
      content: [{ kind: "text", at: "messages[3].content[0]", text: "sun", ...part }],
      isError: false,
      cache: null,
    },
  ] satisfies ChatMessage[]);
});

test("reasoning that a client sends back is the same however it gathered it", () => {
  const whole = [
    { type: "reasoning.text", text: "hm", signature: "s1", format: "anthropic-claude-v1", index: 0 },
    { type: "reasoning.encrypted", data: "xyz", index: 1 },
    { type: "reasoning.text", text: "ah", signature: "s2", index: 2 },
  ];
  const pieces = [
    { type: "reasoning.text", text: "h", index: 0 },
    { type: "reasoning.text", text: "m", index: 0 },
    { type: "reasoning.text", signature: "s1", index: 0 },
    { type: "reasoning.encrypted", data: "xyz", index: 1 },
    { type: "reasoning.text", text: "ah", index: 2 },
    { type: "reasoning.text", signature: "s2", index: 2 },
  ];
  const expected = [
    ["reasoning", "hm", "s1"],
    ["hidden-reasoning", "xyz", null],
    ["reasoning", "ah", "s2"],
  ];
  assert.deepEqual(reasoningOf({ reasoning_content: "hmah", reasoning_details: whole }), expected);
  assert.deepEqual(reasoningOf({ reasoning: "hmah", reasoning_details: pieces }), expected);
  assert.deepEqual(reasoningOf({ reasoning_content: "hm", reasoning_details: [{ type: "reasoning.text", signature: "s1" }] }), [
    ["reasoning", "hm", "s1"],
  ]);
  assert.deepEqual(
    reasoningOf({ reasoning_content: "", reasoning: "hm", reasoning_details: [{ type: "reasoning.text", text: "", signature: "s1" }] }),
    [["reasoning", "hm", "s1"]],
  );
  assert.deepEqual(reasoningOf({ reasoning_content: "hm" }), [["reasoning", "hm", null]]);
  assert.deepEqual(reasoningOf({ reasoning_details: [{ type: "reasoning.summary", summary: "so" }] }), [["reasoning", "so", null]]);
});

function reasoningOf(said: JsonObject): (string | null)[][] {
  const [message] = toChat({ messages: [{ role: "assistant", content: null, ...said }] }).messages;
  return (message?.content ?? []).map((part) => {
    if (part.kind === "reasoning") return [part.kind, part.text, part.signature];
    return part.kind === "hidden-reasoning" ? [part.kind, part.data, null] : [part.kind];
  });
}

/** The param of the refusal; null where the fields are taken. */
function refusalOf(fields: JsonObject): string | null {
  try {
    toChat({ ...HI, ...fields });
    return null;
  } catch (thrown) {
    assert.ok(thrown instanceof Problem && thrown.code === "unsupported_field");
    return thrown.param;
  }
}

test("a member beside those that are read of a format or a choice is refused by its path", () => {
  const cases: readonly (readonly [JsonObject, string])[] = [
    [{ response_format: { type: "json_object", schema: { type: "object" } } }, "response_format.schema"],
    [{ response_format: { type: "text", grammar: "x" } }, "response_format.grammar"],
    [{ tool_choice: { type: "function", function: { name: "f" }, mode: "x" } }, "tool_choice.mode"],
  ];
  for (const [fields, param] of cases)
    assert.throws(
      () => toChat({ ...HI, ...fields }),
      (thrown) => thrown instanceof Problem && thrown.code === "unsupported_field" && thrown.param === param,
    );
});
