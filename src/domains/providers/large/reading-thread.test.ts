import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import { IS_SOAK } from "../../../../test/support/scale.ts";
import { Problem } from "../../../kernel/problem.ts";
import { NO_ATTRIBUTION } from "../dialects/parsed-request.ts";
import { deploymentOf } from "../testing/dispatching.ts";
import type { LargeBody, Order } from "./protocol.ts";
import { READING_BOUNDS, ReadingThread, type ReadingBounds } from "./reading-thread.ts";
import { SMALL, manyMessages } from "./testing/bodies.ts";

const MIB = 1024 * 1024;
const LONG = manyMessages(20_000);
const MODEL = deploymentOf({ provider: "openai" }).model;

test("what waits to be read is bounded in requests", async (t) => {
  const thread = readingThread(t, { waitingRequests: 2 });
  const outcomes = [LONG, SMALL, SMALL, SMALL].map((bytes) => codeOf(thread.ask(parse(bytes), null)));
  assert.deepEqual(await Promise.all(outcomes), [null, null, null, "overloaded"]);
  assert.equal(await codeOf(thread.ask(parse(SMALL), null)), null);
});

test("what waits to be read is bounded in bytes", async (t) => {
  const thread = readingThread(t, { waitingBytes: LONG.length + SMALL.length });
  const outcomes = [SMALL, LONG, LONG, SMALL, SMALL].map((bytes) => codeOf(thread.ask(parse(bytes), null)));
  assert.deepEqual(await Promise.all(outcomes), [null, null, "overloaded", null, "overloaded"]);
  assert.equal(await codeOf(thread.ask(parse(LONG), null)), null);
});

test("what was begun comes before what has only arrived, and is never refused for a full queue", async (t) => {
  const thread = readingThread(t, { waitingRequests: 1 });
  const order: string[] = [];
  const asks = [
    ["running", parse(LONG)],
    ["arrived", parse(SMALL)],
    ["begun", bound(SMALL)],
    ["begun too", bound(SMALL)],
  ] as const;
  await Promise.all(asks.map(([name, one]) => thread.ask(one, null).then(() => order.push(name))));
  assert.deepEqual(order, ["running", "begun", "begun too", "arrived"]);
});

test("a body of more than two million values is refused, and one of just so many is read, whatever they are, far below the heap's limit", async (t) => {
  const thread = readingThread(t);
  const outcomes = new Map<string, string | null>();
  for (const unit of IS_SOAK
    ? ["0,", "{},", "[],", '"",', '{"role":"user","content":""},', '{"a":1.5},']
    : ['{"role":"user","content":""},'])
    for (const [list, end] of [
      ["messages", ""],
      ["x", ',"messages":[{"role":"user","content":"hi"}]'],
    ]) {
      const values = unit.split("").filter((character) => ",{[".includes(character)).length;
      const body = (count: number): Buffer => Buffer.from(`{"model":"m","${list}":[${unit.repeat(count).slice(0, -1)}]${end}}`);
      const most = Math.min(Math.floor(1_999_990 / values), Math.floor((31 * MIB) / unit.length));
      outcomes.set(`${list} ${unit}`, await codeOf(thread.ask(parse(body(most)), null)));
    }
  const judged = [...outcomes.values()].filter((code) => code !== null && code !== "invalid_request");
  assert.deepEqual(judged, [], JSON.stringify([...outcomes]));
  assert.equal(await codeOf(thread.ask(parse(Buffer.from(`[${"0,".repeat(2_000_000)}0]`)), null)), "request_too_large");
});

test("a body that takes too long is refused, and the next one is read", async (t) => {
  const thread = readingThread(t, { questionMs: 1_000 });
  const begun = bound(SMALL);
  assert.equal(await codeOf(thread.ask(begun, null)), null);
  // Each is read whole.
  const slow = Buffer.from(`{"model":"m","messages":[${'{"role":"user","content":[{"type":"x"}]},'.repeat(490_000)}{}]}`);
  const outcomes = [slow, SMALL].map((bytes) => codeOf(thread.ask(parse(bytes), null)));
  assert.deepEqual(await Promise.all(outcomes), ["request_too_large", null]);
  assert.equal(await codeOf(thread.ask(begun, null)), null, "a request whose thread died can still be asked about");
});

test("no thread runs before the first order, nor when nothing was asked for a while; the next order gets a new one", async (t) => {
  const thread = readingThread(t, { idleMs: 50 });
  for (let times = 0; times < 2; times++) {
    assert.equal(thread.running, false);
    assert.equal(await codeOf(thread.ask(parse(SMALL), null)), null);
    assert.equal(thread.running, true);
    while (thread.running) await sleep(10);
  }
});

test("a client that left while its body waited is not read", async (t) => {
  const thread = readingThread(t);
  const left = new AbortController();
  const outcomes = [codeOf(thread.ask(parse(LONG), left.signal)), codeOf(thread.ask(parse(SMALL), left.signal))];
  left.abort();
  assert.deepEqual(await Promise.all(outcomes), [null, "request_timeout"]);
});

test("a server that stops refuses what is read, what waits and what comes", async (t) => {
  const thread = readingThread(t);
  const outcomes = [parse(LONG), parse(SMALL), bound(SMALL)].map((order) => codeOf(thread.ask(order, null)));
  await thread.close();
  assert.deepEqual(await Promise.all(outcomes), ["overloaded", "overloaded", "overloaded"]);
  assert.equal(await codeOf(thread.ask(parse(SMALL), null)), "overloaded");
  assert.equal(thread.running, false);
});

function readingThread(t: TestContext, bounds: Partial<ReadingBounds> = {}): ReadingThread {
  const thread = new ReadingThread({ ...READING_BOUNDS, ...bounds });
  t.after(() => thread.close());
  return thread;
}

function parse(bytes: Buffer): Order {
  return { body: bodyOf(bytes), question: { verb: "parse" } };
}

function bound(bytes: Buffer): Order {
  return { body: bodyOf(bytes), question: { verb: "bound", provider: "openai", model: MODEL } };
}

let keys = 0;

function bodyOf(bytes: Buffer): LargeBody {
  const memory = new SharedArrayBuffer(bytes.length);
  bytes.copy(Buffer.from(memory));
  return { key: keys++, parser: "chatCompletion", memory, attribution: NO_ATTRIBUTION };
}

function codeOf(pending: Promise<unknown>): Promise<string | null> {
  return pending.then(
    () => null,
    (thrown: unknown) => (thrown instanceof Problem ? thrown.code : String(thrown)),
  );
}
