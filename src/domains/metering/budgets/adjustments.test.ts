import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { withDatabases } from "../../../../test/support/postgres.ts";
import { PLATFORM_TENANT, type TenantId } from "../../../kernel/ids.ts";
import { rulesOf } from "./source.ts";
import { BALANCES_LOCK, readBalances, readBudgets } from "./store.ts";
import { type Ledger, openLedger, usd } from "./testing/ledger.ts";
import { windowAt } from "./windows.ts";

const PER_TENANT = { scope: { kind: "tenant" }, unit: "usd", window: "total", cap: "10", thresholds: [] };

/** Whether somebody waits for a lock in this database. */
const WAITS = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

type Rules = ReturnType<typeof rulesOf>;

async function adjust(ledger: Ledger): Promise<void> {
  await ledger.act(ledger.admin, "adjustments.create", { params: { tenant: "acme" }, body: { amount: "1", reason: "more" } });
}

test("an adjustment locks balances in the shippers' order, the platform's first: neither waits for the other in a circle", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const acme = await ledger.tenant("acme");
    await ledger.putBudget("acme", "cap", PER_TENANT);
    await ledger.act(ledger.admin, "platform_budgets.put", {
      params: { platform_budget: "all" },
      body: { ...PER_TENANT, scope: { kind: "platform" } },
    });
    await ledger.ledger.open(null);
    await ledger.ship(acme.id, { charge: usd(1) });
    const lock = "SELECT 1 FROM budget_balances WHERE tenant_id = $1 FOR UPDATE";
    let adjusting = Promise.resolve();
    await database.asSuperuser(async (client) => {
      await client.query("BEGIN");
      await client.query(lock, [PLATFORM_TENANT]);
      adjusting = adjust(ledger);
      while ((await client.query(WAITS)).rows.length === 0) await sleep(5);
      await client.query(`${lock} NOWAIT`, [acme.id]);
      await client.query("COMMIT");
    });
    await adjusting;
    assert.equal((await ledger.budget("acme", "cap"))["spent"], "2");
  }));

test("a balance is read though its budget was adjusted or capped anew since the snapshot, and not where the budget counts something else", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const acme = await ledger.tenant("acme");
    await ledger.putBudget("acme", "cap", PER_TENANT);
    await ledger.ledger.open(null);
    const [known] = (await ledger.database.forSystem("snapshot", (tx) => readBudgets(tx, [acme.id]))).map(rulesOf) as [Rules];
    await adjust(ledger);
    await ledger.putBudget("acme", "cap", { cap: "20" });
    assert.deepEqual(await spentOf(ledger, acme.id, known), usd(1));
    await ledger.putBudget("acme", "cap", { unit: "tokens", cap: "20" });
    await ledger.ledger.open(null);
    assert.equal(await spentOf(ledger, acme.id, known), null);
  }));

async function spentOf({ database }: Ledger, owner: TenantId, known: Rules): Promise<bigint | null> {
  const { id: budget, definition, epoch, timeZone } = known;
  const wanted = { owner, budget, definition, epoch, timeZone, subject: "", window: windowAt(known, 0) };
  const [spans] = await database.forSystem("ship", (tx) => readBalances(tx, [wanted]));
  return spans?.reduce((sum, { posted, adjusted, overage }) => sum + posted + adjusted + overage, 0n) ?? null;
}

test("a balance that was only adjusted or capped anew is read without a turn between shippers", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const acme = await ledger.tenant("acme");
    await ledger.putBudget("acme", "cap", PER_TENANT);
    await ledger.ledger.open([acme.id], "unmade");
    await adjust(ledger);
    await database.asSuperuser(async (client) => {
      await client.query("BEGIN");
      await client.query("SELECT pg_advisory_xact_lock_shared($1::bigint)", [BALANCES_LOCK]);
      const late = sleep(5_000, "it waits", { ref: false });
      assert.equal(await Promise.race([ledger.ledger.open([acme.id], "unmade"), late]), undefined);
      await client.query("COMMIT");
    });
    assert.equal((await ledger.budget("acme", "cap"))["spent"], "1");
  }));
