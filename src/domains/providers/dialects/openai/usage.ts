import type { Json, JsonObject } from "../../../../kernel/request.ts";
import { inputTokens, outputTokens, type TokenCounts, type Usage } from "../../../../kernel/tokens.ts";
import { object } from "../read.ts";

/**
 * Splits an OpenAI `usage` object into token classes; null when it is absent or absurd (negative, fractional, missing a
 * total, beyond MAX_REPORTED_TOKENS), because a figure that cannot be true must be counted instead. `prompt_tokens` includes its
 * details and `completion_tokens` its own; a detail that claims more than is left of its total gets what is left, so the
 * classes always sum to the two totals.
 */
export function parseUsage(value: Json | undefined): Usage | null {
  const usage = object(value);
  const prompt = count(usage["prompt_tokens"]);
  const completion = count(usage["completion_tokens"]);
  if (prompt === null || completion === null) return null;
  const promptDetails = object(usage["prompt_tokens_details"]);
  const input = new Total(prompt);
  const cached = count(promptDetails["cached_tokens"]) ?? count(usage["prompt_cache_hit_tokens"]);
  const completionDetails = object(usage["completion_tokens_details"]);
  const thought = count(completionDetails["reasoning_tokens"]) ?? count(usage["reasoning_tokens"]) ?? 0;
  // xAI reports reasoning beside completion_tokens instead of inside it; its total gives that away.
  const isBeside = thought > 0 && count(usage["total_tokens"]) === prompt + completion + thought;
  const output = new Total(isBeside ? completion + thought : completion);
  const cache_read = input.take(cached);
  const cache_write_5m = input.take(count(promptDetails["cache_write_tokens"]));
  const audio_input = input.take(count(promptDetails["audio_tokens"]));
  const image = input.take(count(promptDetails["image_tokens"]));
  const reasoning = output.take(thought);
  const audio_output = output.take(count(completionDetails["audio_tokens"]));
  return {
    source: "reported",
    tokens: {
      input_uncached: input.rest,
      cache_read,
      cache_write_5m,
      cache_write_1h: 0,
      output: output.rest,
      reasoning,
      audio_input,
      audio_output,
      image,
    },
  };
}

/** The same classes as an OpenAI `usage` object. */
export function renderUsage(tokens: TokenCounts): JsonObject {
  const prompt = inputTokens(tokens);
  const completion = outputTokens(tokens);
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: {
      cached_tokens: tokens.cache_read,
      cache_write_tokens: tokens.cache_write_5m + tokens.cache_write_1h,
      audio_tokens: tokens.audio_input,
      image_tokens: tokens.image,
    },
    completion_tokens_details: {
      reasoning_tokens: tokens.reasoning,
      audio_tokens: tokens.audio_output,
      accepted_prediction_tokens: 0,
      rejected_prediction_tokens: 0,
    },
  };
}

/** More than any model takes or gives in one response: beyond it a figure is a fault, not a count. */
const MAX_REPORTED_TOKENS = 1_000_000_000;

function count(value: Json | undefined): number | null {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value <= MAX_REPORTED_TOKENS ? value : null;
}

class Total {
  /** What no detail has claimed. */
  rest: number;

  constructor(tokens: number) {
    this.rest = tokens;
  }

  /** As much of a detail's claim as is left. */
  take(claimed: number | null): number {
    const given = Math.min(claimed ?? 0, this.rest);
    this.rest -= given;
    return given;
  }
}
