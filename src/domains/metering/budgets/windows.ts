import { Temporal } from "temporal-polyfill";
import { BUCKETS, LONGEST_ROLLING_SECONDS, type WindowKind, type WindowRule } from "./model.ts";

/** [start, end) in ms since the epoch; null: never. A rolling window ends, and the next begins, when its oldest bucket leaves. */
export interface Window {
  readonly start: number;
  readonly end: number | null;
}

/** The window that is in force at a moment, ms since the epoch. */
export function windowAt(rule: WindowRule, at: number): Window {
  if (rule.rollingSeconds === null) return spanAt(rule, at);
  const { start, end } = spanAt(rule, at);
  return { start: start - rule.rollingSeconds * 1000, end };
}

/** What one balance of the database is about: the window itself, or one bucket of a rolling window. */
export function spanAt({ window, rollingSeconds, timeZone }: WindowRule, at: number): Window {
  if (rollingSeconds !== null) {
    const length = (rollingSeconds * 1000) / BUCKETS;
    const start = Math.floor(at / length) * length;
    return { start, end: start + length };
  }
  return window === "total" ? TOTAL : calendarAt(window, timeZone, at);
}

/** The spans of all balances from the one at `from` to the one at `to`, and the next: clocks differ, and time goes on meanwhile. */
export function spansBetween(rule: WindowRule, from: number, to: number): Window[] {
  const spans: Window[] = [];
  for (let at: number | null = from; at !== null;) {
    const span = spanAt(rule, at);
    spans.push(span);
    at = span.start > to ? null : span.end;
  }
  return spans;
}

/** The window that alerts are told once for: of a rolling one, the whole duration in which it is, counted from 1970. */
export function alertWindowStart(rule: WindowRule, at: number): number {
  if (rule.rollingSeconds === null) return spanAt(rule, at).start;
  const length = rule.rollingSeconds * 1000;
  return Math.floor(at / length) * length;
}

const TOTAL: Window = { start: 0, end: null };

/** Days of 23 and 25 hours and weeks from Monday included. */
function calendarAt(window: Exclude<WindowKind, "total">, timeZone: string, at: number): Window {
  const today = Temporal.Instant.fromEpochMilliseconds(at).toZonedDateTimeISO(timeZone).toPlainDate();
  const [first, next] = calendarDays(window, today);
  return { start: startOfDay(first, timeZone), end: startOfDay(next, timeZone) };
}

function calendarDays(window: Exclude<WindowKind, "total">, today: Temporal.PlainDate): [Temporal.PlainDate, Temporal.PlainDate] {
  switch (window) {
    case "day":
      return [today, today.add({ days: 1 })];
    case "week": {
      const monday = today.subtract({ days: today.dayOfWeek - 1 });
      return [monday, monday.add({ days: 7 })];
    }
    case "month": {
      const first = today.with({ day: 1 });
      return [first, first.add({ months: 1 })];
    }
    case "rolling":
      throw new Error("a rolling window without its length");
    default:
      return window satisfies never;
  }
}

function startOfDay(day: Temporal.PlainDate, timeZone: string): number {
  return day.toZonedDateTime(timeZone).epochMilliseconds;
}

/** `day`, `rolling_36h`, …: as users write and read it. */
export function parseWindow(text: string): Pick<WindowRule, "window" | "rollingSeconds"> | null {
  if (text === "day" || text === "week" || text === "month" || text === "total") return { window: text, rollingSeconds: null };
  const match = /^rolling(?:_([1-9]\d{0,4})([hd]))?$/.exec(text);
  if (match === null) return null;
  const rollingSeconds = Number(match[1] ?? 24) * (match[2] === "d" ? 86_400 : 3_600);
  return rollingSeconds > LONGEST_ROLLING_SECONDS ? null : { window: "rolling", rollingSeconds };
}

export function formatWindow({ window, rollingSeconds }: Pick<WindowRule, "window" | "rollingSeconds">): string {
  if (rollingSeconds === null) return window;
  const hours = rollingSeconds / 3_600;
  return hours > 24 && hours % 24 === 0 ? `rolling_${hours / 24}d` : hours === 24 ? "rolling" : `rolling_${hours}h`;
}
