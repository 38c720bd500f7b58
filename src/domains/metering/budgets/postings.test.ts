import assert from "node:assert/strict";
import { test } from "node:test";
import { withDatabases } from "../../../../test/support/postgres.ts";
import { type ProjectId, PLATFORM_TENANT } from "../../../kernel/ids.ts";
import { newId, TestClock } from "../testing/facts.ts";
import { type Ledger, openLedger, usd } from "./testing/ledger.ts";

const monthly = { scope: { kind: "tenant" }, unit: "usd", window: "month", cap: "10" };

/** What the routes say of a budget, as far as sums go. */
async function spent(ledger: Ledger, tenant: string, budget: string): Promise<unknown[]> {
  const { spent: sum, remaining, exhausted } = await ledger.budget(tenant, budget);
  return [sum, remaining, exhausted];
}

function told(ledger: Ledger): string[] {
  return ledger.events.map(({ type, data }) => `${type}${"threshold" in data ? ` ${data.threshold}` : ""} ${data.spent}`);
}

test("what a batch adds stands in every budget that it is counted under, and in no other", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const acme = await ledger.tenant("acme");
    const other = await ledger.tenant("other");
    const budgets: Record<string, Record<string, unknown>> = {
      tenant: monthly,
      tokens: { ...monthly, unit: "tokens", cap: "1000" },
      requests: { ...monthly, unit: "requests", cap: "1000" },
      project: { ...monthly, scope: { kind: "project", project: "shop" } },
      key: { ...monthly, scope: { kind: "key", key: acme.other } },
      user: { ...monthly, scope: { kind: "user", user: "ada" } },
      feature: { ...monthly, scope: { kind: "feature", feature: "search" }, window: "rolling" },
      total: { ...monthly, window: "total" },
    };
    for (const [name, body] of Object.entries(budgets)) await ledger.putBudget("acme", name, body);
    await ledger.putBudget("other", "tenant", monthly);
    await ledger.act(ledger.admin, "platform_budgets.put", {
      params: { platform_budget: "all" },
      body: { ...monthly, scope: { kind: "platform" } },
    });
    // Before the first batch, and after it the other half.
    await ledger.ledger.open(null);
    for (const half of [0, 1]) {
      const startedAt = Date.now() + half;
      await ledger.ship(
        acme.id,
        { charge: usd(1), project: acme.project, key: acme.key, user: "ada", feature: "search", startedAt },
        { charge: usd(0.25), project: acme.project, key: acme.other, user: "bob", feature: "chat", startedAt, input: 1, output: 2 },
        { charge: usd(0.125), startedAt, feature: "unspecified" },
        { charge: 0n, kind: "count", input: 500, startedAt },
      );
    }
    await ledger.ship(other.id, { charge: usd(3) });
    const sums = await Promise.all(Object.keys(budgets).map(async (name) => [name, (await spent(ledger, "acme", name))[0]]));
    assert.deepEqual(Object.fromEntries(sums), {
      tenant: "2.75",
      tokens: "66",
      requests: "6",
      project: "2.5",
      key: "0.5",
      user: "2",
      feature: "2",
      total: "2.75",
    });
    assert.deepEqual(await spent(ledger, "other", "tenant"), ["3", "7", false]);
    const { body } = await ledger.act(ledger.admin, "platform_budgets.get", { params: { platform_budget: "all" } });
    assert.deepEqual([body["spent"], body["scope"]], ["5.75", { kind: "platform" }]);
  }));

