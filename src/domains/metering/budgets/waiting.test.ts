import assert from "node:assert/strict";
import test from "node:test";
import { Turn, WaitingLines } from "./waiting.ts";

const never = new AbortController().signal;

test("who came first is called first, and the next when it leaves", async () => {
  const lines = new WaitingLines();
  const turns = [new Turn(0), new Turn(0), new Turn(0)] as const;
  const called: number[] = [];
  const waits = turns.map((turn, index) => {
    lines.join("cap", turn);
    return turn.called(0, never, index === 0).then((again) => {
      if (again) called.push(index);
      lines.leave(turn);
    });
  });
  assert.deepEqual([lines.isAhead("cap", turns[0]), lines.isAhead("cap", turns[1]), lines.isAhead("cap", null)], [false, true, true]);
  lines.wake("cap");
  await Promise.all(waits);
  assert.deepEqual(called, [0, 1, 2]);
  assert.equal(lines.size, 0);
  assert.equal(lines.isAhead("cap", null), false);
});

test("one that is called between two tries does not miss it, and keeps its place", async () => {
  const lines = new WaitingLines();
  const [first, second] = [new Turn(0), new Turn(0)];
  lines.join("cap", first);
  lines.join("cap", second);
  lines.wake("cap");
  lines.join("cap", first);
  assert.equal(lines.isAhead("cap", first), false);
  assert.equal(await first.called(0, never, true), true);
  lines.leave(first);
  assert.equal(await second.called(0, never, true), true);
});

test("a wait ends when its caller leaves and when its time is up, and with it the place", async () => {
  const leaving = new AbortController();
  const turn = new Turn(0);
  const waiting = turn.called(0, leaving.signal, true);
  leaving.abort();
  assert.equal(await waiting, false);
  assert.equal(await turn.called(0, leaving.signal, true), false);
  assert.equal(await new Turn(0).called(30_000, never, true), false);
  assert.equal(await new Turn(0).called(29_990, never, true), false);
});

test("only so many wait for one balance", () => {
  const lines = new WaitingLines();
  for (let index = 0; index < 1_000; index++) lines.join("cap", new Turn(0));
  assert.throws(() => lines.join("cap", new Turn(0)), { code: "capacity_exceeded" });
  lines.join("another", new Turn(0));
  assert.equal(lines.size, 1_001);
});

test("who is first looks again each second, for what wakes nobody; who is behind does nothing until it is first", async () => {
  const lines = new WaitingLines();
  const [first, second] = [new Turn(0), new Turn(0)];
  for (const turn of [first, second]) lines.join("cap", turn);
  let hasTried = false;
  const behind = second.called(0, never, !lines.isAhead("cap", second)).then((again) => (hasTried = again));
  assert.equal(await first.called(0, never, !lines.isAhead("cap", first)), true);
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(hasTried, false);
  lines.leave(first);
  assert.equal(await behind, true);
});
