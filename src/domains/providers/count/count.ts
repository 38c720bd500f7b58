import { BETWEEN, type Countable, type ImageTokens } from "./countable.ts";

/** The tokenizers of OpenAI's models. */
export type Encoding = "o200k_base" | "cl100k_base";

/** Tokens of one text. */
export type CountText = (text: string) => number;

/** The encoding of a model; of one that is not known, the newest: other vendors' tokenizers make about as many tokens. */
export function encodingOf(upstreamModel: string): Encoding {
  return knownEncodingOf(upstreamModel) ?? "o200k_base";
}

/** The encoding that a model is known to have (OpenAI's `tiktoken/model.py`); null for other vendors' models. */
export function knownEncodingOf(upstreamModel: string): Encoding | null {
  const name = upstreamModel.slice(upstreamModel.lastIndexOf("/") + 1).replace(/^ft:/, "");
  if (/^(?:gpt-4(?:$|-(?!o|\.))|gpt-3\.5|gpt-35)/.test(name)) return "cl100k_base";
  return /^(?:gpt-(?:4o|4\.|[5-9]|oss)|chatgpt-4o|o[1-9])/.test(name) ? "o200k_base" : null;
}

/**
 * Tokens of an image, by detail: the most that OpenAI's published rule gives a model, which scales an image to at most 8 tiles. gpt-4o-mini is billed
 * 2,833 and 5,667 a tile, the other models 85 and 170.
 */
export function imageTokensOf(upstreamModel: string): ImageTokens {
  const [base, tile] = upstreamModel.includes("4o-mini") ? [2833, 5667] : [85, 170];
  return { low: base, high: base + MAX_TILES * tile };
}

const MAX_TILES = 8;

export async function loadEncoding(encoding: Encoding): Promise<CountText> {
  const { countTokens } =
    encoding === "o200k_base" ? await import("gpt-tokenizer/encoding/o200k_base") : await import("gpt-tokenizer/encoding/cl100k_base");
  // What looks like a control token of the model's is a text of the caller's.
  return (text) => countTokens(text, { disallowedSpecial: NO_SPECIALS });
}

/** Tokens of the texts; beyond COUNTED_BYTES the rest is taken to be as dense. */
export function countTexts({ texts, others, areEscaped = false }: Countable, countText: CountText): number {
  const counted = texts.subarray(0, COUNTED_BYTES);
  let tokens = 0;
  for (const text of textsIn(counted, areEscaped)) tokens += countLongRuns(text, countText);
  return others + Math.ceil(tokens * (texts.length / Math.max(1, counted.length)));
}

/** The fewest tokens that the texts can be, as far as COUNTED_BYTES. */
export function fewestOf({ texts, areEscaped = false }: Countable, fewest: CountText): number {
  return textsIn(texts.subarray(0, COUNTED_BYTES), areEscaped).reduce((sum, text) => sum + fewest(text), 0);
}

function textsIn(bytes: Buffer, areEscaped: boolean): string[] {
  const texts: string[] = [];
  for (let from = 0; from < bytes.length;) {
    const end = bytes.indexOf(BETWEEN, from);
    const to = end === -1 ? bytes.length : end;
    const text = bytes.toString("utf8", from, to);
    texts.push(areEscaped ? unescaped(text) : text);
    from = to + 1;
  }
  return texts;
}

/** One that was cut inside an escape loses what follows the last whole one. */
function unescaped(text: string): string {
  for (const end of [text.length, text.lastIndexOf("\\")])
    try {
      return JSON.parse(`"${text.slice(0, end)}"`) as string;
    } catch {}
  return text;
}

/** Merging is quadratic in the length of a word, and of a gap between words: 200 kB of spaces took 21 s in one piece. Nobody writes such. */
function countLongRuns(text: string, countText: CountText): number {
  let tokens = 0;
  let from = 0;
  for (const { 0: run, index } of text.matchAll(LONG_RUN)) {
    tokens += countText(text.slice(from, index));
    for (let at = 0; at < run.length; at += LONGEST_RUN) tokens += countText(run.slice(at, at + LONGEST_RUN));
    from = index + run.length;
  }
  return tokens + countText(text.slice(from));
}

/** Characters. */
const LONGEST_RUN = 256;
const LONG_RUN = new RegExp(`\\S{${LONGEST_RUN + 1},}|\\s{${LONGEST_RUN + 1},}`, "g");
/** English takes 60 ms a MiB, the worst of random letters and ideographs 1.6 s. */
const COUNTED_BYTES = 1024 * 1024;
const NO_SPECIALS = new Set<string>();
