import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import OpenAI from "openai";
import {
  blockDelta,
  blockStart,
  MESSAGE_START,
  messageEvent,
  TEXT_BLOCK,
} from "../../../src/domains/providers/testing/scripted-messages.ts";
import { type Exchange, SSE_HEADERS, sse, textChunk } from "../../../src/domains/providers/testing/scripted-upstream.ts";
import { RESULTS } from "./answers.ts";
import { anthropicClient, MAX_TOKENS, openaiClient } from "./callers.ts";
import { openWorld, UPSTREAMS, type UsageRow, type World } from "./world.ts";

// What the official SDKs do around a request: their exceptions, helpers, ways to authenticate and to leave. Upstreams are scripted.

let world: World;
let openai: OpenAI;
let anthropic: Anthropic;
before(async () => {
  world = await openWorld();
  const access = { url: world.atrium.url, key: world.key };
  openai = openaiClient(access);
  anthropic = anthropicClient(access);
});
after(() => world.close());

const MODELS = Object.keys(UPSTREAMS) as (keyof typeof UPSTREAMS)[];
const user = (content: string) => [{ role: "user" as const, content }];

test("an upstream's error is the SDK's own exception: the caller's fault as it is, a rate limit with its time, all else a fault of the server", async () => {
  const expected = [
    [400, OpenAI.BadRequestError, Anthropic.BadRequestError],
    [401, OpenAI.InternalServerError, Anthropic.InternalServerError],
    [404, OpenAI.InternalServerError, Anthropic.InternalServerError],
    [429, OpenAI.RateLimitError, Anthropic.RateLimitError],
    [503, OpenAI.InternalServerError, Anthropic.InternalServerError],
    [529, OpenAI.InternalServerError, Anthropic.InternalServerError],
  ] as const;
  const failure = (asking: Promise<unknown>) =>
    asking.then(
      () => null,
      (error: unknown) => error,
    );
  const check = async (model: string, [status, fromOpenAI, fromAnthropic]: (typeof expected)[number], stream: boolean) => {
    const messages = user(`[fail${status}]`);
    const left = await failure(openai.chat.completions.create({ model, messages, stream }));
    const right = await failure(anthropic.messages.create({ model, messages, max_tokens: MAX_TOKENS, stream }));
    const what = `${model} ${status} ${stream}: ${String(left)} / ${String(right)}`;
    assert.ok(left instanceof fromOpenAI && right instanceof fromAnthropic, what);
    assert.equal(/upstream words/.test(left.message) && /upstream words/.test(right.message), status === 400, what);
    for (const error of [left, right] as { headers: Headers }[])
      assert.equal(error.headers.get("retry-after"), status === 429 ? "7" : null, what);
  };
  await Promise.all(MODELS.flatMap((model) => expected.flatMap((row) => [check(model, row, false), check(model, row, true)])));
});

test("a client that leaves in the middle of a stream stops the upstream, and is charged what it had got", async (t) => {
  const TOKENS = 20;
  await openai.chat.completions.create({ model: "simulated", messages: user("Leave a first row.") });
  world.script((exchange: Exchange) => {
    exchange.head(200, SSE_HEADERS);
    const deltas = Array.from({ length: TOKENS }, () => " word");
    if (exchange.path.startsWith("/v1/chat")) exchange.write(deltas.map((text) => sse(textChunk(text))).join(""));
    else
      exchange.write(
        [messageEvent(MESSAGE_START), blockStart(0, TEXT_BLOCK), ...deltas.map((text) => blockDelta(0, { type: "text_delta", text }))].join(
          "",
        ),
      );
  });
  try {
    for (const model of MODELS)
      for (const leave of [leaveAsOpenAI, leaveAsAnthropic]) {
        const known = world.upstream.exchanges.length;
        const { id: before } = await world.lastRow();
        await leave(model);
        const left = performance.now();
        // The script never ends its answer: only being stopped closes the connection.
        const closed = await (await world.upstream.arrived(known)).closed;
        t.diagnostic(`${model}: the upstream was stopped ${Math.max(0, closed - left).toFixed(0)} ms after its client left`);
        const row = await newRow(before);
        assert.deepEqual([row.status, row.estimated], ["aborted", true], model);
        const { output } = row.tokens;
        assert.ok(output !== undefined && output >= TOKENS && output <= 2 * TOKENS, `${model}: charged ${output} of ${TOKENS} tokens`);
        assert.ok(Number(row.cost) > 0);
      }
  } finally {
    world.script(null);
  }
});

async function newRow(before: string): Promise<UsageRow> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const row = await world.lastRow();
    if (row.id !== before) return row;
    await sleep(50);
  }
  throw new Error("no usage row within 10 s");
}

async function leaveAsOpenAI(model: string): Promise<void> {
  let words = 0;
  for await (const chunk of await openai.chat.completions.create({
    model,
    messages: user("hi"),
    stream: true,
    max_completion_tokens: MAX_TOKENS,
  }))
    if (chunk.choices[0]?.delta.content?.includes("word") === true && ++words === 20) break;
}

async function leaveAsAnthropic(model: string): Promise<void> {
  let words = 0;
  for await (const event of await anthropic.messages.create({ model, messages: user("hi"), stream: true, max_tokens: MAX_TOKENS }))
    if (event.type === "content_block_delta" && ++words === 20) break;
}

