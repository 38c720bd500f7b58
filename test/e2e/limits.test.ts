import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import {
  type ScriptedUpstream,
  scriptedUpstream,
  SSE_HEADERS,
  sse,
  textChunk,
} from "../../src/domains/providers/testing/scripted-upstream.ts";
import { type AtriumProcess, BOOTSTRAP_KEY, createModel, createTenancy, removeData, startAtriumProcess } from "../support/atrium.ts";

// Limits over a real server process, by the official SDKs wherever they can be the client.

const MODEL = "simulated";
/** Whose upstream says nothing, or nothing more, until its timeouts run out. */
const SILENT = "silent";
let atrium: AtriumProcess;
let silent: ScriptedUpstream;

before(async () => {
  silent = await scriptedUpstream((exchange) => {
    if (!exchange.body.includes('"stream":true')) return;
    exchange.head(200, SSE_HEADERS);
    exchange.write(sse(textChunk("half")));
  });
  atrium = await startAtriumProcess();
  await createModel(atrium, { model: SILENT, provider: "openai_compatible", upstreamModel: "m", baseUrl: silent.baseUrl, price: "free" });
  await createModel(atrium, { model: MODEL, provider: "simulated", upstreamModel: "simulated", options: { output_tokens: 20 } });
  await atrium.admin("PUT", `models/${SILENT}/deployments/main`, { first_token_timeout_ms: 400, idle_timeout_ms: 400 });
});

after(async () => {
  const code = await atrium.stop();
  await silent.close();
  await removeData(atrium.dataDirectory);
  assert.equal(code, 0);
  assert.doesNotMatch(atrium.output(), /uncaught|unhandled|TypeError/i);
});

let tenants = 0;
/** A tenant of its own for each test, with these limits. */
async function tenantWith(limits: Readonly<Record<string, object>>) {
  const tenancy = await createTenancy(atrium, `limited-${++tenants}`, MODEL);
  for (const [name, limit] of Object.entries(limits)) await atrium.admin("PUT", `tenants/${tenancy.tenant}/limits/${name}`, limit);
  return tenancy;
}

const perTenant = { scope: { kind: "tenant" } };
const say = (content: string) => [{ role: "user" as const, content }];

