import assert from "node:assert/strict";
import test from "node:test";
import { Problem } from "../../kernel/problem.ts";
import { NO_TOKENS } from "../../kernel/tokens.ts";
import { RECORD } from "../../storage/journal/index.ts";
import type { DispatchFailure } from "../providers/index.ts";
import { heldOf, hold, sent } from "./hold.ts";
import type { Hold } from "./model.ts";
import { decodeAdmission, decodeMark, decodeSettlement } from "./records.ts";
import { Settler } from "./settle.ts";
import { Speeds } from "./speeds.ts";
import { factsOf, PRICE, silent, TestClock } from "./testing/facts.ts";
import { ScriptedJournal } from "./testing/scripted-journal.ts";

function world() {
  const journal = new ScriptedJournal();
  const clock = new TestClock();
  const speeds = new Speeds();
  const settler = new Settler({ journal, clock, speeds, log: silent, settled() {} });
  return { journal, clock, settler, needs: { journal, clock, speeds, voided: settler.void.bind(settler) } };
}

test("a hold is granted only once its ADMIT is durable, and the ADMIT says all that a later process needs", async () => {
  const { journal, needs } = world();
  const facts = factsOf();
  let granted = false;
  const held = hold(facts, PRICE, needs).finally(() => (granted = true));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(granted, false);
  journal.commit();
  const { worstCase, outputBound } = await held;
  assert.equal(worstCase, 1_000n * 150_000n + 1_000n * 600_000n);
  assert.equal(outputBound, null);
  const record = journal.records[0];
  assert.ok(record !== undefined && record.kind === RECORD.admit);
  assert.deepEqual(decodeAdmission(record.attempt, record.payload), {
    facts,
    worstCase,
    inputRate: 150_000n,
    outputRate: 600_000n,
    tokensPerSecond: 100,
  });
});

test("a bound that no record can carry is refused before anything is journalled: an ADMIT that does not decode would stop every reader", async () => {
  const { journal, needs } = world();
  for (const output of [Number.MAX_SAFE_INTEGER + 1, Number.POSITIVE_INFINITY, 0.5, -1]) {
    await assert.rejects(hold(factsOf({ bound: { input: 1, output, certainty: "proof" } }), PRICE, needs), /no record can carry/);
  }
  assert.equal(journal.pending, 0);
});

test("a journal that refuses is the problem 'overloaded' with a time to retry, and nothing is dispatched", async () => {
  const { journal, needs } = world();
  journal.fail();
  await assert.rejects(
    hold(factsOf(), PRICE, needs),
    (thrown) => thrown instanceof Problem && thrown.code === "overloaded" && (thrown.retryAfterSeconds ?? 0) > 0,
  );
});

test("an ADMIT whose fate is unknown is voided, so that a refused call is never charged", async () => {
  const { journal, settler, needs } = world();
  const held = hold(factsOf(), PRICE, needs);
  journal.fail();
  await assert.rejects(held, Problem);
  journal.recover();
  assert.equal(settler.alarms().unkept, 1);
  const closing = settler.close();
  journal.commit();
  await closing;
  const record = journal.records[0];
  assert.ok(record?.kind === RECORD.settle);
  assert.deepEqual(
    [decodeSettlement(record.attempt, record.payload).status, decodeSettlement(record.attempt, record.payload).cost],
    ["failed", 0n],
  );
});

test("'sent' is one PROGRESS record of mark 0, however often it is called", async () => {
  const { journal, needs } = world();
  const held = hold(factsOf(), PRICE, needs);
  journal.commit();
  sent(await held, needs);
  sent(await held, needs);
  journal.commit();
  const marks = journal.records.filter((record) => record.kind === RECORD.progress);
  assert.deepEqual(
    marks.map((record) => decodeMark(record.attempt, record.payload)),
    [0],
  );
});

test("a hold that metering did not mint is refused", () => {
  assert.throws(() => heldOf({ facts: factsOf(), worstCase: 0n, outputBound: null } as unknown as Hold), /did not mint/);
});