test("OpenAI's stream helper and tool runner work through every upstream", async () => {
  for (const model of MODELS) {
    const streamed = await openai.chat.completions.stream({ model, messages: user("[plain] hi") }).finalChatCompletion();
    assert.equal(streamed.choices[0]?.message.content, "Hello, wörld! 👋", model);
    const asked: string[] = [];
    const runner = openai.chat.completions.runTools({
      model,
      messages: user("[tools] Weather in Paris and Rome?"),
      stream: true,
      tools: [
        {
          type: "function",
          function: {
            name: "weather",
            description: "The weather.",
            parameters: { type: "object", properties: { city: { type: "string" } } },
            parse: (text: string) => JSON.parse(text) as { city: string },
            function: ({ city }: { city: string }) => {
              asked.push(city);
              return RESULTS.find((result) => result.startsWith(city)) ?? "";
            },
          },
        },
      ],
    });
    assert.equal(await runner.finalContent(), "Paris is sunny, Rome is rainy.", model);
    assert.deepEqual(asked, ["Paris", "Rome"], model);
  }
});

test("Anthropic's stream helper and tool runner work through every upstream", async () => {
  for (const model of MODELS) {
    const body = { model, max_tokens: MAX_TOKENS, messages: user("[plain] hi") };
    const { content } = await anthropic.messages.stream(body).finalMessage();
    assert.equal(content.map((block) => (block.type === "text" ? block.text : "")).join(""), "Hello, wörld! 👋", model);
    const asked: string[] = [];
    const weather = betaTool({
      name: "weather",
      description: "The weather.",
      inputSchema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
      run: ({ city }) => {
        asked.push(city);
        return RESULTS.find((result) => result.startsWith(city)) ?? "";
      },
    });
    for (const stream of [false, true] as const) {
      asked.length = 0;
      const runner = anthropic.beta.messages.toolRunner({
        model,
        max_tokens: MAX_TOKENS,
        messages: user("[tools] Weather in Paris and Rome?"),
        tools: [weather],
        stream,
      });
      const final = await runner.runUntilDone();
      assert.deepEqual(
        final.content.map((block) => (block.type === "text" ? block.text : "")),
        ["Paris is sunny, Rome is rainy."],
        `${model} ${stream}`,
      );
      assert.deepEqual(asked.toSorted(), ["Paris", "Rome"], model);
    }
  }
});

test("Anthropic's SDK may send the key as its own header or as a bearer token, and a wrong one is its AuthenticationError", async () => {
  const common = { baseURL: world.atrium.url, maxRetries: 0, logLevel: "off" } as const;
  const ask = (client: Anthropic) => client.messages.create({ model: "anthropic", max_tokens: MAX_TOKENS, messages: user("[plain] hi") });
  for (const client of [new Anthropic({ ...common, apiKey: world.key }), new Anthropic({ ...common, apiKey: null, authToken: world.key })])
    assert.equal((await ask(client)).stop_reason, "end_turn");
  for (const client of [new Anthropic({ ...common, apiKey: "sk-none" }), new Anthropic({ ...common, apiKey: null, authToken: "sk-none" })])
    await assert.rejects(ask(client), Anthropic.AuthenticationError);
  const { headers } = world.upstream.exchanges.at(-1) as Exchange;
  assert.deepEqual(
    [headers["x-api-key"], headers["anthropic-version"], headers["authorization"]],
    ["sk-upstream-canary-0123456789", "2023-06-01", undefined],
  );
});

test("what the model's provider cannot honour is refused by the caller's own name for it, before anything is sent or charged", async () => {
  const known = world.upstream.exchanges.length;
  const fromOpenAI: readonly [string, Partial<OpenAI.ChatCompletionCreateParamsNonStreaming>][] = [
    ["n", { n: 2 }],
    ["seed", { seed: 1 }],
    ["temperature", { temperature: 1.5 }],
    ["logprobs", { logprobs: true }],
    ["reasoning_effort", { reasoning_effort: "minimal" }],
    ["response_format", { response_format: { type: "json_object" } }],
    ["prediction", { prediction: { type: "content", content: "x" } }],
    [
      "messages[0].content[0].type",
      { messages: [{ role: "user", content: [{ type: "input_audio", input_audio: { data: "AAAA", format: "mp3" } }] }] },
    ],
  ];
  for (const [param, asked] of fromOpenAI)
    await assert.rejects(
      openai.chat.completions.create({ model: "anthropic", messages: user("hi"), ...asked }),
      (thrown) => thrown instanceof OpenAI.BadRequestError && thrown.param === param && thrown.code === "unsupported_field",
      param,
    );
  const text = { type: "text" as const, media_type: "text/plain" as const, data: "x" };
  const fromAnthropic: readonly [string, Partial<Anthropic.MessageCreateParamsNonStreaming> & { readonly top_k?: number }][] = [
    ["top_k", { top_k: 5 }],
    ["thinking", { max_tokens: 2000, thinking: { type: "enabled", budget_tokens: 1024 } }],
    ["stop_sequences", { stop_sequences: Array.from({ length: 17 }, String) }],
    [
      "messages[0].content[0].citations.enabled",
      { messages: [{ role: "user", content: [{ type: "document", source: text, citations: { enabled: true } }] }] },
    ],
  ];
  for (const [param, asked] of fromAnthropic)
    await assert.rejects(
      anthropic.messages.create({ model: "openai", max_tokens: MAX_TOKENS, messages: user("hi"), ...asked }),
      (thrown) => thrown instanceof Anthropic.BadRequestError && (thrown.details as { param?: string }).param === param,
      param,
    );
  assert.equal(world.upstream.exchanges.length, known);
});
