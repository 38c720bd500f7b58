import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import test from "node:test";
import { calcPrice, findProvider, type ModelInfo } from "@pydantic/genai-prices";
import { DATASET, DATASET_PROVIDERS, type DatasetPrice, datasetPrice, findModel, namesOf, priceOfModel } from "./dataset.ts";
import type { Fault } from "./decide.ts";

const NOON = Date.parse("2026-11-22T12:00:00Z");
const modelsOf = (provider: string): readonly ModelInfo[] =>
  findProvider({ providerId: DATASET_PROVIDERS.get(provider) as string })?.models ?? [];

async function priced(provider: string, model: string, day = NOON): Promise<DatasetPrice> {
  const found = await datasetPrice(provider, model, day);
  assert.ok("rates" in found, "param" in found ? found.message : "");
  return found;
}

test("the version and date that prices are labelled with are those of the installed package and its entry in the lockfile", async () => {
  const manifest = new URL("../package.json", import.meta.resolve(DATASET.package));
  assert.equal((JSON.parse(await readFile(manifest, "utf8")) as { version: string }).version, DATASET.version);
  const ours = JSON.parse(await readFile(new URL("../../../package.json", import.meta.url), "utf8")) as {
    dependencies: Record<string, string>;
  };
  assert.equal(ours.dependencies[DATASET.package], DATASET.version, "pinned, so that an upgrade is a commit that also changes the label");
});

/** USD per million tokens × 1,000,000 pico-dollars. */
const usd = (perMillion: number) => BigInt(Math.round(perMillion * 1_000_000));

test("published prices are found, exact, with their tiers", async () => {
  // https://platform.claude.com/docs/en/about-claude/pricing: Opus 4.1 $15, $18.75 (5 min), $30 (1 h), $1.50 (read), $75.
  for (const name of ["claude-opus-4-1", "claude-opus-4-1-20250805", "Claude-Opus-4-1"]) {
    assert.deepEqual((await priced("anthropic", name)).rates, {
      input_uncached: usd(15),
      cache_write_5m: usd(18.75),
      cache_write_1h: usd(30),
      cache_read: usd(1.5),
      output: usd(75),
    });
  }
  // https://openai.com/api/pricing: GPT-4.1 $2, $0.50 cached, $8; GPT-4o $2.50, $1.25, $10; its first version $5 and $15.
  assert.deepEqual((await priced("openai", "gpt-4.1")).rates, { input_uncached: usd(2), cache_read: usd(0.5), output: usd(8) });
  assert.deepEqual((await priced("openai", "gpt-4o-2024-11-20")).rates, {
    input_uncached: usd(2.5),
    cache_read: usd(1.25),
    output: usd(10),
  });
  assert.deepEqual((await priced("openai", "gpt-4o-2024-05-13")).rates, { input_uncached: usd(5), output: usd(15) });
  // https://developers.openai.com/api/docs/pricing: GPT-5.4 from 272,000 input tokens on twice the input and 1.5 × the output price.
  assert.deepEqual((await priced("openai", "gpt-5.4")).tiers, [
    { above: 271_999, rates: { input_uncached: usd(5), cache_read: usd(0.5), output: usd(22.5) } },
  ]);
  // https://docs.x.ai/docs/models: Grok 4.3 $1.25, $0.20, $2.50; from 200,000 on $2.50, $0.40, $5.
  const grok = await priced("xai", "grok-4.3-latest");
  assert.deepEqual(grok.rates, { input_uncached: usd(1.25), cache_read: usd(0.2), output: usd(2.5) });
  assert.deepEqual(grok.tiers, [{ above: 199_999, rates: { input_uncached: usd(2.5), cache_read: usd(0.4), output: usd(5) } }]);
});

test("a price has the date from which the provider asks it, and the day decides which is in force", async () => {
  const before = await priced("openai", "o3", Date.parse("2025-06-09T23:59:59Z"));
  assert.deepEqual([before.rates.output, before.origin.since], [usd(40), null]);
  const after = await priced("openai", "o3", Date.parse("2025-06-10T00:00:00Z"));
  assert.deepEqual([after.rates.output, after.origin.since], [usd(8), "2025-06-10"]);
  assert.deepEqual((await priced("anthropic", "claude-opus-4-6")).tiers, [], "its long-context price ended on 2026-03-13");
  assert.equal((await priced("anthropic", "claude-opus-4-6", Date.parse("2026-03-12T00:00:00Z"))).tiers.length, 1);
});

