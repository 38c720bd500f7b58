import type { ModelRequest } from "../../../kernel/request.ts";
import type { Deployment } from "../../catalog/index.ts";
import { countableOf } from "./countable.ts";
import { type Encoding, imageTokensOf, knownEncodingOf } from "./count.ts";
import type { Counter } from "./counter.ts";

/** Counts as the tokenizer of a model does, on the counting thread. Each rejects with the problem `overloaded`. */
export interface Tokenizer {
  /** By an upstream's name for a model; null where its tokenizer is not known. */
  encodingOf(upstreamModel: string): Encoding | null;
  /** Tokens of texts as they stood in JSON, between the quotes, each ended by the byte 0xff. */
  count(encoding: Encoding, texts: Buffer): Promise<number>;
  /** The fewest tokens that can spell such texts. */
  fewest(encoding: Encoding, texts: Buffer): Promise<number>;
  /** Tokens of a prompt; null where its model's tokenizer is not known, or a part of it cannot be counted. */
  countPrompt(request: ModelRequest, deployment: Pick<Deployment, "upstreamModel">): Promise<number> | null;
}

export function createTokenizer(counter: Pick<Counter, "count">): Tokenizer {
  return {
    encodingOf: knownEncodingOf,
    count: (encoding, texts) => counter.count({ texts, others: 0, areEscaped: true, encoding }),
    fewest: (encoding, texts) => counter.count({ texts, others: 0, areEscaped: true, encoding, fewest: true }),
    countPrompt(request, { upstreamModel }) {
      const encoding = knownEncodingOf(upstreamModel);
      if (encoding === null || request.body.length > LARGEST_PROMPT_BYTES) return null;
      try {
        return counter.count({ ...countableOf(request.chat(), imageTokensOf(upstreamModel)), encoding });
      } catch {
        // A part that has no rule, or a request that says what our own vocabulary has no word for.
        return null;
      }
    },
  };
}

/** Beyond this a third of the bytes is near enough, and what it takes to find the texts is more than a call should cost. */
const LARGEST_PROMPT_BYTES = 64 * 1024;
