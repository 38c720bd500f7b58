import type { Json, JsonObject } from "../../../../kernel/request.ts";
import { NO_TOKENS, inputTokens, outputTokens, type TokenCounts, type Usage } from "../../../../kernel/tokens.ts";
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
  const input = partition(prompt, [
    count(promptDetails["cached_tokens"]) ?? count(usage["prompt_cache_hit_tokens"]) ?? 0,
    count(promptDetails["cache_write_tokens"]) ?? 0,
    count(promptDetails["audio_tokens"]) ?? 0,
    count(promptDetails["image_tokens"]) ?? 0,
  ]);
  const completionDetails = object(usage["completion_tokens_details"]);
  const reasoning = count(completionDetails["reasoning_tokens"]) ?? count(usage["reasoning_tokens"]) ?? 0;
  // xAI reports reasoning beside completion_tokens instead of inside it; its total gives that away.
  const isBeside = reasoning > 0 && count(usage["total_tokens"]) === prompt + completion + reasoning;
  const output = partition(isBeside ? completion + reasoning : completion, [reasoning, count(completionDetails["audio_tokens"]) ?? 0]);
  return {
    source: "reported",
    tokens: {
      ...NO_TOKENS,
      input_uncached: input.rest,
      cache_read: input.parts[0] ?? 0,
      cache_write_5m: input.parts[1] ?? 0,
      audio_input: input.parts[2] ?? 0,
      image: input.parts[3] ?? 0,
      output: output.rest,
      reasoning: output.parts[0] ?? 0,
      audio_output: output.parts[1] ?? 0,
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

function partition(total: number, wanted: readonly number[]): { rest: number; parts: number[] } {
  let rest = total;
  const parts = wanted.map((amount) => {
    const given = Math.min(amount, rest);
    rest -= given;
    return given;
  });
  return { rest, parts };
}
