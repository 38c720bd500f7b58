import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { createModel, createTenancy, removeData, startAtriumProcess, type Tenancy } from "../support/atrium.ts";

/** A usage row, as `/admin/v1/usage/hops` gives it. */
interface Hop {
  readonly price_version: string;
  readonly cost: string;
  readonly charge: string;
}

test("a call costs the price in force when it was admitted, in the tier that its input reaches; the tenant pays that × its markup, and sees only what it pays", async (t) => {
  const atrium = await startAtriumProcess();
  t.after(async () => {
    await atrium.stop();
    await removeData(atrium.dataDirectory);
  });
  const price = { input: "1", output: "2", tiers: [{ above_input_tokens: 500, input: "10" }] };
  await createModel(atrium, { model: "priced", provider: "simulated", upstreamModel: "simulated", price });
  const marked = await createTenancy(atrium, "marked", "priced");
  await atrium.admin("PUT", "tenants/marked", { markup: "1.5" });
  const plain = await createTenancy(atrium, "plain", "priced");

  const call = async ({ key }: Tenancy, content: string) => {
    const response = await fetch(`${atrium.url}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify({ model: "priced", max_tokens: 20, messages: [{ role: "user", content }] }),
    });
    const body = (await response.json()) as { usage: { prompt_tokens: number; completion_tokens: number } };
    assert.equal(response.status, 200, JSON.stringify(body));
    return { ...body.usage, paid: Number(response.headers.get("x-atrium-cost-usd")) };
  };
  const lastHop = async (tenant: string) =>
    ((await atrium.admin("GET", `usage/hops?limit=1&tenant=${tenant}`)) as { data: readonly Hop[] }).data[0] as Hop;
  const nearly = (actual: number, expected: number) => assert.ok(Math.abs(actual - expected) < 1e-12, `${actual}, not ${expected}`);

  const short = await call(plain, "Say something.");
  nearly(short.paid, (short.prompt_tokens * 1 + short.completion_tokens * 2) / 1e6);
  const long = await call(plain, "word ".repeat(2_000));
  assert.ok(long.prompt_tokens > 500);
  nearly(long.paid, (long.prompt_tokens * 10 + long.completion_tokens * 2) / 1e6);

  const dearer = await call(marked, "Say something.");
  nearly(dearer.paid, short.paid * 1.5);
  const hop = await lastHop("marked");
  assert.deepEqual([Number(hop.cost), Number(hop.charge)], [short.paid, dearer.paid]);
  const admin = await fetch(`${atrium.url}/v1/organization/costs?start_time=${Math.floor(Date.now() / 1000) - 86_400}`, {
    headers: { authorization: `Bearer ${marked.key}` },
  });
  const told = await admin.text();
  assert.match(told, new RegExp(`"value_exact":"${hop.charge}"`));
  assert.ok(!told.includes(hop.cost), "what the provider bills is not told");

  const from = new Date(Date.now() + 2_000);
  await atrium.admin("PUT", "models/priced/deployments/main", {
    price: { input: "100", output: "100", effective_from: from.toISOString() },
  });
  const before = await call(plain, "Say something.");
  if (Date.now() < from.getTime()) assert.equal(before.paid, short.paid);
  else t.diagnostic("the machine was too slow to call before the price changed");
  await sleep(Math.max(0, from.getTime() + 20 - Date.now()));
  const later = await call(plain, "Say something.");
  nearly(later.paid, (later.prompt_tokens + later.completion_tokens) / 1e4);
  const { price_version } = (await atrium.admin("GET", "models/priced/deployments/main")) as { price_version: string };
  assert.equal((await lastHop("plain")).price_version, price_version);
});
