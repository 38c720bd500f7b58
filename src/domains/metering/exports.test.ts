import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import type { ProjectId, TenantId } from "../../kernel/ids.ts";
import { parseUsd } from "../../kernel/money.ts";
import { Problem } from "../../kernel/problem.ts";
import type { Route } from "../../kernel/route.ts";
import type { Database } from "../../storage/database/index.ts";
import { type TestDatabase, withDatabases } from "../../../test/support/postgres.ts";
import { type ExportFormat, inert } from "./exports.ts";
import { factsOf, newId } from "./testing/facts.ts";
import { readCsv } from "./testing/csv.ts";
import { meteringOn, openTestJournal, temporaryDirectory, TestKeyrings } from "./testing/world.ts";

const NOON = 1_782_907_200;
const SPAN = { start_time: NOON - 100, end_time: NOON + 100_000 };

async function world(t: TestContext, database: TestDatabase) {
  const journal = await openTestJournal(await temporaryDirectory(t));
  const opened = await database.open();
  const metering = meteringOn(journal, opened, new TestKeyrings());
  await metering.recover();
  t.after(async () => {
    await metering.close();
    await journal.close();
  });
  return { metering, ...exporters(opened, metering.routes as unknown as readonly Route[]) };
}

type Taken = (text: string) => Promise<void>;

/** Exports as the route runner makes them. */
function exporters(database: Database, routes: readonly Route[]) {
  const run = async (id: string, tenant: TenantId, project: ProjectId | null, query: object, take: Taken): Promise<void> => {
    const route = routes.find((candidate) => candidate.id === id) as Route;
    await database.forTenant(tenant, async (transaction) => {
      const { download } = await route.handler({
        allowed: { tenant, project },
        transaction,
        params: {},
        query: route.query.parse(query),
        body: undefined,
        ifMatch: null,
      });
      assert.ok(route.downloads?.includes(download?.contentType ?? ""));
      await download?.write(take);
    });
  };
  const whole = async (id: string, tenant: TenantId, project: ProjectId | null, query: object): Promise<string> => {
    let text = "";
    await run(id, tenant, project, { ...SPAN, ...query }, async (piece) => void (text += piece));
    return text;
  };
  return {
    run,
    ofTenant: (tenant: TenantId, format: ExportFormat, query: object = {}, project: ProjectId | null = null) =>
      whole("usage.export", tenant, project, { ...query, format }),
    ofAll: (format: ExportFormat, query: object = {}) => whole("platform_usage.export", newId(), null, { ...query, format }),
  };
}

const lines = (jsonl: string) =>
  jsonl
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Record<string, string>);
const sum = (amounts: readonly (string | undefined)[]) =>
  amounts.reduce((total, amount) => {
    const parsed = parseUsd(amount ?? "");
    assert.ok(parsed !== null, `'${amount}' is no exact amount`);
    return total + parsed;
  }, 0n);

const tokens = fc.nat(3_000_000);
const anyCall = fc.record({
  markupMillionths: fc.constantFrom(1_000_000, 1_234_567, 999_999),
  used: fc.record({ input_uncached: tokens, cache_read: tokens, output: tokens, reasoning: tokens, image: tokens }),
  feature: fc.string({ unit: "binary", minLength: 1, maxLength: 20 }),
  user: fc.option(fc.string({ unit: "binary", maxLength: 20 })),
  after: fc.nat(90_000),
});

