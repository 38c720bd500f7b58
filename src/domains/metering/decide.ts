import type { PicoDollars } from "../../kernel/money.ts";
import {
  INPUT_CLASSES,
  inputTokens,
  NO_TOKENS,
  OUTPUT_CLASSES,
  outputTokens,
  TOKEN_CLASSES,
  type TokenBound,
  type TokenClass,
  type TokenCounts,
  type Usage,
} from "../../kernel/tokens.ts";
import type { Price } from "../catalog/index.ts";

/** What a usage costs. */
export interface Pricing {
  /** What the provider bills us. */
  readonly cost: PicoDollars;
  /** What the tenant pays. */
  readonly charge: PicoDollars;
  /** Billed classes that have no price of their own and no customary stand-in: charged at the dearest rate of their side. */
  readonly unpriced: readonly TokenClass[];
}

/** The price of a usage: pure, exact, each class at its own rate; the charge is rounded up, once, to the pico-dollar. */
export function priceOf(tokens: TokenCounts, price: Price, markupMillionths: number): Pricing {
  const table = rateTable(price, price.tiers === undefined ? 0 : inputTokens(tokens));
  let cost = 0n;
  let unpriced = NONE;
  for (let index = 0; index < TOKEN_CLASSES.length; index++) {
    const tokenClass = TOKEN_CLASSES[index] as TokenClass;
    const count = tokens[tokenClass];
    if (count === 0) continue;
    cost += BigInt(count) * (table.rates[index] as bigint);
    if (table.unpriced.has(tokenClass)) unpriced = [...unpriced, tokenClass];
  }
  return { cost, charge: chargeOf(cost, markupMillionths), unpriced };
}

/** What the tenant pays of a cost: price × markup, rounded up to the pico-dollar. */
export function chargeOf(cost: PicoDollars, markupMillionths: number): PicoDollars {
  if (markupMillionths === NO_MARKUP) return cost;
  return (cost * BigInt(markupMillionths) + (MILLION - 1n)) / MILLION;
}

/** The markup, in millionths, of a tenant that pays the price as it is. */
export const NO_MARKUP = 1_000_000;
const MILLION = 1_000_000n;

/** W: the most an attempt within `bound` can be charged, whatever classes its tokens turn out to be of, and whichever tier they reach. */
export function worstCase(bound: TokenBound, price: Price, markupMillionths: number): PicoDollars {
  let most = 0n;
  for (const { above, table } of rateTables(price)) {
    if (above >= bound.input) continue;
    const cost = BigInt(bound.input) * table.dearestInput + BigInt(bound.output) * table.dearestOutput;
    if (cost > most) most = cost;
  }
  return chargeOf(most, markupMillionths);
}

/** What one token of the class costs in an attempt with that much input, stand-ins included. */
export function rateOf(tokenClass: TokenClass, price: Price, input: number): PicoDollars {
  return rateTable(price, input).rates[TOKEN_CLASSES.indexOf(tokenClass)] as bigint;
}

interface RateTable {
  /** In the order of TOKEN_CLASSES. */
  readonly rates: readonly PicoDollars[];
  readonly unpriced: ReadonlySet<TokenClass>;
  readonly dearestInput: PicoDollars;
  readonly dearestOutput: PicoDollars;
}

interface TierTable {
  /** The table of attempts with more input tokens than this. */
  readonly above: number;
  readonly table: RateTable;
}

function rateTable(price: Price, input: number): RateTable {
  const tables = rateTables(price);
  let reached = tables[0];
  for (let index = 1; index < tables.length; index++) if ((tables[index] as TierTable).above < input) reached = tables[index];
  return (reached as TierTable).table;
}

/** A price is immutable and serves many attempts: its tables are made once. Shortest first; never empty. */
const made = new WeakMap<Price, readonly TierTable[]>();

function rateTables(price: Price): readonly TierTable[] {
  const known = made.get(price);
  if (known !== undefined) return known;
  const isFree = price.source === "free";
  const tables = [
    { above: -1, table: makeRateTable(price.rates, isFree) },
    ...(price.tiers ?? []).map(({ above, rates }) => ({ above, table: makeRateTable(rates, isFree) })),
  ];
  made.set(price, tables);
  return tables;
}

function makeRateTable(stated: Rates, isFree: boolean): RateTable {
  const dearestStated = dearest(TOKEN_CLASSES, stated) ?? 0n;
  const rates = TOKEN_CLASSES.map(
    (tokenClass) => statedOrStandIn(tokenClass, stated) ?? dearest(sideOf(tokenClass), stated) ?? dearestStated,
  );
  const unpriced = TOKEN_CLASSES.filter((tokenClass) => !isFree && statedOrStandIn(tokenClass, stated) === null);
  const most = (classes: readonly TokenClass[]): PicoDollars =>
    classes.map((tokenClass) => rates[TOKEN_CLASSES.indexOf(tokenClass)] as bigint).reduce((a, b) => (b > a ? b : a), 0n);
  return { rates, unpriced: new Set(unpriced), dearestInput: most(INPUT_CLASSES), dearestOutput: most(OUTPUT_CLASSES) };
}

