import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseJson } from "./json.ts";
import { Problem } from "./problem.ts";

const DEPTH = 64;
const parse = (text: string | Buffer) => parseJson(Buffer.from(text), DEPTH);
const refusedAs =
  (code: string, param: string | null = null) =>
  (thrown: unknown) =>
    thrown instanceof Problem && thrown.code === code && thrown.param === param;

test("what JSON.stringify writes, in any indentation, parses to the same value", () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 8 }), fc.nat(4), (value, indentation) => {
      const text = JSON.stringify(value, null, indentation);
      assert.deepEqual(parse(text), JSON.parse(text));
    }),
  );
});

test("a key named twice in one object is refused and named, at any depth and in any spelling", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 8 }), fc.jsonValue(), fc.nat(10), fc.boolean(), (key, value, depth, escaped) => {
      const units = Array.from({ length: key.length }, (_, index) => `\\u${key.charCodeAt(index).toString(16).padStart(4, "0")}`);
      const second = escaped ? `"${units.join("")}"` : JSON.stringify(key);
      const object = `{${JSON.stringify(key)}:${JSON.stringify(value)},${second}:1}`;
      const nested = Array.from({ length: depth }).reduce<string>(
        (inside, _, index) => (index % 2 === 0 ? `[0,${inside}]` : `{"a":${inside}}`),
        object,
      );
      assert.throws(() => parse(nested), refusedAs("duplicate_key", key));
    }),
  );
});

test("the same key in sibling objects and in strings is no duplicate", () => {
  assert.deepEqual(parse('{"a":{"a":[{"a":1},{"a":"{\\"a\\":1,\\"a\\":2}"}]}}'), { a: { a: [{ a: 1 }, { a: '{"a":1,"a":2}' }] } });
});

test("a __proto__ key is an ordinary key", () => {
  assert.deepEqual(Object.keys(parse('{"__proto__":1,"constructor":2}') as object), ["__proto__", "constructor"]);
  assert.throws(() => parse('{"__proto__":1,"__proto__":2}'), refusedAs("duplicate_key", "__proto__"));
});

test("any text that JSON.parse refuses is invalid_json and nothing else", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom('"', "{", "}", "[", "]", ":", ",", "\\", "1", " ") })), (text) => {
      let valid = true;
      try {
        JSON.parse(text);
      } catch {
        valid = false;
      }
      fc.pre(!valid);
      assert.throws(() => parse(text), refusedAs("invalid_json"));
    }),
    { numRuns: 500 },
  );
});

test("bytes that are not UTF-8 are refused", () => {
  assert.throws(() => parse(Buffer.from([0x22, 0xff, 0x22])), refusedAs("invalid_json"));
  assert.throws(() => parse(Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])), refusedAs("invalid_json"));
});

test("the nesting allowed is exactly the bound, and a million brackets are refused without overflowing the stack", () => {
  assert.doesNotThrow(() => parse("[".repeat(DEPTH) + "]".repeat(DEPTH)));
  assert.throws(() => parse("[".repeat(DEPTH + 1) + "]".repeat(DEPTH + 1)), refusedAs("invalid_json"));
  assert.throws(() => parse("[".repeat(1_000_000)), refusedAs("invalid_json"));
});

test("where a body stops being JSON is said, without quoting it", () => {
  assert.throws(
    () => parseJson(Buffer.from('{"canary": 1 "b": 2}'), 64),
    (problem: Problem) => /near character \d+/.test(problem.message) && !problem.message.includes("canary"),
  );
});
