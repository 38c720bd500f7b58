import { formatUsd, parseUsd } from "../../kernel/money.ts";

/**
 * What a tenant pays of each price, in millionths: `"1.2"` is 1,200,000. Below 1 it is a rebate. Null for what is no decimal,
 * finer than a millionth, or out of bounds: at 0 no budget would ever be spent.
 */
export function parseMarkup(text: string): number | null {
  const trillionths = parseUsd(text);
  if (trillionths === null || trillionths % MILLION !== 0n) return null;
  const millionths = Number(trillionths / MILLION);
  return millionths >= LEAST_MILLIONTHS && millionths <= MOST_MILLIONTHS ? millionths : null;
}

/** The inverse of {@link parseMarkup}. */
export function formatMarkup(millionths: number): string {
  return formatUsd(BigInt(millionths) * MILLION);
}

const MILLION = 1_000_000n;
const LEAST_MILLIONTHS = 10_000;
const MOST_MILLIONTHS = 100_000_000;
