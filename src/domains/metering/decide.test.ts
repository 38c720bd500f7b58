import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  INPUT_CLASSES,
  inputTokens,
  NO_TOKENS,
  OUTPUT_CLASSES,
  outputTokens,
  TOKEN_CLASSES,
  type TokenClass,
  type TokenCounts,
} from "../../kernel/tokens.ts";
import type { Price } from "../catalog/index.ts";
import { boundLost, chargeOf, countUnanswered, countUsage, nextMark, NO_MARKUP, priceOf, rateOf, worstCase } from "./decide.ts";
import { newId } from "./testing/facts.ts";

const price = (rates: Price["rates"], source: Price["source"] = "stated"): Price => ({ version: newId(), source, rates });
const used = (counts: Partial<TokenCounts>): TokenCounts => ({ ...NO_TOKENS, ...counts });

test("each class is charged at its own rate, exactly", () => {
  const full = price({
    input_uncached: 12_500n,
    cache_read: 1_250n,
    cache_write_5m: 15_625n,
    cache_write_1h: 25_000n,
    output: 100_000n,
    reasoning: 90_000n,
    audio_input: 40_000n,
    audio_output: 200_000n,
    image: 7n,
  });
  const everyClass = Object.fromEntries(TOKEN_CLASSES.map((tokenClass) => [tokenClass, 3])) as TokenCounts;
  assert.deepEqual(priceOf(everyClass, full, NO_MARKUP), {
    cost: 3n * (12_500n + 1_250n + 15_625n + 25_000n + 100_000n + 90_000n + 40_000n + 200_000n + 7n),
    charge: 1_453_146n,
    unpriced: [],
  });
});

test("a class without a price has its customary stand-in, or the dearest of its side and is named", () => {
  const cases: readonly [TokenClass, Price["rates"], bigint, boolean][] = [
    ["reasoning", { input_uncached: 1n, output: 5n }, 5n, false],
    ["cache_read", { input_uncached: 2n, output: 5n }, 2n, false],
    ["cache_write_5m", { input_uncached: 2n, cache_read: 1n, output: 5n }, 2n, false],
    ["cache_write_1h", { input_uncached: 2n, cache_write_5m: 3n, output: 5n }, 3n, false],
    ["audio_input", { input_uncached: 2n, output: 5n }, 2n, true],
    ["image", { input_uncached: 2n, audio_input: 9n, output: 5n }, 9n, true],
    ["audio_output", { input_uncached: 2n, output: 5n }, 5n, true],
    ["output", { input_uncached: 2n }, 2n, true],
    ["input_uncached", { output: 5n }, 5n, true],
  ];
  for (const [tokenClass, rates, rate, flagged] of cases) {
    const result = priceOf(used({ [tokenClass]: 10 }), price(rates), NO_MARKUP);
    assert.equal(result.cost, 10n * rate, tokenClass);
    assert.deepEqual(result.unpriced, flagged ? [tokenClass] : [], tokenClass);
    assert.equal(rateOf(tokenClass, price(rates), 10), rate);
  }
});

test("what is free costs nothing and is never named as unpriced", () => {
  const everyClass = Object.fromEntries(TOKEN_CLASSES.map((tokenClass) => [tokenClass, 1_000_000])) as TokenCounts;
  assert.deepEqual(priceOf(everyClass, price({}, "free"), 1_200_000), { cost: 0n, charge: 0n, unpriced: [] });
});

const anyRates = fc.dictionary(fc.constantFrom(...TOKEN_CLASSES), fc.bigInt({ min: 0n, max: 10n ** 12n }), {
  noNullPrototype: true,
}) as fc.Arbitrary<Price["rates"]>;
/** Up to three tiers, in ascending order. */
const anyTiers = fc
  .uniqueArray(fc.record({ above: fc.nat(3_000_000), rates: anyRates }), { selector: ({ above }) => above, maxLength: 3 })
  .map((tiers) => tiers.toSorted((one, other) => one.above - other.above));
const anyMarkup = fc.integer({ min: 10_000, max: 100_000_000 });
const anyUsage = fc
  .tuple(...TOKEN_CLASSES.map(() => fc.nat(2_000_000)))
  .map((counts) => Object.fromEntries(TOKEN_CLASSES.map((tokenClass, index) => [tokenClass, counts[index]])) as TokenCounts);

test("no usage within the bound is charged more than W, whatever the price list leaves out, its tiers and the markup", () => {
  fc.assert(
    fc.property(
      anyRates,
      anyTiers,
      anyMarkup,
      anyUsage,
      fc.nat(1_000),
      fc.nat(1_000),
      (rates, tiers, markup, tokens, spareInput, spareOutput) => {
        const list = { ...price(rates), tiers };
        const bound = { input: inputTokens(tokens) + spareInput, output: outputTokens(tokens) + spareOutput, certainty: "rule" as const };
        assert.ok(priceOf(tokens, list, markup).charge <= worstCase(bound, list, markup));
      },
    ),
  );
});

test("W is reached: a usage of the dearest classes at the bound is charged exactly W", () => {
  fc.assert(
    fc.property(anyRates, anyMarkup, fc.nat(1_000_000), fc.nat(1_000_000), (rates, markup, input, output) => {
      const list = price(rates);
      const dearest = (classes: readonly TokenClass[]) =>
        classes.toSorted((a, b) => (rateOf(a, list, input) < rateOf(b, list, input) ? 1 : -1))[0] as TokenClass;
      const tokens = used({ [dearest(INPUT_CLASSES)]: input, [dearest(OUTPUT_CLASSES)]: output });
      assert.equal(priceOf(tokens, list, markup).charge, worstCase({ input, output, certainty: "rule" }, list, markup));
    }),
  );
});

