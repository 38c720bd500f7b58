import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { scaled } from "../../../../test/support/scale.ts";
import { RollingBalance } from "./balances.ts";

const WINDOW = 2_400;
const BUCKET = 100;
const START = 1_000_000;

/** What counts by definition: every amount whose bucket is not wholly outside. */
function counted(posts: readonly (readonly [at: number, amount: bigint])[], at: number): bigint {
  return posts.reduce((sum, [when, amount]) => (Math.floor(when / BUCKET) * BUCKET + BUCKET > at - WINDOW ? sum + amount : sum), 0n);
}

test("a rolling balance is the sum of what was admitted within the window; a bucket leaves when all of it is outside", () => {
  const moves = fc.array(
    fc.tuple(fc.integer({ min: -50, max: 700 }), fc.integer({ min: 0, max: 3_000 }), fc.bigInt({ min: 0n, max: 9n })),
    {
      maxLength: 60,
      size: "max",
    },
  );
  fc.assert(
    fc.property(moves, (all) => {
      const before: [number, bigint][] = [
        [START - 2_380, 5n],
        [START - 100, 7n],
      ];
      const buckets = new Map(before.map(([at, amount]) => [Math.floor(at / BUCKET) * BUCKET, amount]));
      let balance = new RollingBalance(WINDOW, BUCKET, buckets, START);
      let now = START;
      for (const [step, late, amount] of all) {
        now += step;
        if (!balance.covers(now)) return;
        before.push([now - late, amount]);
        balance.post(now - late, amount);
        assert.equal(balance.spent(now), counted(before, now));
      }
    }),
    { numRuns: scaled(500) },
  );
});

test("a clock that is set back beyond what is known is told to read again, and never given a smaller sum", () => {
  const balance = new RollingBalance(WINDOW, BUCKET, new Map([[START - 1_000, 3n]]), START);
  assert.equal(balance.spent(START + 10_000), 0n);
  assert.equal(balance.covers(START), false);
  assert.equal(balance.covers(START + 9_000), true);
  assert.equal(new RollingBalance(WINDOW, BUCKET, new Map(), START).covers(START - BUCKET), false);
});
