import type { ConditionalPrice, MatchLogic, ModelInfo, ModelPrice, TieredPrices } from "@pydantic/genai-prices";
import { parseUsdPerMillion, type PicoDollars } from "../../kernel/money.ts";
import type { TokenClass } from "../../kernel/tokens.ts";
import type { Fault } from "./decide.ts";
import type { DatasetOrigin, PriceTier, Rates } from "./model.ts";

/** What the dataset says a model costs. */
export interface DatasetPrice {
  readonly rates: Rates;
  readonly tiers: readonly PriceTier[];
  readonly origin: DatasetOrigin;
}

/** The dataset: the package pinned in package.json, and the day npm published that version (the package itself does not say). */
export const DATASET = { package: "@pydantic/genai-prices", version: "0.1.8", published: "2026-09-23" } as const;

/**
 * The price the provider asks on `day` (ms since the epoch), as the dataset has it: exact, or a fault that says what is missing.
 * The dataset is loaded when first asked for (830 kB of source, 30 ms): most processes never do.
 */
export async function datasetPrice(provider: string, upstreamModel: string, day: number): Promise<DatasetPrice | Fault> {
  const theirs = DATASET_PROVIDERS.get(provider);
  if (theirs === undefined)
    return atPrice(`The dataset has no prices of '${provider}'. State the price, or "free" where nobody bills for it.`);
  const { findProvider } = await import("@pydantic/genai-prices");
  const models = findProvider({ providerId: theirs })?.models ?? [];
  const found = findModel(models, upstreamModel);
  return Array.isArray(found) ? unknownModel(provider, upstreamModel, found) : priceOfModel(theirs, found, day);
}

/** Our providers whose prices the dataset has, by its name of them. */
export const DATASET_PROVIDERS: ReadonlyMap<string, string> = new Map([
  ["anthropic", "anthropic"],
  ["cerebras", "cerebras"],
  ["deepseek", "deepseek"],
  ["fireworks", "fireworks"],
  ["groq", "groq"],
  ["mistral", "mistral"],
  ["openai", "openai"],
  ["openrouter", "openrouter"],
  ["together", "together"],
  ["xai", "x-ai"],
]);

/**
 * The one model of that name, else the names nearest to it. A name is one that the entry spells out whole, or a family of its
 * with a date behind (`claude-opus-4-1` with `-20250805`). The entry's own id is none: it is the dataset's, not the provider's. What
 * the entry only begins with or contains is none either: a variant could cost something else.
 */
export function findModel(models: readonly ModelInfo[], name: string): ModelInfo | string[] {
  const exact = models.filter((model) => isNamed(model, name));
  const found = exact.length > 0 ? exact : models.filter((model) => alternatives(model.match).some((match) => isDated(match, name)));
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  const names = found.length > 1 ? found.map((model) => model.id) : models.flatMap((model) => namesOf(model));
  return names.toSorted((one, other) => likeness(other, name) - likeness(one, name)).slice(0, MAX_NAMES_SHOWN);
}

function unknownModel(provider: string, upstreamModel: string, nearest: readonly string[]): Fault {
  const known = nearest.map((name) => `'${name}'`).join(", ");
  return atPrice(
    `The dataset (${DATASET.version}, ${DATASET.published}) has no single model '${upstreamModel}' of '${provider}'; nearest: ${known}. ` +
      "Correct 'upstream_model', or state the price.",
  );
}

const MAX_NAMES_SHOWN = 5;

function isNamed(model: ModelInfo, name: string): boolean {
  return (
    namesOf(model).some((each) => each.toLowerCase() === name.toLowerCase()) ||
    alternatives(model.match).some((match) => "regex" in match && isWhole(match.regex) && new RegExp(match.regex).test(name))
  );
}

/** What a provider's name of the model can be, dates and patterns aside. */
export function namesOf({ match }: ModelInfo): string[] {
  return alternatives(match).flatMap((each) => {
    if ("equals" in each) return [each.equals];
    return "starts_with" in each && !each.starts_with.endsWith("-") ? [each.starts_with] : [];
  });
}

function alternatives(match: MatchLogic): readonly MatchLogic[] {
  return "or" in match ? match.or.flatMap(alternatives) : [match];
}

function isWhole(pattern: string): boolean {
  return pattern.startsWith("^") && pattern.endsWith("$") && !pattern.includes("|");
}

/** Whether the name is one of the family with a date behind; some entries spell the beginning of the date too. */
function isDated(match: MatchLogic, name: string): boolean {
  if (!("starts_with" in match) || !DATE_SUFFIX.test(name)) return false;
  const family = match.starts_with.toLowerCase();
  return name.toLowerCase().startsWith(family) && family.length >= name.replace(DATE_SUFFIX, "").length;
}

/** -YYYYMMDD, -YYYY-MM-DD, and Mistral's -YYMM. */
const DATE_SUFFIX = /-(20\d{6}|20\d{2}-\d{2}-\d{2}|2[3-9](0[1-9]|1[0-2]))$/;

