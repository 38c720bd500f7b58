import type { Json, JsonObject } from "../../../kernel/request.ts";

/**
 * The value that JSON text says, to be written again by JSON.stringify with every number as it was spelt: `12345678901234567890`,
 * `1e999` and `0.10` come out as they went in. Not for reading: numbers in it are opaque. The text must be valid JSON.
 */
export function exactJson(text: string): Json {
  return JSON.parse(text, (_key, value: unknown, context?: { readonly source?: string }) =>
    typeof value === "number" && context?.source !== undefined ? rawJSON(context.source) : value,
  ) as Json;
}

/**
 * Whether a number of the parsed value has more digits than a double is sure to keep: JSON.stringify may not write what was sent.
 * (A fraction that rounds to a shorter one is not told.)
 */
export function hasInexactNumber(value: Json | undefined): boolean {
  if (typeof value === "number") return !Number.isFinite(value) || String(value).replace(/\D/g, "").length > EXACT_DIGITS;
  if (typeof value !== "object" || value === null) return false;
  return Object.values(value).some((child) => hasInexactNumber(child as Json));
}

/** Decimal digits that every double keeps. */
const EXACT_DIGITS = 15;

/** What lies at a caller's path (`tools[0].function.parameters`) in a value that `exactJson` made. */
export function exactAt(value: Json, path: string): Json | undefined {
  let found: Json | undefined = value;
  for (const step of path.match(/\w+/g) ?? []) found = (found as JsonObject | undefined)?.[step];
  return found;
}

/** ECMAScript's JSON.rawJSON and the reviver's third argument: in Node 24, not yet in TypeScript's `es2024` library. */
const { rawJSON } = JSON as unknown as { readonly rawJSON: (source: string) => unknown };
