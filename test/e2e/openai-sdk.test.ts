import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";
import { type AtriumProcess, createModel, createTenancy, removeData, startAtriumProcess, type Tenancy } from "../support/atrium.ts";

// The server runs as `npm start` runs it; the client is the official SDK, unmodified.

let atrium: AtriumProcess;
let tenancy: Tenancy;
let client: OpenAI;

before(async () => {
  atrium = await startAtriumProcess();
  await createModel(atrium, { model: "priced", provider: "simulated", upstreamModel: "simulated", price: { input: "1", output: "2" } });
  tenancy = await createTenancy(atrium, "sdk", "priced");
  client = sdk(tenancy.key);
});

after(async () => {
  const code = await atrium.stop();
  await removeData(atrium.dataDirectory);
  assert.equal(code, 0, "SIGTERM drains and exits 0");
});

const sdk = (key: string) => new OpenAI({ baseURL: `${atrium.url}/v1`, apiKey: key, adminAPIKey: key, maxRetries: 0 });
const question = [{ role: "user" as const, content: "Say something." }];
const weather = {
  type: "function" as const,
  function: {
    name: "weather",
    description: "The weather of a city.",
    parameters: { type: "object", properties: { city: { type: "string" }, days: { type: "integer" } }, required: ["city", "days"] },
  },
};

test("a plain chat completes, says that it is simulated, and carries its usage and cost", async () => {
  const { data, response } = await client.chat.completions.create({ model: "priced", messages: question }).withResponse();
  assert.equal(data.object, "chat.completion");
  assert.match(JSON.stringify(data), /simulated/i);
  assert.equal(data.choices[0]?.finish_reason, "stop");
  const { prompt_tokens, completion_tokens } = data.usage as OpenAI.CompletionUsage;
  const exact = (prompt_tokens * 1 + completion_tokens * 2) / 1e6;
  assert.equal(Number(response.headers.get("x-atrium-cost-usd")), exact);
  assert.equal(response.headers.get("x-atrium-model"), "priced");
  assert.equal(response.headers.get("x-atrium-deployment"), "main");
  assert.match(response.headers.get("x-request-id") as string, /^[0-9a-f-]{36}$/);
});

test("a stream arrives in order and gives the same text as the plain call of the same seed", async () => {
  const body = { model: "priced", messages: question, seed: 7 };
  const whole = await client.chat.completions.create(body);
  let text = "";
  let usageFrames = 0;
  for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) {
    text += chunk.choices[0]?.delta.content ?? "";
    if (chunk.usage) usageFrames += 1;
  }
  assert.equal(text, whole.choices[0]?.message.content);
  assert.equal(usageFrames, 0, "a usage frame that was not asked for is not sent");
});

test("the usage of a stream comes in its own last chunk when it is asked for", async () => {
  const usages: OpenAI.CompletionUsage[] = [];
  for await (const chunk of await client.chat.completions.create({
    model: "priced",
    messages: question,
    stream: true,
    stream_options: { include_usage: true },
  })) {
    if (chunk.usage) {
      assert.deepEqual(chunk.choices, []);
      usages.push(chunk.usage);
    }
  }
  assert.equal(usages.length, 1);
  assert.ok((usages[0] as OpenAI.CompletionUsage).completion_tokens > 0);
});

test("tools are called, plain and streamed, and the conversation goes on with their results", async () => {
  const request = {
    model: "priced",
    messages: [{ role: "user" as const, content: "Weather in Paris?" }],
    tools: [weather],
    tool_choice: "required" as const,
  };
  const { choices } = await client.chat.completions.create(request);
  const call = choices[0]?.message.tool_calls?.[0];
  assert.ok(call?.type === "function");
  assert.equal(choices[0]?.finish_reason, "tool_calls");
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments) as object).sort(), ["city", "days"]);

  const streamed = await client.chat.completions.stream(request).finalChatCompletion();
  const streamedCall = streamed.choices[0]?.message.tool_calls?.[0];
  assert.ok(streamedCall?.type === "function");
  assert.equal(streamedCall.function.name, "weather");
  assert.deepEqual(Object.keys(JSON.parse(streamedCall.function.arguments) as object).sort(), ["city", "days"]);

  const answer = await client.chat.completions.create({
    model: "priced",
    tools: [weather],
    messages: [...request.messages, { role: "assistant", tool_calls: [call] }, { role: "tool", tool_call_id: call.id, content: "Sunny." }],
  });
  assert.equal(answer.choices[0]?.finish_reason, "stop");
});

test("GET /v1/models lists what the key may use, and one model by name", async () => {
  const ids: string[] = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ["priced"]);
  assert.equal((await client.models.retrieve("priced")).object, "model");
  await assert.rejects(client.models.retrieve("gpt-secret"), OpenAI.NotFoundError);
});