test("a price that depends on the hour is the dearest of the day, and says so", async () => {
  const { rates, origin } = await priced("deepseek", "deepseek-v4-flash");
  const hours = Array.from({ length: 24 }, (_, hour) => new Date(NOON + hour * 3_600_000));
  const output = hours.map((timestamp) =>
    calcPrice({ output_tokens: 1_000_000 }, "deepseek-v4-flash", { providerId: "deepseek", timestamp }),
  );
  assert.equal(Number(rates.output), Math.max(...output.map((result) => result?.total_price ?? 0)) * 1_000_000);
  assert.ok(new Set(output.map((result) => result?.total_price)).size > 1, "the price no longer depends on the hour");
  assert.equal(origin.dearest_of_day, true);
  assert.equal((await priced("openai", "gpt-4.1")).origin.dearest_of_day, false);
});

test("the hours of a price that is over do not count; of those that are left, the dearest of each class does", () => {
  const hours = { type: "time_of_date", start_time: "00:00:00Z", end_time: "08:00:00Z" } as const;
  const model: ModelInfo = {
    id: "m",
    match: { equals: "m" },
    prices: [
      { prices: { input_mtok: 1, output_mtok: 1 } },
      { constraint: hours, prices: { input_mtok: 90, output_mtok: 90 } },
      { constraint: { type: "start_date", start_date: "2026-01-01" }, prices: { input_mtok: 4, output_mtok: 5 } },
      { constraint: hours, prices: { input_mtok: 3, output_mtok: 6 } },
      { constraint: { type: "start_date", start_date: "2027-01-01" }, prices: { input_mtok: 8, output_mtok: 8 } },
    ],
  };
  const ratesOn = (day: string) => {
    const price = priceOfModel("p", model, Date.parse(day));
    return "rates" in price ? [price.rates.input_uncached, price.rates.output, price.origin.since, price.origin.dearest_of_day] : price;
  };
  assert.deepEqual(ratesOn("2026-11-22"), [usd(4), usd(6), "2026-01-01", true]);
  assert.deepEqual(ratesOn("2027-01-01"), [usd(8), usd(8), "2027-01-01", false]);
  assert.deepEqual(ratesOn("2025-12-31"), [usd(90), usd(90), null, true]);
});

test("every model of our vendors is found by each name its entry spells out, and priced, or the reason is one of three", (t) => {
  const tally = new Map<string, number>();
  const unnamed: string[] = [];
  for (const provider of DATASET_PROVIDERS.keys()) {
    const models = modelsOf(provider);
    assert.ok(models.length > 0, provider);
    for (const model of models) {
      if (namesOf(model).length === 0) unnamed.push(`${provider} ${model.id}`);
      for (const name of namesOf(model)) assert.equal(findModel(models, name), model, `${provider} ${name}`);
      const key = `${provider}: ${reasonOf(priceOfModel(provider, model, NOON))}`;
      tally.set(key, (tally.get(key) ?? 0) + 1);
    }
  }
  for (const [what, count] of tally) t.diagnostic(`${what} ${count}`);
  t.diagnostic(`only found with a date, or not at all: ${unnamed.join(", ")}`);
  const count = (suffix: string) => [...tally].reduce((sum, [key, models]) => sum + (key.endsWith(suffix) ? models : 0), 0);
  assert.ok(count("priced") > 800 && unnamed.length < 10, `${count("priced")} priced, ${unnamed.length} unnamed`);
});

function reasonOf(price: DatasetPrice | Fault): string {
  if ("rates" in price) return "priced";
  const reasons = {
    "lists no price of input and output": "no token price",
    "does not count": "a unit not counted",
    "no whole number": "finer than a pico-dollar",
  };
  const found = Object.entries(reasons).find(([text]) => price.message.includes(text));
  assert.ok(found !== undefined, price.message);
  return found[1];
}

