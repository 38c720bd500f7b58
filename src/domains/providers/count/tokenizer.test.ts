import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import fc from "fast-check";
import tokens from "gpt-tokenizer/bpeRanks/o200k_base";
import { countTokens } from "gpt-tokenizer/encoding/o200k_base";
import { encodeChat } from "gpt-tokenizer/model/gpt-4o";
import type { ModelRequest } from "../../../kernel/request.ts";
import { parseChatCompletion } from "../dialects/openai/request.ts";
import { knownEncodingOf } from "./count.ts";
import { Counter } from "./counter.ts";
import { loadVocabulary } from "./fewest.ts";
import { createTokenizer } from "./tokenizer.ts";

const counter = new Counter();
const tokenizer = createTokenizer(counter);
after(() => counter.close());

const spellings = tokens.map((token) => (typeof token === "string" ? Buffer.from(token) : Buffer.from(token)));
const file = (name: string) => readFileSync(new URL(`../../../../${name}`, import.meta.url), "utf8");

test("a prompt counts within 2 % of what OpenAI's own template makes of it", async (t) => {
  const TEXTS = [
    "Hi",
    file("ARCHITECTURE.md"),
    file("src/domains/providers/count/count.ts"),
    "令牌计数是一项基础工作。".repeat(40),
    "naïve 🍻 [DONE]",
  ];
  let worst = 0;
  const anyChat = fc.array(fc.tuple(fc.constantFrom("user", "assistant", "system"), fc.constantFrom(...TEXTS), fc.nat(3_000)), {
    minLength: 1,
    maxLength: 8,
  });
  await fc.assert(
    fc.asyncProperty(anyChat, async (turns) => {
      const messages = turns.map(([role, text, length]) => ({ role: role as "user", content: text.slice(0, length + 1) }));
      const truth = encodeChat(messages, "gpt-4o").length;
      const counted = await tokenizer.countPrompt(requestOf({ messages }), { upstreamModel: "gpt-4o" });
      assert.ok(counted !== null);
      worst = Math.max(worst, Math.abs(counted - truth) / truth);
      assert.ok(Math.abs(counted - truth) / truth <= 0.02, `${counted}, not ${truth}: ${JSON.stringify(messages)}`);
    }),
    { numRuns: 60 },
  );
  t.diagnostic(`60 prompts, worst ${(worst * 100).toFixed(2)} %`);
});

test("a prompt of a model whose tokenizer is not known, a large one and one with a part that no rule counts are not counted", () => {
  const text = { messages: [{ role: "user", content: "Hi" }] };
  const large = { messages: [{ role: "user", content: "word ".repeat(14_000) }] };
  const pdf = { filename: "a.pdf", file_data: "data:application/pdf;base64,AAAA" };
  const document = { messages: [{ role: "user", content: [{ type: "file", file: pdf }] }] };
  assert.equal(tokenizer.countPrompt(requestOf(text), { upstreamModel: "claude-sonnet-4-5" }), null);
  assert.equal(tokenizer.countPrompt(requestOf(large), { upstreamModel: "gpt-4o" }), null);
  assert.equal(tokenizer.countPrompt(requestOf(document), { upstreamModel: "gpt-4o" }), null);
});

test("the models that are known to have an encoding, and others'", () => {
  for (const name of [
    "gpt-4o",
    "gpt-4o-mini-2024-07-18",
    "gpt-4.1",
    "gpt-5-nano",
    "o1-mini",
    "o3",
    "o4-mini",
    "openai/gpt-oss-120b",
    "ft:gpt-4o:acme::x",
  ])
    assert.equal(knownEncodingOf(name), "o200k_base", name);
  for (const name of ["gpt-4", "gpt-4-0613", "gpt-35-turbo", "ft:gpt-3.5-turbo:acme"])
    assert.equal(knownEncodingOf(name), "cl100k_base", name);
  for (const name of ["claude-opus-4", "llama-3.3-70b", "mistral-large", "olmo-2", "gemini-3-pro", "my-gpt-4o"])
    assert.equal(knownEncodingOf(name), null, name);
});

test("no text needs more tokens than it was written in, cut off anywhere, and an ordinary one needs nearly as many as the tokenizer makes", async (t) => {
  const vocabulary = await loadVocabulary("o200k_base");
  fc.assert(
    fc.property(fc.array(fc.nat(spellings.length - 1), { minLength: 1, maxLength: 40 }), fc.nat(128), (ids, cut) => {
      const bytes = Buffer.concat(ids.map((id) => spellings[id] as Buffer));
      for (const text of [bytes.toString(), bytes.subarray(0, Math.max(1, bytes.length - cut)).toString()])
        assert.ok(vocabulary.fewest(text) <= ids.length, JSON.stringify(text));
    }),
    { numRuns: 1_000 },
  );
  for (const text of [file("ARCHITECTURE.md"), file("src/domains/providers/count/count.ts"), "令牌计数是一项基础工作。".repeat(40)]) {
    const [fewest, made] = [vocabulary.fewest(text), countTokens(text)];
    t.diagnostic(`${text.length} characters: ${fewest} at the fewest, ${made} as the tokenizer cuts them`);
    assert.ok(fewest <= made && fewest > made * 0.97);
  }
});

test("texts that stood in JSON are counted as what they say, and one that was cut inside an escape as far as it is whole", async () => {
  const text = 'say "hi"\n\t\\ 你好 🍻';
  const escaped = JSON.stringify(text).slice(1, -1).replace("你", "\\u4f60");
  const texts = (...each: string[]) => Buffer.concat(each.flatMap((one) => [Buffer.from(one), Buffer.of(0xff)]));
  assert.equal(await tokenizer.count("o200k_base", texts(escaped, escaped)), 2 * countTokens(text));
  assert.equal(await tokenizer.count("o200k_base", texts("Hello\\u4f")), countTokens("Hello"));
  assert.equal(await tokenizer.fewest("o200k_base", texts(escaped)), countTokens(text));
});

function requestOf(body: object): ModelRequest {
  return parseChatCompletion(Buffer.from(JSON.stringify({ model: "m", ...body })));
}
