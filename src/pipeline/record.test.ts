import assert from "node:assert/strict";
import { test } from "node:test";
import type { Settlement } from "../domains/metering/index.ts";
import { Problem } from "../kernel/problem.ts";
import { NO_TOKENS } from "../kernel/tokens.ts";
import type { CallEvent } from "../telemetry/index.ts";
import type { Received } from "./evidence.ts";
import type { Outcome } from "./outcome.ts";
import type { Platform } from "./platform.ts";
import { record } from "./record.ts";

const STRANGER = {
  call: {
    id: "call",
    trace: "trace",
    endpoint: "openai.chat.completions",
    origin: { address: "::1" },
    callerRequestId: "theirs",
    startedMonotonic: 100,
    hops: [],
  },
};

const WHOLE = {
  ...STRANGER,
  principal: { id: "key", tenant: "tenant" },
  tenant: { project: { id: "project" } },
  request: { stream: true, body: Buffer.from("the caller's words") },
  call: {
    ...STRANGER.call,
    hops: [
      {
        route: { model: { name: "m" } },
        slot: { deployment: { name: "main", provider: "openai" } },
        hold: { facts: { attempt: "attempt" } },
        response: { upstreamRequestId: "theirs-too", unknownFields: ["x"] },
      },
    ],
  },
};

const settlement = {
  usage: { tokens: { ...NO_TOKENS, input_uncached: 3, cache_read: 4, output: 5, reasoning: 6 }, source: "reported" },
  cost: 1_500_000n,
  charge: 2_000_000n,
  estimated: false,
  modelServed: "m-1",
  firstTokenMs: 12,
  latencyMs: 80,
} as unknown as Settlement;

function eventOf(received: object, outcome: Outcome): CallEvent {
  const events: CallEvent[] = [];
  const platform = {
    clock: { now: () => 0, monotonic: () => 187.654_321 },
    emit: (event: CallEvent) => void events.push(event),
  } as unknown as Platform;
  record(platform, received as Received, outcome);
  assert.equal(events.length, 1, "one event per call");
  return events[0] as CallEvent;
}

const truncation = new Problem("upstream_timeout", { cause: "why" });

test("how a call ended is its status too, and what broke off is never a success", () => {
  const cases: readonly (readonly [Outcome, Pick<CallEvent, "outcome" | "status" | "problem" | "cause">])[] = [
    [
      { kind: "answered", settlement },
      { outcome: "answered", status: 200, problem: null, cause: undefined },
    ],
    [
      { kind: "truncated", settlement, problem: truncation },
      { outcome: "truncated", status: 504, problem: "upstream_timeout", cause: "why" },
    ],
    [
      { kind: "client_left", settlement },
      { outcome: "client_left", status: 499, problem: null, cause: undefined },
    ],
    [{ kind: "client_left" }, { outcome: "client_left", status: 499, problem: null, cause: undefined }],
    [
      { kind: "problem", problem: new Problem("model_not_found") },
      { outcome: "problem", status: 404, problem: "model_not_found", cause: undefined },
    ],
  ];
  for (const [outcome, expected] of cases) {
    const { outcome: kind, status, problem, cause } = eventOf(WHOLE, outcome);
    assert.deepEqual({ outcome: kind, status, problem, cause }, expected);
  }
});

test("a call that was answered is recorded with all its evidence, exact money and rounded time, and none of its content", () => {
  const event = eventOf(WHOLE, { kind: "answered", settlement });
  assert.deepEqual(event, {
    call: "call",
    trace: "trace",
    endpoint: "openai.chat.completions",
    outcome: "answered",
    status: 200,
    problem: null,
    cause: undefined,
    limit: null,
    limitDimension: null,
    tenant: "tenant",
    project: "project",
    principal: "key",
    remoteAddress: "::1",
    callerRequestId: "theirs",
    stream: true,
    model: "m",
    modelServed: "m-1",
    provider: "openai",
    deployment: "main",
    attempt: "attempt",
    upstreamRequestId: "theirs-too",
    unknownFields: ["x"],
    inputTokens: 7,
    outputTokens: 11,
    costUsd: "0.0000015",
    chargeUsd: "0.000002",
    estimated: false,
    firstTokenMs: 12,
    durationMs: 87.7,
  } satisfies CallEvent);
  assert.doesNotMatch(JSON.stringify(event), /the caller's words/);
});

test("a call that a limit refused is recorded with that limit's id and what it counts", () => {
  const refusal = { limit: { id: "limit", name: "the tenant's own word", dimension: "tokens" } };
  const event = eventOf({ ...WHOLE, refusal }, { kind: "problem", problem: new Problem("rate_limit_exceeded") });
  assert.deepEqual([event.status, event.limit, event.limitDimension], [429, "limit", "tokens"]);
  assert.doesNotMatch(JSON.stringify(event), /the tenant's own word/);
});

test("a call is recorded with what it got to, and null for the rest", () => {
  const { call, trace, endpoint, remoteAddress, callerRequestId, outcome, status, problem, cause, durationMs, unknownFields, ...rest } =
    eventOf(STRANGER, { kind: "problem", problem: new Problem("invalid_api_key") });
  assert.deepEqual(
    { call, trace, endpoint, remoteAddress, callerRequestId, outcome, status, problem, cause, durationMs, unknownFields },
    {
      call: "call",
      trace: "trace",
      endpoint: "openai.chat.completions",
      remoteAddress: "::1",
      callerRequestId: "theirs",
      outcome: "problem",
      status: 401,
      problem: "invalid_api_key",
      cause: undefined,
      durationMs: 87.7,
      unknownFields: [],
    },
  );
  assert.deepEqual(new Set(Object.values(rest)), new Set([null]));
});

test("an attempt that was charged without a response is in the event: a client that left before the first byte, a failed upstream", () => {
  const [hop] = WHOLE.call.hops;
  const abandoned = { ...WHOLE, call: { ...WHOLE.call, hops: [{ ...hop, settlement }] } };
  for (const outcome of [{ kind: "client_left" }, { kind: "problem", problem: new Problem("upstream_timeout") }] as const) {
    const event = eventOf(abandoned, outcome);
    assert.deepEqual([event.inputTokens, event.outputTokens, event.chargeUsd], [7, 11, "0.000002"]);
  }
});