test("a budget that names no one counts each apart, and lists them; those who name none are one of them", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const acme = await ledger.tenant("acme");
    for (const kind of ["user", "project"]) await ledger.putBudget("acme", kind, { ...monthly, scope: { kind } });
    await ledger.ledger.open(null);
    for (const user of ["ada", "bob", null, "ada"]) await ledger.ship(acme.id, { charge: usd(1), user, project: acme.project });
    await ledger.ship(acme.id, { charge: usd(10), user: "bob" });
    const list = async (budget: string, query: Record<string, string> = {}) =>
      (await ledger.act(ledger.admin, "budgets.balances", { params: { tenant: "acme", budget }, query })).body;
    const all = (await list("user"))["data"] as { subject: string | null; spent: string; exhausted: boolean }[];
    const found = new Map(all.map(({ subject, spent: sum, exhausted }) => [subject, [sum, exhausted]]));
    assert.deepEqual(Object.fromEntries(found), { null: ["1", false], ada: ["2", false], bob: ["11", true] });
    const projects = ((await list("project"))["data"] as { subject: string | null; spent: string }[]).map((row) => [
      row.subject,
      row.spent,
    ]);
    assert.deepEqual(projects, [
      [null, "10"],
      ["shop", "4"],
    ]);
    const paged: unknown[] = [];
    for (let after: Record<string, string> = {}, more = true; more;) {
      const page = await list("user", { limit: "1", ...after });
      paged.push(...(page["data"] as { subject: string }[]).map(({ subject }) => subject));
      more = page["has_more"] as boolean;
      after = { after: page["last_id"] as string };
    }
    assert.deepEqual(
      paged,
      all.map(({ subject }) => subject),
    );
    // Of many balances the budget itself says nothing.
    assert.deepEqual(await spent(ledger, "acme", "user"), [null, null, null]);
  }));

test("a batch that comes again adds nothing, and what comes twice in it is added once", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const acme = await ledger.tenant("acme");
    await ledger.putBudget("acme", "cap", { ...monthly, thresholds: [10] });
    await ledger.ledger.open(null);
    const batch = [1, 2].map(() => ({ charge: usd(1), attempt: newId() as never }));
    await ledger.ship(acme.id, ...batch);
    await ledger.ship(acme.id, ...batch, { charge: usd(0.5) });
    assert.deepEqual(await spent(ledger, "acme", "cap"), ["2.5", "7.5", false]);
    assert.deepEqual(told(ledger), ["budget.threshold_reached 10 2"]);
  }));

test("a new budget begins with what its window holds already, each row once, however batches and openings interleave", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const acme = await ledger.tenant("acme");
    await ledger.ship(acme.id, { charge: usd(1) }, { charge: usd(7), startedAt: Date.now() - 40 * 86_400_000 });
    let made = 0;
    const shipping = (async () => {
      for (let batch = 0; batch < 40; batch++) await ledger.ship(acme.id, { charge: usd(0.01) });
    })();
    const creating = (async () => {
      for (; made < 8; made++) {
        await ledger.putBudget("acme", `budget-${made}`, monthly);
        if (made % 2 === 0) await ledger.ledger.open(null);
      }
    })();
    await Promise.all([shipping, creating]);
    await ledger.ledger.open(null);
    for (let index = 0; index < made; index++) assert.equal((await spent(ledger, "acme", `budget-${index}`))[0], "1.4");
    // Another definition is other sums, of the same rows.
    await ledger.putBudget("acme", "budget-0", { window: "total" });
    await ledger.putBudget("acme", "budget-1", { unit: "requests", cap: "100" });
    assert.deepEqual(await spent(ledger, "acme", "budget-0"), ["8.4", "1.6", false]);
    assert.deepEqual(await spent(ledger, "acme", "budget-1"), ["41", "59", false]);
    t.diagnostic(`${made} budgets made beside 40 batches`);
  }));

test("each threshold is told once a window, with its event, in the transaction of the batch that reached it", (t) =>
  withDatabases(t, async (database, t) => {
    const clock = new TestClock();
    const ledger = await openLedger(t, database, { clock });
    const acme = await ledger.tenant("acme");
    const ship = (dollars: number) => ledger.ship(acme.id, { charge: usd(dollars), startedAt: clock.now() });
    await ledger.putBudget("acme", "cap", { ...monthly, window: "day", mode: "soft" });
    await ledger.ledger.open(null);
    for (const dollars of [4.9, 0.1, 0.1, 5, 1]) await ship(dollars);
    const first = ["budget.threshold_reached 50 5", "budget.threshold_reached 80 10.1", "budget.exhausted 10.1"];
    assert.deepEqual(told(ledger), first);
    clock.advance(86_400_000);
    await ship(6);
    assert.deepEqual(told(ledger), [...first, "budget.threshold_reached 50 6"]);
    const { body } = await ledger.act(ledger.admin, "events.list", { params: { tenant: "acme" } });
    const listed = body["data"] as { type: string; data: { budget: string; window_start: number; window_end: number } }[];
    assert.equal(listed.length, 4);
    for (const { data } of listed) assert.deepEqual([data.budget, data.window_end - data.window_start], ["cap", 86_400]);
  }));

