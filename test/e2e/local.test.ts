import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";
import { createModel, createTenancy, removeData, startAtriumProcess } from "../support/atrium.ts";
import { LOCAL_MODEL, modelsDirectory, noLocalModel } from "../support/local-model.ts";

test(
  "the official SDK streams a chat through a real GGUF model: real tokens, real counts, cost recorded, usage visible, abort honoured",
  { skip: noLocalModel, timeout: 120_000 },
  async (t) => {
    const atrium = await startAtriumProcess({ viaNpm: true, environment: { ATRIUM_MODELS_DIR: modelsDirectory as string } });
    t.after(async () => {
      assert.equal(await atrium.stop(), 0, "SIGTERM through npm start drains and exits 0");
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
    const client = new OpenAI({ baseURL: `${atrium.url}/v1`, apiKey: key, adminAPIKey: key, maxRetries: 0 });
    const messages = [{ role: "user" as const, content: "What is the capital of France?" }];

    const began = performance.now();
    let firstTokenMs = 0;
    let text = "";
    let usage: OpenAI.CompletionUsage | null | undefined;
    for await (const chunk of await client.chat.completions.create({
      model: "smol",
      messages,
      stream: true,
      temperature: 0,
      max_tokens: 40,
      stream_options: { include_usage: true },
    })) {
      if (text === "" && chunk.choices[0]?.delta.content) firstTokenMs = performance.now() - began;
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.match(text, /Paris/);
    assert.ok(usage && usage.prompt_tokens > 5 && usage.completion_tokens > 3 && usage.completion_tokens <= 40, JSON.stringify(usage));

    const json = await client.chat.completions.create({
      model: "smol",
      messages: [{ role: "user", content: "Name a city and its country." }],
      max_tokens: 60,
      temperature: 0,
      response_format: {
        type: "json_schema",
        json_schema: {
          name: "place",
          schema: {
            type: "object",
            properties: { city: { type: "string", maxLength: 20 }, country: { type: "string", maxLength: 20 } },
            required: ["city", "country"],
            additionalProperties: false,
          },
        },
      },
    });
    assert.deepEqual(Object.keys(JSON.parse(json.choices[0]?.message.content as string) as object).sort(), ["city", "country"]);

    const since = Math.floor(Date.now() / 1000) - 600;
    const costs = await client.admin.organization.usage.costs({ start_time: since, bucket_width: "1d" });
    const amount = (costs.data.flatMap((bucket) => bucket.results)[0] as unknown as { amount: { value_exact: string } }).amount.value_exact;
    const expected = [usage, json.usage].reduce(
      (sum, each) => sum + (each?.prompt_tokens ?? 0) * 100_000 + (each?.completion_tokens ?? 0) * 300_000,
      0,
    );
    assert.equal(Number(amount), expected / 1e12);

    const abort = new AbortController();
    let chunks = 0;
    try {
      for await (const _ of await client.chat.completions.create(
        { model: "smol", messages: [{ role: "user", content: "Tell a very long story." }], stream: true, max_tokens: 1000 },
        { signal: abort.signal },
      ))
        if (++chunks === 4) abort.abort();
    } catch (error) {
      assert.ok(abort.signal.aborted, String(error));
    }
    await sleep(500);
    const hops = (await atrium.admin("GET", "usage/hops?limit=100")) as { data: { status: string; tokens: { output: number } }[] };
    const aborted = hops.data.find((row) => row.status === "aborted");
    assert.ok(aborted !== undefined && aborted.tokens.output >= 4 && aborted.tokens.output < 200, JSON.stringify(aborted));
    t.diagnostic(
      `"${text.trim()}"; first token after ${firstTokenMs.toFixed(0)} ms with the model's load; ${JSON.stringify(usage)}; costs $${amount}; aborted after ${aborted.tokens.output} tokens`,
    );
  },
);
