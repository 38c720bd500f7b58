import assert from "node:assert/strict";
import { test } from "node:test";
import { anthropicLimitHeaders } from "../anthropic/limits.ts";
import { openaiLimitHeaders } from "./limits.ts";

const NOW = Date.parse("2026-01-31T23:59:30.250Z");

test("OpenAI's headers say a duration as Go does, never shorter than it is; a dimension without a limit has none", () => {
  const resets = [
    [0, "0s"],
    [0.0001, "1ms"],
    [0.02, "20ms"],
    [1, "1s"],
    [1.5, "1.5s"],
    [59.9999, "1m0s"],
    [72, "1m12s"],
    [3_600.25, "60m0.25s"],
  ] as const;
  for (const [resetSeconds, told] of resets)
    assert.deepEqual(openaiLimitHeaders({ requests: { limit: 60, remaining: 3, resetSeconds }, tokens: null }), {
      "x-ratelimit-limit-requests": "60",
      "x-ratelimit-remaining-requests": "3",
      "x-ratelimit-reset-requests": told,
    });
  assert.deepEqual(openaiLimitHeaders({ requests: null, tokens: null }), {});
});

test("Anthropic's headers say an instant in whole seconds, never sooner than it is", () => {
  const headers = anthropicLimitHeaders({ requests: null, tokens: { limit: 1_000, remaining: 0, resetSeconds: 30 } }, NOW);
  const told = { limit: "1000", remaining: "0", reset: "2026-02-01T00:00:01Z" };
  assert.deepEqual(
    headers,
    Object.fromEntries(
      ["tokens", "input-tokens", "output-tokens"].flatMap((name) =>
        Object.entries(told).map(([field, value]) => [`anthropic-ratelimit-${name}-${field}`, value]),
      ),
    ),
  );
  assert.deepEqual(anthropicLimitHeaders({ requests: null, tokens: null }, NOW), {});
});
