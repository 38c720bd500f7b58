import assert from "node:assert/strict";
import { test } from "node:test";
import { createModel, createTenancy, removeData, startAtriumProcess } from "../../support/atrium.ts";
import { anthropicClient, CALLERS, type Transcript } from "./callers.ts";
import { LOCAL_MODEL, modelsDirectory, noLocalModel } from "../../support/local-model.ts";

// Callers of both dialects against providers without a wire: `simulated`, and a real model in `local` where its file is at hand.

const PLACE = {
  type: "object",
  properties: { city: { type: "string", maxLength: 20 }, days: { type: "integer" } },
  required: ["city", "days"],
  additionalProperties: false,
};
const END = {
  openai: { stop: "stop", tools: "tool_calls", length: "length" },
  anthropic: { stop: "end_turn", tools: "tool_use", length: "max_tokens" },
} as const;

test("a simulated model says the same to both callers, plain and streamed: text, tools and the turn after them, JSON, stops", async (t) => {
  const atrium = await startAtriumProcess();
  t.after(async () => {
    await atrium.stop();
    await removeData(atrium.dataDirectory);
  });
  await createModel(atrium, { model: "simulated", provider: "simulated", upstreamModel: "simulated", price: { input: "1", output: "2" } });
  const { key } = await createTenancy(atrium, "inside", "simulated");
  const seen: Transcript[][] = [];
  for (const caller of ["openai", "anthropic"] as const)
    for (const stream of [false, true]) {
      const open = () => CALLERS[caller]({ url: atrium.url, key, model: "simulated" });
      const plain = await open().say({ text: "[[simulate: tokens=20]]" }, { stream });
      const cut = await open().say({ text: "[[simulate: tokens=90]]" }, { stream });
      const stopped = await open().say({ text: "Hi." }, { stream, stop: ["answer"] });
      const json = await open().say({ text: "Where?" }, { stream, schema: PLACE });
      const conversation = open();
      const asked = await conversation.say({ text: "Call weather. [[simulate: tokens=20]]" }, { stream, tools: true });
      const told = await conversation.say({ results: ["sunny"] }, { stream, tools: true });
      assert.deepEqual(
        [plain, cut, asked, told].map(({ end }) => end),
        [END[caller].stop, END[caller].length, END[caller].tools, END[caller].stop],
      );
      assert.equal(stopped.end, caller === "openai" ? "stop" : "stop_sequence");
      assert.deepEqual([plain.usage.output, cut.usage.output], [20, 64]);
      assert.deepEqual(Object.keys(JSON.parse(json.text) as object), ["city", "days"]);
      assert.equal(asked.calls[0]?.name, "weather");
      // An id of a call is made of the request's seed, and the same for both.
      seen.push([plain, cut, stopped, json, asked, told].map((transcript) => ({ ...transcript, end: "" })));
    }
  for (const other of seen.slice(1)) assert.deepEqual(other, seen[0]);
});

test(
  "a real local model answers both callers alike, and counts for Anthropic's SDK what it then bills",
  { skip: noLocalModel, timeout: 120_000 },
  async (t) => {
    const atrium = await startAtriumProcess({ environment: { ATRIUM_MODELS_DIR: modelsDirectory as string } });
    t.after(async () => {
      await atrium.stop();
      await removeData(atrium.dataDirectory);
    });
    await createModel(atrium, {
      model: "smol",
      provider: "local",
      upstreamModel: LOCAL_MODEL,
      price: { input: "0.10", output: "0.30" },
      options: { context_size: 2048, threads: 1 },
    });
    const { key } = await createTenancy(atrium, "local", "smol");
    const question = "What is the capital of France?";
    const client = anthropicClient({ url: atrium.url, key });
    const { data, response } = await client.messages
      .countTokens({ model: "smol", messages: [{ role: "user", content: question }] })
      .withResponse();
    assert.equal(response.headers.get("x-atrium-token-count"), "exact");
    for (const caller of ["openai", "anthropic"] as const)
      for (const stream of [false, true]) {
        const { usage, text } = await CALLERS[caller]({ url: atrium.url, key, model: "smol" }).say({ text: question }, { stream });
        assert.equal(usage.input, data.input_tokens, `${caller} ${stream}`);
        assert.ok(text.length > 0 && usage.output > 0 && usage.output <= 64);
      }
    const json = await CALLERS.anthropic({ url: atrium.url, key, model: "smol" }).say(
      { text: "A city, and days there." },
      { schema: PLACE },
    );
    if (json.end === "end_turn") assert.deepEqual(Object.keys(JSON.parse(json.text) as object).sort(), ["city", "days"]);
    t.diagnostic(`${data.input_tokens} tokens counted and billed; JSON: ${json.text} (${json.end})`);
  },
);
