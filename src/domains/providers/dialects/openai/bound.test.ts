import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import type { JsonObject } from "../../../../kernel/request.ts";
import type { TokenBound } from "../../../../kernel/tokens.ts";
import { deploymentOf } from "../../testing/dispatching.ts";
import { bound } from "./bound.ts";
import { parseChatCompletion } from "./request.ts";

const RULE = { byteLevelTokenizer: true, image: { low: 85, high: 1445 } };
const WINDOW = 8192;
const BASE = 512 + 32;

test("each part has the term of accounting.md's table, and a part without one counts as the whole window, once", () => {
  const image = (detail?: string): JsonObject => ({
    type: "image_url",
    image_url: { url: "https://example.com/a.png", ...(detail === undefined ? {} : { detail }) },
  });
  const user = (...content: JsonObject[]): JsonObject => ({ messages: [{ role: "user", content }] });
  const tools = [{ type: "function", function: { name: "f", parameters: { type: "object" } } }];
  const cases: [string, JsonObject, number, "proof" | "rule"][] = [
    ["text: UTF-8 bytes", { messages: [{ role: "user", content: "é€a" }] }, BASE + 6, "proof"],
    ["text in parts", user({ type: "text", text: "ab" }, { type: "text", text: "c" }), BASE + 3, "proof"],
    ["name", { messages: [{ role: "user", name: "bob", content: "" }] }, BASE + 3, "proof"],
    [
      "per message",
      {
        messages: [
          { role: "system", content: "" },
          { role: "user", content: "" },
        ],
      },
      BASE + 32,
      "proof",
    ],
    ["a field that nobody knows", { ...user(), x: "y" }, BASE + WINDOW, "rule"],
    ["a member of a part that nobody knows", user({ type: "text", text: "ab", x: "y" }), BASE + 2 + WINDOW, "rule"],
    ["text beside an image", user({ ...image("low"), text: "ab" }), BASE + 85 + 2, "rule"],
    ["image low", user(image("low")), BASE + 85, "rule"],
    ["image of unknown size: the most", user(image()), BASE + 1445, "rule"],
    ["image auto", user(image("auto")), BASE + 1445, "rule"],
    ["image of an unpublished detail", user(image("original")), BASE + WINDOW, "rule"],
    ["audio", user({ type: "input_audio", input_audio: { data: "", format: "wav" } }), BASE + WINDOW, "rule"],
    ["two unknown parts share one window", user({ type: "input_audio", input_audio: {} }, { type: "hologram" }), BASE + WINDOW, "rule"],
    ["earlier audio by id", { messages: [{ role: "assistant", content: null, audio: { id: "a" } }] }, BASE + WINDOW, "rule"],
    ["earlier reasoning: UTF-8 bytes", { messages: [{ role: "assistant", content: "", reasoning_content: "é€" }] }, BASE + 5, "proof"],
    ["earlier reasoning, encrypted", { messages: [{ role: "assistant", content: "", reasoning_details: [{}] }] }, BASE + WINDOW, "rule"],
    ["a text that is none", { messages: [{ role: "assistant", content: "", reasoning: { text: "a" } }] }, BASE + WINDOW, "rule"],
    ["tools: 4 a byte", { messages: [{ role: "user", content: "" }], tools }, BASE + 4 * JSON.stringify(tools).length, "rule"],
  ];
  for (const [name, fields, input, certainty] of cases) assert.deepEqual(pick(boundOf(fields)), { input, certainty }, name);
  assert.equal(boundOf(user(image("low")), { ...RULE, image: null }).input, BASE + WINDOW);
  assert.equal(boundOf({}, { ...RULE, byteLevelTokenizer: false }).certainty, "rule");
});

test("output is choices times the caller's maximum, else the model's, else the window, and the bytes of a prediction", () => {
  assert.equal(boundOf({}).output, WINDOW);
  assert.equal(boundOf({ n: 3 }).output, 3 * WINDOW);
  assert.equal(boundOf({ n: 2, max_tokens: 10 }).output, 20);
  assert.equal(boundOf({ max_tokens: 10, max_completion_tokens: 7, best_of: 4 }).output, 40);
  assert.equal(boundOf({ max_tokens: 10, prediction: { type: "content", content: "abc" } }).output, 13);
  assert.equal(boundOf({ max_tokens: 10, prediction: { type: "content", content: [{ type: "text", text: "é" }] } }).output, 12);
  assert.equal(boundOf({}, RULE, 100).output, 100);
});

test("no text in a request escapes the bound: it is never less than the bytes of every text, and never more than a constant over the body", () => {
  const message = fc.oneof(
    fc.record({ role: fc.constantFrom("user", "system"), content: fc.string({ unit: "grapheme" }) }),
    fc.record({
      role: fc.constant("user"),
      content: fc.array(fc.record({ type: fc.constant("text"), text: fc.string({ unit: "binary" }) })),
    }),
    fc.record({
      role: fc.constant("assistant"),
      content: fc.constant(null),
      tool_calls: fc.array(
        fc.record({ id: fc.string(), type: fc.constant("function"), function: fc.record({ name: fc.string(), arguments: fc.string() }) }),
      ),
    }),
  );
  fc.assert(
    fc.property(fc.array(message, { minLength: 1, maxLength: 5 }), (messages) => {
      const fields = JSON.parse(JSON.stringify({ messages })) as JsonObject;
      const texts = JSON.stringify(fields["messages"]).length;
      const { input } = boundOf(fields);
      assert.ok(input >= textBytes(fields["messages"] as unknown as JsonObject[]));
      assert.ok(input <= 512 + 64 * messages.length + 32 * texts);
    }),
    { numRuns: 50 },
  );
});

function textBytes(messages: readonly JsonObject[]): number {
  let bytes = 0;
  JSON.stringify(messages, (key, value: unknown) => {
    if (["content", "text", "arguments", "name"].includes(key) && typeof value === "string") bytes += Buffer.byteLength(value);
    return value;
  });
  return bytes;
}

function pick({ input, certainty }: TokenBound): Omit<TokenBound, "output"> {
  return { input, certainty };
}

function boundOf(fields: JsonObject, rule = RULE as Parameters<typeof bound>[2], maxOutputTokens: number | null = null): TokenBound {
  const { model } = deploymentOf({ provider: "openai", model: { contextWindow: WINDOW, maxOutputTokens } });
  return bound(
    parseChatCompletion(Buffer.from(JSON.stringify({ model: "demo", messages: [{ role: "user", content: "" }], ...fields }))),
    model,
    rule,
  );
}
