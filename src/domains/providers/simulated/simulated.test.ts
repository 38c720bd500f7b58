import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { systemClock } from "../../../kernel/clock.ts";
import type { ModelEvent } from "../../../kernel/events.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { JsonObject } from "../../../kernel/request.ts";
import { inputTokens, outputTokens, type TokenCounts } from "../../../kernel/tokens.ts";
import type { DeploymentOptions, Model } from "../../catalog/index.ts";
import { DispatchError, type Dispatch, type DispatchFailure, type ProviderResponse } from "../contract.ts";
import { parseMessages } from "../dialects/anthropic/request.ts";
import { deploymentOf, dispatchOf, play, textOf, type Played } from "../testing/dispatching.ts";
import { pieces } from "./answer.ts";
import { simulatedOptions } from "./options.ts";
import { simulated } from "./simulated.ts";

const provider = simulated({ clock: systemClock });
const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: { type: "object", properties: { city: { type: "string" }, days: { type: "integer", minimum: 2 } }, required: ["city"] },
  },
};

test("every answer says that it is simulated: in its text, its model and its id", async () => {
  const events = await whole({});
  assert.match(textOf(events), /^\[simulated\] /);
  const start = events[0];
  assert.ok(start?.type === "response-start");
  assert.match(start.model, /^simulated\//);
  assert.match(start.id, /^chatcmpl-simulated-/);
});

test("the same request and seed give the same text, streamed or whole; another seed gives another", async () => {
  const one = textOf(await whole({ seed: 1 }));
  assert.equal(textOf(await whole({ seed: 1 })), one);
  assert.equal(textOf((await streamed({ seed: 1, stream: true })).events), one);
  assert.notEqual(textOf(await whole({ seed: 2 })), one);
});

test("counts are those of its own documented tokenizer, never more than was asked, and within the bound", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.string({ unit: "grapheme", maxLength: 40 }),
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 1, max: 3 }),
      async (prompt, maxTokens, wanted, n) => {
        const one = make(
          { messages: [{ role: "user", content: prompt.replaceAll("[", "") }], max_tokens: maxTokens, n },
          { output_tokens: wanted },
        );
        const events = eventsOf(await provider.dispatch(one));
        const used = usageOf(events);
        const sent = Array.from({ length: n }, (_, choice) => pieces(textOf(events, choice)).length);
        assert.equal(
          outputTokens(used),
          sent.reduce((sum, count) => sum + count, 0),
        );
        assert.deepEqual(
          sent,
          Array.from({ length: n }, () => Math.min(maxTokens, wanted)),
        );
        const bound = provider.bound(one.request, one.deployment.model);
        assert.ok(inputTokens(used) <= bound.input && outputTokens(used) <= bound.output);
        assert.deepEqual(
          reasons(events),
          Array.from({ length: n }, () => (wanted > maxTokens ? "length" : "stop")),
        );
      },
    ),
    { numRuns: 60 },
  );
});

test("the bound of a hold and the model's maximum are honoured like the caller's", async () => {
  assert.equal(outputTokens(usageOf(eventsOf(await provider.dispatch(make({}, {}, { outputBound: 3 }))))), 3);
  assert.equal(outputTokens(usageOf(eventsOf(await provider.dispatch(make({}, {}, {}, {}, { maxOutputTokens: 2 }))))), 2);
});

test("a stop sequence ends the text before it", async () => {
  const text = textOf(await whole({}));
  const stop = text.slice(12, 16);
  const events = await whole({ stop: [stop, "never"] });
  assert.equal(textOf(events), text.slice(0, text.indexOf(stop)));
  assert.deepEqual(reasons(events), ["stop"]);
});

test("a tool is called when asked for, with arguments that conform, and its result is answered in words", async () => {
  const calls = async (fields: JsonObject): Promise<{ name: string; written: unknown }[]> => {
    const events = await whole({ tools: [WEATHER], ...fields });
    return events.flatMap((event) =>
      event.type === "tool-call-start" ? [{ name: event.name, written: JSON.parse(argumentsOf(events)) as unknown }] : [],
    );
  };
  const called = [{ name: "get_weather", written: { city: "simulated", days: 2 } }];
  assert.deepEqual(await calls({ tool_choice: "required" }), called);
  assert.deepEqual(await calls({ tool_choice: { type: "function", function: { name: "get_weather" } } }), called);
  assert.deepEqual(await calls({ messages: [{ role: "user", content: "use get_weather" }] }), called);
  assert.deepEqual(await calls({ messages: [{ role: "user", content: "[[simulate: tool]]" }] }), called);
  assert.deepEqual(await calls({}), []);
  assert.deepEqual(await calls({ tool_choice: "none", messages: [{ role: "user", content: "use get_weather" }] }), []);
  assert.deepEqual(
    await calls({
      messages: [
        { role: "user", content: "use get_weather" },
        {
          role: "assistant",
          content: null,
          tool_calls: [{ id: "c", type: "function", function: { name: "get_weather", arguments: "{}" } }],
        },
        { role: "tool", tool_call_id: "c", content: "sun" },
      ],
    }),
    [],
  );
  assert.deepEqual(reasons(await whole({ tools: [WEATHER], tool_choice: "required" })), ["tool_calls"]);
});

