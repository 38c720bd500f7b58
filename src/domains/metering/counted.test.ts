import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test, { after, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import tokens from "gpt-tokenizer/bpeRanks/o200k_base";
import { countTokens, encode } from "gpt-tokenizer/encoding/o200k_base";
import type { Ending, Frame } from "../../kernel/frame.ts";
import { outputTokens } from "../../kernel/tokens.ts";
import { createProviders } from "../providers/index.ts";
import { openaiWire } from "../providers/dialects/openai/wire.ts";
import { hold } from "./hold.ts";
import type { PromptCounter, TextCounter } from "./kept.ts";
import { meter } from "./meter.ts";
import type { AttemptFacts, Settlement } from "./model.ts";
import { Settler } from "./settle.ts";
import { Speeds } from "./speeds.ts";
import { factsOf, PRICE, silent, TestClock } from "./testing/facts.ts";
import { ScriptedJournal } from "./testing/scripted-journal.ts";
import { ScriptedStream, streamed, usageFrame, whole } from "./testing/scripted-stream.ts";

const clock = new TestClock();
const providers = createProviders({ clock });
const { tokenizer } = providers;
after(() => providers.close());

const KNOWN = { upstreamModel: "gpt-4o-2024-11-20", bound: { input: 9_000, output: 50_000, certainty: "proof" } } as const;

/** A stream from hold to settlement, whose journal is durable at once. */
async function streamOf(t: TestContext, facts: Partial<AttemptFacts>, counter: TextCounter = tokenizer, prompt?: PromptCounter) {
  const journal = new ScriptedJournal();
  const committing = setInterval(() => journal.commit(), 1);
  t.after(() => clearInterval(committing));
  const needs = { journal, clock, settler: new Settler({ journal, clock, speeds: new Speeds(), log: silent, settled() {} }), counter };
  const held = await hold(factsOf(facts), PRICE, { ...needs, speeds: new Speeds(), voided() {} });
  const upstream = new ScriptedStream();
  const { body, settled } = await meter(streamed(upstream), held, needs, prompt);
  assert.ok(body.kind === "stream");
  const endings: Ending[] = [];
  body.stream.pipe({ frames() {}, end: (ending) => void endings.push(ending) });
  return {
    upstream,
    leave: () => body.stream.abort(),
    endings,
    settled: async (): Promise<Settlement> => {
      const { settlement } = await settled;
      clearInterval(committing);
      return settlement;
    },
  };
}

/** Frames as OpenAI's wire cuts them out of what an upstream sends. */
function framesOf(pieces: readonly string[]): Frame[] {
  const decoder = openaiWire.decoder();
  const frames: Frame[] = [];
  for (const content of pieces) {
    const chunk = {
      id: "c",
      object: "chat.completion.chunk",
      created: 1,
      model: "m",
      choices: [{ index: 0, delta: { content }, finish_reason: null }],
    };
    decoder.push(Buffer.from(`data: ${JSON.stringify(chunk)}\n\n`), frames);
  }
  return frames;
}

const repository = (file: string) => readFileSync(new URL(`../../../${file}`, import.meta.url), "utf8");
const CHINESE =
  "大型语言模型的计费以令牌为单位。网关在请求发出之前预留最坏情况下的费用,在响应结束之后按照实际用量结算,余额立即退还给租户。" +
  "如果客户端提前断开连接,网关必须在一百毫秒之内停止上游,并且只对已经收到的内容收费。";
const TEXTS = {
  English: repository("ARCHITECTURE.md"),
  code: repository("src/domains/metering/decide.ts"),
  Chinese: CHINESE.repeat(12),
  mixed:
    `${CHINESE}\n\`\`\`ts\nconst naïve = "🍻🧑‍🚀"; // ${CHINESE.slice(0, 20)}\n\`\`\`\n| a | b |\n|---|---|\n${JSON.stringify({ κ: [1.5, "x\ty"] })} Ünïcödé text, twice.\n`.repeat(
      8,
    ),
} as const;

/** A text in the pieces that a server sends it in: a token each, and more where a character takes more. */
function tokensOf(text: string): string[] {
  const pieces: string[] = [];
  let left: Uint8Array = new Uint8Array();
  for (const id of encode(text)) {
    const token = tokens[id] as string | readonly number[];
    left = Buffer.concat([left, typeof token === "string" ? Buffer.from(token) : Uint8Array.from(token)]);
    const piece = Buffer.from(left).toString();
    if (piece.endsWith("\ufffd")) continue;
    pieces.push(piece);
    left = new Uint8Array();
  }
  return pieces;
}

test("a stream that is broken off anywhere, and of which its provider said nothing, is charged what its text counts: within 2 %, in English, code, Chinese and all mixed", async (t) => {
  await tokenizer.count("o200k_base", Buffer.from("warm"));
  let worst = 0;
  let streams = 0;
  for (const [name, text] of Object.entries(TEXTS)) {
    let worstHere = 0;
    const whole = tokensOf(text);
    for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
      const [cut] = fc.sample(fc.integer({ min: 20, max: whole.length }), { numRuns: 1, seed }) as [number];
      const [size] = fc.sample(fc.integer({ min: 1, max: 9 }), { numRuns: 1, seed: seed + 100 }) as [number];
      const sent = whole.slice(0, cut);
      const pieces = Array.from({ length: Math.ceil(cut / size) }, (_, index) => sent.slice(index * size, (index + 1) * size).join(""));
      const stream = await streamOf(t, KNOWN);
      for (const frame of framesOf(pieces)) stream.upstream.emit([frame]);
      stream.leave();
      const { usage, estimated, status } = await stream.settled();
      const truth = countTokens(sent.join(""));
      const error = Math.abs(usage.tokens.output - truth) / truth;
      worstHere = Math.max(worstHere, error);
      streams += 1;
      assert.ok(error <= 0.02, `${name}, ${cut} tokens in pieces of ${size}: charged ${usage.tokens.output}, counted ${truth}`);
      assert.deepEqual([usage.source, estimated, status], ["counted", true, "aborted"]);
    }
    worst = Math.max(worst, worstHere);
    t.diagnostic(`${name}: worst ${(worstHere * 100).toFixed(2)} %`);
  }
  t.diagnostic(`${streams} streams, worst ${(worst * 100).toFixed(2)} %`);
});

