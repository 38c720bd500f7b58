import assert from "node:assert/strict";
import { test } from "node:test";
import type { CallEvent } from "./call-event.ts";
import { createMetrics } from "./metrics.ts";

const EVENT: CallEvent = {
  call: "call",
  trace: "trace",
  endpoint: "openai.chat.completions",
  outcome: "answered",
  status: 200,
  problem: null,
  cause: undefined,
  limit: null,
  limitDimension: null,
  tenant: "tenant-canary",
  project: "project-canary",
  principal: "key-canary",
  remoteAddress: "address-canary",
  callerRequestId: "request-canary",
  stream: true,
  model: "model-canary",
  modelServed: "served-canary",
  provider: "openai",
  deployment: "deployment-canary",
  attempt: "attempt-canary",
  upstreamRequestId: "upstream-canary",
  unknownFields: ["field-canary"],
  inputTokens: 7,
  outputTokens: 11,
  costUsd: "0.25",
  chargeUsd: "0.5",
  estimated: false,
  firstTokenMs: 30,
  durationMs: 80,
};

const ours = (text: string): string[] => text.split("\n").filter((line) => line.startsWith("atrium_"));

test("calls are counted by endpoint, outcome and status, tokens and money by provider", async () => {
  const metrics = createMetrics();
  for (let call = 0; call < 3; call++) metrics.call(EVENT);
  metrics.call({ ...EVENT, outcome: "truncated", status: 502 });
  metrics.call({
    ...EVENT,
    outcome: "problem",
    status: 401,
    provider: null,
    inputTokens: null,
    outputTokens: null,
    chargeUsd: null,
    firstTokenMs: null,
  });
  const lines = new Set(ours(await metrics.render()));
  for (const line of [
    'atrium_calls_total{endpoint="openai.chat.completions",outcome="answered",status="200"} 3',
    'atrium_calls_total{endpoint="openai.chat.completions",outcome="truncated",status="502"} 1',
    'atrium_calls_total{endpoint="openai.chat.completions",outcome="problem",status="401"} 1',
    'atrium_call_duration_seconds_count{endpoint="openai.chat.completions"} 5',
    'atrium_first_token_seconds_count{provider="openai"} 4',
    'atrium_tokens_total{provider="openai",direction="input"} 28',
    'atrium_tokens_total{provider="openai",direction="output"} 44',
    'atrium_charge_usd_total{provider="openai"} 2',
  ]) {
    assert.ok(lines.has(line), `${line} is not among\n${[...lines].join("\n")}`);
  }
});

test("ten thousand tenants, keys, models and addresses make no more series than one", async () => {
  const metrics = createMetrics();
  metrics.call(EVENT);
  const before = ours(await metrics.render()).length;
  for (let index = 0; index < 10_000; index++) {
    const own = `canary-${index}`;
    metrics.call({
      ...EVENT,
      call: own,
      trace: own,
      tenant: own,
      project: own,
      principal: own,
      remoteAddress: own,
      callerRequestId: own,
      model: own,
      modelServed: own,
      deployment: own,
      attempt: own,
      upstreamRequestId: own,
      unknownFields: [own],
    });
  }
  const text = await metrics.render();
  assert.equal(ours(text).length, before);
  assert.doesNotMatch(text, /canary/);
});

test("gauges are read when they are scraped", async () => {
  const metrics = createMetrics();
  let inFlight = 1;
  metrics.watch({ callsInFlight: () => inFlight, unshippedRecords: () => 2, configurationAgeSeconds: () => 0.5, limitLevels: () => 3 });
  assert.match(await metrics.render(), /^atrium_calls_in_flight 1$/m);
  inFlight = 5;
  const text = await metrics.render();
  assert.match(text, /^atrium_calls_in_flight 5$/m);
  assert.match(text, /^atrium_journal_unshipped_records 2$/m);
  assert.match(text, /^atrium_configuration_age_seconds 0.5$/m);
  assert.match(text, /^atrium_limit_levels 3$/m);
});

test("calls that a limit refused are counted by what it counts, and by nothing else", async () => {
  const metrics = createMetrics();
  metrics.call(EVENT);
  for (const limitDimension of ["requests", "requests", "tokens"])
    metrics.call({ ...EVENT, outcome: "problem", status: 429, problem: "rate_limit_exceeded", limit: "limit-canary", limitDimension });
  const limited = ours(await metrics.render()).filter((line) => line.startsWith("atrium_limited_total"));
  assert.deepEqual(limited, ['atrium_limited_total{dimension="requests"} 2', 'atrium_limited_total{dimension="tokens"} 1']);
});
