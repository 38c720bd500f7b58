import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answers, BudgetExceeded } from "../domains/metering/index.ts";
import type { RequestBound } from "../kernel/tokens.ts";
import { answersOf } from "./bound.ts";
import type { Placed } from "./evidence.ts";
import { hold } from "./hold.ts";
import type { Platform } from "./platform.ts";

const BOUND: RequestBound = { input: 4_000, output: 2_100, certainty: "proof", answers: 2, each: 1_000, isStated: true };
const model = { capabilities: [], contextWindow: 131_072, maxOutputTokens: null };
const refusal: BudgetExceeded = Object.assign(Object.create(BudgetExceeded.prototype) as BudgetExceeded, { line: null });

/** What a hold of the request asked of metering, refused as long as its input is more than the budget pays for. */
async function inputsAsked(bound: RequestBound, pays: number, text: { bytes: number; tokens: number } | null): Promise<readonly number[]> {
  const inputs: number[] = [];
  const platform = {
    clock: { now: () => 1, monotonic: () => 1 },
    newId: () => "id",
    provider: () => null,
    bound: () => bound,
    isBounded: () => true,
    countText: async () => text,
    hold: async (facts: { bound: { input: number } }) => {
      inputs.push(facts.bound.input);
      if (facts.bound.input > pays) throw refusal;
      return {};
    },
  } as unknown as Platform;
  const deployment = { provider: "p", model, prices: [{ from: 0, price: { version: "v" } }] };
  const call = {
    call: { id: "c", trace: "t" },
    tenant: { record: { id: "t", markupMillionths: 1_000_000 }, project: null },
    principal: { key: null },
    permit: { countsTokens: false },
    request: { kind: "generate", attribution: { user: null, feature: null } },
    compiled: { kind: "generate" },
  };
  await hold(platform, { hop: "h", of: call, slot: { deployment } } as unknown as Placed, null).catch((thrown: unknown) => {
    if (thrown !== refusal) throw thrown;
  });
  return inputs;
}

test("a prompt that a budget cannot pay for by its bytes is counted, and tried again by its tokens; one that it can pay for is never counted", async () => {
  assert.deepEqual(await inputsAsked(BOUND, 4_000, { bytes: 3_000, tokens: 700 }), [4_000]);
  assert.deepEqual(await inputsAsked(BOUND, 2_000, { bytes: 3_000, tokens: 700 }), [4_000, 1_700]);
});

test("where the tokens prove nothing better than the bytes, the refusal stands", async () => {
  for (const text of [null, { bytes: 3_000, tokens: 3_000 }]) assert.deepEqual(await inputsAsked(BOUND, 2_000, text), [4_000]);
  assert.deepEqual(await inputsAsked({ ...BOUND, certainty: "rule" }, 2_000, { bytes: 3_000, tokens: 1 }), [4_000]);
});

const answers = (bound: Partial<RequestBound>, usual: number | null, capabilities: string[] = []): Answers =>
  answersOf(
    { ...BOUND, ...bound },
    { tenant: { project: { defaultMaxOutputTokens: usual } } } as never,
    { ...model, capabilities } as never,
  );

test("an answer is as long as its caller says, else as its project's default says, and never longer than the model's", () => {
  const open = { each: 128_000, output: 256_100, isStated: false };
  assert.deepEqual([answers({}, 10).each, answers({}, 10).outputBound], [1_000, null]);
  assert.deepEqual([answers(open, 10).each, answers(open, 10).outputBound], [10, 10]);
  assert.deepEqual([answers(open, null).each, answers(open, null).outputBound], [8_192, 8_192]);
  assert.deepEqual([answers(open, 0).each, answers(open, 0).outputBound], [128_000, null]);
  assert.deepEqual([answers({ isStated: false }, null).each, answers({ isStated: false }, null).outputBound], [1_000, null]);
  assert.deepEqual([answers({}, null).least, answers({}, null, ["reasoning"]).least], [256, 2_048]);
});

test("two answers of that length and a prediction of 100 tokens are bounded together", () => {
  assert.deepEqual(answers({}, null).boundOf(300), { input: 4_000, output: 700, certainty: "proof" });
});