/** Shared runs of three characters, of those either has. */
function likeness(one: string, other: string): number {
  const runs = (text: string): Set<string> => {
    const padded = `  ${text.toLowerCase()} `;
    return new Set(Array.from({ length: padded.length - 2 }, (_, at) => padded.slice(at, at + 3)));
  };
  const mine = runs(one);
  const theirs = runs(other);
  return mine.intersection(theirs).size / mine.union(theirs).size;
}

/** What the model costs on the day, or why that cannot be told exactly. */
export function priceOfModel(provider: string, model: ModelInfo, day: number): DatasetPrice | Fault {
  const entries = Array.isArray(model.prices) ? entriesOn(model.prices, day) : [{ prices: model.prices }];
  const lengths = new Set<number>();
  for (const { prices } of entries)
    for (const price of Object.values(prices)) if (isTiered(price)) for (const { start } of price.tiers) lengths.add(start);
  const rates = dearestRates(entries, 0);
  if ("param" in rates) return inDataset(model, rates.message);
  if (rates.input_uncached === undefined || rates.output === undefined)
    return inDataset(model, "lists no price of input and output tokens");
  const tiers: PriceTier[] = [];
  for (const above of [...lengths].sort((one, other) => one - other)) {
    const longer = dearestRates(entries, above + 1);
    if ("param" in longer) return inDataset(model, longer.message);
    tiers.push({ above, rates: longer });
  }
  const constraint = entries[0]?.constraint;
  const since = constraint !== undefined && "start_date" in constraint ? constraint.start_date : null;
  const { version, published } = DATASET;
  return { rates, tiers, origin: { version, published, provider, model: model.id, since, dearest_of_day: entries.length > 1 } };
}

/**
 * What can be in force on the day. As the dataset means it, the last entry whose condition holds wins: so the last one that
 * holds all day, and those of certain hours behind it.
 */
function entriesOn(entries: readonly ConditionalPrice[], day: number): readonly ConditionalPrice[] {
  const allDay = entries.findLastIndex(
    ({ constraint }) => constraint === undefined || ("start_date" in constraint && Date.parse(constraint.start_date) <= day),
  );
  const from = Math.max(allDay, 0);
  return entries.filter(
    (entry, index) => index === from || (index > from && entry.constraint !== undefined && "start_time" in entry.constraint),
  );
}

/** The rates of an attempt with that many input tokens; of several entries, the dearest of each class. */
function dearestRates(entries: readonly ConditionalPrice[], inputTokens: number): Rates | Fault {
  const rates: Partial<Record<TokenClass, PicoDollars>> = {};
  for (const { prices } of entries) {
    for (const [key, price] of Object.entries(prices)) {
      if (price === undefined || !key.endsWith("_mtok")) continue;
      const tokenClass = DATASET_CLASSES[key];
      if (tokenClass === undefined) return atPrice(`prices a unit that Atrium does not count ('${key}')`);
      const usd = usdText(isTiered(price) ? priceFor(price, inputTokens) : price);
      const rate = parseUsdPerMillion(usd);
      if (rate === null) return atPrice(`asks ${usd} USD per million for '${key}', which is no whole number of pico-dollars a token`);
      rates[tokenClass] = rate > (rates[tokenClass] ?? -1n) ? rate : (rates[tokenClass] as PicoDollars);
    }
  }
  return rates;
}

/** The dataset's keys that are prices per million tokens. Its others are fees of tools, hours, pages: no call here is billed them. */
const DATASET_CLASSES: Readonly<Record<string, TokenClass>> = {
  input_mtok: "input_uncached",
  output_mtok: "output",
  cache_read_mtok: "cache_read",
  cache_write_mtok: "cache_write_5m",
  cache_write_1h_mtok: "cache_write_1h",
  output_reasoning_mtok: "reasoning",
  input_audio_mtok: "audio_input",
  output_audio_mtok: "audio_output",
  input_image_mtok: "image",
};

function isTiered(price: ModelPrice[string]): price is TieredPrices {
  return typeof price === "object";
}

/** All tokens of a request cost the tier that its input reaches: `tokens > start`, as the dataset's own calculation has it. */
function priceFor({ base, tiers }: TieredPrices, inputTokens: number): number {
  const reached = tiers.filter(({ start }) => inputTokens > start).toSorted((one, other) => other.start - one.start);
  return reached[0]?.price ?? base;
}

/**
 * The decimal that the dataset's author wrote: the shortest that gives the same double. Prices have far fewer than the 15
 * digits up to which that is a certainty, and what is finer than a pico-dollar is refused, not rounded.
 */
function usdText(price: number): string {
  return String(price);
}

function inDataset(model: ModelInfo, what: string): Fault {
  return atPrice(`The dataset's '${model.id}' ${what}. State the price.`);
}

function atPrice(message: string): Fault {
  return { param: "price", message };
}
