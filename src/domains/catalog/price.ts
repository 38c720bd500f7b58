import { formatUsdPerMillion, parseUsdPerMillion, type PicoDollars } from "../../kernel/money.ts";
import type { TokenClass } from "../../kernel/tokens.ts";
import type { Price, PriceTier, Rates } from "./model.ts";

/** A price as the API states it: `free`, `dataset`, or what each class costs. */
export type StatedPrice = "free" | "dataset" | StatedRates;

/** USD per million tokens (images: per million image tokens) as decimal strings. */
export type ClassPrices = Readonly<Partial<Record<PricedClass, string>>>;
type StatedClasses = Readonly<Partial<Record<PricedClass, string | undefined>>>;

export interface StatedRates extends StatedClasses {
  /** Long-context prices. A class that a tier leaves out costs what it costs below. */
  readonly tiers?: StatedTier[] | undefined;
  /** ISO 8601. Absent: at once. */
  readonly effective_from?: string | undefined;
}

export interface StatedTier extends StatedClasses {
  /** The tier's prices hold for all tokens of an attempt with more input tokens than this. */
  readonly above_input_tokens: number;
}

/** The API's name of each class that can have a price. */
export const PRICED_CLASSES = {
  input: "input_uncached",
  output: "output",
  cache_read: "cache_read",
  cache_write_5m: "cache_write_5m",
  cache_write_1h: "cache_write_1h",
  reasoning: "reasoning",
  audio_input: "audio_input",
  audio_output: "audio_output",
  image: "image",
} as const satisfies Record<string, TokenClass>;

export type PricedClass = keyof typeof PRICED_CLASSES;
export const CLASS_NAMES = Object.keys(PRICED_CLASSES) as PricedClass[];

/** What a price says, whatever its version. */
export type Terms = Pick<Price, "source" | "rates" | "tiers">;

export type PriceDecision =
  | ({ readonly kind: "priced" } & Terms)
  | { readonly kind: "fault"; readonly param: string; readonly message: string };

/** Exact, or a fault that names the class. */
export function decidePrice(stated: "free" | StatedRates): PriceDecision {
  if (stated === "free") return { kind: "priced", source: "free", rates: {} };
  const rates = ratesOf(stated, "price");
  if ("kind" in rates) return rates;
  const tiers: PriceTier[] = [];
  for (const [index, tier] of (stated.tiers ?? []).entries()) {
    const own = ratesOf(tier, `price.tiers.${index}`);
    if ("kind" in own) return own;
    const below = tiers.at(-1);
    if (below !== undefined && below.above >= tier.above_input_tokens)
      return fault(`price.tiers.${index}.above_input_tokens`, "must be more than that of the tier before.");
    tiers.push({ above: tier.above_input_tokens, rates: { ...(below?.rates ?? rates), ...own } });
  }
  return { kind: "priced", source: "stated", rates, ...tiersIfAny(tiers) };
}

function ratesOf(stated: StatedClasses, path: string): Rates | Extract<PriceDecision, { kind: "fault" }> {
  const rates: Partial<Record<TokenClass, PicoDollars>> = {};
  for (const name of CLASS_NAMES) {
    const text = stated[name];
    if (text === undefined) continue;
    const rate = parseUsdPerMillion(text);
    if (rate === null)
      return fault(`${path}.${name}`, 'must be USD per million as a decimal string of at most 6 decimals, such as "0.15".');
    rates[PRICED_CLASSES[name]] = rate;
  }
  return Object.keys(rates).length > 0 ? rates : fault(path, `names no class. State what input and output cost, or "free".`);
}

function fault(param: string, message: string): Extract<PriceDecision, { kind: "fault" }> {
  return { kind: "fault", param, message: `'${param}' ${message}` };
}

function tiersIfAny(tiers: readonly PriceTier[]): Pick<Price, "tiers"> {
  return tiers.length === 0 ? {} : { tiers };
}

/** As it can be stated again. */
export function statedPrice({ source, rates, tiers }: Terms): StatedPrice {
  if (source !== "stated") return source;
  if (tiers === undefined) return classPrices(rates);
  return { ...classPrices(rates), tiers: tiers.map((tier) => ({ above_input_tokens: tier.above, ...classPrices(tier.rates) })) };
}

export function classPrices(rates: Rates): ClassPrices {
  const stated: Partial<Record<PricedClass, string>> = {};
  for (const name of CLASS_NAMES) {
    const rate = rates[PRICED_CLASSES[name]];
    if (rate !== undefined) stated[name] = formatUsdPerMillion(rate);
  }
  return stated;
}

/** As `prices.rates` keeps them: pico-dollars a unit, decimal. */
export function ratesToRow(rates: Rates): Record<string, string> {
  return Object.fromEntries(Object.entries(rates).map(([name, rate]) => [name, String(rate)]));
}

/** Throws on a row that this version did not write. */
export function ratesFromRow(row: Readonly<Record<string, string>>): Rates {
  const classes = new Set<string>(Object.values(PRICED_CLASSES));
  return Object.fromEntries(
    Object.entries(row).map(([name, rate]) => {
      if (!classes.has(name)) throw new Error(`a price of an unknown class: ${name}`);
      return [name, BigInt(rate)];
    }),
  );
}

/** As `prices.tiers` keeps them. */
export function tiersToRow(tiers: readonly PriceTier[] = []): TierRow[] {
  return tiers.map(({ above, rates }) => ({ above, rates: ratesToRow(rates) }));
}

export function tiersFromRow(rows: readonly TierRow[]): Pick<Price, "tiers"> {
  return tiersIfAny(rows.map(({ above, rates }) => ({ above, rates: ratesFromRow(rates) })));
}

interface TierRow {
  readonly above: number;
  readonly rates: Record<string, string>;
}

export function samePrice(one: Terms, other: Terms): boolean {
  const tiers = one.tiers ?? [];
  const others = other.tiers ?? [];
  return (
    one.source === other.source &&
    sameRates(one.rates, other.rates) &&
    tiers.length === others.length &&
    tiers.every((tier, index) => tier.above === others[index]?.above && sameRates(tier.rates, others[index].rates))
  );
}

function sameRates(one: Rates, other: Rates): boolean {
  return Object.values(PRICED_CLASSES).every((name) => one[name] === other[name]);
}
