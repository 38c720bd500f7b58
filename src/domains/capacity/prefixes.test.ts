import assert from "node:assert/strict";
import { test } from "node:test";
import type { JsonObject, ModelRequest } from "../../kernel/request.ts";
import { prefixesOf } from "./prefixes.ts";

const SECRET = Buffer.alloc(32, 1);
const MESSAGES = [{ role: "user", content: "Hello" }];

test("what a template may write before the messages makes another prefix, what it never sees does not", () => {
  const longest = (fields: JsonObject): string | undefined =>
    prefixesOf({ dialect: "openai", model: "m", fields: { messages: MESSAGES, ...fields } } as unknown as ModelRequest, SECRET).at(-1)
      ?.digest;
  const plain = longest({});
  for (const same of [{ temperature: 0.5 }, { stream: true }, { max_tokens: 5 }, { user: "u" }]) assert.equal(longest(same), plain);
  for (const other of [
    { functions: [{ name: "f" }] },
    { response_format: { type: "json_object" } },
    { tools: [] },
    { output_config: {} },
    { documents: ["d"] },
  ])
    assert.notEqual(longest(other), plain, JSON.stringify(other));
});
