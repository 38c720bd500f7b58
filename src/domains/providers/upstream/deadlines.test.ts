import { test } from "node:test";
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../../../kernel/clock.ts";
import { Deadlines, type Expiring } from "./deadlines.ts";

class Timed implements Expiring {
  at: number;
  expiredAt = 0;
  constructor(at: number) {
    this.at = at;
  }
  deadline(): number {
    return this.at;
  }
  expire(now: number): void {
    this.expiredAt = now;
    this.at = Infinity;
  }
}

test("every deadline is noticed, never early and at most a moment late, also one that has moved", async (t) => {
  const deadlines = new Deadlines(systemClock);
  const start = systemClock.monotonic();
  const timed = Array.from({ length: 50 }, (_, index) => new Timed(start + 20 + ((index * 37) % 200)));
  for (const each of timed) {
    deadlines.watch(each);
    deadlines.sooner(each.at);
  }
  const moved = timed[0] as Timed;
  moved.at = start + 150;
  const due = timed.map(({ at }) => at);
  const keepAlive = setInterval(() => undefined, 10);
  while (timed.some(({ expiredAt }) => expiredAt === 0)) await sleep(10);
  clearInterval(keepAlive);
  const late = timed.map(({ expiredAt }, index) => expiredAt - (due[index] as number));
  assert.ok(Math.min(...late) >= 0);
  t.diagnostic(`at most ${Math.max(...late).toFixed(1)} ms late`);
  assert.ok(Math.max(...late) < 500);
});

test("what is forgotten is not told", async () => {
  const deadlines = new Deadlines(systemClock);
  const [kept, forgotten] = [new Timed(systemClock.monotonic() + 20), new Timed(systemClock.monotonic() + 10)];
  for (const each of [kept, forgotten]) {
    deadlines.watch(each);
    deadlines.sooner(each.at);
  }
  deadlines.forget(forgotten);
  await sleep(60);
  assert.deepEqual([kept.expiredAt > 0, forgotten.expiredAt], [true, 0]);
});
