import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { TenantId } from "../../kernel/ids.ts";
import type { Database } from "../../storage/database/index.ts";
import { RECORD } from "../../storage/journal/index.ts";
import { type TestDatabase, withDatabases } from "../../../test/support/postgres.ts";
import { encodeAdmission, encodeMark, encodeSettlement } from "./records.ts";
import { factsOf, newId, PRICE } from "./testing/facts.ts";
import { meteringOn, openTestJournal, temporaryDirectory, TestKeyrings } from "./testing/world.ts";

interface Sums {
  rows: number;
  entries: number;
  cost: string;
  charge: string;
  debit: string;
  provider: string;
  margin: string;
  unmatched: number;
}

/** Both tables as the superuser sees them. */
function sums(database: TestDatabase): Promise<Sums> {
  return database.asSuperuser(async (client) => {
    const result = await client.query(`
      SELECT (SELECT count(*) FROM usage_rows)::int AS rows, (SELECT count(*) FROM ledger_entries)::int AS entries,
        (SELECT coalesce(sum(cost), 0) FROM usage_rows)::text AS cost, (SELECT coalesce(sum(charge), 0) FROM usage_rows)::text AS charge,
        (SELECT coalesce(sum(debit_spend), 0) FROM ledger_entries)::text AS debit, (SELECT coalesce(sum(credit_provider), 0) FROM ledger_entries)::text AS provider,
        (SELECT coalesce(sum(credit_margin), 0) FROM ledger_entries)::text AS margin,
        (SELECT count(*) FROM usage_rows u FULL JOIN ledger_entries l USING (tenant_id, id)
          WHERE u.charge IS DISTINCT FROM l.debit_spend OR u.cost IS DISTINCT FROM l.credit_provider OR u.project_id IS DISTINCT FROM l.project_id)::int AS unmatched`);
    return result.rows[0] as Sums;
  });
}

/** A database that is away while `away` is true, or loses its answer after it committed. */
function unreliable(database: Database) {
  const state = { away: false, losesAnswers: 0 };
  const forSystem: Database["forSystem"] = async (job, work) => {
    if (state.away) throw new Error("PostgreSQL is away");
    const result = await database.forSystem(job, work);
    if (state.losesAnswers > 0) {
      state.losesAnswers -= 1;
      throw new Error("the connection broke after the commit");
    }
    return result;
  };
  return { state, forSystem };
}

test("with markups and rebates the ledger balances: what tenants are charged = what providers bill + margin, which a rebate makes negative", (t) =>
  withDatabases(t, async (database, t) => {
    const journal = await openTestJournal(await temporaryDirectory(t));
    const metering = meteringOn(journal, await database.open(), new TestKeyrings());
    await metering.recover();
    const markups = [1_000_000, 1_200_001, 900_000, 10_000, 100_000_000];
    let [cost, charge, worst] = [0n, 0n, 0n];
    for (let index = 0; index < 100; index++) {
      const markupMillionths = markups[index % markups.length] as number;
      const settlement = await metering.call({ markupMillionths }, { input_uncached: index, output: index * 3 });
      assert.equal(settlement.charge, (settlement.cost * BigInt(markupMillionths) + 999_999n) / 1_000_000n);
      cost += settlement.cost;
      charge += settlement.charge;
      const least = settlement.charge - settlement.cost;
      if (least < worst) worst = least;
    }
    await metering.flush();
    const text = {
      cost: String(cost),
      charge: String(charge),
      debit: String(charge),
      provider: String(cost),
      margin: String(charge - cost),
    };
    assert.deepEqual(await sums(database), { rows: 100, entries: 100, ...text, unmatched: 0 });
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query("SELECT min(credit_margin)::text AS least FROM ledger_entries");
      assert.deepEqual(rows, [{ least: String(worst) }]);
    });
    assert.ok(worst < 0n);
    assert.equal(metering.figures().overBound, 0);
    await metering.close();
  }));

test("every attempt becomes one usage row and one ledger entry, and the two tables agree to the pico-dollar", (t) =>
  withDatabases(t, async (database, t) => {
    const journal = await openTestJournal(await temporaryDirectory(t));
    const metering = meteringOn(journal, await database.open(), new TestKeyrings());
    await metering.recover();
    const tenants = [newId<TenantId>(), newId<TenantId>(), newId<TenantId>()];
    let expected = 0n;
    for (let index = 0; index < 300; index++) {
      const settlement = await metering.call(
        { tenant: tenants[index % 3] as TenantId, feature: `feature ${index % 7}`, user: index % 2 === 0 ? null : `user ${index}` },
        { input_uncached: index, cache_read: 3, output: index * 3, reasoning: 1 },
      );
      expected += settlement.charge;
    }
    await metering.flush();
    const found = await sums(database);
    assert.deepEqual(found, {
      rows: 300,
      entries: 300,
      cost: String(expected),
      charge: String(expected),
      debit: String(expected),
      provider: String(expected),
      margin: "0",
      unmatched: 0,
    });
    assert.ok(expected > 0n);
    const nothing = { records: 0, openAttempts: 0, waitingMs: 0, failures: 0, unkept: 0, unpriced: 0, overBound: 0 };
    assert.deepEqual(metering.figures(), { ...nothing, balances: 0, unshipped: 0, waiting: 0 });
    await metering.close();
    await journal.close();
  }));

