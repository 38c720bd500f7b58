/**
 * Money is integer pico-dollars (1e-12 USD): $0.0125 per million tokens is 12,500 pd a token, so no published
 * per-token price is ever rounded. `bigint` across boundaries, `numeric` in storage.
 */
export type PicoDollars = bigint;

const DECIMAL = /^(\d{1,15})(?:\.(\d{1,12}))?$/;

/** Parses a non-negative decimal USD string of at most 12 decimals; null when it is anything else. */
export function parseUsd(text: string): PicoDollars | null {
  const match = DECIMAL.exec(text);
  if (match === null) return null;
  return BigInt((match[1] as string) + (match[2] ?? "").padEnd(12, "0"));
}

/** The exact decimal USD string, without trailing zeros: `1500000000000n` is `"1.5"`. */
export function formatUsd(amount: PicoDollars): string {
  const sign = amount < 0n ? "-" : "";
  const digits = (amount < 0n ? -amount : amount).toString().padStart(13, "0");
  const whole = digits.length - 12;
  let end = digits.length;
  while (end > whole && digits.charCodeAt(end - 1) === ZERO) end--;
  return sign + digits.slice(0, whole) + (end === whole ? "" : `.${digits.slice(whole, end)}`);
}

const ZERO = 48;

/**
 * Parses USD per million tokens into pico-dollars per token. Exact to six decimals (1 pd a token); a finer or
 * malformed figure is null rather than rounded.
 */
export function parseUsdPerMillion(text: string): PicoDollars | null {
  const amount = parseUsd(text);
  if (amount === null || amount % 1_000_000n !== 0n) return null;
  return amount / 1_000_000n;
}

/** The inverse of {@link parseUsdPerMillion}. */
export function formatUsdPerMillion(perToken: PicoDollars): string {
  return formatUsd(perToken * 1_000_000n);
}
