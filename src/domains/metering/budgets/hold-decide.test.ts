import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { scaled } from "../../../../test/support/scale.ts";
import { type Amounts, fit, hasRoom, type Room } from "./hold-decide.ts";
import { MODES, type Mode, UNITS, type Unit } from "./model.ts";
import { budgetOf } from "./testing/budgets.ts";

/** A budget with so much left, of which so much is held. */
function room(mode: Mode, headroom: number, held = 0, unit: Unit = "tokens"): Room {
  return { budget: budgetOf({ mode, unit }), headroom: BigInt(headroom), held: BigInt(held) };
}

/** 100 tokens of input, and answers of that length. */
const most = (each: number): Amounts => ({ usd: BigInt(100 + each) * 10n, tokens: BigInt(100 + each), requests: 1n });

test("what has room everywhere is held whole, to the last token", () => {
  assert.deepEqual(fit([room("reject", 1_100), room("clamp", 1_100)], most, { each: 1_000, least: 256 }), { kind: "fits", each: 1_000 });
});

test("of several budgets that have no room the strictest answers: reject before wait before clamp", () => {
  const [reject, wait, clamp] = [room("reject", 1_099), room("wait", 1_099, 500), room("clamp", 1_099)];
  const length = { each: 1_000, least: 256 };
  assert.deepEqual(fit([clamp, wait, reject], most, length), { kind: "refused", by: reject, mayWait: false });
  assert.deepEqual(fit([clamp, wait], most, length), { kind: "refused", by: wait, mayWait: true });
  assert.deepEqual(fit([clamp], most, length), { kind: "fits", each: 999 });
});

test("a call waits only for what would fit if nothing else were held", () => {
  const length = { each: 1_000, least: 256 };
  const never = room("wait", 600, 499);
  assert.deepEqual(fit([never], most, length), { kind: "refused", by: never, mayWait: false });
  const later = room("wait", 600, 500);
  assert.deepEqual(fit([later], most, length), { kind: "refused", by: later, mayWait: true });
});

test("a clamp leaves no less than what is of use, and nothing longer than was asked", () => {
  const place = room("clamp", 355);
  assert.deepEqual(fit([place], most, { each: 1_000, least: 256 }), { kind: "refused", by: place, mayWait: false });
  assert.deepEqual(fit([room("clamp", 356)], most, { each: 1_000, least: 256 }), { kind: "fits", each: 256 });
  const short = room("clamp", 150);
  assert.deepEqual(fit([short], most, { each: 100, least: 256 }), { kind: "refused", by: short, mayWait: false });
});

const places = fc.array(
  fc
    .record({
      mode: fc.constantFrom(...MODES.filter((mode) => mode !== "soft")),
      unit: fc.constantFrom(...UNITS),
      headroom: fc.integer({ min: -100, max: 3_000 }),
      held: fc.nat(2_000),
    })
    .map(({ mode, unit, headroom, held }) => room(mode, headroom, held, unit)),
  { maxLength: 5 },
);

test("what is held fits under every budget, is the longest that does, and is whole unless only clamps stood in its way", () => {
  fc.assert(
    fc.property(places, fc.integer({ min: 1, max: 2_500 }), fc.constantFrom(256, 2_048), (all, each, least) => {
      const found = fit(all, most, { each, least });
      if (found.kind === "refused") return assert.ok(!hasRoom(found.by, most(each)));
      const fits = (length: number): boolean => all.every((place) => hasRoom(place, most(length)));
      assert.ok(fits(found.each));
      if (found.each === each) return;
      assert.ok(found.each >= least && !fits(found.each + 1));
      assert.ok(all.every((place) => place.budget.mode === "clamp" || hasRoom(place, most(each))));
    }),
    { numRuns: scaled(500) },
  );
});