test("a settled call is in PostgreSQL within a moment, without anybody asking", (t) =>
  withDatabases(t, async (database, t) => {
    const journal = await openTestJournal(await temporaryDirectory(t));
    const metering = meteringOn(journal, await database.open(), new TestKeyrings());
    await metering.recover();
    await metering.call();
    const settledAt = performance.now();
    while ((await sums(database)).rows === 0) {
      assert.ok(performance.now() - settledAt < 5_000, "not shipped within 5 s");
      await sleep(10);
    }
    t.diagnostic(`shipped ${Math.round(performance.now() - settledAt)} ms after its SETTLE`);
    await metering.close();
    await journal.close();
  }));

test("while PostgreSQL is away calls go on, and what it lost the answer to is not counted twice", (t) =>
  withDatabases(t, async (database, t) => {
    const journal = await openTestJournal(await temporaryDirectory(t));
    const { state, forSystem } = unreliable(await database.open());
    const metering = meteringOn(journal, { forSystem }, new TestKeyrings());
    await metering.recover();
    state.away = true;
    for (let index = 0; index < 50; index++) await metering.call();
    await assert.rejects(metering.flush(), /away/);
    assert.ok(metering.figures().failures > 0);
    assert.equal((await sums(database)).rows, 0);
    state.away = false;
    state.losesAnswers = 2;
    for (let index = 0; index < 50; index++) await metering.call();
    for (let tries = 0; tries < 20 && (await sums(database)).rows < 100; tries++) await metering.flush().catch(() => sleep(20));
    await metering.flush();
    const found = await sums(database);
    assert.deepEqual([found.rows, found.entries, found.unmatched], [100, 100, 0]);
    await metering.close();
    await journal.close();
  }));

test("a PostgreSQL that hangs does not keep the process from stopping, and the next start ships what is left", (t) =>
  withDatabases(t, async (database, t) => {
    const directory = await temporaryDirectory(t);
    const open = await database.open();
    let hangs = false;
    const journal = await openTestJournal(directory);
    const forSystem: Database["forSystem"] = (job, work) => (hangs ? new Promise(() => {}) : open.forSystem(job, work));
    const metering = meteringOn(journal, { forSystem }, new TestKeyrings());
    await metering.recover();
    hangs = true;
    await metering.call();
    const startedAt = performance.now();
    await metering.close();
    assert.ok(performance.now() - startedAt < 8_000);
    await journal.close();
    const again = await openTestJournal(directory);
    const next = meteringOn(again, open, new TestKeyrings());
    assert.equal(await next.recover(), 0);
    await next.flush();
    assert.equal((await sums(database)).rows, 1);
    await next.close();
    await again.close();
  }));

test("what a dead process left open is settled as lost by the next one, once, however often that one dies too", (t) =>
  withDatabases(t, async (database, t) => {
    const directory = await temporaryDirectory(t);
    const opened = await database.open();
    const keyrings = new TestKeyrings();
    const streamed = factsOf({ bound: { input: 100, output: 1_000, certainty: "proof" } });
    const neverLeft = factsOf({ bound: { input: 70, output: 1_000, certainty: "proof" } });
    let journal = await openTestJournal(directory);
    const first = meteringOn(journal, opened, keyrings);
    await first.recover();
    await first.call();
    first.sent(await first.hold(streamed, PRICE));
    journal.append(RECORD.progress, streamed.attempt, encodeMark(256));
    await first.hold(neverLeft, PRICE);
    await first.call();
    await first.flush();
    await journal.close();
    assert.equal((await sums(database)).rows, 2);

    for (const expected of [2, 0, 0]) {
      journal = await openTestJournal(directory);
      const next = meteringOn(journal, opened, keyrings);
      assert.equal(await next.recover(), expected);
      await next.flush();
      await journal.close();
    }
    const found = await sums(database);
    assert.deepEqual([found.rows, found.entries, found.unmatched], [4, 4, 0]);
    const rows = await database.asSuperuser((client) =>
      client.query(
        "SELECT id, status, cost::text, output::int, input_uncached::int, estimated, dispatch_unknown FROM usage_rows WHERE status = 'lost' ORDER BY output DESC",
      ),
    );
    assert.deepEqual(rows.rows, [
      {
        id: streamed.attempt,
        status: "lost",
        cost: String(100n * 150_000n + 256n * 600_000n),
        output: 256,
        input_uncached: 100,
        estimated: true,
        dispatch_unknown: false,
      },
      {
        id: neverLeft.attempt,
        status: "lost",
        cost: String(70n * 150_000n),
        output: 0,
        input_uncached: 70,
        estimated: true,
        dispatch_unknown: true,
      },
    ]);
  }));

