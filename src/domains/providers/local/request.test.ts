import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Problem } from "../../../kernel/problem.ts";
import type { JsonObject, ModelRequest } from "../../../kernel/request.ts";
import { parseMessages } from "../dialects/anthropic/request.ts";
import { localOptions } from "./options.ts";
import { localBound, toGeneration } from "./request.ts";
import { deploymentOf, requestOf } from "./testing/requests.ts";

const MESSAGES = [{ role: "user", content: "hi" }];
const TOOL = { type: "function", function: { name: "f", parameters: { type: "object", properties: { a: { type: "string" } } } } };

function refusalOf(fields: JsonObject): readonly [string, string | null] {
  try {
    toGeneration(requestOf({ messages: MESSAGES, ...fields }), null);
  } catch (error) {
    assert.ok(error instanceof Problem);
    return [error.code, error.param];
  }
  return assert.fail(`accepted: ${JSON.stringify(fields)}`);
}

test("a field that a local model cannot honour is refused by its name", () => {
  for (const [field, value] of Object.entries({
    n: 2,
    frequency_penalty: 0.5,
    reasoning_effort: "low",
    store: true,
    guided_regex: "a",
    top_k: 3,
    whatever: 1,
  }))
    assert.deepEqual(refusalOf({ [field]: value }), ["unsupported_field", field]);
  assert.deepEqual(
    refusalOf({ response_format: { type: "json_schema", json_schema: { name: "x", schema: { type: "string", pattern: "a" } } } }),
    ["unsupported_field", "response_format.json_schema.schema.pattern"],
  );
  assert.deepEqual(refusalOf({ tools: [TOOL], response_format: { type: "json_object" } }), ["unsupported_field", "response_format"]);
  assert.deepEqual(refusalOf({ tool_choice: "required" }), ["invalid_request", "tool_choice"]);
  assert.deepEqual(refusalOf({ tools: [TOOL], tool_choice: { type: "function", function: { name: "g" } } }), [
    "invalid_request",
    "tool_choice",
  ]);
});

test("an image and a file are refused by their path, and only they: earlier reasoning and breakpoints of a cache are left out", () => {
  const url = "data:image/png;base64,AAAA";
  for (const part of [
    { type: "image_url", image_url: { url } },
    { type: "file", file: { filename: "a.pdf", file_data: "data:application/pdf;base64,AAAA" } },
  ])
    assert.deepEqual(refusalOf({ messages: [{ role: "user", content: [{ type: "text", text: "see" }, part] }] }), [
      "unsupported_field",
      "messages[0].content[1]",
    ]);
  const { messages } = toGeneration(
    requestOf({
      messages: [
        { role: "user", content: [{ type: "text", text: "hi", prompt_cache_breakpoint: { mode: "explicit" } }] },
        { role: "assistant", reasoning_content: "hm", content: "ho" },
      ],
    }),
    null,
  );
  assert.deepEqual(messages, [
    { role: "user", text: "hi" },
    { role: "assistant", text: "ho", toolCalls: [] },
  ]);
});

test("an Anthropic caller's request is the same generation, and refused in its own words", () => {
  const ask = (fields: JsonObject): ModelRequest =>
    parseMessages(Buffer.from(JSON.stringify({ model: "m", max_tokens: 5, messages: MESSAGES, ...fields })));
  const schema = { type: "object", properties: { a: { type: "string" } } };
  assert.deepEqual(
    toGeneration(ask({ tools: [{ name: "f", input_schema: schema }], stop_sequences: ["x"], thinking: { type: "adaptive" } }), null),
    toGeneration(
      requestOf({
        messages: MESSAGES,
        max_tokens: 5,
        tools: [{ type: "function", function: { name: "f", parameters: schema } }],
        stop: "x",
      }),
      null,
    ),
  );
  for (const [fields, param] of [
    [{ top_k: 3 }, "top_k"],
    [{ thinking: { type: "disabled" } }, "thinking"],
    [{ output_config: { effort: "low" } }, "output_config.effort"],
    [
      { tools: [{ name: "f", input_schema: { type: "object", properties: { a: { type: "string", pattern: "b" } } } }] },
      "tools[0].input_schema.properties.a.pattern",
    ],
    [{ messages: [{ role: "user", content: [{ type: "image", source: { type: "url", url: "https://a/b" } }] }] }, "messages[0].content[0]"],
  ] as const)
    assert.throws(
      () => toGeneration(ask(fields), null),
      (thrown) => thrown instanceof Problem && thrown.code === "unsupported_field" && thrown.param === param,
      param,
    );
});

test("fields with values that ask for nothing are accepted", () => {
  const generation = toGeneration(
    requestOf({
      messages: MESSAGES,
      n: 1,
      frequency_penalty: 0,
      presence_penalty: 0,
      store: false,
      user: "u",
      stop: ["", "x"],
      parallel_tool_calls: false,
      seed: 4,
      logit_bias: null,
    }),
    null,
  );
  assert.deepEqual(
    { stop: generation.stop, parallel: generation.parallelToolCalls, seed: generation.seed, choice: generation.toolChoice },
    { stop: ["x"], parallel: false, seed: 4, choice: "none" },
  );
});

test("the smaller of the caller's maximum and the hold's bound is what is asked for", () => {
  const limit = (fields: JsonObject, bound: number | null): number | null =>
    toGeneration(requestOf({ messages: MESSAGES, ...fields }), bound).maxOutputTokens;
  assert.deepEqual([limit({ max_tokens: 5 }, 9), limit({ max_tokens: 9 }, 5), limit({}, 7), limit({}, null)], [5, 5, 7, null]);
});

test("the bound of the input is never below the bytes of the text, nor above the context window", () => {
  const { model } = deploymentOf("x.gguf");
  fc.assert(
    fc.property(fc.array(fc.string({ unit: "binary" }), { maxLength: 5 }), (texts) => {
      const request = requestOf({ messages: texts.map((content) => ({ role: "user", content })), max_tokens: 7 });
      const bound = localBound(request, model);
      assert.ok(bound.input >= texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0));
      assert.deepEqual([bound.output, bound.certainty], [7, "rule"]);
      assert.equal(localBound(request, { ...model, contextWindow: 100 }).input, 100);
    }),
  );
  assert.equal(localBound(requestOf({ messages: MESSAGES }), { ...model, contextWindow: 4096 }).output, 4096);
});

test("an option that is unknown, out of bounds, or asks for a GPU is refused", () => {
  assert.deepEqual(localOptions.parse({ threads: 3 }), { context_size: 8192, threads: 3, sequences: 2, gpu: false });
  for (const options of [{ gpu: true }, { context_size: 1 }, { threads: 0 }, { sequences: 1000 }, { layers: 3 }, { memory_limit_mb: 1 }])
    assert.equal(localOptions.safeParse(options).success, false, JSON.stringify(options));
});