test("a JSON schema is answered with a conforming value", async () => {
  const schema = {
    type: "object",
    properties: { kind: { enum: ["a", "b"] }, list: { type: "array", items: { type: "number" }, minItems: 2 } },
    required: ["kind", "list"],
  };
  const events = await whole({ response_format: { type: "json_schema", json_schema: { name: "x", schema } } });
  assert.deepEqual(JSON.parse(textOf(events)), { kind: "a", list: [1, 1] });
  assert.equal((JSON.parse(textOf(await whole({ response_format: { type: "json_object" } }))) as JsonObject)["simulated"], true);
});

test("delays are kept: first token, then each token", async () => {
  const before = performance.now();
  const { response, sent } = await send({ stream: true, max_tokens: 5 }, { first_token_ms: 60, per_token_ms: 30 });
  const first = performance.now() - before;
  assert.equal(sent(), 1);
  await read(response);
  const all = performance.now() - before;
  assert.ok(first >= 55 && first < 400, `${first} ms`);
  assert.ok(all >= 55 + 4 * 28 && all < 1500, `${all} ms`);
});

test("faults come on request, from the deployment's options or from a directive in the prompt", async () => {
  const early: [JsonObject, string, DispatchFailure["kind"]][] = [
    [{ fault: { kind: "error", status: 429, retry_after_seconds: 3 } }, "hi", "status"],
    [{ fault: { kind: "connect" } }, "hi", "connect"],
    [{ fault: { kind: "malformed" } }, "hi", "malformed"],
    [{ fault: { kind: "hang" } }, "hi", "timeout"],
    [{}, "please [[simulate: error=503]]", "status"],
    [{}, "[[simulate: hang]]", "timeout"],
  ];
  for (const [options, content, kind] of early) {
    for (const stream of [true, false])
      assert.equal(
        (await failureOf(make({ stream, messages: [{ role: "user", content }] }, options, {}, { firstTokenTimeoutMs: 40 }))).kind,
        kind,
        `${JSON.stringify(options)} ${content}`,
      );
  }
  assert.deepEqual(await failureOf(make({}, { fault: { kind: "error", status: 429, retry_after_seconds: 3 } })), {
    kind: "status",
    status: 429,
    retryAfterSeconds: 3,
    message: "simulated failure",
    param: null,
    code: "simulated",
  });
  for (const [word, code] of [
    ["error=503", "upstream_error"],
    ["cut", "upstream_error"],
    ["hang", "upstream_timeout"],
  ] as const) {
    const { response } = await send(
      { stream: true, messages: [{ role: "user", content: `[[simulate: ${word} after=3]]` }] },
      {},
      { idleTimeoutMs: 40 },
    );
    const { events, ending } = await read(response);
    assert.equal(pieces(textOf(events)).length, 3);
    assert.ok(ending.kind === "truncated" && ending.problem.code === code, word);
  }
});

test("a directive that makes no sense is refused, and none is read where the deployment forbids them", () => {
  const one = (options: JsonObject): Dispatch => make({ messages: [{ role: "user", content: "[[simulate: eror=503]]" }] }, options);
  const strict = one({});
  assert.throws(
    () => provider.accept(strict.request, strict.deployment),
    (thrown) => thrown instanceof Problem && thrown.code === "invalid_request",
  );
  const deaf = one({ directives: false });
  provider.accept(deaf.request, deaf.deployment);
});

test("what it cannot honour is refused by name before anything is held", () => {
  const refusal = (fields: JsonObject): string | null => {
    const { request, deployment } = make(fields);
    try {
      provider.accept(request, deployment);
      return null;
    } catch (thrown) {
      return thrown instanceof Problem ? thrown.param : "another error";
    }
  };
  assert.equal(refusal({}), null);
  assert.equal(refusal({ color: "blue" }), "color");
  assert.equal(refusal({ logprobs: true }), "logprobs");
  assert.equal(
    refusal({ response_format: { type: "json_schema", json_schema: { name: "x", schema: { type: "string", pattern: "^a$" } } } }),
    "response_format.json_schema.schema",
  );
});

