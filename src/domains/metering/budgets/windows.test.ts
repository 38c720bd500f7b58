import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { withDatabases } from "../../../../test/support/postgres.ts";
import { BUCKETS, LONGEST_ROLLING_SECONDS, type WindowRule } from "./model.ts";
import { formatWindow, parseWindow, spanAt, spansBetween, windowAt } from "./windows.ts";

const HOUR = 3_600_000;
const rule = (window: WindowRule["window"], timeZone = "UTC", rollingSeconds: number | null = null): WindowRule => ({
  window,
  timeZone,
  rollingSeconds,
});

/** Whole hours and odd minutes off, clocks set at midnight, at 24:00, by half an hour, never. */
const ZONES = [
  "UTC",
  "Europe/Paris",
  "America/New_York",
  "America/Havana",
  "America/Santiago",
  "Atlantic/Azores",
  "Asia/Beirut",
  "Asia/Kathmandu",
  "Australia/Lord_Howe",
  "Pacific/Apia",
  "Pacific/Chatham",
  "Africa/Cairo",
];

const anyZone = fc.constantFrom(...ZONES);
const anyCalendar = fc.constantFrom<"day" | "week" | "month">("day", "week", "month");
const anyInstant = fc.integer({ min: Date.UTC(2020, 0), max: Date.UTC(2027, 0) });

test("a day has 23 or 25 hours when clocks are set, a week begins on Monday, a month on its first", () => {
  const lengths = (at: string, zone: string) => {
    const { start, end } = spanAt(rule("day", zone), Date.parse(at));
    return [new Date(start).toISOString(), ((end as number) - start) / HOUR];
  };
  assert.deepEqual(lengths("2026-03-29T12:00:00Z", "Europe/Paris"), ["2026-03-28T23:00:00.000Z", 23]);
  assert.deepEqual(lengths("2026-10-25T12:00:00Z", "Europe/Paris"), ["2026-10-24T22:00:00.000Z", 25]);
  // In Havana the hour from midnight comes twice, and both are of the same day.
  assert.deepEqual(lengths("2026-11-01T04:30:00Z", "America/Havana"), ["2026-11-01T04:00:00.000Z", 25]);
  assert.deepEqual(lengths("2026-11-01T05:30:00Z", "America/Havana"), ["2026-11-01T04:00:00.000Z", 25]);
  const week = spanAt(rule("week"), Date.parse("2026-11-22T10:00:00Z"));
  assert.deepEqual([week.start, week.end], [Date.parse("2026-11-16T00:00:00Z"), Date.parse("2026-11-23T00:00:00Z")]);
  const month = spanAt(rule("month", "Pacific/Apia"), Date.parse("2026-11-30T10:59:59.999Z"));
  assert.deepEqual([month.start, month.end], [Date.parse("2026-10-31T11:00:00Z"), Date.parse("2026-11-30T11:00:00Z")]);
  assert.deepEqual(spanAt(rule("total"), 5), { start: 0, end: null });
});

test("every moment lies in exactly one window, and the next begins where one ends", () => {
  const anyRule = fc.oneof(
    fc.record({ window: anyCalendar, timeZone: anyZone, rollingSeconds: fc.constant(null) }),
    fc.integer({ min: 1, max: LONGEST_ROLLING_SECONDS / BUCKETS }).map((step) => rule("rolling", "UTC", step * BUCKETS)),
  );
  fc.assert(
    fc.property(anyRule, anyInstant, (of, at) => {
      const { start, end } = spanAt(of, at);
      assert.ok(start <= at && at < (end as number));
      assert.deepEqual(spanAt(of, start), { start, end });
      assert.deepEqual(spanAt(of, (end as number) - 1), { start, end });
      assert.equal(spanAt(of, end as number).start, end);
      const spans = spansBetween(of, at, at + 1);
      assert.equal(spans[0]?.start, start);
      for (const [index, span] of spans.entries()) if (index > 0) assert.equal(span.start, spans[index - 1]?.end);
      assert.ok((spans.at(-1)?.start as number) > at);
    }),
    { numRuns: 2_000 },
  );
});

test("a bucket of a rolling window counts until all of it is outside", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100_000 }), anyInstant, fc.integer({ min: 0, max: 30 }), (step, now, back) => {
      const of = rule("rolling", "UTC", step * BUCKETS);
      const bucket = spanAt(of, now - back * step * 1000);
      const window = windowAt(of, now);
      const isInside = bucket.start >= window.start && bucket.start < (window.end as number);
      assert.equal(isInside, (bucket.end as number) > now - step * BUCKETS * 1000);
    }),
    { numRuns: 2_000 },
  );
});

test("PostgreSQL's calendar has the same windows: each begins with the first moment of its day, week or month", (t) =>
  withDatabases(t, async (database, t) => {
    const cases = fc.sample(fc.record({ window: anyCalendar, timeZone: anyZone, at: anyInstant }), { numRuns: 3_000, seed: 7 });
    const list = cases.map(({ window, timeZone, at }) => {
      const { start, end } = spanAt(rule(window, timeZone), at);
      return { unit: window, zone: timeZone, at: iso(at), start: iso(start), end: iso(end as number) };
    });
    const different = await database.asSuperuser((client) =>
      client.query(
        `WITH c AS (SELECT * FROM json_to_recordset($1) AS c(unit text, zone text, at timestamptz, start timestamptz, "end" timestamptz))
         SELECT * FROM c WHERE date_trunc(unit, start AT TIME ZONE zone) <> date_trunc(unit, at AT TIME ZONE zone)
           OR date_trunc(unit, (start - interval '1 ms') AT TIME ZONE zone) >= date_trunc(unit, at AT TIME ZONE zone)
           OR date_trunc(unit, ("end" - interval '1 ms') AT TIME ZONE zone) <> date_trunc(unit, at AT TIME ZONE zone)
           OR date_trunc(unit, "end" AT TIME ZONE zone) <= date_trunc(unit, at AT TIME ZONE zone)`,
        [JSON.stringify(list)],
      ),
    );
    assert.deepEqual(different.rows, []);
    t.diagnostic(`${list.length} windows in ${ZONES.length} zones`);
  }));

test("a window is written as it is read", () => {
  for (const text of ["day", "week", "month", "total", "rolling", "rolling_1h", "rolling_36h", "rolling_7d", "rolling_366d"])
    assert.equal(formatWindow(parseWindow(text) as WindowRule), text);
  assert.equal(formatWindow(parseWindow("rolling_48h") as WindowRule), "rolling_2d");
  assert.equal(formatWindow(parseWindow("rolling_1d") as WindowRule), "rolling");
  for (const text of ["", "year", "rolling_", "rolling_0h", "rolling_01h", "rolling_367d", "rolling_9999d", "rolling_5m", "Day"])
    assert.equal(parseWindow(text), null, text);
});

function iso(at: number): string {
  return new Date(at).toISOString();
}
