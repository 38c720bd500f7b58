import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LeakyBucket } from "./leaky-bucket.ts";
import { type Level, MAX_AMOUNT, TICKS_PER_MINUTE, TICKS_PER_SECOND } from "./level.ts";
import type { Rule } from "./model.ts";
import { Semaphore } from "./semaphore.ts";
import { SlidingWindow } from "./sliding-window.ts";

const WINDOWS = { gcra: () => new LeakyBucket(true), sliding: () => new SlidingWindow() } as const;

/** What happened, and when. */
interface Passed {
  readonly tick: number;
  readonly amount: number;
}

const gap = fc.oneof(
  fc.constant(0),
  fc.integer({ min: 0, max: 10 }),
  fc.integer({ min: 0, max: TICKS_PER_SECOND }),
  fc.integer({ min: 0, max: 2 * TICKS_PER_MINUTE }),
);
const rule = fc
  .tuple(fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: MAX_AMOUNT })), fc.integer({ min: 1, max: 100 }))
  .map(([amount, share]): Rule => ({ amount, burst: Math.max(1, Math.ceil((amount * share) / 100)), strict: false }));
const share = fc.double({ min: 0, max: 1.2, noNaN: true });

const arrivals = fc.array(fc.record({ gap, share }), { maxLength: 60, size: "max" });

/** Of what burst and limit allow in the interval, in units that no division rounds. */
function assertRate(passed: readonly Passed[], { amount, burst }: Rule): void {
  for (let from = 0; from < passed.length; from++) {
    let sum = 0n;
    for (let to = from; to < passed.length; to++) {
      sum += BigInt(passed[to]?.amount ?? 0);
      const ticks = (passed[to]?.tick ?? 0) - (passed[from]?.tick ?? 0);
      const most = BigInt(burst) * BigInt(TICKS_PER_MINUTE) + BigInt(amount) * BigInt(ticks);
      assert.ok(sum * BigInt(TICKS_PER_MINUTE) <= most, `${sum} passed in ${ticks} ticks`);
    }
  }
}

function assertHardMinute(passed: readonly Passed[], { amount }: Rule): void {
  for (const first of passed) {
    const within = passed.filter(({ tick }) => tick >= first.tick && tick < first.tick + TICKS_PER_MINUTE);
    const sum = within.reduce((total, each) => total + each.amount, 0);
    assert.ok(sum <= amount, `${sum} of ${amount} passed in the 60 s from tick ${first.tick}`);
  }
}

const PROMISES = { gcra: assertRate, sliding: assertHardMinute } as const;

test("gcra: estimates that are too large are corrected, and still in every interval no more is used than burst + limit × t / 60", (t) => {
  let corrected = 0;
  const step = fc.record({ gap, share, used: fc.double({ min: 0, max: 1, noNaN: true }), lasts: gap });
  fc.assert(
    fc.property(rule, fc.array(step, { maxLength: 40, size: "max" }), (limit, program) => {
      const level = new LeakyBucket(true);
      const begun: Passed[] = [];
      let running: { until: number; charge: number; used: number; taken: number; mark: number }[] = [];
      let tick = 0;
      for (const { gap: wait, share: part, used, lasts } of program) {
        tick += wait;
        for (const call of running.filter(({ until }) => until <= tick).toSorted((left, right) => left.until - right.until)) {
          level.settle(call, limit, call.until);
          corrected++;
        }
        running = running.filter(({ until }) => until > tick);
        const charge = Math.ceil(limit.burst * part);
        if (level.wait(charge, limit, tick) > 0) continue;
        const spent = Math.floor(charge * used);
        begun.push({ tick, amount: spent });
        running.push({ until: tick + lasts, charge, used: spent, taken: tick, mark: level.take(charge, limit, tick) });
      }
      assertRate(begun, limit);
    }),
    { numRuns: 2_000 },
  );
  t.diagnostic(`${corrected} calls settled`);
  assert.ok(corrected > 1_000);
});

