import assert from "node:assert/strict";
import { test } from "node:test";
import { deploymentOf } from "../../testing/dispatching.ts";
import { MalformedUpstream, UpstreamFault } from "../wire.ts";
import { countIn, countWire } from "./count.ts";
import { parseCountTokens } from "./request.ts";
import { upstreamBody } from "./upstream-body.ts";

const bodyOf = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

test("a count is the upstream's whole number, whatever it says beside it; anything else is malformed, and a fault is a fault", () => {
  const whole = countWire.whole(bodyOf({ input_tokens: 2095, context_management: { original_input_tokens: 2095 } }));
  assert.deepEqual(countIn({ kind: "whole", whole }), { kind: "count", count: { tokens: 2095, exact: true } });
  for (const broken of ["{", "[]", "{}", '{"input_tokens":-1}', '{"input_tokens":1.5}', '{"input_tokens":"9"}', '{"input_tokens":1e300}'])
    assert.throws(() => countWire.whole(Buffer.from(broken)), MalformedUpstream, broken);
  assert.throws(() => countWire.whole(bodyOf({ type: "error", error: { type: "overloaded_error", message: "x" } })), UpstreamFault);
});

test("a request to count never streams, and goes out without a maximum that its caller did not write", () => {
  const asked = { model: "demo", messages: [{ role: "user", content: "hi" }], metadata: { feature: "search" }, stream: true };
  const request = parseCountTokens(bodyOf(asked));
  assert.deepEqual([request.kind, request.stream, request.attribution.feature], ["count", false, "search"]);
  const { model } = deploymentOf({ provider: "anthropic" });
  const sent = upstreamBody(request, { upstreamModel: "claude", model, outputBound: 10, cacheSalt: "salt" });
  assert.deepEqual(JSON.parse(sent.toString()), { model: "claude", messages: asked.messages, stream: true });
});

test("what is refused in a message is refused in a count", () => {
  const tools = [{ type: "web_search_20250305", name: "web_search" }];
  assert.throws(() => parseCountTokens(bodyOf({ model: "m", messages: [{ role: "user", content: "hi" }], tools })), {
    param: "tools[0].type",
  });
  assert.throws(() => parseCountTokens(bodyOf({ model: "m" })), { param: "messages" });
});
