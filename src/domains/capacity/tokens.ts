import type { ModelRequest } from "../../kernel/request.ts";
import type { TokenBound } from "../../kernel/tokens.ts";

/**
 * How many tokens a request's input is taken for before its provider has counted it: what its model's tokenizer counted, where it did. Else a third of the
 * request's bytes, or of the provider's bound on its input where that is less: bytes of an image are no measure of its tokens, and a
 * bound on schemas or on the template is no measure of a short text.
 */
export function inputTokens(request: ModelRequest, bound: TokenBound, counted: number | null): number {
  if (counted !== null) return Math.min(counted, bound.input);
  return Math.ceil(Math.min(request.body.length, bound.input) / BYTES_PER_TOKEN);
}

export const BYTES_PER_TOKEN = 3;

/** The count, or null where it fails or takes longer than a call may wait for what is corrected at its end anyway. */
export async function countedInTime(count: Promise<number>): Promise<number | null> {
  const { promise: late, resolve } = Promise.withResolvers<null>();
  const timer = setTimeout(resolve, COUNT_WAIT_MS, null);
  const counted = await Promise.race([count.catch(() => null), late]);
  clearTimeout(timer);
  return counted;
}

/** A count takes 0.2 ms, 0.4 s where the tokenizer must first be loaded. */
const COUNT_WAIT_MS = 50;

/** How many tokens a key's calls of a model have answered with of late. */
export class OutputMeans {
  readonly #means = new Map<string, number>();

  /** What a call is expected to answer with; `most` is what it may. */
  expect(key: string, most: number): number {
    return Math.min(most, Math.ceil(this.#means.get(key) ?? FIRST_GUESS_TOKENS));
  }

  observe(key: string, tokens: number): void {
    const mean = this.#means.get(key);
    this.#means.delete(key);
    this.#means.set(key, mean === undefined ? tokens : mean + (tokens - mean) * NEWEST_WEIGHT);
    if (this.#means.size > MAX_MEANS) this.#means.delete(this.#means.keys().next().value as string);
  }
}

const FIRST_GUESS_TOKENS = 256;
const NEWEST_WEIGHT = 1 / 8;
/** Pairs of key and model; of one that is forgotten the first guess holds again. */
const MAX_MEANS = 20_000;
