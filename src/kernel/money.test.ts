import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { formatUsd, formatUsdPerMillion, parseUsd, parseUsdPerMillion } from "./money.ts";

const MAX_USD = 10n ** 27n - 1n;
const amounts = fc.bigInt(0n, MAX_USD);

test("every amount is read back from what it is written as, exactly", () => {
  fc.assert(fc.property(amounts, (amount) => assert.equal(parseUsd(formatUsd(amount)), amount)));
});

test("every price per million tokens is read back from what it is written as, exactly", () => {
  fc.assert(
    fc.property(fc.bigInt(0n, 10n ** 20n), (perToken) => assert.equal(parseUsdPerMillion(formatUsdPerMillion(perToken)), perToken)),
  );
});

test("an amount is written in one way: no sign but minus, no trailing zeros, a digit before the point", () => {
  fc.assert(fc.property(fc.bigInt(-MAX_USD, MAX_USD), (amount) => assert.match(formatUsd(amount), /^-?(?:0|[1-9]\d*)(?:\.\d*[1-9])?$/)));
});

test("the written form is the decimal number itself: whole dollars and picodollars add up", () => {
  const parts = fc.tuple(fc.bigInt(0n, 10n ** 15n - 1n), fc.bigInt(0n, 10n ** 12n - 1n));
  fc.assert(
    fc.property(parts, ([dollars, pico]) =>
      assert.equal(parseUsd(`${dollars}.${String(pico).padStart(12, "0")}`), dollars * 10n ** 12n + pico),
    ),
  );
});

test("published prices are exact", () => {
  for (const [perMillion, perToken] of [
    ["0.0125", 12_500n],
    ["0.15", 150_000n],
    ["15", 15_000_000n],
    ["0.000001", 1n],
    ["0", 0n],
  ] as const)
    assert.equal(parseUsdPerMillion(perMillion), perToken, perMillion);
});

test("what is not a non-negative decimal of at most 12 places is null, never a guess", () => {
  for (const text of [
    "",
    " ",
    "-1",
    "+1",
    "1.",
    ".5",
    "1e3",
    "0x1",
    "1,5",
    "NaN",
    "Infinity",
    " 1",
    "1 ",
    "1\n",
    "1.0000000000001",
    "1234567890123456",
    "１",
  ])
    assert.equal(parseUsd(text), null, JSON.stringify(text));
  fc.assert(
    fc.property(fc.string(), (text) => assert.equal(parseUsd(text) === null, !/^\d{1,15}(\.\d{1,12})?$/.test(text) || text.endsWith("\n"))),
  );
});

test("a price finer than a picodollar a token is refused rather than rounded", () => {
  assert.equal(parseUsdPerMillion("0.0000001"), null);
  fc.assert(
    fc.property(amounts, (amount) =>
      assert.equal(parseUsdPerMillion(formatUsd(amount)), amount % 1_000_000n === 0n ? amount / 1_000_000n : null),
    ),
  );
});