function ask(key: string, body: object = {}, options: { readonly path?: string; readonly signal?: AbortSignal } = {}): Promise<Response> {
  return fetch(`${atrium.url}/v1/${options.path ?? "chat/completions"}`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({ model: MODEL, max_tokens: 20, messages: say("Hello."), ...body }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
}

async function refusal(response: Response): Promise<{ status: number; code: string; message: string }> {
  const { error } = (await response.json()) as { error: { code: string; message: string } };
  return { status: response.status, ...error };
}

function headersOf(response: Response, prefix: string): Record<string, string> {
  return Object.fromEntries([...response.headers].filter(([name]) => name.startsWith(prefix)));
}

test("OpenAI's SDK waits as long as it is told after a 429, and then succeeds", async () => {
  const { key } = await tenantWith({ slow: { ...perTenant, dimension: "requests", limit: 60, burst: 1 } });
  const statuses: number[] = [];
  const client = new OpenAI({
    baseURL: `${atrium.url}/v1`,
    apiKey: key,
    maxRetries: 2,
    fetch: async (url, init) => {
      const response = await fetch(url, init);
      statuses.push(response.status);
      return response;
    },
  });
  await client.chat.completions.create({ model: MODEL, messages: say("One.") });
  const startedAt = performance.now();
  await client.chat.completions.create({ model: MODEL, messages: say("Two.") });
  const tookMs = performance.now() - startedAt;
  assert.deepEqual(statuses, [200, 429, 200]);
  assert.ok(tookMs > 700 && tookMs < 3_000, `${tookMs} ms`);
});

test("Anthropic's SDK waits as long as it is told after a 429, and then succeeds", async () => {
  const { key } = await tenantWith({ slow: { ...perTenant, dimension: "requests", limit: 60, burst: 1 } });
  const statuses: number[] = [];
  const client = new Anthropic({
    baseURL: atrium.url,
    apiKey: key,
    maxRetries: 2,
    fetch: async (url, init) => {
      const response = await fetch(url, init);
      statuses.push(response.status);
      return response;
    },
  });
  const message = { model: MODEL, max_tokens: 20, messages: say("Hello.") };
  await client.messages.create(message);
  const startedAt = performance.now();
  await client.messages.create(message);
  const tookMs = performance.now() - startedAt;
  assert.deepEqual(statuses, [200, 429, 200]);
  assert.ok(tookMs > 700 && tookMs < 3_000, `${tookMs} ms`);
});

test("neither SDK retries a request that can never pass, and both are told the limit and the charge", async () => {
  const { key } = await tenantWith({ "small-strict": { ...perTenant, dimension: "tokens", limit: 1_000, burst: 600, mode: "strict" } });
  let calls = 0;
  const counting: typeof fetch = (url, init) => {
    calls++;
    return fetch(url, init);
  };
  const openai = new OpenAI({ baseURL: `${atrium.url}/v1`, apiKey: key, maxRetries: 3, fetch: counting });
  const named = /counts 90\d tokens, and the limit 'small-strict' lets at most 600 pass/;
  await assert.rejects(openai.chat.completions.create({ model: MODEL, max_tokens: 900, messages: say("Long.") }), (error) => {
    assert.ok(error instanceof OpenAI.RateLimitError);
    assert.equal(error.code, "request_exceeds_limit");
    assert.match(error.message, named);
    return true;
  });
  assert.equal(calls, 1);
  const anthropic = new Anthropic({ baseURL: atrium.url, apiKey: key, maxRetries: 3, fetch: counting });
  await assert.rejects(anthropic.messages.create({ model: MODEL, max_tokens: 900, messages: say("Long.") }), (error) => {
    assert.ok(error instanceof Anthropic.RateLimitError);
    assert.match(error.message, named);
    return true;
  });
  assert.equal(calls, 2);
});

test("what is left is told in the caller's dialect, on success, on a stream's head and on 429", async () => {
  const { key } = await tenantWith({
    requests: { ...perTenant, dimension: "requests", limit: 60, burst: 3 },
    looser: { ...perTenant, dimension: "requests", limit: 600, burst: 300 },
    tokens: { ...perTenant, dimension: "tokens", limit: 6_000 },
  });
  const first = await ask(key);
  const seen = headersOf(first, "x-ratelimit-");
  assert.equal(first.status, 200);
  assert.deepEqual([seen["x-ratelimit-limit-requests"], seen["x-ratelimit-remaining-requests"]], ["60", "2"]);
  assert.equal(seen["x-ratelimit-limit-tokens"], "6000");
  assert.ok(Number(seen["x-ratelimit-remaining-tokens"]) > 5_900);
  assert.match(seen["x-ratelimit-reset-requests"] ?? "", /^(\d+ms|[\d.]+s)$/);
  assert.match(seen["x-ratelimit-reset-tokens"] ?? "", /^(\d+ms|[\d.]+s)$/);

  const stream = await ask(key, { stream: true });
  assert.equal(stream.headers.get("x-ratelimit-remaining-requests"), "1");
  await stream.text();

  const message = await ask(key, {}, { path: "messages" });
  const told = headersOf(message, "anthropic-ratelimit-");
  assert.equal(message.status, 200);
  assert.deepEqual(headersOf(message, "x-ratelimit-"), {});
  assert.deepEqual([told["anthropic-ratelimit-requests-limit"], told["anthropic-ratelimit-requests-remaining"]], ["60", "0"]);
  for (const name of ["requests", "tokens", "input-tokens", "output-tokens"]) {
    assert.ok(Number(told[`anthropic-ratelimit-${name}-limit`]) > 0, name);
    const reset = told[`anthropic-ratelimit-${name}-reset`] ?? "";
    assert.match(reset, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    assert.ok(Date.parse(reset) > Date.now() - 1_000 && Date.parse(reset) < Date.now() + 60_000);
  }

  const refused = await ask(key);
  assert.equal(refused.status, 429);
  assert.equal(refused.headers.get("x-ratelimit-remaining-requests"), "0");
  assert.equal(refused.headers.get("retry-after"), "1");
  const retryAfterMs = Number(refused.headers.get("retry-after-ms"));
  assert.ok(retryAfterMs > 0 && retryAfterMs <= 1_000, String(retryAfterMs));
  const { code, message: text } = await refusal(refused);
  assert.equal(code, "rate_limit_exceeded");
  assert.match(text, /'requests' of 60 requests a minute for this tenant/);
});

test("a limit that others are counted under answers capacity_exceeded, without a figure or a name", async () => {
  await createModel(atrium, { model: "crowded", provider: "simulated", upstreamModel: "simulated" });
  const { key } = await createTenancy(atrium, "crowd", "crowded");
  await atrium.admin("PUT", "limits/shared-secret-name", {
    scope: { kind: "deployment", model: "crowded", deployment: "main" },
    dimension: "requests",
    limit: 60,
    burst: 1,
  });
  const first = await ask(key, { model: "crowded" });
  assert.equal(first.status, 200);
  const second = await ask(key, { model: "crowded" });
  assert.deepEqual([headersOf(first, "x-ratelimit-"), headersOf(second, "x-ratelimit-")], [{}, {}]);
  const { status, code, message } = await refusal(second);
  assert.deepEqual([status, code], [429, "capacity_exceeded"]);
  assert.doesNotMatch(message, /\d|shared-secret-name/);
  assert.ok(Number(second.headers.get("retry-after-ms")) > 0);
  await atrium.admin("DELETE", "limits/shared-secret-name");
  assert.equal((await ask(key, { model: "crowded" })).status, 200);
});

test("50 callers at once: no more pass than burst + limit × t / 60", async (t) => {
  const { key } = await tenantWith({ rate: { ...perTenant, dimension: "requests", limit: 600, burst: 5 } });
  const startedAt = performance.now();
  let [passed, refused] = [0, 0];
  const caller = async (): Promise<void> => {
    while (performance.now() - startedAt < 2_000) {
      const response = await ask(key);
      await response.arrayBuffer();
      if (response.status === 200) passed++;
      else {
        assert.equal(response.status, 429);
        refused++;
        await sleep(20);
      }
    }
  };
  await Promise.all(Array.from({ length: 50 }, caller));
  const seconds = (performance.now() - startedAt) / 1000;
  t.diagnostic(`${passed} passed and ${refused} were refused in ${seconds.toFixed(2)} s; at most ${(5 + 10 * seconds).toFixed(1)} may`);
  assert.ok(passed <= 5 + 10 * seconds);
  assert.ok(passed >= 5 + 10 * 1.8, "and what may pass does");
  assert.ok(refused > 100);
});

test("50 callers at once, strict and sliding: the tokens really used stay within the limit", async (t) => {
  const { key } = await tenantWith({ hard: { ...perTenant, dimension: "tokens", limit: 4_000, window: "sliding", mode: "strict" } });
  const startedAt = performance.now();
  let used = 0;
  let refused = 0;
  const caller = async (): Promise<void> => {
    while (performance.now() - startedAt < 2_500) {
      const response = await ask(key, { max_tokens: 40 });
      const body = (await response.json()) as { usage?: { total_tokens: number } };
      used += body.usage?.total_tokens ?? 0;
      if (response.status === 429) refused++;
      await sleep(20);
    }
  };
  await Promise.all(Array.from({ length: 50 }, caller));
  t.diagnostic(`${used} of 4,000 tokens used, ${refused} calls refused`);
  assert.ok(used <= 4_000);
  assert.ok(used > 3_000, "the bound is given back when a call ends");
  assert.ok(refused > 50);
});

test("slots come back from calls that end in every way: answers, streams, aborts before and after the first byte, faults, timeouts", async (t) => {
  const most = 4;
  const { key, tenant } = await tenantWith({
    slots: { ...perTenant, dimension: "concurrency", limit: most },
    tokens: { ...perTenant, dimension: "tokens", limit: 10_000_000 },
  });
  await atrium.admin("PUT", `tenants/${tenant}/grants/${SILENT}`, {});
  const ways = [
    { content: "plain" },
    { content: "streamed", stream: true },
    { content: "[[simulate: error=503]]" },
    { content: "[[simulate: error=503 after=3]]", stream: true },
    { content: "[[simulate: cut after=2]]", stream: true },
    { content: "[[simulate: connect]]" },
    { content: "[[simulate: malformed]]" },
    { content: "no first token", model: SILENT },
    { content: "no second token", model: SILENT, stream: true },
    { content: "[[simulate: hang]]", abortMs: 150 },
    { content: "[[simulate: first_token_ms=300]]", abortMs: 50 },
    { content: "[[simulate: first_token_ms=300]]", stream: true, abortMs: 50 },
    { content: "[[simulate: per_token_ms=50]]", stream: true, abortMs: 150 },
    { content: "[[simulate: nonsense]]" },
    { content: "no such model", model: "unknown" },
  ];
  const endings: Record<string, number> = {};
  const one = async (index: number): Promise<void> => {
    const { content, abortMs, ...fields } = ways[index % ways.length] as { content: string; abortMs?: number };
    const abort = new AbortController();
    const timer = abortMs === undefined ? null : setTimeout(() => abort.abort(), abortMs);
    const ending = await ask(key, { messages: say(content), ...fields }, { signal: abort.signal })
      .then(async (response) => (await response.text(), String(response.status)))
      .catch(() => "broke");
    if (timer !== null) clearTimeout(timer);
    endings[ending] = (endings[ending] ?? 0) + 1;
    if (ending !== "429") return;
    await sleep(30);
    await one(index);
  };
  const order = Array.from({ length: ways.length * 6 }, (_, index) => index).toSorted(() => Math.random() - 0.5);
  await Promise.all(
    Array.from({ length: most + 2 }, async () => {
      for (let next = order.pop(); next !== undefined; next = order.pop()) await one(next);
    }),
  );
  t.diagnostic(JSON.stringify(endings));
  for (const expected of ["200", "429", "502", "504", "400", "404", "broke"]) assert.ok((endings[expected] ?? 0) > 0, expected);

  await sleep(1_000);
  const full = await Promise.all(
    Array.from({ length: most }, () => ask(key, { messages: say("[[simulate: first_token_ms=200]]") }).then(({ status }) => status)),
  );
  assert.deepEqual(
    full,
    Array.from({ length: most }, () => 200),
    "a second after the last call all slots are free",
  );
  const over = await Promise.all(
    Array.from({ length: most + 3 }, () => ask(key, { messages: say("[[simulate: first_token_ms=300]]") }).then(({ status }) => status)),
  );
  assert.equal(over.filter((status) => status === 200).length, most, "and there are no more than before");
});

test("a changed limit holds for the next call, a tier and its limits for tenants of its name, and a rejected call is recorded by dimension", async () => {
  const { key, tenant } = await tenantWith({ rate: { ...perTenant, dimension: "requests", limit: 60, burst: 2 } });
  for (const expected of [200, 200, 429]) assert.equal((await ask(key)).status, expected);
  await atrium.admin("PUT", `tenants/${tenant}/limits/rate`, { burst: 60 });
  assert.equal((await ask(key)).status, 200);
  await atrium.admin("PUT", "tiers/bronze", {});
  await atrium.admin("PUT", "tiers/bronze/limits/slots", { ...perTenant, dimension: "prefix_tokens", limit: 200 });
  await atrium.admin("PUT", `tenants/${tenant}`, { tier: "bronze" });
  const flood = await ask(key, { messages: say("x".repeat(3_000)) });
  assert.deepEqual([flood.status, flood.headers.get("x-should-retry")], [429, "false"]);
  assert.equal((await ask(key)).status, 200);
  await atrium.admin("DELETE", "tiers/bronze");
  assert.equal((await ask(key, { messages: say("x".repeat(3_000)) })).status, 200);

  const metrics = await (await fetch(`${atrium.url}/metrics`, { headers: { authorization: `Bearer ${BOOTSTRAP_KEY}` } })).text();
  for (const dimension of ["requests", "tokens", "concurrency", "prefix_tokens"])
    assert.match(metrics, new RegExp(`^atrium_limited_total\\{dimension="${dimension}"\\} [1-9]`, "m"));
});
