import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { type ScriptedUpstream, scriptedUpstream } from "../../src/domains/providers/testing/scripted-upstream.ts";
import { BESIDE_THE_TABLE } from "../../scripts/route-table.ts";
import { type AtriumProcess, createModel, createTenancy, removeData, startAtriumProcess } from "../support/atrium.ts";

// Budgets over a real server process, by the official SDKs wherever they can be the client.

const MODEL = "priced";
/** Whose upstream tells what it was asked. */
const ECHO = "echo";
/** USD a million tokens: $0.000001 a token of input, $0.00001 of output. */
const PRICE = { input: "1", output: "10" };
let atrium: AtriumProcess;
let echo: ScriptedUpstream;
let asked: Record<string, unknown> = {};

before(async () => {
  echo = await scriptedUpstream((exchange) => {
    asked = JSON.parse(exchange.body.toString()) as Record<string, unknown>;
    exchange.head(200, { "content-type": "application/json" });
    exchange.end(
      JSON.stringify({
        id: "chatcmpl-1",
        object: "chat.completion",
        created: 1,
        model: "m",
        choices: [{ index: 0, message: { role: "assistant", content: "Yes." }, finish_reason: "stop" }],
        usage: { prompt_tokens: 10, completion_tokens: 2, total_tokens: 12 },
      }),
    );
  });
  atrium = await startAtriumProcess();
  await createModel(atrium, { model: ECHO, provider: "openai_compatible", upstreamModel: "m", baseUrl: echo.baseUrl, price: PRICE });
  await createModel(atrium, {
    model: MODEL,
    provider: "simulated",
    upstreamModel: "simulated",
    price: PRICE,
    options: { output_tokens: 100 },
  });
});

after(async () => {
  const code = await atrium.stop();
  await echo.close();
  await removeData(atrium.dataDirectory);
  assert.equal(code, 0);
  assert.doesNotMatch(atrium.output(), /uncaught|unhandled|TypeError/i);
});

let tenants = 0;
/** A tenant of its own for each test, with these budgets, and both models. */
async function tenantWith(budgets: Readonly<Record<string, object>>, project: object = {}) {
  const tenancy = await createTenancy(atrium, `budgeted-${++tenants}`, MODEL);
  await atrium.admin("PUT", `tenants/${tenancy.tenant}/grants/${ECHO}`, {});
  await atrium.admin("PUT", `tenants/${tenancy.tenant}/projects/main`, project);
  for (const [name, budget] of Object.entries(budgets)) await atrium.admin("PUT", `tenants/${tenancy.tenant}/budgets/${name}`, budget);
  return { ...tenancy, openai: new OpenAI({ baseURL: `${atrium.url}/v1`, apiKey: tenancy.key, maxRetries: 0 }) };
}

const perTenant = { scope: { kind: "tenant" }, unit: "usd", window: "month" };
const say = [{ role: "user" as const, content: "Hello." }];