test("an attempt whose input is longer than a tier's start costs that tier's rates, all of its tokens", () => {
  const list: Price = {
    ...price({ input_uncached: 10n, cache_read: 1n, output: 100n }),
    tiers: [
      { above: 200, rates: { input_uncached: 20n, cache_read: 2n, output: 150n } },
      { above: 1_000, rates: { input_uncached: 40n, cache_read: 4n, output: 300n } },
    ],
  };
  const cases: readonly [Partial<TokenCounts>, bigint][] = [
    [{ input_uncached: 200, output: 2 }, 200n * 10n + 2n * 100n],
    [{ input_uncached: 201, output: 2 }, 201n * 20n + 2n * 150n],
    [{ input_uncached: 1, cache_read: 200, output: 2 }, 1n * 20n + 200n * 2n + 2n * 150n],
    [{ input_uncached: 1_001, output: 2 }, 1_001n * 40n + 2n * 300n],
    [{ output: 5_000 }, 5_000n * 100n],
  ];
  for (const [tokens, cost] of cases) assert.equal(priceOf(used(tokens), list, NO_MARKUP).cost, cost, JSON.stringify(tokens));
  assert.equal(
    worstCase({ input: 200, output: 1, certainty: "rule" }, list, NO_MARKUP),
    200n * 10n + 100n,
    "a tier out of reach is not held",
  );
  assert.equal(worstCase({ input: 201, output: 1, certainty: "rule" }, list, NO_MARKUP), 201n * 20n + 150n);
});

test("charge = cost × markup, rounded up once an attempt to the pico-dollar; without a markup they are equal", () => {
  assert.equal(chargeOf(1n, 1_200_000), 2n);
  assert.equal(chargeOf(5n, 1_200_000), 6n);
  assert.equal(chargeOf(10n, 900_000), 9n, "a rebate");
  assert.equal(chargeOf(0n, 100_000_000), 0n);
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 10n ** 24n }), anyMarkup, (cost, markup) => {
      const charge = chargeOf(cost, markup);
      assert.ok(charge * 1_000_000n >= cost * BigInt(markup));
      assert.ok((charge - 1n) * 1_000_000n < cost * BigInt(markup));
      assert.equal(chargeOf(cost, NO_MARKUP), cost);
    }),
  );
});

test("cost is a pure function of usage and price: equal inputs cost the same, and parts add up", () => {
  fc.assert(
    fc.property(anyRates, anyUsage, anyUsage, (rates, one, other) => {
      const sum = Object.fromEntries(TOKEN_CLASSES.map((tokenClass) => [tokenClass, one[tokenClass] + other[tokenClass]])) as TokenCounts;
      const costOf = (tokens: TokenCounts) => priceOf(tokens, price({ ...rates }), NO_MARKUP).cost;
      assert.equal(costOf(one) + costOf(other), costOf(sum));
    }),
  );
});

test("what is counted, unanswered or lost stays within the bound, and so within W", () => {
  const anyBound = fc.record({ input: fc.nat(1_000_000), output: fc.nat(1_000_000), certainty: fc.constant("rule" as const) });
  fc.assert(
    fc.property(
      anyBound,
      fc.nat(2_000_000),
      fc.nat(5_000_000),
      fc.nat(100_000_000),
      fc.boolean(),
      fc.option(fc.nat(1_000_000)),
      (bound, outputFrames, outputBytes, elapsedMs, stream, mark) => {
        const usages = [
          countUsage({ outputFrames, outputBytes }, bound),
          countUnanswered(stream, elapsedMs, 100, bound),
          boundLost({ stream, mark: mark === null ? null : Math.min(mark, bound.output), elapsedMs, tokensPerSecond: 100 }, bound),
        ];
        for (const { tokens, source } of usages) {
          assert.equal(source, "counted");
          assert.ok(inputTokens(tokens) <= bound.input && outputTokens(tokens) <= bound.output);
        }
      },
    ),
  );
});

test("an attempt that may never have left is charged its input only; one that left and was not streamed, its time", () => {
  const bound = { input: 300, output: 5_000, certainty: "proof" as const };
  assert.deepEqual(
    boundLost({ stream: false, mark: null, elapsedMs: 10_000, tokensPerSecond: 50 }, bound).tokens,
    used({ input_uncached: 300 }),
  );
  assert.deepEqual(
    boundLost({ stream: false, mark: 0, elapsedMs: 10_000, tokensPerSecond: 50 }, bound).tokens,
    used({ input_uncached: 300, output: 500 }),
  );
  assert.deepEqual(
    boundLost({ stream: true, mark: 0, elapsedMs: 10_000, tokensPerSecond: 50 }, bound).tokens,
    used({ input_uncached: 300 }),
  );
  assert.deepEqual(
    boundLost({ stream: true, mark: 256, elapsedMs: 10_000, tokensPerSecond: 50 }, bound).tokens,
    used({ input_uncached: 300, output: 256 }),
  );
});

test("a mark is a step ahead of what has come and never above the output bound", () => {
  const bound = { input: 0, output: 600, certainty: "proof" as const };
  assert.equal(nextMark(3, 256, bound), 259);
  assert.equal(nextMark(500, 256, bound), 600);
});