test("an alert that cannot be told is not made, and neither are the rows beside it", (t) =>
  withDatabases(t, async (database, t) => {
    let isBroken = true;
    const ledger = await openLedger(t, database, {
      writeEvent: async () => {
        if (isBroken) throw new Error("no room for the event");
        return true;
      },
    });
    const acme = await ledger.tenant("acme");
    await ledger.putBudget("acme", "cap", monthly);
    await ledger.ledger.open(null);
    const batch = { charge: usd(9), attempt: newId() as never };
    await assert.rejects(ledger.ship(acme.id, batch), /no room/);
    const counted = () =>
      database.asSuperuser(async (client) => {
        const { rows } = await client.query(
          "SELECT (SELECT count(*) FROM usage_rows)::int AS rows, (SELECT count(*) FROM budget_alerts)::int AS alerts, (SELECT coalesce(sum(posted), 0) FROM budget_balances)::text AS posted",
        );
        return rows[0] as unknown;
      });
    assert.deepEqual(await counted(), { rows: 0, alerts: 0, posted: "0" });
    isBroken = false;
    await ledger.ship(acme.id, batch);
    assert.deepEqual(await counted(), { rows: 1, alerts: 2, posted: String(usd(9)) });
    assert.deepEqual(told(ledger), ["budget.threshold_reached 50 9", "budget.threshold_reached 80 9"]);
  }));

test("under a raised cap a threshold is told anew once it is reached, under a lowered one at once", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const acme = await ledger.tenant("acme");
    await ledger.putBudget("acme", "cap", { ...monthly, thresholds: [100] });
    await ledger.ledger.open(null);
    await ledger.ship(acme.id, { charge: usd(10) });
    await ledger.putBudget("acme", "cap", { cap: "20" });
    await ledger.ledger.open(null);
    await ledger.ship(acme.id, { charge: usd(5) });
    assert.deepEqual(told(ledger), ["budget.exhausted 10"]);
    await ledger.ship(acme.id, { charge: usd(5) });
    assert.deepEqual(told(ledger), ["budget.exhausted 10", "budget.exhausted 20"]);
    await ledger.putBudget("acme", "cap", { thresholds: [100, 200] });
    await ledger.putBudget("acme", "cap", { cap: "5" });
    assert.deepEqual(await spent(ledger, "acme", "cap"), ["20", "0", true]);
    assert.deepEqual(told(ledger).slice(2), ["budget.threshold_reached 200 20"]);
  }));

test("what is charged above its hold is overage: told, counted, and apart from what was posted", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const acme = await ledger.tenant("acme");
    await ledger.putBudget("acme", "cap", { ...monthly, thresholds: [] });
    await ledger.ledger.open(null);
    await ledger.ship(acme.id, { charge: usd(3), worstCase: usd(2) }, { charge: usd(1), worstCase: usd(2) });
    await ledger.ship(acme.id, { charge: usd(3), worstCase: usd(2) });
    assert.deepEqual(told(ledger), ["budget.overage 4"]);
    const [sums] = await database.asSuperuser(
      async (client) => (await client.query("SELECT posted::text, overage::text FROM budget_balances")).rows as unknown[],
    );
    assert.deepEqual(sums, { posted: String(usd(5)), overage: String(usd(2)) });
    assert.deepEqual(await spent(ledger, "acme", "cap"), ["7", "3", false]);
  }));

test("an attempt counts in the window it was admitted in, however late its row comes", (t) =>
  withDatabases(t, async (database, t) => {
    const clock = new TestClock();
    const ledger = await openLedger(t, database, { clock });
    const acme = await ledger.tenant("acme", { time_zone: "Pacific/Apia" });
    await ledger.putBudget("acme", "cap", { ...monthly, window: "day" });
    await ledger.ledger.open(null);
    const yesterday = clock.now();
    clock.advance(86_400_000);
    await ledger.ship(acme.id, { charge: usd(9), startedAt: yesterday }, { charge: usd(1), startedAt: clock.now() });
    assert.deepEqual(await spent(ledger, "acme", "cap"), ["1", "9", false]);
    // It fell into a window of its own, and was judged there.
    assert.deepEqual(told(ledger), ["budget.threshold_reached 50 9", "budget.threshold_reached 80 9"]);
    const { window_start: start, resets_at: end } = await ledger.budget("acme", "cap");
    assert.equal((end as number) - (start as number), 86_400);
    // 13 hours before Greenwich.
    assert.equal((start as number) % 86_400, 11 * 3_600);
  }));