test("a watermark never passes an open attempt, so that what it still needs is read again after a crash", (t) =>
  withDatabases(t, async (database, t) => {
    const directory = await temporaryDirectory(t);
    const opened = await database.open();
    const journal = await openTestJournal(directory);
    const metering = meteringOn(journal, opened, new TestKeyrings());
    await metering.recover();
    const slow = await metering.hold(factsOf(), PRICE);
    metering.sent(slow);
    for (let index = 0; index < 20; index++) await metering.call();
    await metering.flush();
    const watermark = () =>
      database.asSuperuser(async (client) => Number((await client.query("SELECT watermark FROM journals")).rows[0]?.watermark));
    assert.ok((await watermark()) < 1, "the watermark passed an ADMIT without a SETTLE");
    await metering.settleFailed(slow, { kind: "connect" });
    await metering.flush();
    assert.equal(await watermark(), journal.durable());
    assert.equal((await sums(database)).rows, 21);
    await metering.close();
    await journal.close();
  }));

test("tags are unreadable in the database, equal for equal values of one tenant only, and a pseudonym once the tenant's key is gone", (t) =>
  withDatabases(t, async (database, t) => {
    const journal = await openTestJournal(await temporaryDirectory(t));
    const keyrings = new TestKeyrings();
    const metering = meteringOn(journal, await database.open(), keyrings);
    await metering.recover();
    const [one, other, erased] = [newId<TenantId>(), newId<TenantId>(), newId<TenantId>()];
    keyrings.destroy(erased);
    for (const tenant of [one, one, other, erased, erased])
      await metering.call({ tenant, feature: "canary-feature", user: "canary-user", modelRequested: "canary-model" });
    await metering.flush();
    const { rows } = await database.asSuperuser((client) => client.query("SELECT r.*, r::text AS shown FROM usage_rows r"));
    assert.equal(rows.length, 5);
    const indexes = (tenant: TenantId) =>
      new Set(rows.filter((row) => row.tenant_id === tenant).map((row) => row.feature_index.toString("hex")));
    assert.equal(indexes(one).size, 1);
    assert.equal(indexes(erased).size, 2);
    assert.equal(new Set([...indexes(one), ...indexes(other), ...indexes(erased)]).size, 4);
    for (const row of rows) {
      assert.ok(!row.shown.includes("canary") && !row.shown.includes(Buffer.from("canary").toString("hex")), row.shown);
      assert.equal(row.feature_sealed.length === 0, row.tenant_id === erased);
    }
    await metering.close();
    await journal.close();
  }));

test("a model's name that PostgreSQL's text cannot hold does not stop the rows behind it", (t) =>
  withDatabases(t, async (database, t) => {
    const journal = await openTestJournal(await temporaryDirectory(t));
    const metering = meteringOn(journal, await database.open(), new TestKeyrings());
    await metering.recover();
    const hold = await metering.hold(factsOf({ upstreamModel: "nul\0, half \ud800, quote \" \\ '" }), PRICE);
    await metering.settleFailed(hold, { kind: "connect" });
    await metering.call();
    await metering.flush();
    assert.equal((await sums(database)).rows, 2);
    await metering.close();
    await journal.close();
  }));

test("a wall clock that leapt by years while an attempt was in flight does not stop the rows behind it", (t) =>
  withDatabases(t, async (database, t) => {
    const directory = await temporaryDirectory(t);
    const first = await openTestJournal(directory);
    const facts = factsOf({ startedAt: 0 });
    first.append(RECORD.admit, facts.attempt, encodeAdmission({ facts, worstCase: 0n, inputRate: 0n, outputRate: 0n, tokensPerSecond: 1 }));
    await first.close();
    const journal = await openTestJournal(directory);
    const metering = meteringOn(journal, await database.open(), new TestKeyrings());
    assert.equal(await metering.recover(), 1);
    await metering.call();
    await metering.flush();
    assert.equal((await sums(database)).rows, 2);
    await metering.close();
    await journal.close();
  }));

test("a SETTLE that was written twice, its durability having been in doubt, is one row", (t) =>
  withDatabases(t, async (database, t) => {
    const journal = await openTestJournal(await temporaryDirectory(t));
    const metering = meteringOn(journal, await database.open(), new TestKeyrings());
    await metering.recover();
    const settlement = await metering.call();
    journal.append(RECORD.settle, settlement.attempt, encodeSettlement(settlement));
    await metering.call();
    await metering.flush();
    const found = await sums(database);
    assert.deepEqual([found.rows, found.entries], [2, 2]);
    await metering.close();
    await journal.close();
  }));
