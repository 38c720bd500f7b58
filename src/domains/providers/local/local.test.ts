import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import { systemClock } from "../../../kernel/clock.ts";
import type { ModelEvent } from "../../../kernel/events.ts";
import type { JsonObject } from "../../../kernel/request.ts";
import { DispatchError } from "../contract.ts";
import { createLocalProvider, type LocalProvider } from "./local.ts";
import {
  CHAT_MODEL,
  collect,
  deploymentOf,
  dispatchOf,
  needModels,
  PLUGIN_FOLDER,
  quiet,
  TEST_MODELS,
  textOf,
  type Collected,
} from "./testing/requests.ts";

const provider: LocalProvider = createLocalProvider({ modelsDirectory: TEST_MODELS, clock: systemClock, log: quiet });
const deployment = deploymentOf(CHAT_MODEL, { sequences: 2 });
after(() => provider.close());

const QUESTION = [{ role: "user", content: "What is the capital of France?" }];
const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Weather of a city",
    parameters: {
      type: "object",
      properties: { city: { type: "string", maxLength: 20 } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};

async function ask(fields: JsonObject, to = deployment): Promise<Collected> {
  const dispatch = dispatchOf({ messages: QUESTION, temperature: 0, stream: true, ...fields }, to);
  const bound = provider.bound(dispatch.request, to.model);
  const answer = await collect(await provider.dispatch(dispatch));
  const tokens = only(answer, "usage")[0]?.usage.tokens;
  assert.ok(
    tokens !== undefined && tokens.input_uncached <= bound.input && tokens.output <= bound.output,
    "what was used is within the bound",
  );
  return answer;
}

function only<Type extends ModelEvent["type"]>({ events }: Collected, type: Type): readonly Extract<ModelEvent, { type: Type }>[] {
  return events.filter((event): event is Extract<ModelEvent, { type: Type }> => event.type === type);
}

function reasonOf(answer: Collected): string | undefined {
  return only(answer, "choice-end")[0]?.reason;
}

test("a real model streams its answer token by token, from response-start to response-end", async (t) => {
  if (needModels(t) === null) return;
  const answer = await ask({});
  assert.equal(textOf(answer), "The capital of France is Paris.");
  assert.deepEqual(answer.ending, { kind: "complete" });
  assert.equal(answer.events[0]?.type, "response-start");
  assert.equal(only(answer, "text-delta").length, 7);
  assert.deepEqual(
    answer.events.slice(-3).map(({ type }) => type),
    ["choice-end", "usage", "response-end"],
  );
  assert.equal(reasonOf(answer), "stop");
});

test("an answer in one piece has the same text, counts and reason as the stream", async (t) => {
  if (needModels(t) === null) return;
  const [whole, streamed] = [await ask({ stream: false }), await ask({})];
  assert.deepEqual([textOf(whole), only(whole, "usage"), reasonOf(whole)], [textOf(streamed), only(streamed, "usage"), reasonOf(streamed)]);
});

test("the counts are the tokenizer's: the prompt with its template, and the answer with its end", async (t) => {
  const folder = needModels(t);
  if (folder === null) return;
  const tokens = await tokenCounter(folder);
  const answer = await ask({});
  // ChatML, as the file's own template has it; one more for the beginning of the text.
  const prompt = `<|im_start|>user\n${QUESTION[0]?.content}<|im_end|>\n<|im_start|>assistant\n`;
  const usage = only(answer, "usage")[0]?.usage;
  t.diagnostic(`prompt ${tokens(prompt) + 1} tokens, answer ${tokens(textOf(answer)) + 1} tokens`);
  assert.equal(usage?.source, "reported");
  assert.equal(usage?.tokens.input_uncached, tokens(prompt) + 1);
  assert.equal(usage?.tokens.output, tokens(textOf(answer)) + 1);
});

test("the maximum ends the answer at exactly that many tokens, with reason length", async (t) => {
  if (needModels(t) === null) return;
  const answer = await ask({ max_tokens: 3 });
  assert.deepEqual([textOf(answer), reasonOf(answer), only(answer, "usage")[0]?.usage.tokens.output], ["The capital of", "length", 3]);
});

test("a stop sequence ends the answer and is not part of it", async (t) => {
  if (needModels(t) === null) return;
  for (const stop of ["Paris", "al of Fr"]) {
    const answer = await ask({ stop });
    assert.equal(textOf(answer), "The capital of France is Paris.".split(stop)[0]);
    assert.equal(reasonOf(answer), "stop");
  }
});

test("the same seed gives the same answer, whatever was asked between; another seed another", async (t) => {
  if (needModels(t) === null) return;
  const told = async (seed: number): Promise<string> =>
    textOf(await ask({ messages: [{ role: "user", content: "Tell a story about a dog." }], temperature: 1, seed, max_tokens: 20 }));
  const [first, other, again] = [await told(7), await told(8), await told(7)];
  t.diagnostic(JSON.stringify({ first, other }));
  assert.equal(again, first);
  assert.notEqual(other, first);
});

test("with a JSON schema the answer is JSON that is valid under it", async (t) => {
  if (needModels(t) === null) return;
  const schema = {
    type: "object",
    properties: {
      city: { type: "string", maxLength: 20 },
      population: { type: ["integer", "null"] },
      kind: { enum: ["city", "village"] },
      tags: { type: "array", items: { type: "string", maxLength: 5 }, maxItems: 2 },
    },
    required: ["city", "kind"],
    additionalProperties: false,
  };
  const answer = await ask({ response_format: { type: "json_schema", json_schema: { name: "place", schema } }, max_tokens: 150 });
  assert.equal(reasonOf(answer), "stop");
  const value = JSON.parse(textOf(answer)) as Record<string, unknown>;
  t.diagnostic(JSON.stringify(value));
  assert.deepEqual(Object.keys(value).sort(), ["city", "kind", "population", "tags"]);
  assert.equal(typeof value["city"], "string");
  assert.ok(value["population"] === null || Number.isInteger(value["population"]));
  assert.ok(["city", "village"].includes(String(value["kind"])));
  assert.ok(Array.isArray(value["tags"]) && value["tags"].length <= 2);
});

test("a tool that the caller asks for is called with arguments valid under its schema, and not run", async (t) => {
  if (needModels(t) === null) return;
  const answer = await ask({
    messages: [{ role: "user", content: "Weather in Paris?" }],
    tools: [WEATHER],
    tool_choice: "required",
    max_tokens: 80,
  });
  const [start] = only(answer, "tool-call-start");
  assert.equal(start?.name, "get_weather");
  assert.match(start?.id ?? "", /^call_/);
  const written = only(answer, "tool-call-delta")
    .map((delta) => delta.arguments)
    .join("");
  t.diagnostic(written);
  assert.deepEqual(Object.keys(JSON.parse(written) as object), ["city"]);
  assert.deepEqual([reasonOf(answer), textOf(answer)], ["tool_calls", ""]);
});

test("a model that chooses to call a tool after the examples in its history is understood", async (t) => {
  if (needModels(t) === null) return;
  const example = (city: string, degrees: string): JsonObject[] => [
    { role: "user", content: `Weather in ${city}?` },
    {
      role: "assistant",
      content: null,
      tool_calls: [{ id: `c-${city}`, type: "function", function: { name: "get_weather", arguments: JSON.stringify({ city }) } }],
    },
    { role: "tool", tool_call_id: `c-${city}`, content: degrees },
    { role: "assistant", content: `${degrees} degrees` },
  ];
  const answer = await ask({
    messages: [...example("Rome", "20"), ...example("Oslo", "5"), { role: "user", content: "Weather in Paris?" }],
    tools: [WEATHER],
    max_tokens: 60,
  });
  assert.deepEqual(
    only(answer, "tool-call-delta").map((delta) => delta.arguments),
    ['{"city":"Paris"}'],
  );
  assert.equal(reasonOf(answer), "tool_calls");
});

test("a prompt longer than the context is refused with both sizes, and the model goes on", async (t) => {
  if (needModels(t) === null) return;
  await assert.rejects(ask({ messages: [{ role: "user", content: "word ".repeat(3000) }] }), (error) => {
    assert.ok(error instanceof DispatchError && error.failure.kind === "status");
    assert.deepEqual([error.failure.status, error.failure.code, error.failure.param], [400, "context_length_exceeded", "messages"]);
    assert.match(error.failure.message ?? "", /2048 tokens.*take 3\d\d\d/);
    return true;
  });
  const began = performance.now();
  await assert.rejects(
    ask({ messages: [{ role: "user", content: "a".repeat(20_000_000) }] }),
    (error) => error instanceof DispatchError && error.failure.kind === "status" && /take more than/.test(error.failure.message ?? ""),
  );
  t.diagnostic(`20 MB refused after ${Math.round(performance.now() - began)} ms`);
  assert.equal(textOf(await ask({ max_tokens: 1 })), "The");
});

test("an answer that fills the context ends there, with reason length, and forgets nothing", async (t) => {
  if (needModels(t) === null) return;
  const answer = await ask(
    { messages: [{ role: "user", content: `Continue: ${"one two three ".repeat(70)}` }] },
    deploymentOf(CHAT_MODEL, { context_size: 256 }),
  );
  const tokens = only(answer, "usage")[0]?.usage.tokens;
  t.diagnostic(JSON.stringify([tokens?.input_uncached, tokens?.output]));
  assert.equal(reasonOf(answer), "length");
  assert.equal((tokens?.input_uncached ?? 0) + (tokens?.output ?? 0), 254);
});

test("json_object gives an answer that is JSON", async (t) => {
  if (needModels(t) === null) return;
  assert.equal(typeof JSON.parse(textOf(await ask({ response_format: { type: "json_object" }, max_tokens: 60 }))), "object");
});

test("requests beyond the sequences wait their turn and all are answered, in one process", async (t) => {
  if (needModels(t) === null) return;
  await ask({ max_tokens: 1 });
  const pids = provider.pids();
  const answers = await Promise.all([1, 2, 3].map(() => ask({})));
  assert.deepEqual(new Set(answers.map(textOf)), new Set(["The capital of France is Paris."]));
  assert.deepEqual(provider.pids(), pids);
});

test("a paused stream delivers nothing until it is resumed, then everything", async (t) => {
  if (needModels(t) === null) return;
  const response = await provider.dispatch(dispatchOf({ messages: QUESTION, temperature: 0, stream: true }, deployment));
  assert.ok(response.body.kind === "stream");
  const { stream } = response.body;
  let later = false;
  const seen: boolean[] = [];
  const read = collect(response, () => {
    if (seen.length === 0) stream.pause();
    seen.push(later);
  });
  await ask({});
  later = true;
  const early = seen.filter((late) => !late).length;
  stream.resume();
  const answer = await read;
  assert.equal(textOf(answer), "The capital of France is Paris.");
  assert.ok(early < answer.events.length, `${early} of ${answer.events.length} events before resume`);
  assert.deepEqual(answer.ending, { kind: "complete" });
});

/** Counts with the library's tokenizer in this process: an oracle beside the child's own counting. */
async function tokenCounter(folder: string): Promise<(text: string) => number> {
  const library = (await import(pathToFileURL(join(PLUGIN_FOLDER, "node_modules/node-llama-cpp/dist/index.js")).href)) as {
    getLlama(options: object): Promise<{
      loadModel(options: object): Promise<{ tokenize(text: string, special: boolean): readonly number[]; dispose(): Promise<void> }>;
      dispose(): Promise<void>;
    }>;
  };
  const llama = await library.getLlama({ gpu: false, build: "never", skipDownload: true, maxThreads: 1 });
  const model = await llama.loadModel({ modelPath: join(folder, CHAT_MODEL), vocabOnly: true });
  return (text) => model.tokenize(text, true).length;
}