test("answers that a stream interleaves are counted each by itself", async (t) => {
  const [one, two] = [tokensOf(TEXTS.English.slice(0, 2_000)), tokensOf(TEXTS.Chinese.slice(0, 400))];
  const stream = await streamOf(t, KNOWN);
  for (let index = 0; index < Math.max(one.length, two.length); index++)
    for (const [choice, piece] of [one[index], two[index]].entries()) {
      if (piece === undefined) continue;
      const chunk = { choices: [{ index: choice, delta: { content: piece }, finish_reason: null }] };
      stream.upstream.emit([{ bytes: Buffer.from(`data: ${JSON.stringify(chunk)}\n\n`), notable: false, events: () => [] }]);
    }
  stream.leave();
  const truth = countTokens(one.join("")) + countTokens(two.join(""));
  const { usage } = await stream.settled();
  assert.ok(Math.abs(usage.tokens.output - truth) / truth <= 0.02, `charged ${usage.tokens.output}, counted ${truth}`);
});

test("what its provider reported is charged as it is, and counted only what came since", async (t) => {
  const stream = await streamOf(t, KNOWN);
  stream.upstream.emit([...framesOf(["Hello", " world"]), usageFrame(12, 2)]);
  const since = tokensOf(TEXTS.English.slice(0, 3_000));
  for (const frame of framesOf(since)) stream.upstream.emit([frame]);
  stream.leave();
  const { usage } = await stream.settled();
  assert.deepEqual([usage.tokens.input_uncached, usage.tokens.output], [12, 2 + countTokens(since.join(""))]);
});

test("a prompt that nobody reported is charged what it counts, and by its bytes where it cannot be counted", async (t) => {
  for (const [prompt, expected] of [
    [() => Promise.resolve(321), 321],
    [() => Promise.reject(new Error("busy")), 3_000],
    [() => null, 3_000],
  ] as const) {
    const stream = await streamOf(t, KNOWN, tokenizer, prompt);
    stream.upstream.emit(framesOf(["Hello"]));
    stream.leave();
    assert.equal((await stream.settled()).usage.tokens.input_uncached, expected);
  }
});

test("a thread that is gone, or slower than a call that has ended may wait, leaves a count by bytes and frames", async (t) => {
  const gone = { ...tokenizer, count: () => Promise.reject(new Error("gone")) };
  const slow = { ...tokenizer, count: () => new Promise<number>(() => {}) };
  for (const counter of [gone, slow]) {
    const stream = await streamOf(t, KNOWN, counter);
    for (const frame of framesOf(["Hello,", " world", "!"])) stream.upstream.emit([frame]);
    stream.leave();
    const began = performance.now();
    const { usage, estimated } = await stream.settled();
    assert.deepEqual([usage.tokens.output, usage.source, estimated], [5, "counted", true]);
    assert.ok(performance.now() - began < 5_000);
  }
});