test("a caller of another dialect is answered the same way, and refused in its own words", async () => {
  const ask = (fields: JsonObject): Dispatch => {
    const body = { model: "demo", max_tokens: 20, messages: [{ role: "user", content: "hello there" }], ...fields };
    return { ...make({}), request: parseMessages(Buffer.from(JSON.stringify(body))) };
  };
  const media = {
    messages: [
      {
        role: "user",
        content: [
          { type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" }, cache_control: { type: "ephemeral" } },
          { type: "text", text: "hello there" },
        ],
      },
    ],
    thinking: { type: "enabled", budget_tokens: 1024 },
    max_tokens: 2000,
  };
  for (const fields of [{}, media, { stop_sequences: ["simulated"] }]) {
    const one = ask(fields);
    provider.accept(one.request, one.deployment);
    const events = eventsOf(await provider.dispatch(one));
    assert.match(textOf(events), /^\[/);
    const bound = provider.bound(one.request, one.deployment.model);
    assert.equal(inputTokens(usageOf(events)), bound.input);
    assert.ok(outputTokens(usageOf(events)) <= bound.output);
    const end = events.find((event) => event.type === "choice-end");
    assert.equal(end?.type === "choice-end" && end.stopSequence, "stop_sequences" in fields ? "simulated" : null);
  }
  const strict = ask({ output_config: { format: { type: "json_schema", schema: { type: "string", pattern: "^a$" } } } });
  assert.throws(
    () => provider.accept(strict.request, strict.deployment),
    (thrown) => thrown instanceof Problem && thrown.param === "output_config.format.schema",
  );
});

test("an abort ends it at once, before the first token and in the stream", async () => {
  const controller = new AbortController();
  const failing = failureOf(make({}, { first_token_ms: 10_000 }, { signal: controller.signal }));
  controller.abort();
  assert.deepEqual(await failing, { kind: "aborted" });
  const streaming = new AbortController();
  const response = await provider.dispatch(make({ stream: true }, { per_token_ms: 10_000 }, { signal: streaming.signal }));
  const played = read(response);
  streaming.abort();
  assert.deepEqual((await played).ending, { kind: "aborted" });
});

test("a paused stream waits, also when paused and resumed from inside the sink", async () => {
  const { response } = await send({ stream: true, messages: [{ role: "user", content: "[[simulate: tokens=200]]" }] });
  assert.ok(response.body.kind === "stream");
  const { stream } = response.body;
  let frames = 0;
  const played = await play(stream, () => {
    frames++;
    stream.pause();
    if (frames % 2 === 0) stream.resume();
    else setTimeout(() => stream.resume(), frames < 20 ? 1 : 0);
  });
  assert.equal(played.ending.kind, "complete");
  assert.equal(pieces(textOf(played.events)).length, 200);
  const slow = (await send({ stream: true, max_tokens: 10 }, { per_token_ms: 20 })).response.body;
  assert.ok(slow.kind === "stream");
  const before = performance.now();
  await play(slow.stream, () => {
    slow.stream.pause();
    slow.stream.resume();
  });
  assert.ok(performance.now() - before >= 9 * 18, "a pause and its resume skip no delay");
});

test("its options are checked strictly", () => {
  assert.deepEqual(simulatedOptions.parse({}), { first_token_ms: 0, per_token_ms: 0, directives: true });
  for (const wrong of [{ first_token: 1 }, { per_token_ms: -1 }, { fault: { kind: "explode" } }, { fault: { kind: "error", rate: 2 } }])
    assert.equal(simulatedOptions.safeParse(wrong).success, false);
});

function make(
  fields: JsonObject,
  options: JsonObject = {},
  extra: Partial<Dispatch> = {},
  timeouts: Partial<DeploymentOptions> = {},
  model: Partial<Model> = {},
): Dispatch & { sent: () => number } {
  const deployment = deploymentOf({
    provider: "simulated",
    options: { ...timeouts, provider: simulatedOptions.parse(options) as Record<string, unknown> },
    model,
  });
  return dispatchOf(deployment, { model: "demo", messages: [{ role: "user", content: "hello there" }], ...fields }, extra);
}

async function send(
  fields: JsonObject,
  options: JsonObject = {},
  timeouts: Partial<DeploymentOptions> = {},
): Promise<{ response: ProviderResponse; sent: () => number }> {
  const one = make(fields, options, {}, timeouts);
  return { response: await provider.dispatch(one), sent: one.sent };
}

async function whole(fields: JsonObject): Promise<readonly ModelEvent[]> {
  return eventsOf((await send(fields)).response);
}

async function streamed(fields: JsonObject): Promise<Played> {
  return read((await send(fields)).response);
}

function eventsOf(response: ProviderResponse): readonly ModelEvent[] {
  assert.ok(response.body.kind === "whole");
  return response.body.whole.events();
}

function read(response: ProviderResponse): Promise<Played> {
  assert.ok(response.body.kind === "stream");
  return play(response.body.stream);
}

async function failureOf(one: Dispatch): Promise<DispatchFailure> {
  const thrown: unknown = await provider.dispatch(one).then(
    () => null,
    (error: unknown) => error,
  );
  assert.ok(thrown instanceof DispatchError);
  return thrown.failure;
}

function usageOf(events: readonly ModelEvent[]): TokenCounts {
  const usage = events.find((event) => event.type === "usage");
  assert.ok(usage?.type === "usage");
  return usage.usage.tokens;
}

function reasons(events: readonly ModelEvent[]): string[] {
  return events.flatMap((event) => (event.type === "choice-end" ? [event.reason] : []));
}

function argumentsOf(events: readonly ModelEvent[]): string {
  return events.map((event) => (event.type === "tool-call-delta" ? event.arguments : "")).join("");
}
