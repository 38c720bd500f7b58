import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test, type TestContext } from "node:test";
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

test("a body that takes too much memory is refused, and no other request fails with it", async (t) => {
  const thread = readingThread(t, { heapMiB: 96 });
  const begun = bound(SMALL);
  assert.equal(await codeOf(thread.ask(begun, null)), null);
  const outcomes = [MISTAKES, SMALL, MISTAKES, SMALL].map((bytes) => codeOf(thread.ask(parse(bytes), null)));
  assert.deepEqual(await Promise.all(outcomes), ["request_too_large", null, "request_too_large", null]);
  assert.equal(await codeOf(thread.ask(begun, null)), null, "a request whose thread died can still be asked about");
});

test("bodies that fit one by one are all read, whatever the thread still holds of others", async (t) => {
  const thread = readingThread(t, { heapMiB: 128 });
  const lists = Buffer.from(`{"model":"m","messages":[{"role":"user","content":"hi"}],"x":[${"[],".repeat(1.2 * MIB)}[]]}`);
  for (let times = 0; times < 3; times++) assert.equal(await codeOf(thread.ask(parse(lists), null)), null);
});

test("a body that takes too long is refused, and the next one is read", async (t) => {
  const thread = readingThread(t, { questionMs: 1_000 });
  assert.equal(await codeOf(thread.ask(parse(SMALL), null)), null);
  const slow = Buffer.from(`{"model":"m","messages":[${"{},".repeat(8 * MIB)}{}]}`);
  const outcomes = [slow, SMALL].map((bytes) => codeOf(thread.ask(parse(bytes), null)));
  assert.deepEqual(await Promise.all(outcomes), ["request_too_large", null]);
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

/** Every element is a mistake to be reported: hundreds of bytes of memory for three of the body. */
const MISTAKES = Buffer.from(`{"model":"m","messages":[${"{},".repeat(MIB)}{}]}`);

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