test("of a model whose tokenizer is not known nothing is kept, and nothing asked of the thread", async (t) => {
  const never = { ...tokenizer, count: () => assert.fail("asked"), fewest: () => assert.fail("asked") };
  const stream = await streamOf(t, { ...KNOWN, upstreamModel: "llama-3.3-70b", bound: { ...KNOWN.bound, output: 2 } }, never);
  for (const frame of framesOf(tokensOf(TEXTS.English))) stream.upstream.emit([frame]);
  stream.leave();
  assert.equal((await stream.settled()).usage.tokens.output, 2);
});

test("a whole answer without a usage report is counted too", async () => {
  const journal = new ScriptedJournal();
  const committing = setInterval(() => journal.commit(), 1);
  const settler = new Settler({ journal, clock, speeds: new Speeds(), log: silent, settled() {} });
  const held = await hold(factsOf({ ...KNOWN, stream: false }), PRICE, { journal, clock, speeds: new Speeds(), voided() {} });
  const text = TEXTS.mixed;
  const answer = whole([{ type: "text-delta", choice: 0, text }, { type: "response-end" }]);
  const { settled } = await meter(answer, held, { journal, clock, settler, counter: tokenizer }, () => Promise.resolve(77));
  const { usage, estimated } = (await settled).settlement;
  clearInterval(committing);
  assert.deepEqual([usage.tokens.input_uncached, usage.tokens.output, estimated], [77, countTokens(text), true]);
});

test("an upstream that writes on past the bound is stopped, in every script, its caller told, and charged the bound", async (t) => {
  await tokenizer.fewest("o200k_base", Buffer.from("warm"));
  for (const [name, text] of Object.entries(TEXTS))
    for (const size of [1, 7]) {
      const pieces = tokensOf(text);
      const stream = await streamOf(t, { ...KNOWN, bound: { input: 300, output: 100, certainty: "proof" } });
      let sent = 0;
      for (; sent < pieces.length && !stream.upstream.aborted; sent += size) {
        stream.upstream.emit(framesOf([pieces.slice(sent, sent + size).join("")]));
        await sleep(2);
      }
      assert.ok(stream.upstream.aborted, `${name} in pieces of ${size}: ${sent} tokens went on unstopped`);
      const { usage, status, estimated, charge } = await stream.settled();
      assert.deepEqual([usage.tokens.output, status, estimated], [100, "truncated", true]);
      assert.ok(charge <= 300n * 150_000n + 100n * 600_000n, "more than was held");
      const [ending] = stream.endings;
      assert.ok(ending?.kind === "truncated" && ending.problem.message.includes("100 output tokens"), JSON.stringify(ending));
      t.diagnostic(`${name}, ${size} tokens a frame: stopped after ${sent} of ${pieces.length} tokens, bound 100`);
    }
});

test("a provider's own report that the bound is passed stops the answer, one at its end does not", async (t) => {
  const bound = { input: 300, output: 10, certainty: "proof" } as const;
  const stream = await streamOf(t, { bound });
  stream.upstream.emit([...framesOf(["some words that go on and on"]), usageFrame(20, 11)]);
  assert.ok(stream.upstream.aborted);
  const { usage, status, estimated } = await stream.settled();
  assert.deepEqual([usage.tokens.input_uncached, outputTokens(usage.tokens), status, estimated], [20, 10, "truncated", true]);
});

test("a stream is never stopped within its bound, whatever tokens its model chose, however they were cut into frames", async (t) => {
  const spellings = tokens.map((token) => (typeof token === "string" ? Buffer.from(token) : Buffer.from(token)));
  const anyTokens = fc.array(fc.nat(spellings.length - 1), { minLength: 1, maxLength: 60 });
  let looked = 0;
  const watching: TextCounter = {
    ...tokenizer,
    fewest: (_, texts) => {
      looked += 1;
      return tokenizer.fewest("o200k_base", texts);
    },
  };
  await fc.assert(
    fc.asyncProperty(anyTokens, fc.integer({ min: 1, max: 4 }), async (ids, size) => {
      const text = Buffer.concat(ids.map((id) => spellings[id] as Buffer)).toString();
      const stream = await streamOf(t, { ...KNOWN, bound: { input: 300, output: ids.length, certainty: "proof" } }, watching);
      // Characters apart, so that there are more frames than tokens: what makes the meter look.
      const characters = Array.from(text);
      for (let at = 0; at < characters.length; at += size) stream.upstream.emit(framesOf([characters.slice(at, at + size).join("")]));
      await sleep(3);
      assert.equal(stream.upstream.aborted, false, JSON.stringify(text));
      stream.leave();
      await stream.settled();
    }),
    { numRuns: 150 },
  );
  assert.ok(looked > 50, `the meter looked ${looked} times only`);
  t.diagnostic(`150 streams of random tokens, ${looked} looks, none stopped`);
});
