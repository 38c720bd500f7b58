import assert from "node:assert/strict";
import { test } from "node:test";
import { Problem } from "../../../kernel/problem.ts";
import { parseMessages } from "../dialects/anthropic/request.ts";
import { BETWEEN, countableOf } from "./countable.ts";
import { countTexts, encodingOf, imageTokensOf, loadEncoding } from "./count.ts";
import { Counter } from "./counter.ts";

const IMAGE = imageTokensOf("gpt-4o");
const chatOf = (body: object) => parseMessages(Buffer.from(JSON.stringify({ model: "m", ...body }))).chat();
const textsOf = (text: string) => Buffer.concat([Buffer.from(text), Buffer.of(BETWEEN)]);

test("a prompt's texts, tools, calls, results and plain documents are counted, its template and images added, its earlier reasoning not", () => {
  const chat = chatOf({
    system: "Be brief.",
    messages: [
      {
        role: "user",
        content: [
          { type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } },
          { type: "document", source: { type: "text", media_type: "text/plain", data: "dömed" } },
          { type: "text", text: "Weather?" },
        ],
      },
      {
        role: "assistant",
        content: [
          { type: "thinking", thinking: "unseen", signature: "s" },
          { type: "tool_use", id: "t", name: "weather", input: { city: "Paris" } },
        ],
      },
      { role: "user", content: [{ type: "tool_result", tool_use_id: "t", content: "Sunny." }] },
    ],
    tools: [{ name: "weather", input_schema: { type: "object" } }],
  });
  const { texts, others } = countableOf(chat, IMAGE);
  const counted = texts
    .toString("latin1")
    .split("\xff")
    .map((text) => Buffer.from(text, "latin1").toString("utf8"));
  for (const text of ["Be brief.", "dömed", "Weather?", "weather", '{"city":"Paris"}', "Sunny."]) assert.ok(counted.includes(text), text);
  assert.ok(!counted.some((text) => text.includes("unseen")));
  assert.equal(others, 3 + 4 * 4 + 1445);
  assert.equal(imageTokensOf("gpt-4o-mini").low, 2833);
});

test("a part that cannot be counted is refused by its path: a count that leaves it out would be no count", () => {
  const pdf = { type: "document", source: { type: "base64", media_type: "application/pdf", data: "AAAA" } };
  const image = { type: "image", source: { type: "url", url: "https://example.com/a.png" } };
  for (const [block, rule] of [
    [pdf, IMAGE],
    [image, null],
  ] as const)
    assert.throws(
      () => countableOf(chatOf({ messages: [{ role: "user", content: [block] }] }), rule),
      (thrown) => thrown instanceof Problem && thrown.param === "messages[0].content[0]",
    );
});

test("a text is counted as OpenAI's tokenizers do, control tokens in it as text", async () => {
  const [newer, older] = [await loadEncoding("o200k_base"), await loadEncoding("cl100k_base")];
  assert.deepEqual([newer("Hello, world!"), older("Hello, world!")], [4, 4]);
  assert.ok(newer("<|endoftext|>") > 1);
  assert.equal(countTexts({ texts: Buffer.concat([textsOf("Hello, world!"), textsOf("Hello, world!")]), others: 7 }, newer), 15);
});

test("each model gets its encoding, and one that is not known the newest", () => {
  for (const name of ["gpt-4o", "gpt-4.1-mini", "gpt-5", "o3", "openai/gpt-4o-mini", "llama-3.3-70b"])
    assert.equal(encodingOf(name), "o200k_base");
  for (const name of ["gpt-4", "gpt-4-turbo", "gpt-3.5-turbo", "openai/gpt-4"]) assert.equal(encodingOf(name), "cl100k_base");
});

test("no word and no gap is longer than the tokenizer can take: every piece it is given has runs of at most 256 characters", () => {
  let longest = 0;
  const countText = (text: string): number => {
    for (const [run] of text.matchAll(/\S+|\s+/g)) longest = Math.max(longest, run.length);
    return text.length;
  };
  const text = `${"x".repeat(1000)} word ${" ".repeat(1000)}${"y".repeat(256)}`;
  assert.equal(countTexts({ texts: textsOf(text), others: 0 }, countText), text.length);
  assert.equal(longest, 256);
});

test("of a very long prompt a part is counted and the rest taken to be alike", () => {
  let given = 0;
  const tokens = countTexts({ texts: Buffer.alloc(10 * 1024 * 1024, "a b "), others: 0 }, (text) => ((given += text.length), text.length));
  assert.equal(given, 1024 * 1024);
  assert.equal(tokens, 10 * 1024 * 1024);
});

test("counting happens on a thread that starts with the first prompt, takes them in turn, and ends when idle or closed", async (t) => {
  const counter = new Counter({ waitingPrompts: 2, waitingBytes: 1000, promptMs: 20_000, idleMs: 50 });
  t.after(() => counter.close());
  assert.equal(counter.running, false);
  const order = { texts: textsOf("Hello, world!"), others: 1, encoding: "o200k_base" } as const;
  assert.deepEqual(await Promise.all([counter.count(order), counter.count({ ...order, others: 2 })]), [5, 6]);
  await assert.rejects(counter.count({ ...order, texts: Buffer.alloc(2000, "a") }), isOverloaded);
  const waiting = [1, 2, 3, 4].map(() => counter.count(order).catch((problem: unknown) => problem));
  const answers = await Promise.all(waiting);
  assert.deepEqual(answers.slice(0, 3), [5, 5, 5]);
  assert.ok(isOverloaded(answers[3]), "one runs, two wait, and a fourth is refused");
  for (let turn = 0; turn < 200 && counter.running; turn++) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(counter.running, false, "an idle thread gives its memory back");
  assert.equal(await counter.count(order), 5, "and the next prompt gets a new one");
  const cut = counter.count(order);
  await Promise.all([counter.close(), assert.rejects(cut, isOverloaded)]);
  await assert.rejects(counter.count(order), isOverloaded);
});

test("a prompt that takes too long is refused and does not hold up the next", async (t) => {
  const counter = new Counter({ waitingPrompts: 8, waitingBytes: 1e6, promptMs: 1, idleMs: 1000 });
  t.after(() => counter.close());
  const order = { texts: textsOf("Hello"), others: 0, encoding: "o200k_base" } as const;
  const [first, second] = [counter.count(order), counter.count(order)];
  await Promise.all([assert.rejects(first, isOverloaded), assert.rejects(second, isOverloaded)]);
});

function isOverloaded(thrown: unknown): boolean {
  return thrown instanceof Problem && thrown.code === "overloaded";
}

test("a message of more calls than a call can have arguments is counted", () => {
  const call = { type: "tool_use", id: "t", name: "f", input: {} };
  const { texts } = countableOf(chatOf({ messages: [{ role: "assistant", content: Array.from({ length: 100_000 }, () => call) }] }), IMAGE);
  assert.equal(texts.length, 1 + 100_000 * "f|{}|".length);
});
