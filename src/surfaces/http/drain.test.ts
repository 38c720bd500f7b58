import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { createDrain, type Drain } from "./drain.ts";

function enter(drain: Drain, stop: () => void): () => void {
  return drain.enter({ principal: null, stop });
}

test("a drain with nothing in flight is over at once", async () => {
  const drain = createDrain();
  await drain.drain(60_000);
  assert.equal(drain.draining, true);
});

test("calls in flight have their grace; when the last one has settled, however it did, the drain is over and nothing was aborted for it", async () => {
  const drain = createDrain();
  drain.track(sleep(20));
  drain.track(sleep(40).then(() => Promise.reject(new Error("a call that fails"))));
  assert.equal(drain.inFlight, 2);
  let atEnd = -1;
  const over = drain.drain(60_000).then(() => (atEnd = drain.inFlight));
  assert.equal(drain.draining, true);
  await over;
  assert.equal(atEnd, 0);
});

test("a call that outlives the grace is told to stop, and is waited for", async () => {
  const drain = createDrain();
  let stopped = false;
  drain.track(
    new Promise<void>((resolve) =>
      enter(drain, () =>
        setTimeout(() => {
          stopped = true;
          resolve();
        }, 30),
      ),
    ),
  );
  await drain.drain(10);
  assert.ok(stopped);
  assert.equal(drain.inFlight, 0);
});

test("a call that is over is not told to stop", async () => {
  const drain = createDrain();
  const told: string[] = [];
  drain.track(sleep(60));
  enter(drain, () => void told.push("still there"));
  const forget = enter(drain, () => void told.push("over"));
  forget();
  await drain.drain(10);
  assert.deepEqual(told, ["still there"]);
});

test("whatever calls come and go, in whatever order, exactly those that are left are told to stop", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.option(fc.nat(20), { nil: null }), { maxLength: 60 }), async (steps) => {
      const drain = createDrain();
      const present = new Map<number, () => void>();
      const told: number[] = [];
      // A number ends the call at that place among those present, twice; null begins another.
      steps.forEach((leaving, id) => {
        const gone = leaving === null ? undefined : [...present.keys()][leaving];
        if (gone === undefined)
          present.set(
            id,
            enter(drain, () => void told.push(id)),
          );
        else {
          present.get(gone)?.();
          present.get(gone)?.();
          present.delete(gone);
        }
      });
      await drain.drain(0);
      assert.deepEqual(
        told.toSorted((a, b) => a - b),
        [...present.keys()],
      );
    }),
  );
});
