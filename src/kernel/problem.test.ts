import assert from "node:assert/strict";
import { test } from "node:test";
import { asProblem, Problem, PROBLEMS } from "./problem.ts";

/** The error table of api.md, so far as its situations can arise: code → status and type. */
const CONTRACT: Readonly<Record<string, readonly [status: number, type: string]>> = {
  invalid_api_key: [401, "authentication_error"],
  expired_api_key: [401, "authentication_error"],
  model_not_found: [404, "invalid_request_error"],
  permission_denied: [403, "permission_error"],
  not_found: [404, "not_found_error"],
  invalid_request: [400, "invalid_request_error"],
  request_too_large: [413, "invalid_request_error"],
  rate_limit_exceeded: [429, "rate_limit_error"],
  capacity_exceeded: [429, "rate_limit_error"],
  budget_exceeded: [429, "insufficient_quota"],
  context_length_exceeded: [400, "invalid_request_error"],
  upstream_error: [502, "upstream_error"],
  upstream_timeout: [504, "upstream_timeout"],
  overloaded: [503, "overloaded_error"],
};

test("the catalogue says what the HTTP contract says", () => {
  for (const [code, [status, type]] of Object.entries(CONTRACT)) {
    const entry = PROBLEMS[code as keyof typeof PROBLEMS];
    assert.deepEqual([entry.status, entry.type], [status, type], code);
  }
});

test("every problem is an error of HTTP with a sentence that says what to do", () => {
  for (const [code, { status, message }] of Object.entries(PROBLEMS)) {
    assert.ok(status >= 400 && status < 600, code);
    assert.match(message, /^[A-Z].*\.$/, code);
  }
});

test("whatever is thrown that is no problem becomes internal_error, and its words stay inside", () => {
  for (const thrown of [new Error("SELECT secret FROM keys"), "a string", null, undefined, { message: "inside" }]) {
    const problem = asProblem(thrown);
    assert.equal(problem.code, "internal_error");
    assert.equal(problem.status, 500);
    assert.equal(problem.message, PROBLEMS.internal_error.message);
    assert.equal(problem.cause, thrown);
  }
  const problem = new Problem("not_found");
  assert.equal(asProblem(problem), problem);
});