test("Σ of the usage rows is Σ of the ledger is Σ of every export, to the pico-dollar, and each export says of a row the same", (t) =>
  withDatabases(t, async (database, t) => {
    const { metering, ofTenant, ofAll } = await world(t, database);
    const calls = fc.sample(anyCall, { numRuns: 120, seed: 5 });
    const tenants = [newId<TenantId>(), newId<TenantId>()];
    for (const [index, { markupMillionths, used, feature, user, after }] of calls.entries())
      await metering.call(
        { tenant: tenants[index % 2] as TenantId, startedAt: (NOON + after) * 1000, markupMillionths, feature, user, region: "eu-1" },
        used,
      );
    await metering.flush();
    const [inDatabase] = await database.asSuperuser(async (client) => {
      const { rows } = await client.query<{ rows: string; ledger: string }>(
        "SELECT (SELECT sum(charge) FROM usage_rows)::text AS rows, (SELECT sum(debit_spend) FROM ledger_entries)::text AS ledger",
      );
      return rows;
    });
    assert.equal(inDatabase?.rows, inDatabase?.ledger);
    const ledger = BigInt(inDatabase?.ledger ?? "");
    assert.ok(ledger > 0n);

    const jsonl = lines(await ofAll("jsonl"));
    const csv = readCsv(await ofAll("csv"));
    const focus = readCsv(await ofAll("focus"));
    assert.deepEqual([jsonl.length, csv.length, focus.length], [120, 120, 120]);
    for (const amounts of [jsonl.map((row) => row["charge"]), csv.map((row) => row["charge"])]) assert.equal(sum(amounts), ledger);
    for (const column of ["BilledCost", "EffectiveCost", "ContractedCost", "ListCost"])
      assert.equal(sum(focus.map((row) => row[column])), ledger, column);
    assert.equal(sum(jsonl.map((row) => row["cost"])), sum(focus.map((row) => row["x_ProviderCost"])));

    const byTenant = await Promise.all(tenants.map((tenant) => ofTenant(tenant, "csv")));
    assert.equal(sum(byTenant.flatMap((text) => readCsv(text).map((row) => row["charge"]))), ledger);

    for (const [index, row] of jsonl.entries()) {
      assert.deepEqual([csv[index]?.["id"], focus[index]?.["x_AttemptId"]], [row["id"], row["id"]]);
      assert.equal(csv[index]?.["feature"], inert(row["feature"] as string));
      assert.equal((JSON.parse(focus[index]?.["Tags"] as string) as { feature: string }).feature, row["feature"]);
    }
    t.diagnostic(`${calls.length} attempts, ${ledger} pico-dollars in rows, ledger, CSV, JSON Lines and FOCUS`);
  }));

test("an export is of one moment, a batch at a time: what is settled while it is read is not in it", (t) =>
  withDatabases(t, async (database, t) => {
    const { metering, run } = await world(t, database);
    const tenant = newId<TenantId>();
    const settle = (count: number) => Promise.all(Array.from({ length: count }, () => metering.call({ tenant, startedAt: NOON * 1000 })));
    await settle(1_100);
    await metering.flush();
    for (const id of ["usage.export", "platform_usage.export"]) {
      const pieces: number[] = [];
      await run(id, tenant, null, { ...SPAN, format: "jsonl" }, async (text) => {
        if (pieces.length === 0) {
          await settle(1_000);
          await metering.flush();
        }
        pieces.push(lines(text).length);
      });
      assert.deepEqual(pieces, id === "usage.export" ? [500, 500, 100] : [500, 500, 500, 500, 100]);
    }
  }));

test("a project's key exports its project only, a tenant its own rows only, and filters choose among them", (t) =>
  withDatabases(t, async (database, t) => {
    const { metering, ofTenant, ofAll } = await world(t, database);
    const [tenant, stranger] = [newId<TenantId>(), newId<TenantId>()];
    const [mine, sibling] = [newId<ProjectId>(), newId<ProjectId>()];
    for (const [owner, project] of [
      [tenant, mine],
      [tenant, sibling],
      [stranger, newId<ProjectId>()],
    ] as const)
      await metering.call({ tenant: owner, project, startedAt: NOON * 1000 });
    const projects = async (query: object = {}, project: ProjectId | null = null) =>
      lines(await ofTenant(tenant, "jsonl", query, project)).map((row) => row["project_id"]);
    assert.deepEqual(new Set(await projects()), new Set([mine, sibling]));
    assert.deepEqual(await projects({}, mine), [mine]);
    assert.deepEqual(await projects({ project_ids: sibling }, mine), []);
    assert.deepEqual(await projects({ project_ids: sibling }), [sibling]);
    assert.deepEqual(await projects({ start_time: NOON + 1 }), []);
    const all = async (query: object) => lines(await ofAll("jsonl", query)).length;
    assert.deepEqual([await all({}), await all({ tenant: stranger }), await all({ project_ids: `${mine},${sibling}` })], [3, 1, 2]);
  }));

