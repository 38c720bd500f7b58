import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Json } from "../../../../kernel/request.ts";
import { isPlainRequest } from "./plain-request.ts";
import { SCHEMA } from "./request.ts";

const scalar = fc.oneof(
  fc.constantFrom<Json[]>(
    null,
    true,
    false,
    "",
    "a",
    "user",
    "text",
    0,
    1,
    -1,
    0.5,
    Number.POSITIVE_INFINITY,
    2 ** 31,
    2 ** 53,
    128,
    129,
    "x".repeat(257),
  ),
  fc.constantFrom<Json[]>([], {}, ["a"], { include_usage: 1 }, { include_usage: true }, { include_usage: null }, { type: "function" }),
);
const part = fc.record({ type: fc.constantFrom<Json[]>("text", "image_url", 1), text: scalar, image_url: scalar }, { requiredKeys: [] });
const message = fc.oneof(
  fc.record({
    role: fc.constantFrom<Json[]>("user", "system", "tool", "nobody"),
    content: fc.oneof(fc.string(), fc.constant(null), fc.array(part, { maxLength: 2 })),
  }),
  fc.record({ role: scalar, content: scalar, name: scalar, tool_calls: scalar }, { requiredKeys: [] }),
);
const body = fc
  .tuple(
    fc.oneof({ weight: 4, arbitrary: fc.constant<Json>("m") }, scalar),
    fc.oneof({ weight: 6, arbitrary: fc.array(message, { minLength: 1, maxLength: 2 }) }, scalar),
    fc.dictionary(fc.oneof(fc.constantFrom(...Object.keys(SCHEMA.shape), "__proto__", "constructor"), fc.string()), scalar, { maxKeys: 3 }),
  )
  .map(([model, messages, more]) => ({ model, messages, ...more }) as Json);

test("what passes as a plain request the schema accepts, and most usual requests pass", () => {
  let plain = 0;
  fc.assert(
    fc.property(fc.oneof(body, fc.jsonValue() as fc.Arbitrary<Json>), (json) => {
      if (!isPlainRequest(json)) return;
      plain++;
      assert.ok(SCHEMA.safeParse(json).success, JSON.stringify(json));
    }),
    { numRuns: 20_000 },
  );
  assert.ok(plain > 100, `only ${plain} passed`);
  const messages = [
    { role: "system", content: "Be brief." },
    { role: "user", content: [{ type: "text", text: "Hello" }] },
  ];
  assert.ok(
    isPlainRequest({ model: "m", messages, stream: true, max_tokens: 5, temperature: 0.2, stream_options: { include_usage: true } }),
  );
});
