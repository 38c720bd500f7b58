import { formatUsdPerMillion, parseUsdPerMillion, type PicoDollars } from "../../kernel/money.ts";
import type { TokenClass } from "../../kernel/tokens.ts";
import type { Price } from "./model.ts";

/** A price as the API states it: `free`, or USD per million tokens (images: per million images) as decimal strings. */
export type StatedPrice = "free" | Readonly<Partial<Record<PricedClass, string>>>;

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

export type Rates = Price["rates"];

export type PriceDecision =
  | { readonly kind: "priced"; readonly source: Price["source"]; readonly rates: Rates }
  | { readonly kind: "fault"; readonly param: string; readonly message: string };

/** Exact, or a fault that names the class. */
export function decidePrice(stated: StatedPrice): PriceDecision {
  if (stated === "free") return { kind: "priced", source: "free", rates: {} };
  const rates: Partial<Record<TokenClass, PicoDollars>> = {};
  for (const [name, text] of Object.entries(stated)) {
    const rate = parseUsdPerMillion(text);
    if (rate === null)
      return {
        kind: "fault",
        param: `price.${name}`,
        message: `'price.${name}' must be USD per million as a decimal string of at most 6 decimals, such as "0.15".`,
      };
    rates[PRICED_CLASSES[name as PricedClass]] = rate;
  }
  if (Object.keys(rates).length === 0)
    return { kind: "fault", param: "price", message: "'price' names no class. State what input and output cost, or \"free\"." };
  return { kind: "priced", source: "stated", rates };
}

export function statedPrice(price: Pick<Price, "source" | "rates">): StatedPrice {
  if (price.source === "free") return "free";
  const stated: Partial<Record<PricedClass, string>> = {};
  for (const [name, tokenClass] of Object.entries(PRICED_CLASSES)) {
    const rate = price.rates[tokenClass];
    if (rate !== undefined) stated[name as PricedClass] = formatUsdPerMillion(rate);
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

export function samePrice(one: Pick<Price, "source" | "rates">, other: Pick<Price, "source" | "rates">): boolean {
  return one.source === other.source && Object.values(PRICED_CLASSES).every((name) => one.rates[name] === other.rates[name]);
}
