import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseJson } from "./json.ts";
import { Problem } from "./problem.ts";

const code = (text: string | Buffer, depth?: number) => {
  try {
    parseJson(Buffer.from(text as string), depth);
    return "accepted";
  } catch (error) {
    assert.ok(error instanceof Problem);
    return error.code;
  }
};

test("any valid JSON parses to what JSON.parse gives, whatever its white space and escapes", () => {
  fc.assert(
    fc.property(fc.json(), fc.constantFrom(0, 1, 2, "\t"), (text, indent) => {
      const spaced = JSON.stringify(JSON.parse(text), null, indent as number);
      assert.deepEqual(parseJson(Buffer.from(spaced)), JSON.parse(text));
    }),
  );
});

test("an object that names a key twice is refused at any depth, and the key is named", () => {
  for (const text of ['{"a":1,"a":1}', '{"x":[{"a":1,"b":":","a":2}]}', '{"a":1,"\\u0061":2}', '{"\\\\":1,"\\\\" : 2}', '{"__proto__":1,"__proto__":2}']) {
    assert.equal(code(text), "duplicate_key", text);
  }
  assert.throws(() => parseJson(Buffer.from('{"x":{"model":1,"\\u006dodel":2}}')), (error: Problem) => error.param === "model");
});

test("equal keys of different objects, and colons, quotes and backslashes inside strings, are no duplicates", () => {
  for (const text of ['{"a":{"a":{"a":":"}}}', '[{"a":1},{"a":1}]', '{"a":"\\"a\\":1,\\"a\\":2"}', '{"a\\\\":"\\\\\\"","b":1}']) {
    assert.equal(code(text), "accepted", text);
  }
});

test("invalid JSON, invalid UTF-8, a byte-order mark and deep nesting are refused without quoting the body", () => {
  assert.equal(code('{"secret":'), "invalid_json");
  assert.equal(code(""), "invalid_json");
  assert.equal(code("\ufeff{}"), "invalid_json");
  assert.throws(() => parseJson(Buffer.from([0x22, 0xff, 0x22])), Problem);
  assert.equal(code("[".repeat(65) + "]".repeat(65)), "invalid_json");
  assert.equal(code("[".repeat(64) + "]".repeat(64)), "accepted");
  assert.throws(() => parseJson(Buffer.from('{"secret-canary": tru')), (error: Error) => !error.message.includes("canary"));
});
