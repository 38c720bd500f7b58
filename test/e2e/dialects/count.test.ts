import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { type Exchange, JSON_HEADERS } from "../../../src/domains/providers/testing/scripted-upstream.ts";
import { anthropicClient, MAX_TOKENS } from "./callers.ts";
import { failAsAnthropic } from "./scripted-anthropic.ts";
import { openWorld, type World } from "./world.ts";

// Counting tokens by Anthropic's official SDK, for models of every kind of provider. The Anthropic upstream is scripted.

let world: World;
let client: Anthropic;
before(async () => {
  world = await openWorld();
  client = anthropicClient({ url: world.atrium.url, key: world.key });
  world.script((exchange: Exchange) => {
    if (exchange.body.includes("[fail429]")) return failAsAnthropic(exchange, 429, { "retry-after": "3" });
    exchange.head(200, JSON_HEADERS);
    exchange.end(JSON.stringify({ input_tokens: 42 } satisfies Anthropic.MessageTokensCount));
  });
});
after(() => world.close());

const MESSAGES = [{ role: "user" as const, content: "How many tokens is this?" }];
const TOOLS = [
  { name: "weather", description: "The weather.", input_schema: { type: "object" as const, properties: { city: { type: "string" } } } },
];

test("Anthropic counts for its own models: the caller's bytes go to its route, with the model's name and the end user as for any call", async () => {
  const { data, response } = await client.messages
    .countTokens({ model: "anthropic", system: "Be brief.", messages: MESSAGES, tools: TOOLS, thinking: { type: "adaptive" } })
    .withResponse();
  assert.deepEqual(data, { input_tokens: 42 });
  assert.equal(response.headers.get("x-atrium-token-count"), "exact");
  assert.equal(Number(response.headers.get("x-atrium-cost-usd")), 0);
  const { path, body } = world.upstream.exchanges.at(-1) as Exchange;
  assert.equal(path, "/v1/messages/count_tokens");
  assert.deepEqual(JSON.parse(String(body)), {
    model: "anthropic-upstream",
    system: "Be brief.",
    messages: MESSAGES,
    tools: TOOLS,
    thinking: { type: "adaptive" },
  });
});

test("a simulated model's count is what the answer is then billed for", async () => {
  const body = { model: "simulated", messages: MESSAGES, tools: TOOLS };
  const { data, response } = await client.messages.countTokens(body).withResponse();
  const { usage } = await client.messages.create({ ...body, max_tokens: MAX_TOKENS });
  assert.equal(data.input_tokens, usage.input_tokens);
  assert.equal(response.headers.get("x-atrium-token-count"), "exact");
});

test("for a model of OpenAI's dialect the count is an estimate that says so, without a call to the upstream", async () => {
  const known = world.upstream.exchanges.length;
  const { data, response } = await client.messages.countTokens({ model: "openai", messages: MESSAGES }).withResponse();
  // Six words and a question mark, a message's 4 tokens and the answer's 3.
  assert.equal(data.input_tokens, 6 + 4 + 3);
  assert.equal(response.headers.get("x-atrium-token-count"), "estimated");
  assert.equal(world.upstream.exchanges.length, known);
});

test("a prompt too large for the event loop is counted all the same", async () => {
  const content = "word ".repeat(300_000);
  for (const [model, least, most] of [
    ["openai", 250_000, 350_000],
    ["simulated", 375_000, 375_010],
    ["anthropic", 42, 42],
  ] as const) {
    const { input_tokens: tokens } = await client.messages.countTokens({ model, messages: [{ role: "user", content }] });
    assert.ok(tokens >= least && tokens <= most, `${model}: ${tokens}`);
  }
});

test("a count is recorded as one, costs nothing, and is in no report of usage", async () => {
  const report = async () => {
    const { data } = (await world.atrium.admin("GET", "usage?group_by=model")) as {
      data: { model: string; attempts: number; requests: number }[];
    };
    return data.map(({ model, attempts, requests }) => ({ model, attempts, requests }));
  };
  const before = await report();
  await client.messages.countTokens({ model: "anthropic", messages: MESSAGES });
  const { kind, status, cost, tokens, estimated } = await world.lastRow();
  assert.deepEqual([kind, status, Number(cost), estimated], ["count", "completed", 0, false]);
  assert.ok(Object.values(tokens).every((count) => count === 0));
  assert.deepEqual(await report(), before);
});

test("a count that fails is the SDK's own exception, and costs nothing either", async () => {
  const count = (model: string, content: string) => client.messages.countTokens({ model, messages: [{ role: "user", content }] });
  await assert.rejects(count("no-such-model", "hi"), Anthropic.NotFoundError);
  await assert.rejects(count("anthropic", "[fail429]"), Anthropic.RateLimitError);
  const { kind, status, cost } = await world.lastRow();
  assert.deepEqual([kind, status, Number(cost)], ["count", "failed", 0]);
  const stranger = anthropicClient({ url: world.atrium.url, key: "sk-none" });
  await assert.rejects(stranger.messages.countTokens({ model: "anthropic", messages: MESSAGES }), Anthropic.AuthenticationError);
  const pdf = { type: "document" as const, source: { type: "base64" as const, media_type: "application/pdf" as const, data: "AAAA" } };
  await assert.rejects(
    client.messages.countTokens({ model: "openai", messages: [{ role: "user", content: [pdf] }] }),
    (thrown) => thrown instanceof Anthropic.BadRequestError && /messages\[0\]\.content\[0\]/.test(thrown.message),
  );
});
