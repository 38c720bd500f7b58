import { BETWEEN, type Countable } from "./countable.ts";

/** The tokenizers of OpenAI's models. */
export type Encoding = "o200k_base" | "cl100k_base";

/** Tokens of one text. */
export type CountText = (text: string) => number;

/** The encoding of a model; of one that is not known, the newest: other vendors' tokenizers make about as many tokens. */
export function encodingOf(upstreamModel: string): Encoding {
  const name = upstreamModel.slice(upstreamModel.lastIndexOf("/") + 1);
  return /^(?:gpt-4(?:$|-(?!o|\.))|gpt-3\.5|gpt-35)/.test(name) ? "cl100k_base" : "o200k_base";
}

export async function loadEncoding(encoding: Encoding): Promise<CountText> {
  const { countTokens } =
    encoding === "o200k_base" ? await import("gpt-tokenizer/encoding/o200k_base") : await import("gpt-tokenizer/encoding/cl100k_base");
  // What looks like a control token of the model's is a text of the caller's.
  return (text) => countTokens(text, { disallowedSpecial: NO_SPECIALS });
}

/** Tokens of the texts; beyond COUNTED_BYTES the rest is taken to be as dense. */
export function countTexts({ texts, others }: Countable, countText: CountText): number {
  const counted = texts.subarray(0, COUNTED_BYTES);
  let tokens = 0;
  for (let from = 0; from < counted.length;) {
    const end = counted.indexOf(BETWEEN, from);
    const to = end === -1 ? counted.length : end;
    tokens += countLongRuns(counted.toString("utf8", from, to), countText);
    from = to + 1;
  }
  return others + Math.ceil(tokens * (texts.length / Math.max(1, counted.length)));
}

/** Merging is quadratic in the length of what stands between two spaces: nobody writes such words, and a hostile one would take minutes. */
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
const LONG_RUN = new RegExp(`\\S{${LONGEST_RUN + 1},}`, "g");
const COUNTED_BYTES = 4 * 1024 * 1024;
const NO_SPECIALS: ReadonlySet<string> = new Set();
