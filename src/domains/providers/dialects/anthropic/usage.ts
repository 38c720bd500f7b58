import type { Json, JsonObject } from "../../../../kernel/request.ts";
import { NO_TOKENS, type TokenCounts, type Usage } from "../../../../kernel/tokens.ts";
import { object } from "../read.ts";

/**
 * Splits an Anthropic `usage` object into token classes; null when it is absent or absurd (negative, fractional, missing a
 * total, beyond MAX_REPORTED_TOKENS), because a figure that cannot be true must be counted instead. `input_tokens` excludes
 * what the cache read and wrote; `output_tokens` includes thinking. A detail that claims more than its total gets the total.
 */
export function parseUsage(value: Json | undefined): Usage | null {
  const usage = object(value);
  const input = count(usage["input_tokens"]);
  const output = count(usage["output_tokens"]);
  const read = count(usage["cache_read_input_tokens"] ?? 0);
  const byTtl = object(usage["cache_creation"]);
  const hour = count(byTtl["ephemeral_1h_input_tokens"] ?? 0);
  const written = count(usage["cache_creation_input_tokens"] ?? sum(byTtl));
  if (input === null || output === null || read === null || written === null || hour === null) return null;
  const thinking = count(object(usage["output_tokens_details"])["thinking_tokens"]) ?? 0;
  const reasoning = Math.min(thinking, output);
  const hourWritten = Math.min(hour, written);
  return {
    source: "reported",
    tokens: {
      ...NO_TOKENS,
      input_uncached: input,
      cache_read: read,
      cache_write_1h: hourWritten,
      cache_write_5m: written - hourWritten,
      output: output - reasoning,
      reasoning,
    },
  };
}

/**
 * What a stream has reported so far: its figures are cumulative, and an event names only those that changed
 * (`MessageDeltaUsage` of the SDK's messages.d.ts; its lib/MessageStream replaces likewise).
 */
export function mergeUsage(before: JsonObject, reported: Json | undefined): JsonObject {
  const changed = Object.entries(object(reported)).filter(([, value]) => value !== null);
  return { ...before, ...Object.fromEntries(changed) };
}

/** The same classes as the `usage` of a `Message`; what Anthropic alone could know is null. */
export function renderUsage(tokens: TokenCounts): JsonObject {
  return {
    ...renderDeltaUsage(tokens),
    cache_creation: { ephemeral_1h_input_tokens: tokens.cache_write_1h, ephemeral_5m_input_tokens: tokens.cache_write_5m },
    inference_geo: null,
    service_tier: null,
    speed: null,
  };
}

/** The same classes as the `usage` of a `message_delta`. */
export function renderDeltaUsage(tokens: TokenCounts): JsonObject {
  return {
    input_tokens: tokens.input_uncached + tokens.audio_input + tokens.image,
    cache_creation_input_tokens: tokens.cache_write_5m + tokens.cache_write_1h,
    cache_read_input_tokens: tokens.cache_read,
    output_tokens: tokens.output + tokens.reasoning + tokens.audio_output,
    output_tokens_details: { thinking_tokens: tokens.reasoning },
    server_tool_use: null,
  };
}

/** More than any model takes or gives in one response: beyond it a figure is a fault, not a count. */
const MAX_REPORTED_TOKENS = 1_000_000_000;

function count(value: Json | undefined): number | null {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value <= MAX_REPORTED_TOKENS ? value : null;
}

function sum(byTtl: JsonObject): number {
  return (count(byTtl["ephemeral_1h_input_tokens"]) ?? 0) + (count(byTtl["ephemeral_5m_input_tokens"]) ?? 0);
}