function ask(key: string, body: object = {}, signal?: AbortSignal): Promise<Response> {
  return fetch(`${atrium.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({ model: MODEL, max_tokens: 100, messages: say, ...body }),
    ...(signal === undefined ? {} : { signal }),
  });
}

async function spentBy(tenant: string, budget: string): Promise<number> {
  const { spent } = (await atrium.admin("GET", `tenants/${tenant}/budgets/${budget}`)) as { spent: string };
  return Number(spent);
}

test("a spent budget is refused by both SDKs with their classes, its scope, cap, what is spent and when it begins anew, and is not retried", async () => {
  const { tenant, key } = await tenantWith({ cap: { ...perTenant, cap: "0.0025", window: "day" } });
  assert.equal((await ask(key)).status, 200);
  let sent = 0;
  const counting: typeof fetch = (url, init) => {
    sent += 1;
    return fetch(url, init);
  };
  const openai = new OpenAI({ baseURL: `${atrium.url}/v1`, apiKey: key, maxRetries: 3, fetch: counting });
  const tell = { model: MODEL, max_tokens: 1_000, messages: say };
  await assert.rejects(openai.chat.completions.create(tell), (thrown) => {
    assert.ok(thrown instanceof OpenAI.RateLimitError);
    assert.deepEqual([thrown.status, thrown.code, thrown.type], [429, "budget_exceeded", "insufficient_quota"]);
    assert.match(
      thrown.message,
      /'cap' cannot pay for this call, which may use up to \$0\.010\d*: scope tenant, window day, cap \$0\.0025, spent \$0\.001\d*, .*resets_at 20\d\d-\d\d-\d\dT00:00:00\.000Z/,
    );
    assert.equal(thrown.headers?.get("x-should-retry"), "false");
    return true;
  });
  const anthropic = new Anthropic({ baseURL: atrium.url, apiKey: key, maxRetries: 3, fetch: counting });
  await assert.rejects(anthropic.messages.create(tell), (thrown) => {
    assert.ok(thrown instanceof Anthropic.RateLimitError);
    assert.equal(thrown.type, "billing_error");
    return true;
  });
  assert.equal(sent, 2);
  assert.ok((await spentBy(tenant, "cap")) <= 0.0025);
});

test("the platform's own cap refuses without a number, and a call under it spends from both", async () => {
  const { openai } = await tenantWith({});
  await atrium.admin("PUT", "budgets/everything", { scope: { kind: "platform" }, unit: "usd", window: "total", cap: "0.000000000001" });
  try {
    await assert.rejects(openai.chat.completions.create({ model: MODEL, messages: say }), (thrown) => {
      assert.ok(thrown instanceof OpenAI.RateLimitError && thrown.code === "budget_exceeded");
      assert.doesNotMatch(thrown.message, /everything|\$|cap|\d{4,}/);
      return true;
    });
  } finally {
    await atrium.admin("DELETE", "budgets/everything");
  }
});

test("where a hard budget applies, an answer without a maximum gets the project's default, sent upstream and told; elsewhere nothing is added", async () => {
  const free = await tenantWith({ watch: { ...perTenant, cap: "1", mode: "soft" } });
  const unbounded = await ask(free.key, { model: ECHO, max_tokens: undefined });
  assert.deepEqual([unbounded.status, unbounded.headers.get("x-atrium-max-output-tokens")], [200, null]);
  assert.equal("max_tokens" in asked || "max_completion_tokens" in asked, false);

  const { key, tenant } = await tenantWith({ cap: { ...perTenant, cap: "1" } });
  const usual = await ask(key, { model: ECHO, max_tokens: undefined });
  assert.equal(usual.headers.get("x-atrium-max-output-tokens"), "8192");
  assert.equal(asked["max_completion_tokens"] ?? asked["max_tokens"], 8192);
  const own = await ask(key, { model: ECHO, max_tokens: 50 });
  assert.deepEqual([own.headers.get("x-atrium-max-output-tokens"), asked["max_tokens"]], [null, 50]);

  await atrium.admin("PUT", `tenants/${tenant}/projects/main`, { default_max_output_tokens: 300 });
  assert.equal((await ask(key, { model: ECHO, max_tokens: undefined })).headers.get("x-atrium-max-output-tokens"), "300");
  await atrium.admin("PUT", `tenants/${tenant}/projects/main`, { default_max_output_tokens: 0 });
  assert.equal((await ask(key, { model: ECHO, max_tokens: undefined })).status, 429, "a window of 131,072 tokens costs $1.31");
});

test("a token limit bounds the answer too", async () => {
  const { key, tenant } = await tenantWith({});
  await atrium.admin("PUT", `tenants/${tenant}/limits/tpm`, { scope: { kind: "tenant" }, dimension: "tokens", limit: 100_000 });
  assert.equal((await ask(key, { model: ECHO, max_tokens: undefined })).headers.get("x-atrium-max-output-tokens"), "8192");
});

test("a budget that clamps shortens the answer to what is left, says so, and refuses what is too short to be of use", async () => {
  const { key } = await tenantWith({ cap: { ...perTenant, cap: "0.005", mode: "clamp" } });
  const clamped = await ask(key, { model: ECHO, max_tokens: 1_000 });
  assert.equal(clamped.status, 200);
  const most = Number(clamped.headers.get("x-atrium-max-output-tokens"));
  assert.ok(most >= 256 && most < 500, String(most));
  assert.equal(asked["max_tokens"], most);
  const { key: poor } = await tenantWith({ cap: { ...perTenant, cap: "0.003", mode: "clamp" } });
  assert.equal((await ask(poor, { model: ECHO, max_tokens: 1_000 })).status, 429);
});

test("a call that a budget bids wait goes on when money that others held comes back, in order, and gives up when its caller leaves", async () => {
  const { key, tenant } = await tenantWith({ cap: { ...perTenant, cap: "0.02", mode: "wait" } });
  const slow = { max_tokens: 1_500, messages: [{ role: "user", content: "[[simulate: tokens=10 first_token_ms=400]]" }] };
  const began = performance.now();
  const statuses = await Promise.all([1, 2, 3].map(async () => (await ask(key, slow)).status));
  assert.deepEqual(statuses, [200, 200, 200]);
  assert.ok(performance.now() - began > 1_100, "they were served together");
  // What costs more than the whole budget is refused at once.
  assert.equal((await ask(key, { max_tokens: 5_000 })).status, 429);
  const leaving = new AbortController();
  const [first, second] = [ask(key, slow), ask(key, slow, leaving.signal)];
  setTimeout(() => leaving.abort(), 100);
  await assert.rejects(second, { name: "AbortError" });
  assert.equal((await first).status, 200);
  assert.ok((await spentBy(tenant, "cap")) <= 0.02);
});

test("each user has a budget of its own, and a raised cap is in force at once", async () => {
  const { tenant, key } = await tenantWith({ each: { ...perTenant, scope: { kind: "user" }, unit: "requests", cap: "2" } });
  const of = (user: string): Promise<number> =>
    ask(key, { user }).then(async (response) => {
      await response.text();
      return response.status;
    });
  assert.deepEqual([await of("ada"), await of("ada"), await of("ada"), await of("bob")], [200, 200, 429, 200]);
  await atrium.admin("PUT", `tenants/${tenant}/budgets/each`, { cap: "3" });
  assert.deepEqual([await of("ada"), await of("ada")], [200, 429]);
});

/** A body for each route that calls models; a count of tokens is none. */
const BODIES: Readonly<Record<string, object | null>> = {
  "POST /v1/chat/completions": { model: MODEL, max_tokens: 1_000, messages: say },
  "POST /v1/messages": { model: MODEL, max_tokens: 1_000, messages: say },
  "POST /v1/messages/count_tokens": null,
};

test("every route that calls a model is held: a budget that cannot pay refuses it", async () => {
  const { key } = await tenantWith({ cap: { ...perTenant, cap: "0.001" } });
  const routes = Object.keys(BESIDE_THE_TABLE).filter((route) => route.startsWith("POST /v1/"));
  assert.deepEqual(new Set(routes), new Set(Object.keys(BODIES)));
  for (const [route, body] of Object.entries(BODIES)) {
    if (body === null) continue;
    const response = await fetch(`${atrium.url}${route.slice("POST ".length)}`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    assert.equal(response.status, 429, route);
    assert.match(await response.text(), /budget_exceeded/);
  }
});

test("a runaway loop spends no more than its cap, however fast it calls", async (t) => {
  const cap = 0.05;
  const { tenant, key } = await tenantWith({ cap: { ...perTenant, cap: String(cap) } });
  const counts = new Map<number, number>();
  const calls = 600;
  const loop = async (): Promise<void> => {
    for (let call = 0; call < calls / 30; call++) {
      const response = await ask(key, { stream: call % 2 === 0 });
      await response.text();
      counts.set(response.status, (counts.get(response.status) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: 30 }, loop));
  const spent = await spentBy(tenant, "cap");
  assert.deepEqual(new Set(counts.keys()), new Set([200, 429]));
  assert.ok(spent <= cap && spent > cap - 0.0012, String(spent));
  t.diagnostic(`${calls} calls tried, ${counts.get(200)} served, ${counts.get(429)} refused: cap $${cap}, spent $${spent}`);
});

test("what a running stream has used is shown as spent while it runs, and what it may still use as held", async () => {
  await createModel(atrium, {
    model: "slow",
    provider: "simulated",
    upstreamModel: "simulated",
    price: PRICE,
    options: { output_tokens: 4_000, per_token_ms: 1 },
  });
  const { tenant, key } = await tenantWith({ cap: { ...perTenant, cap: "1" } });
  await atrium.admin("PUT", `tenants/${tenant}/grants/slow`, {});
  const leaving = new AbortController();
  const response = await ask(key, { model: "slow", max_tokens: 4_000, stream: true }, leaving.signal);
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const seen: { spent: number; held: number }[] = [];
  while (seen.length < 2 || (seen.at(-1)?.spent ?? 0) <= (seen[0]?.spent ?? 0)) {
    for (let pieces = 0; pieces < 100; pieces++)
      assert.equal((await reader.read()).done, false, "the stream ended before its progress was seen");
    const { spent, held } = (await atrium.admin("GET", `tenants/${tenant}/budgets/cap`)) as { spent: string; held: string };
    seen.push({ spent: Number(spent), held: Number(held) });
  }
  const [first, last] = [seen[0], seen.at(-1)] as [{ spent: number; held: number }, { spent: number; held: number }];
  assert.ok(first.held > last.held && last.held > 0, JSON.stringify(seen));
  assert.equal((first.spent + first.held).toFixed(12), (last.spent + last.held).toFixed(12), "a grant sees both alike");
  leaving.abort();
});