test("of long exports that are being read at once a third is refused before its first piece, and one that ended or broke off makes room", (t) =>
  withDatabases(t, async (database, t) => {
    const { metering, run, ofAll, ofTenant } = await world(t, database);
    await Promise.all(Array.from({ length: 501 }, () => metering.call({ startedAt: NOON * 1000 })));
    await metering.flush();
    const [first, second] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const exportUntil = (end: Promise<void>) => {
      const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
      const take = () => (begin(), end);
      return { begun, ended: run("platform_usage.export", newId(), null, { ...SPAN, format: "jsonl" }, take) };
    };
    const one = exportUntil(first.promise);
    const two = exportUntil(second.promise);
    await Promise.all([one.begun, two.begun]);
    const refused = run("platform_usage.export", newId(), null, { ...SPAN, format: "csv" }, () => assert.fail("written"));
    await assert.rejects(refused, (thrown) => thrown instanceof Problem && thrown.code === "overloaded");
    assert.equal(readCsv(await ofTenant(newId(), "csv")).length, 0, "a short one is served");
    first.resolve();
    second.reject(new Error("the reader has left"));
    await Promise.all([one.ended, assert.rejects(two.ended, /reader has left/)]);
    assert.equal(readCsv(await ofAll("csv")).length, 501);
  }));

test("a tenant has one long export at a time, and leaves room for another tenant's and the platform's", (t) =>
  withDatabases(t, async (database, t) => {
    const { metering, run } = await world(t, database);
    const tenants = Array.from({ length: 4 }, () => newId<TenantId>());
    for (const tenant of tenants) await Promise.all(Array.from({ length: 501 }, () => metering.call({ tenant, startedAt: NOON * 1000 })));
    await metering.flush();
    const { promise: end, resolve: release } = Promise.withResolvers<void>();
    const begin = async (id: string, tenant: TenantId) => {
      const { promise: begun, resolve } = Promise.withResolvers<void>();
      const ended = run(id, tenant, null, { ...SPAN, format: "jsonl" }, () => (resolve(), end));
      await Promise.race([begun, ended]);
      return { ended };
    };
    const full = (thrown: unknown) => thrown instanceof Problem && thrown.code === "overloaded";
    const [one, two, three, four] = tenants as [TenantId, TenantId, TenantId, TenantId];
    const running = [await begin("usage.export", one)];
    await assert.rejects(begin("usage.export", one), full);
    for (const tenant of [two, three]) running.push(await begin("usage.export", tenant));
    await assert.rejects(begin("usage.export", four), full);
    running.push(await begin("platform_usage.export", newId()));
    release();
    await Promise.all(running.map(({ ended }) => ended));
    await (
      await begin("usage.export", four)
    ).ended;
  }));

test("what a caller writes into a tag is no formula in a spreadsheet, and is told apart from what looks like one made harmless", () => {
  for (const text of ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1"]) assert.equal(inert(text), `'${text}`);
  for (const text of ["", "search", "a=b", "1-2", "'quoted'"]) assert.equal(inert(text), text);
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }), (one, other) => {
      assert.ok(one === other || inert(one) !== inert(other));
      assert.doesNotMatch(inert(one), /^[=+\-@\t\r\n]/);
    }),
  );
});

test("a cell's quotes, commas and line ends stay in their cell", (t) =>
  withDatabases(t, async (database, t) => {
    const { metering, ofTenant } = await world(t, database);
    const { tenant } = factsOf();
    const feature = 'say "hi",\r\nthen =HYPERLINK("x")';
    await metering.call({ tenant, feature, user: '=cmd|"/C calc"!A0', startedAt: NOON * 1000 });
    const [row] = readCsv(await ofTenant(tenant, "csv"));
    assert.deepEqual([row?.["feature"], row?.["user"]], [feature, `'=cmd|"/C calc"!A0`]);
  }));