test("what each class costs is the dataset's own calculation, for every model, at every length, at the dearest hour", () => {
  const keys = {
    input_uncached: {},
    cache_read: { cache_read_tokens: 1 },
    cache_write_5m: { cache_write_tokens: 1 },
    output: null,
  } as const;
  let compared = 0;
  for (const provider of DATASET_PROVIDERS.keys()) {
    for (const model of modelsOf(provider)) {
      const price = priceOfModel(provider, model, NOON);
      if (!("rates" in price) || price.origin.dearest_of_day) continue;
      const single = findProvider({ providerId: DATASET_PROVIDERS.get(provider) as string });
      assert.ok(single !== undefined);
      const lengths = [0, ...price.tiers.map(({ above }) => above)];
      for (const [index, above] of lengths.entries()) {
        const rates = index === 0 ? price.rates : (price.tiers[index - 1]?.rates ?? {});
        for (const [tokenClass, usage] of Object.entries(keys)) {
          const rate = rates[tokenClass as keyof typeof keys];
          if (rate === undefined) continue;
          const tokens = above + 1;
          const counted =
            usage === null ? { input_tokens: tokens, output_tokens: tokens } : { input_tokens: tokens, ...scaled(usage, tokens) };
          const options = { provider: { ...single, models: [{ ...model, match: { equals: model.id } }] }, timestamp: new Date(NOON) };
          const calculated = calcPrice(counted, model.id, options);
          assert.ok(calculated !== null, model.id);
          const theirs = usage === null ? calculated.output_price : calculated.input_price;
          const ours = Number(rate * BigInt(tokens)) / 1e12;
          assert.ok(
            Math.abs(theirs - ours) <= Math.max(ours, 1e-9) * 1e-9,
            `${provider} ${model.id} ${tokenClass} ${tokens}: ${theirs}, not ${ours}`,
          );
          compared++;
        }
      }
    }
  }
  assert.ok(compared > 1_500, `only ${compared}`);
});

function scaled(usage: Readonly<Record<string, number>>, tokens: number): Record<string, number> {
  return Object.fromEntries(Object.entries(usage).map(([key, one]) => [key, one * tokens]));
}

test("no name is guessed: a miss says so and lists the nearest names, and what an entry only begins with is no name of it", async () => {
  const cases: readonly [provider: string, model: string, message: RegExp][] = [
    ["anthropic", "claude-opus-4-1-turbo", /no single model 'claude-opus-4-1-turbo'.*'claude-opus-4-1'/],
    ["openai", "gpt-4.1-ultra", /nearest: .*'gpt-4\.1'/],
    ["openai", "ft:gpt-4o-2024-08-06:acme::1", /no single model/],
    ["openrouter", "gpt-5", /nearest: .*'openai\/gpt-5'/],
    [
      "openrouter",
      "google/gemini-2.5-flash-lite",
      /0\.08333333333333334 USD per million for 'cache_write_mtok', which is no whole number of pico-dollars/,
    ],
    ["openai", "whisper-1", /lists no price of input and output tokens\. State the price/],
    ["openai", "gpt-image-1.5", /'cache_image_read_mtok'/],
    ["deepinfra", "meta-llama/Llama-3.3-70B-Instruct", /no prices of 'deepinfra'/],
    ["openai_compatible", "gpt-4.1", /no prices of 'openai_compatible'/],
    ["constructor", "gpt-4.1", /no prices of 'constructor'/],
    ["simulated", "simulated", /no prices of 'simulated'.*"free"/],
  ];
  for (const [provider, model, message] of cases) {
    const fault = await datasetPrice(provider, model, NOON);
    assert.ok("param" in fault, `${provider} ${model}`);
    assert.equal(fault.param, "price");
    assert.match(fault.message, message);
  }
});

test("a date behind a family's name is a name, in the forms that providers write it", async () => {
  const cases: readonly [string, string, string][] = [
    ["anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"],
    ["anthropic", "claude-sonnet-4-20250514", "claude-sonnet-4-0"],
    ["openai", "gpt-4o-audio-preview-2024-12-17", "gpt-4o-audio-preview"],
    ["mistral", "magistral-small-2506", "magistral-small"],
  ];
  for (const [provider, name, model] of cases) assert.equal((await priced(provider, name)).origin.model, model, name);
});

test("two entries that answer to one name are no answer: both are named", () => {
  const model = (id: string): ModelInfo => ({
    id,
    match: { or: [{ starts_with: "family" }, { equals: id }] },
    prices: { input_mtok: 1, output_mtok: 1 },
  });
  const two = model("two");
  assert.deepEqual(findModel([model("one"), two], "family-20260101"), ["one", "two"]);
  assert.equal(findModel([model("one"), two], "two"), two);
});