/** Vendors state no reasoning price where it is that of output, and no cache price where a cached token costs a token. */
function statedOrStandIn(tokenClass: TokenClass, rates: Rates): PicoDollars | null {
  const stated = rates[tokenClass];
  if (stated !== undefined) return stated;
  if (tokenClass === "reasoning") return rates.output ?? null;
  const cached = tokenClass === "cache_read" || tokenClass === "cache_write_5m" || tokenClass === "cache_write_1h";
  return cached ? dearest(INPUT_CLASSES, rates) : null;
}

function sideOf(tokenClass: TokenClass): readonly TokenClass[] {
  return (INPUT_CLASSES as readonly TokenClass[]).includes(tokenClass) ? INPUT_CLASSES : OUTPUT_CLASSES;
}

function dearest(classes: readonly TokenClass[], rates: Rates): PicoDollars | null {
  let most: PicoDollars | null = null;
  for (const tokenClass of classes) {
    const rate = rates[tokenClass];
    if (rate !== undefined && (most === null || rate > most)) most = rate;
  }
  return most;
}

type Rates = Price["rates"];

const NONE: readonly TokenClass[] = [];

/** What passed of an answer whose provider did not say what it used. */
export interface Passed {
  /** Frames that carried output: most providers send a token each. */
  readonly outputFrames: number;
  /** UTF-8 bytes of output. */
  readonly outputBytes: number;
}

/** What a tokenizer counted; null where none did. */
export interface Counted {
  readonly input: number | null;
  readonly output: number | null;
}

export const UNCOUNTED: Counted = { input: null, output: null };

/**
 * Usage as we count it: by the model's tokenizer where that is known, else a token is a frame or three bytes, whichever gives more (English
 * text has about four bytes a token, code and other scripts two to three); never more than the bound. The input is estimated
 * from its bound in bytes alike.
 */
export function countUsage(passed: Passed, bound: TokenBound, by: Counted = UNCOUNTED): Usage {
  const guess = Math.min(Math.max(passed.outputFrames, Math.ceil(passed.outputBytes / BYTES_PER_TOKEN)), passed.outputBytes);
  return counted(Math.min(by.input ?? estimatedInput(bound), bound.input), Math.min(by.output ?? guess, bound.output));
}

/** A usage that was reported before the answer broke off, and what passed since the report: some providers report as they write. */
export function countSince(reported: Usage, since: Passed, bound: TokenBound, by: Counted = UNCOUNTED): Usage {
  const room = Math.max(0, bound.output - outputTokens(reported.tokens));
  const more = Math.min(countUsage(since, bound, by).tokens.output, room);
  if (more === 0) return reported;
  return { tokens: { ...reported.tokens, output: reported.tokens.output + more }, source: "counted" };
}

/** Usage of an answer that was stopped because it went on past its bound: all of that, whatever else the upstream has made. */
export function countAtBound(reported: Usage | null, bound: TokenBound, by: Counted = UNCOUNTED): Usage {
  const { input } = bound;
  const tokens = reported?.tokens ?? { ...NO_TOKENS, input_uncached: Math.min(by.input ?? estimatedInput(bound), input) };
  return { tokens: { ...tokens, output: bound.output, reasoning: 0, audio_output: 0 }, source: "counted" };
}

/**
 * Usage of an attempt that was sent and never answered: its input, and, where the answer would have come in one piece, what the
 * deployment writes in that time.
 */
export function countUnanswered(stream: boolean, elapsedMs: number, tokensPerSecond: number, bound: TokenBound): Usage {
  return counted(estimatedInput(bound), stream ? 0 : writtenIn(elapsedMs, tokensPerSecond, bound));
}

/** Usage of an attempt that a crash cut off: bounds, not estimates, so that what was delivered is never more than what is charged. */
export function boundLost(
  lost: { readonly stream: boolean; readonly mark: number | null; readonly elapsedMs: number; readonly tokensPerSecond: number },
  bound: TokenBound,
): Usage {
  if (lost.mark === null) return counted(bound.input, 0);
  const output = lost.stream ? lost.mark : Math.max(lost.mark, writtenIn(lost.elapsedMs, lost.tokensPerSecond, bound));
  return counted(bound.input, Math.min(output, bound.output));
}

function estimatedInput(bound: TokenBound): number {
  return Math.ceil(bound.input / BYTES_PER_TOKEN);
}

function writtenIn(elapsedMs: number, tokensPerSecond: number, bound: TokenBound): number {
  return Math.min(Math.ceil((Math.max(0, elapsedMs) * tokensPerSecond) / 1000), bound.output);
}

function counted(input: number, output: number): Usage {
  return { tokens: { ...NO_TOKENS, input_uncached: input, output }, source: "counted" };
}

const BYTES_PER_TOKEN = 3;

/** The first step of marks, in tokens, and the largest: a crash overcharges by at most one step. */
export const FIRST_MARK_STEP = 256;
export const LARGEST_MARK_STEP = 4096;

/** The mark to write when `passed` tokens at most have come: a step ahead, never above the output bound. */
export function nextMark(passed: number, step: number, bound: TokenBound): number {
  return Math.min(passed + step, bound.output);
}
