/** LiteLLM's `os.environ/NAME`: the name, or null for any other text. */
export function variableOf(text: string): string | null {
  return /^os\.environ\/([A-Za-z_][A-Za-z0-9_]*)$/.exec(text)?.[1] ?? null;
}

/** A text as `apply` takes it: `${NAME}` for LiteLLM's `os.environ/NAME`, anything else as it is. */
export function reference(text: string): string {
  const name = variableOf(text);
  return name === null ? text.replaceAll("${", "$${") : `\${${name}}`;
}

/** A cost per token as USD per million tokens, exactly; null where it is no such number. */
export function perMillion(cost: unknown): string | null {
  const match = /^(\d*)\.?(\d*)(?:e([+-]?\d{1,2}))?$/i.exec(String(cost));
  if (match === null || !["number", "string"].includes(typeof cost) || !/\d/.test(String(cost))) return null;
  const [, whole = "", fraction = "", exponent = "0"] = match;
  const shift = Number(exponent) + 6;
  const digits = whole + fraction;
  const point = whole.length + shift;
  const padded = point <= 0 ? "0".repeat(1 - point) + digits : digits.padEnd(point, "0");
  const at = Math.max(point, 1);
  const rest = padded.slice(at).replace(/0+$/, "");
  return padded.slice(0, at).replace(/^0+(?=\d)/, "") + (rest === "" ? "" : `.${rest}`);
}

/** `30d`, `12h`, `1mo` as a budget's window; null where there is none like it. */
export function windowOf(duration: unknown): string | null {
  if (duration === undefined || duration === null) return "total";
  if (typeof duration !== "string") return null;
  const [, count, unit] = /^(\d{1,4})(h|d|mo)$/.exec(duration) ?? [];
  if (count === undefined || Number(count) < 1) return null;
  if (unit === "mo") return count === "1" ? "month" : null;
  return `rolling_${Number(count)}${unit}`;
}

/** Seconds as whole milliseconds within what a deployment takes; null beyond. */
export function milliseconds(seconds: unknown): number | null {
  const value = Math.round(Number(seconds) * 1000);
  return typeof seconds === "number" && value >= 1 && value <= 86_400_000 ? value : null;
}

/** A whole number from 1 to `max`; null for anything else. */
export function wholeNumber(value: unknown, max: number): number | null {
  return typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= max ? value : null;
}

/** What a resource can be called: other characters become `-`. */
export function nameFrom(text: string): string {
  return (
    text
      .replaceAll(/[^A-Za-z0-9._-]+/g, "-")
      .replace(/^[^A-Za-z0-9]+/, "")
      .slice(0, 80) || "x"
  );
}

/** The name itself, or with the first number that makes it a new one. */
export function unused(name: string, used: { has(name: string): boolean }): string {
  let free = name;
  for (let number = 2; used.has(free); number++) free = `${name}-${number}`;
  return free;
}