test("a change of the tenant's time zone makes the windows anew, from the rows", (t) =>
  withDatabases(t, async (database, t) => {
    const clock = new TestClock();
    const ledger = await openLedger(t, database, { clock });
    const acme = await ledger.tenant("acme");
    await ledger.putBudget("acme", "cap", { ...monthly, window: "day" });
    await ledger.ledger.open(null);
    const midnight = Math.floor(clock.now() / 86_400_000) * 86_400_000;
    // In Greenwich yesterday, and in Apia, where the day began at 11:00, today.
    clock.advance(midnight + 86_400_000 - clock.now());
    await ledger.ship(acme.id, { charge: usd(2), startedAt: clock.now() - 3_600_000 }, { charge: usd(1), startedAt: clock.now() });
    assert.equal((await spent(ledger, "acme", "cap"))[0], "1");
    await ledger.act(ledger.admin, "tenants.put", { params: { tenant: "acme" }, body: { time_zone: "Pacific/Apia" } });
    assert.equal((await spent(ledger, "acme", "cap"))[0], "3");
  }));

test("a rolling window forgets a bucket when all of it is outside", (t) =>
  withDatabases(t, async (database, t) => {
    const clock = new TestClock();
    const ledger = await openLedger(t, database, { clock });
    const acme = await ledger.tenant("acme");
    await ledger.putBudget("acme", "cap", { ...monthly, window: "rolling" });
    await ledger.ledger.open(null);
    const hour = 3_600_000;
    clock.advance(hour - (clock.now() % hour));
    for (let index = 0; index < 30; index++) {
      await ledger.ship(acme.id, { charge: usd(0.1), startedAt: clock.now() });
      clock.advance(hour);
    }
    // Twenty-four hours and the one that is not yet over.
    assert.equal((await spent(ledger, "acme", "cap"))[0], "2.4");
    clock.advance(-1);
    assert.equal((await spent(ledger, "acme", "cap"))[0], "2.5");
  }));

test("two tenants' budgets know nothing of each other, nor of a project's name that both have", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const [acme, other] = [await ledger.tenant("acme"), await ledger.tenant("other")];
    for (const { name } of [acme, other]) await ledger.putBudget(name, "user", { ...monthly, scope: { kind: "user", user: "ada" } });
    await ledger.ledger.open(null);
    await ledger.ship(acme.id, { charge: usd(1), user: "ada" });
    await ledger.ship(other.id, { charge: usd(2), user: "ada", project: newId<ProjectId>() });
    assert.deepEqual(await spent(ledger, "acme", "user"), ["1", "9", false]);
    assert.deepEqual(await spent(ledger, "other", "user"), ["2", "8", false]);
    assert.ok(ledger.events.every(({ tenant }) => tenant !== PLATFORM_TENANT));
  }));

test("a clock that is set back after a budget's balances were made leaves no attempt uncounted, neither of the window it went back to nor of the one it left", (t) =>
  withDatabases(t, async (database, t) => {
    const clock = new TestClock();
    const day = 86_400_000;
    clock.advance(3 * day);
    const ledger = await openLedger(t, database, { clock });
    const acme = await ledger.tenant("acme");
    await ledger.putBudget("acme", "cap", { ...monthly, window: "day" });
    await ledger.ledger.open(null);
    await ledger.ship(acme.id, { charge: usd(1), startedAt: clock.now() });
    clock.advance(-3 * day);
    await ledger.ship(acme.id, { charge: usd(2), startedAt: clock.now() });
    await ledger.ledger.open(null);
    await ledger.ship(acme.id, { charge: usd(3), startedAt: clock.now() });
    assert.deepEqual(await spent(ledger, "acme", "cap"), ["5", "5", false]);
    clock.advance(3 * day);
    assert.deepEqual(await spent(ledger, "acme", "cap"), ["1", "9", false]);
  }));
