import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic, { APIError } from "@anthropic-ai/sdk";
import type { ErrorType } from "@anthropic-ai/sdk/resources/shared";
import { Problem, PROBLEMS, type ProblemCode } from "../../kernel/problem.ts";
import { problemHeaders } from "../http/problem.ts";
import { anthropicEnvelope, type AnthropicErrorType } from "./envelope.ts";
import { messages } from "./messages.ts";

/** The class that the SDK's core/error.js raises for each status that a problem can have, and for the others of 500 and above. */
const CLASSES: Readonly<Record<number, new (...args: never[]) => APIError>> = {
  400: Anthropic.BadRequestError,
  401: Anthropic.AuthenticationError,
  403: Anthropic.PermissionDeniedError,
  404: Anthropic.NotFoundError,
  409: Anthropic.ConflictError,
  429: Anthropic.RateLimitError,
  500: Anthropic.InternalServerError,
  502: Anthropic.InternalServerError,
  503: Anthropic.InternalServerError,
  504: Anthropic.InternalServerError,
};

test("every problem raises the official SDK's class for its status, with our type, code, message and request id", async () => {
  for (const code of Object.keys(PROBLEMS) as ProblemCode[]) {
    const problem = new Problem(code, { param: "messages[0]" });
    const thrown = await raised(problem);
    assert.ok(thrown instanceof (CLASSES[problem.status] ?? APIError), code);
    assert.equal(thrown.status, problem.status);
    const envelope = anthropicEnvelope(problem, "id-1");
    assert.equal(thrown.type, envelope.error.type satisfies AnthropicErrorType satisfies ErrorType);
    assert.equal(thrown.errorCode, code);
    assert.deepEqual(thrown.details, { error_code: code, param: "messages[0]" });
    assert.equal(thrown.apiMessage, problem.message);
    assert.equal(thrown.requestID, "id-1");
  }
});

test("a refused thread is told in the words by which the SDK's tool runner goes on without one", async () => {
  const thrown = await raised(new Problem("unsupported_field", { param: "thread" }));
  assert.deepEqual(thrown.details, { error_code: "thread_unsupported_request", param: "thread", unsupported: ["thread"] });
});

test("the SDK retries what may succeed a second time, and nothing else", async () => {
  const retried = async (problem: Problem): Promise<boolean> => {
    let attempts = 0;
    await raised(problem, 1, () => attempts++);
    return attempts > 1;
  };
  const worthIt: readonly ProblemCode[] = [
    "rate_limit_exceeded",
    "capacity_exceeded",
    "upstream_error",
    "upstream_timeout",
    "overloaded",
    "internal_error",
  ];
  for (const code of worthIt) assert.equal(await retried(new Problem(code, { retryAfterSeconds: 0.001 })), true, code);
  const useless: readonly ProblemCode[] = [
    "invalid_api_key",
    "permission_denied",
    "model_not_found",
    "invalid_request",
    "unsupported_field",
    "request_too_large",
    "context_length_exceeded",
    "upstream_rejected",
  ];
  for (const code of useless) assert.equal(await retried(new Problem(code)), false, code);
  assert.equal(await retried(new Problem("rate_limit_exceeded", { headers: { "x-should-retry": "false" } })), false);
});

test("a failure inside a stream is an error event that the SDK throws, with its type", async () => {
  const bytes = messages.renderError(new Problem("overloaded"), "id-1");
  const client = clientOf(async () => new Response(new Uint8Array(bytes), { headers: { "content-type": "text/event-stream" } }), 0);
  await assert.rejects(
    client.messages.stream(ANY).finalMessage(),
    (thrown) => thrown instanceof APIError && thrown.type === "overloaded_error" && thrown.errorCode === "overloaded",
  );
});

const ANY = { model: "m", max_tokens: 1, messages: [] };

function clientOf(fetch: () => Promise<Response>, maxRetries: number): Anthropic {
  return new Anthropic({ apiKey: "k", maxRetries, logLevel: "off", fetch });
}

async function raised(problem: Problem, maxRetries = 0, asked: () => void = () => undefined): Promise<APIError> {
  const headers = { ...problemHeaders(problem), "content-type": "application/json", "request-id": "id-1" };
  const client = clientOf(async () => {
    asked();
    return new Response(JSON.stringify(messages.envelope(problem, "id-1")), { status: problem.status, headers });
  }, maxRetries);
  return client.messages.create(ANY).then(
    () => assert.fail("nothing was thrown"),
    (thrown: unknown) => {
      assert.ok(thrown instanceof APIError);
      return thrown;
    },
  );
}