test("gcra: what has leaked of a charge is not given back out of another's, and a changed amount does not reach back", () => {
  const limit: Rule = { amount: 100, burst: 200, strict: false };
  const level = new LeakyBucket(true);
  const settled = (mark: number) => ({ charge: 100, used: 0, taken: 0, mark });
  const [first, second] = [level.take(100, limit, 0), level.take(100, limit, 0)];
  level.settle(settled(first), limit, 0);
  assert.equal(level.remaining(limit, TICKS_PER_MINUTE), 200);
  level.take(200, limit, TICKS_PER_MINUTE);
  level.settle(settled(second), limit, TICKS_PER_MINUTE);
  assert.equal(level.remaining(limit, TICKS_PER_MINUTE), 0);

  const slower: Rule = { ...limit, amount: 1 };
  assert.equal(level.remaining(slower, TICKS_PER_MINUTE), 0);
  assert.equal(level.remaining(slower, 2 * TICKS_PER_MINUTE), 1);
});

for (const window of ["gcra", "sliding"] as const) {
  const promise =
    window === "gcra"
      ? "in every interval at most burst + limit × t / 60 passes"
      : "in any 60 s at most the limit passes, wherever they begin";

  test(`${window}: ${promise}`, (t) => {
    let refusals = 0;
    let passes = 0;
    fc.assert(
      fc.property(rule, arrivals, (limit, program) => {
        const level = WINDOWS[window]();
        const passed: Passed[] = [];
        let tick = 0;
        for (const step of program) {
          tick += step.gap;
          const charge = Math.ceil(limit.burst * step.share);
          if (level.wait(charge, limit, tick) > 0) {
            refusals++;
            continue;
          }
          passes++;
          level.take(charge, limit, tick);
          passed.push({ tick, amount: charge });
        }
        PROMISES[window](passed, limit);
      }),
      { numRuns: 1_000 },
    );
    t.diagnostic(`${passes} passed, ${refusals} refused`);
    assert.ok(passes > 1_000 && refusals > 1_000);
  });

  test(`${window}: strict, the promise holds for tokens really used, counted when calls begin and when they end`, (t) => {
    let settled = 0;
    fc.assert(
      fc.property(
        rule,
        fc.array(fc.record({ gap, share, used: fc.double({ min: 0, max: 1, noNaN: true }), lasts: gap }), { maxLength: 40, size: "max" }),
        (loose, program) => {
          const limit = { ...loose, strict: true };
          const level = WINDOWS[window]();
          const [begun, ended]: [Passed[], Passed[]] = [[], []];
          let running: { until: number; charge: number; used: number; taken: number; mark: number }[] = [];
          const settleUntil = (tick: number): void => {
            for (const call of running.filter(({ until }) => until <= tick).toSorted((left, right) => left.until - right.until)) {
              level.settle(call, limit, call.until);
              ended.push({ tick: call.until, amount: call.used });
              settled++;
            }
            running = running.filter(({ until }) => until > tick);
          };
          let tick = 0;
          for (const step of program) {
            tick += step.gap;
            settleUntil(tick);
            const charge = Math.ceil(limit.burst * step.share);
            if (level.wait(charge, limit, tick) > 0) continue;
            const used = Math.floor(charge * step.used);
            begun.push({ tick, amount: used });
            running.push({ until: tick + step.lasts, charge, used, taken: tick, mark: level.take(charge, limit, tick) });
          }
          settleUntil(Number.POSITIVE_INFINITY);
          PROMISES[window](begun, limit);
          PROMISES[window](ended, limit);
        },
      ),
      { numRuns: 1_000 },
    );
    t.diagnostic(`${settled} calls settled`);
    assert.ok(settled > 1_000);
  });

  test(`${window}: a charge that waits as long as it is told passes then, and not a tick sooner`, () => {
    fc.assert(
      fc.property(rule, arrivals, fc.double({ min: 0, max: 1, noNaN: true }), (limit, program, last) => {
        const level = WINDOWS[window]();
        let tick = 0;
        for (const step of program) {
          tick += step.gap;
          const charge = Math.ceil(limit.burst * step.share);
          if (level.wait(charge, limit, tick) === 0) level.take(charge, limit, tick);
        }
        const charge = Math.ceil(limit.burst * last);
        const wait = level.wait(charge, limit, tick);
        assert.ok(wait <= 61 * TICKS_PER_SECOND || window === "gcra");
        if (wait > 1) assert.ok(level.wait(charge, limit, tick + wait - 1) > 0);
        assert.equal(level.wait(charge, limit, tick + wait), 0);
      }),
      { numRuns: 500 },
    );
  });

  test(`${window}: a correction at once leaves what charging the truth would have left, in both directions`, () => {
    fc.assert(
      fc.property(rule, arrivals, fc.nat(100), fc.nat(300), (limit, program, estimate, used) => {
        const [corrected, exact] = [WINDOWS[window](), WINDOWS[window]()];
        let tick = 0;
        for (const step of program) {
          tick += step.gap;
          const charge = Math.ceil(limit.burst * step.share);
          if (exact.wait(charge, limit, tick) > 0) continue;
          for (const level of [corrected, exact]) level.take(charge, limit, tick);
        }
        const mark = corrected.take(estimate, limit, tick);
        corrected.settle({ charge: estimate, used, taken: tick, mark }, limit, tick);
        exact.take(used, limit, tick);
        for (const later of [0, 1, TICKS_PER_SECOND, 30 * TICKS_PER_SECOND, TICKS_PER_MINUTE])
          assert.deepEqual(look(corrected, limit, tick + later), look(exact, limit, tick + later));
      }),
    );
  });

  test(`${window}: whatever is charged and settled, in any order, all of it is free again in the end`, () => {
    fc.assert(
      fc.property(
        rule,
        fc.boolean(),
        fc.array(fc.record({ gap, charge: fc.nat(50), used: fc.nat(80), lasts: gap }), { maxLength: 30 }),
        (loose, strict, program) => {
          const limit = { ...loose, strict };
          const level = WINDOWS[window]();
          let tick = 0;
          const running = program.map(({ gap: wait, charge, used, lasts }) => {
            tick += wait;
            return { charge, used, taken: tick, mark: level.take(charge, limit, tick), until: tick + lasts };
          });
          for (const call of running.toSorted((left, right) => left.until - right.until)) {
            level.settle(call, limit, Math.max(tick, call.until));
            assert.ok(level.remaining(limit, Math.max(tick, call.until)) >= 0);
          }
          const end = Math.max(tick, ...running.map(({ until }) => until));
          const free = end + level.reset(limit, end);
          assert.equal(level.remaining(limit, free), window === "gcra" ? limit.burst : limit.amount);
          assert.ok(level.isFresh(limit, free));
        },
      ),
    );
  });

  test(`${window}: a debt delays the next calls`, () => {
    const limit: Rule = { amount: 60, burst: 60, strict: false };
    const level = WINDOWS[window]();
    const mark = level.take(10, limit, 0);
    level.settle({ charge: 10, used: 120, taken: 0, mark }, limit, TICKS_PER_SECOND);
    assert.equal(level.remaining(limit, TICKS_PER_SECOND), 0);
    assert.ok(level.wait(1, limit, TICKS_PER_SECOND) > 59 * TICKS_PER_SECOND);
  });
}