test("what a call cost is in the organization's usage and costs as soon as the call is over", async () => {
  const project = await ownProject("usage-project");
  const own = sdk(project.key);
  const since = Math.floor(Date.now() / 1000) - 60;
  const { usage } = await own.chat.completions.create(
    { model: "priced", messages: question },
    { headers: { "x-atrium-feature": "search", "x-atrium-user": "u-1" } },
  );
  const page = await own.admin.organization.usage.completions({ start_time: since, bucket_width: "1d", group_by: ["model"] });
  const results = page.data.flatMap((bucket) => bucket.results) as unknown as {
    input_tokens: number;
    output_tokens: number;
    num_model_requests: number;
    model: string;
  }[];
  assert.equal(results.length, 1);
  assert.equal(results[0]?.num_model_requests, 1);
  assert.equal(results[0]?.input_tokens, usage?.prompt_tokens);
  assert.equal(results[0]?.output_tokens, usage?.completion_tokens);

  const costs = await own.admin.organization.usage.costs({ start_time: since, bucket_width: "1d" });
  const amounts = costs.data.flatMap((bucket) => bucket.results) as unknown as {
    amount: { value: number; value_exact: string; currency: string };
  }[];
  const exact = ((usage?.prompt_tokens ?? 0) * 1 + (usage?.completion_tokens ?? 0) * 2) / 1e6;
  assert.equal(Number(amounts[0]?.amount.value_exact), exact);
  assert.equal(amounts[0]?.amount.currency, "usd");

  const byFeature = (await fetch(
    `${atrium.url}/v1/organization/usage/completions?start_time=${since}&bucket_width=1d&group_by=feature&group_by=user`,
    { headers: { authorization: `Bearer ${project.key}` } },
  ).then((response) => response.json())) as { data: { results: { feature: string; user: string }[] }[] };
  assert.deepEqual(
    byFeature.data.flatMap((bucket) => bucket.results).map(({ feature, user }) => [feature, user]),
    [["search", "u-1"]],
  );
});

test("the platform sees every tenant's usage", async () => {
  const report = (await atrium.admin("GET", `usage?group_by=tenant&start_time=${Math.floor(Date.now() / 1000) - 3600}`)) as {
    data: Record<string, unknown>[];
  };
  assert.ok(JSON.stringify(report).includes("sdk"), JSON.stringify(report));
});

test("errors are the SDK's own typed exceptions", async () => {
  await assert.rejects(sdk("sk-not-a-key").chat.completions.create({ model: "priced", messages: question }), OpenAI.AuthenticationError);
  await assert.rejects(
    client.chat.completions.create({ model: "no-such-model", messages: question }),
    (error: InstanceType<typeof OpenAI.NotFoundError>) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
  );
  await assert.rejects(
    client.chat.completions.create({ model: "priced", messages: "hello" as never }),
    (error: InstanceType<typeof OpenAI.BadRequestError>) => error instanceof OpenAI.BadRequestError && error.param === "messages",
  );
});

test("a revoked key is refused within a second", async () => {
  const { key, keyId } = await ownProject("revocation");
  const own = sdk(key);
  await own.models.list();
  await atrium.admin("DELETE", `tenants/sdk/projects/revocation/keys/${keyId}`);
  await assert.rejects(own.models.list(), OpenAI.AuthenticationError);
});

test("a client that leaves is charged for what it got", async () => {
  const { key } = await ownProject("leaver");
  const own = sdk(key);
  await createModel(atrium, {
    model: "slow",
    provider: "simulated",
    upstreamModel: "simulated",
    price: { input: "1", output: "2" },
    options: { per_token_ms: 20, output_tokens: 500 },
  });
  await atrium.admin("PUT", "tenants/sdk/grants/slow", {});
  const abort = new AbortController();
  let chunks = 0;
  try {
    for await (const _ of await own.chat.completions.create({ model: "slow", messages: question, stream: true }, { signal: abort.signal }))
      if (++chunks === 5) abort.abort();
  } catch (error) {
    assert.ok(abort.signal.aborted, String(error));
  }
  await sleep(300);
  const hops = (await atrium.admin("GET", "usage/hops?limit=100")) as {
    data: { status: string; charge: string; model_served: string; estimated: boolean }[];
  };
  const [row] = hops.data.filter(({ status }) => status === "aborted");
  assert.ok(row !== undefined, "the aborted attempt has a row");
  assert.ok(Number(row.charge) > 0 && row.estimated);
});

async function ownProject(project: string): Promise<{ key: string; keyId: string }> {
  await atrium.admin("PUT", `tenants/sdk/projects/${project}`, {});
  const made = (await atrium.admin("POST", `tenants/sdk/projects/${project}/keys`, { name: "app" })) as { id: string; key: string };
  return { key: made.key, keyId: made.id };
}