const INPUT = { ...NO_TOKENS, input_uncached: 334 };
const FAILURES: readonly (readonly [string, DispatchFailure, boolean, boolean, object])[] = [
  ["never connected", { kind: "connect" }, false, true, { status: "failed", tokens: NO_TOKENS, estimated: false }],
  ["broke after the request was sent", { kind: "connect" }, true, true, { status: "failed", tokens: INPUT, estimated: true }],
  ["the child was not there", { kind: "unavailable" }, true, true, { status: "failed", tokens: NO_TOKENS, estimated: false }],
  [
    "answered with an error",
    { kind: "status", status: 503, retryAfterSeconds: null, message: null, param: null, code: null },
    true,
    true,
    { status: "failed", tokens: NO_TOKENS, estimated: false },
  ],
  ["no first token in time", { kind: "timeout", phase: "first_token" }, true, true, { status: "failed", tokens: INPUT, estimated: true }],
  [
    "no body in time",
    { kind: "timeout", phase: "total" },
    true,
    false,
    { status: "failed", tokens: { ...INPUT, output: 200 }, estimated: true },
  ],
  ["the client left before the first token", { kind: "aborted" }, true, true, { status: "aborted", tokens: INPUT, estimated: true }],
  [
    "the client left while a body was written",
    { kind: "aborted" },
    true,
    false,
    { status: "aborted", tokens: { ...INPUT, output: 200 }, estimated: true },
  ],
  [
    "the client left before anything was sent",
    { kind: "aborted" },
    false,
    true,
    { status: "aborted", tokens: NO_TOKENS, estimated: false },
  ],
  ["garbage", { kind: "malformed" }, true, true, { status: "failed", tokens: INPUT, estimated: true }],
];

for (const [title, failure, left, stream, expected] of FAILURES) {
  test(`a dispatch without a response settles by what it may have cost: ${title}`, async () => {
    const { journal, clock, settler, needs } = world();
    const granting = hold(factsOf({ stream }), PRICE, needs);
    journal.commit();
    const granted = await granting;
    if (left) sent(granted, needs);
    clock.advance(2_000);
    const settlement = settler.settleFailed(heldOf(granted), failure, () => {});
    assert.deepEqual({ status: settlement.status, tokens: settlement.usage.tokens, estimated: settlement.estimated }, expected);
    assert.equal(settlement.latencyMs, 2_000);
    assert.throws(() => settler.settleFailed(heldOf(granted), failure, () => {}), /settles twice/);
  });
}

test("settlements that the journal could not keep are written again once it can", async () => {
  const { journal, settler, needs } = world();
  const granting = hold(factsOf(), PRICE, needs);
  journal.commit();
  const granted = await granting;
  journal.fail();
  let fault: unknown = null;
  settler.settleFailed(heldOf(granted), { kind: "connect" }, (heard) => (fault = heard));
  assert.ok(fault instanceof Error);
  journal.recover();
  for (let tries = 0; tries < 40 && settler.alarms().unkept > 0; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 25));
    journal.commit();
  }
  assert.equal(settler.alarms().unkept, 0);
  assert.equal(journal.records.filter((record) => record.kind === RECORD.settle).length, 1);
});

test("a billed class without a price, and a cost above W, are charged, marked and counted for somebody to look into", async () => {
  const { journal, settler, needs } = world();
  const granting = hold(factsOf({ bound: { input: 10, output: 10, certainty: "rule" } }), PRICE, needs);
  journal.commit();
  const usage = { tokens: { ...NO_TOKENS, audio_output: 1_000 }, source: "reported" as const };
  const settlement = settler.settle(
    heldOf(await granting),
    { status: "completed", usage, modelServed: null, firstTokenMs: null },
    () => {},
  );
  assert.deepEqual([settlement.cost, settlement.estimated], [600_000_000n, true]);
  assert.deepEqual(settler.alarms(), { unkept: 0, unpriced: 1, overBound: 1 });
});
