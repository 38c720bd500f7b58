import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { INPUT_CLASSES, inputTokens, OUTPUT_CLASSES, outputTokens, TOKEN_CLASSES, type TokenCounts } from "./tokens.ts";

const counts = fc
  .array(fc.nat(1e9), { minLength: TOKEN_CLASSES.length, maxLength: TOKEN_CLASSES.length })
  .map(
    (values) =>
      Object.fromEntries(TOKEN_CLASSES.map((name, index) => [name, values[index]])) as Record<(typeof TOKEN_CLASSES)[number], number>,
  );

test("every class belongs to one side, and the two sides add up to all tokens", () => {
  assert.deepEqual([...INPUT_CLASSES, ...OUTPUT_CLASSES].sort(), [...TOKEN_CLASSES].sort());
  fc.assert(
    fc.property(counts, (tokens: TokenCounts) => {
      const sum = (classes: readonly (keyof TokenCounts)[]) => classes.reduce((total, each) => total + tokens[each], 0);
      assert.equal(inputTokens(tokens), sum(INPUT_CLASSES));
      assert.equal(outputTokens(tokens), sum(OUTPUT_CLASSES));
    }),
  );
});
