import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { line, lineReader } from "./lines.ts";

test("any cut of the bytes gives the same values", () => {
  fc.assert(
    fc.property(fc.array(fc.jsonValue(), { maxLength: 8 }), fc.array(fc.nat(200), { maxLength: 20 }), (values, cuts) => {
      const bytes = Buffer.from(values.map(line).join(""));
      const read: unknown[] = [];
      const feed = lineReader(1 << 20, (value) => read.push(value));
      let from = 0;
      for (const cut of cuts) {
        feed(bytes.subarray(from, from + cut));
        from = Math.min(bytes.length, from + cut);
      }
      feed(bytes.subarray(from));
      assert.deepEqual(read, JSON.parse(JSON.stringify(values)));
    }),
  );
});

test("a line without an end is held only up to the bound", () => {
  const feed = lineReader(100, () => assert.fail("nothing is whole"));
  feed(Buffer.alloc(100, "x"));
  assert.throws(() => feed(Buffer.alloc(1, "x")), RangeError);
});
