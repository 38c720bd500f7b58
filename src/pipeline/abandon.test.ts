import assert from "node:assert/strict";
import { test } from "node:test";
import { DispatchError, type DispatchFailure } from "../domains/providers/index.ts";
import { Problem } from "../kernel/problem.ts";
import { abandon, abandonHop } from "./abandon.ts";
import type { Held, Received } from "./evidence.ts";
import type { Platform } from "./platform.ts";

const held = { hold: { name: "the hold" }, slot: { deployment: { name: "main" } } } as unknown as Held;

/** Runs the epilogue of a hop, and says what it settled and what it threw. */
async function abandoned(thrown: unknown): Promise<{ settled: unknown[]; problem: unknown }> {
  const settled: unknown[] = [];
  const platform = { settleFailed: async (...args: unknown[]) => void settled.push(args) } as unknown as Platform;
  const problem: unknown = await abandonHop(platform, held, thrown).catch((error: unknown) => error);
  return { settled, problem };
}

const status = (code: number, more: Partial<DispatchFailure & { kind: "status" }> = {}): DispatchFailure => ({
  kind: "status",
  status: code,
  retryAfterSeconds: null,
  message: null,
  param: null,
  code: null,
  ...more,
});

interface Told {
  readonly status: number;
  readonly code: string;
  readonly message: RegExp;
  readonly param?: string | null;
  readonly retryAfterSeconds?: number | null;
}

const TABLE: readonly (readonly [failure: DispatchFailure, told: Told])[] = [
  [{ kind: "connect" }, { status: 502, code: "upstream_error", message: /'main' could not be reached/ }],
  [
    { kind: "timeout", phase: "connect" },
    { status: 504, code: "upstream_timeout", message: /'main' did not answer in time/ },
  ],
  [
    { kind: "timeout", phase: "first_token" },
    { status: 504, code: "upstream_timeout", message: /'main' did not answer in time/ },
  ],
  [
    { kind: "timeout", phase: "total" },
    { status: 504, code: "upstream_timeout", message: /'main' did not answer in time/ },
  ],
  [{ kind: "malformed" }, { status: 502, code: "upstream_error", message: /'main' gave an answer that is not of its dialect/ }],
  [{ kind: "unavailable" }, { status: 502, code: "upstream_error", message: /'main' is not available now/ }],
  [{ kind: "aborted" }, { status: 503, code: "overloaded", message: /Send the request again/, retryAfterSeconds: 1 }],
  ...[400, 413, 422].map(
    (code) =>
      [
        status(code, { message: "too hot", param: "temperature" }),
        { status: 400, code: "upstream_rejected", message: /^too hot$/, param: "temperature" },
      ] as const,
  ),
  [status(400), { status: 400, code: "upstream_rejected", message: /provider refused the request/ }],
  [
    status(400, { code: "context_length_exceeded", message: "too long", param: "messages" }),
    { status: 400, code: "context_length_exceeded", message: /^too long$/, param: "messages" },
  ],
  [status(400, { code: "something_else", message: "odd" }), { status: 400, code: "upstream_rejected", message: /^odd$/ }],
  ...[401, 402, 403, 404, 405, 407, 408, 409, 418, 500, 502, 503, 504, 529, 307].map(
    (code) =>
      [
        status(code, { message: "inside words", param: "inside" }),
        { status: 502, code: "upstream_error", message: /^The deployment 'main' failed/ },
      ] as const,
  ),
  [
    status(429, { retryAfterSeconds: 7, message: "inside words" }),
    { status: 429, code: "capacity_exceeded", message: /^The deployment 'main' is at its provider's rate limit/, retryAfterSeconds: 7 },
  ],
  [status(429), { status: 429, code: "capacity_exceeded", message: /rate limit/, retryAfterSeconds: 1 }],
];

test("every failure of a dispatch settles its hold as that failure and becomes its problem; an upstream's words are told only where the fault is the caller's", async () => {
  for (const [failure, told] of TABLE) {
    const thrown = new DispatchError(failure);
    const { settled, problem } = await abandoned(thrown);
    const name = JSON.stringify(failure);
    assert.deepEqual(settled, [[held.hold, failure]], name);
    assert.ok(problem instanceof Problem, name);
    assert.deepEqual(
      { status: problem.status, code: problem.code, param: problem.param, retryAfterSeconds: problem.retryAfterSeconds },
      { status: told.status, code: told.code, param: told.param ?? null, retryAfterSeconds: told.retryAfterSeconds ?? null },
      name,
    );
    assert.match(problem.message, told.message, name);
    assert.equal(problem.cause, thrown, "the log is told why");
  }
});

test("the table names every kind of failure", () => {
  const kinds: Record<DispatchFailure["kind"], true> = {
    connect: true,
    timeout: true,
    status: true,
    malformed: true,
    unavailable: true,
    aborted: true,
  };
  assert.deepEqual([...new Set(TABLE.map(([failure]) => failure.kind))].sort(), Object.keys(kinds).sort());
});

test("a bug in a provider settles its hold too, and stays a bug", async () => {
  const bug = new TypeError("undefined is not a function");
  const { settled, problem } = await abandoned(bug);
  assert.deepEqual(settled, [[held.hold, { kind: "aborted" }]]);
  assert.equal(problem, bug);
});

function callOf(aborted: boolean, stopped: Problem | null): { received: Received; refused: Problem[] } {
  const refused: Problem[] = [];
  const caller = {
    signal: aborted ? AbortSignal.abort() : new AbortController().signal,
    stopped: () => stopped,
    refuse: (problem: Problem) => void refused.push(problem),
  };
  return { received: { caller } as unknown as Received, refused };
}

test("a call that ended without a response is refused with its problem, unless nobody is there to hear it", () => {
  const problem = new Problem("model_not_found");
  const asked = callOf(false, null);
  assert.deepEqual(abandon(asked.received, problem), { kind: "problem", problem });
  assert.deepEqual(asked.refused, [problem]);

  const left = callOf(true, null);
  assert.deepEqual(abandon(left.received, problem), { kind: "client_left" });
  assert.deepEqual(left.refused, []);
});

test("what the platform stopped is told why, whatever was thrown for it", () => {
  const why = new Problem("tenant_suspended");
  const { received, refused } = callOf(true, why);
  const outcome = abandon(received, new DispatchError({ kind: "aborted" }));
  assert.deepEqual(outcome, { kind: "problem", problem: why });
  assert.deepEqual(refused, [why]);
});

test("a bug becomes internal_error for the caller, its words kept for the log", () => {
  const { received, refused } = callOf(false, null);
  const bug = new Error("the inside");
  const outcome = abandon(received, bug);
  assert.ok(outcome.kind === "problem" && outcome.problem.code === "internal_error" && outcome.problem.cause === bug);
  assert.doesNotMatch(refused[0]?.message ?? "", /the inside/);
});