test("gcra: what has leaked of a charge is not given back, so that others do not pass twice", () => {
  const limit: Rule = { amount: 60, burst: 100, strict: false };
  const level = new LeakyBucket(true);
  const mark = level.take(100, limit, 0);
  const half = 50 * TICKS_PER_SECOND;
  level.take(10, limit, half);
  level.settle({ charge: 100, used: 10, taken: 0, mark }, limit, half);
  assert.equal(level.remaining(limit, half), 90, "the second call's 10 are still there");
});

test("numbers that change keep what was counted: less lets less pass at once, more lets more", () => {
  const before: Rule = { amount: 600, burst: 100, strict: false };
  const level = new LeakyBucket(true);
  level.take(90, before, 0);
  assert.equal(level.remaining({ ...before, burst: 95 }, 0), 5);
  assert.equal(level.remaining({ ...before, burst: 50 }, 0), 0);
  assert.equal(level.remaining({ ...before, burst: 200 }, 0), 110);
});

test("a semaphore holds exactly the calls that are running", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 5 }), fc.array(fc.boolean(), { maxLength: 60 }), (amount, program) => {
      const limit: Rule = { amount, burst: amount, strict: false };
      const level = new Semaphore();
      let running = 0;
      for (const begins of program) {
        if (begins) {
          const fits = level.wait(1, limit) === 0;
          assert.equal(fits, running < amount);
          if (fits) {
            level.take(1);
            running++;
          }
        } else if (running > 0) {
          level.settle({ charge: 1 });
          running--;
        }
        assert.equal(level.remaining(limit), amount - running);
        assert.equal(level.isFresh(), running === 0);
      }
    }),
  );
});

function look(level: Level, limit: Rule, tick: number) {
  return [level.remaining(limit, tick), level.reset(limit, tick), level.wait(1, limit, tick)];
}
