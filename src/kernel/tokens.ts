/**
 * The classes a provider's usage is split into, once, at the provider boundary. They are disjoint: `input_uncached`
 * excludes cache reads and writes, `output` excludes `reasoning` and audio, `input_uncached` excludes audio and images.
 */
export const TOKEN_CLASSES = [
  "input_uncached",
  "cache_read",
  "cache_write_5m",
  "cache_write_1h",
  "output",
  "reasoning",
  "audio_input",
  "audio_output",
  "image",
] as const;

export type TokenClass = (typeof TOKEN_CLASSES)[number];
export type TokenCounts = Readonly<Record<TokenClass, number>>;

export const NO_TOKENS: TokenCounts = {
  input_uncached: 0,
  cache_read: 0,
  cache_write_5m: 0,
  cache_write_1h: 0,
  output: 0,
  reasoning: 0,
  audio_input: 0,
  audio_output: 0,
  image: 0,
};

/** The classes that belong to what was sent; the others belong to what came back. */
export const INPUT_CLASSES = [
  "input_uncached",
  "cache_read",
  "cache_write_5m",
  "cache_write_1h",
  "audio_input",
  "image",
] as const satisfies readonly TokenClass[];
export const OUTPUT_CLASSES = ["output", "reasoning", "audio_output"] as const satisfies readonly TokenClass[];

export function inputTokens(counts: TokenCounts): number {
  return counts.input_uncached + counts.cache_read + counts.cache_write_5m + counts.cache_write_1h + counts.audio_input + counts.image;
}

export function outputTokens(counts: TokenCounts): number {
  return counts.output + counts.reasoning + counts.audio_output;
}

/** What one response used. `reported`: the provider said so; `counted`: we counted what passed. */
export interface Usage {
  readonly tokens: TokenCounts;
  readonly source: "reported" | "counted";
}

/** An upper bound of what one request can use, in tokens. `proof` where the tokenizer makes it one, else `rule`. */
export interface TokenBound {
  readonly input: number;
  readonly output: number;
  readonly certainty: "proof" | "rule";
}

/** A provider's bound on one dispatch, and what of its output a maximum can lower: `answers` times `each`. */
export interface RequestBound extends TokenBound {
  /** How many answers are asked for at once. */
  readonly answers: number;
  /** The most tokens of one answer: the caller's maximum, else the model's. */
  readonly each: number;
  /** Whether it is the caller's. */
  readonly isStated: boolean;
}
