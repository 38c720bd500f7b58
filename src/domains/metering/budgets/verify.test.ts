import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { withDatabases } from "../../../../test/support/postgres.ts";
import type { Database } from "../../../storage/database/index.ts";
import { systemClock } from "../../../kernel/clock.ts";
import { TestClock } from "../testing/facts.ts";
import { type Ledger, openLedger, type Spent, usd } from "./testing/ledger.ts";
import { announceRepair, type VerifyReport, verifyBalances } from "./verify.ts";

const monthly = { scope: { kind: "tenant" }, unit: "usd", window: "month", cap: "10" };

const verify = (database: Database, repairs = false, clock = systemClock): Promise<VerifyReport> =>
  verifyBalances({ database, clock }, repairs);

test("what is added batch by batch is what all rows and adjustments add up to, in every scope, unit, window and zone", (t) =>
  withDatabases(t, async (database, t) => {
    const clock = new TestClock();
    const ledger = await openLedger(t, database, { clock });
    const tenants = [await ledger.tenant("acme", { time_zone: "America/Havana" }), await ledger.tenant("other")];
    const scopes = ["tenant", "project", "key", "user", "feature"];
    const [windows, units] = [
      ["day", "week", "month", "total", "rolling_1h", "rolling_7d"],
      ["usd", "tokens", "requests"],
    ];
    for (const [index, kind] of scopes.entries())
      for (const { name } of tenants)
        for (const [turn, unit] of units.entries())
          await ledger.putBudget(name, `${kind}-${unit}`, {
            scope: { kind },
            unit,
            window: windows[(index + turn) % windows.length],
            cap: "5",
          });
    await ledger.act(ledger.admin, "platform_budgets.put", {
      params: { platform_budget: "all" },
      body: { ...monthly, scope: { kind: "platform" } },
    });
    await ledger.ledger.open(null);
    const anySpent = fc.record({
      who: fc.nat(1),
      charge: fc.nat(3_000_000),
      over: fc.nat(3),
      user: fc.constantFrom(null, "ada", "bob"),
      feature: fc.constantFrom("search", "chat"),
      kind: fc.constantFrom<"generate" | "count">("generate", "generate", "count"),
      ago: fc.nat(3 * 86_400_000),
      ofProject: fc.boolean(),
    });
    const program = fc.sample(fc.array(anySpent, { minLength: 1, maxLength: 8 }), { numRuns: 12, seed: 11 });
    let posted = 0;
    for (const [step, batch] of program.entries()) {
      for (const [who, { id, project, key }] of tenants.entries()) {
        const attempts = batch
          .filter((spent) => spent.who === who)
          .map(({ charge, over, ago, ofProject, user, feature, kind }): Spent => ({
            charge: BigInt(charge) * 1_000_003n,
            worstCase: BigInt(charge) * (over === 0 ? 900_000n : 2_000_000n),
            startedAt: clock.now() - ago,
            project: ofProject ? project : null,
            key: ofProject ? key : null,
            user,
            feature,
            kind,
          }));
        posted += attempts.length;
        if (attempts.length > 0) await ledger.ship(id, ...attempts);
      }
      if (step % 3 === 0) {
        const fields = step % 2 === 0 ? { user: "ada" } : { project: "shop" };
        await ledger.act(ledger.admin, "adjustments.create", {
          params: { tenant: "acme" },
          body: { amount: "-0.25", reason: "r", ...fields },
        });
      }
      clock.advance(5 * 3_600_000);
    }
    await ledger.ledger.open(null);
    const report = await verify(ledger.database, false, clock);
    assert.deepEqual(report.differences, []);
    assert.deepEqual([report.budgets, report.unopened, report.unmatched, report.rows], [31, 0, 0n, BigInt(posted)]);
    assert.equal(report.debit, report.credit);
    assert.ok(report.balances > 50, String(report.balances));
    t.diagnostic(`${posted} attempts, ${report.adjustments} adjustments, ${report.balances} balances of ${report.budgets} budgets`);
  }));

test("a balance that is not what the rows say is found, named and, when told so, put right for every process", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const acme = await ledger.tenant("acme");
    await ledger.putBudget("acme", "cap", { ...monthly, thresholds: [] });
    await ledger.putBudget("acme", "each", { ...monthly, scope: { kind: "user" } });
    await ledger.ledger.open(null);
    await ledger.ship(acme.id, { charge: usd(1), user: "ada" }, { charge: usd(2), user: "bob" });
    assert.deepEqual((await verify(ledger.database)).differences, []);
    await database.asSuperuser(async (client) => {
      await client.query("UPDATE budget_balances SET posted = posted + 5 WHERE subject = ''");
      await client.query("DELETE FROM budget_balances WHERE subject <> '' AND posted = $1", [String(usd(2))]);
    });
    const found = await verify(ledger.database);
    const said = new Map(found.differences.map(({ kept, rebuilt }) => [kept.posted, rebuilt.posted]));
    assert.deepEqual([said.size, said.get(0n), said.get(usd(3) + 5n)], [2, usd(2), usd(3)]);
    const before = await epochs(ledger);
    const { differences } = await verify(ledger.database, true);
    await announceRepair({ database: ledger.database, clock: systemClock }, differences);
    assert.deepEqual((await verify(ledger.database)).differences, []);
    assert.deepEqual(
      await epochs(ledger),
      before.map((epoch) => epoch + 1),
    );
    assert.equal((await ledger.budget("acme", "cap"))["spent"], "3");
  }));

function epochs(ledger: Ledger): Promise<number[]> {
  return ledger.database.forSystem("report", async (tx) =>
    (await tx.selectFrom("budgets").select("epoch").orderBy("id").execute()).map(({ epoch }) => epoch),
  );
}

test("a row without its ledger entry, and an entry of another charge, are found", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const acme = await ledger.tenant("acme");
    await ledger.ship(acme.id, { charge: usd(1) }, { charge: usd(2) }, { charge: usd(3) });
    await database.asSuperuser(async (client) => {
      await client.query("DELETE FROM ledger_entries WHERE debit_spend = $1", [String(usd(1))]);
      await client.query(
        "UPDATE ledger_entries SET debit_spend = debit_spend + 1, credit_margin = credit_margin + 1 WHERE debit_spend = $1",
        [String(usd(2))],
      );
    });
    const { rows, entries, unmatched } = await verify(ledger.database);
    assert.deepEqual([rows, entries, unmatched], [3n, 2n, 2n]);
  }));

test("verification beside a server that ships sees no difference", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const acme = await ledger.tenant("acme");
    await ledger.putBudget("acme", "cap", { ...monthly, thresholds: [] });
    await ledger.ledger.open(null);
    let ships = true;
    const shipping = (async () => {
      while (ships) await ledger.ship(acme.id, { charge: usd(0.01) });
    })();
    for (let round = 0; round < 15; round++) assert.deepEqual((await verify(ledger.database, true)).differences, []);
    ships = false;
    await shipping;
  }));
