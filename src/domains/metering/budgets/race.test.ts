import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { withDatabases } from "../../../../test/support/postgres.ts";
import { scaled } from "../../../../test/support/scale.ts";
import type { TenantId } from "../../../kernel/ids.ts";
import type { Database } from "../../../storage/database/index.ts";
import type { Hold } from "../model.ts";
import { factsOf, newId, PRICE } from "../testing/facts.ts";
import { deltaFrame, doneFrame, ScriptedStream, stopFrame, streamed, usageFrame } from "../testing/scripted-stream.ts";
import { meteringOn, openTestJournal, temporaryDirectory, TestKeyrings } from "../testing/world.ts";
import { BudgetExceeded } from "./exceeded.ts";
import type { Budget } from "./model.ts";
import { budgetOf, insertBudgets, spentUnder } from "./testing/budgets.ts";

const STREAMS = scaled(1_000);
/** 100 tokens in, 400 out at most. */
const BOUND = { input: 100, output: 400, certainty: "proof" } as const;
const WORST = 100n * 150_000n + 400n * 600_000n;

/** Metering under budgets, of a process with a journal of its own. */
async function processOn(t: TestContext, database: Pick<Database, "forSystem">, keyrings: TestKeyrings, budgets: readonly Budget[]) {
  const journal = await openTestJournal(await temporaryDirectory(t));
  const counts = { statements: 0, isAway: false };
  const counting: Pick<Database, "forSystem"> = {
    forSystem: (job, work) => {
      counts.statements += 1;
      if (counts.isAway) return Promise.reject(new Error("PostgreSQL is away"));
      return database.forSystem(job, work);
    },
  };
  const metering = meteringOn(journal, counting, keyrings, undefined, (owner) => budgets.filter((budget) => budget.owner === owner));
  await metering.recover();
  return {
    metering,
    counts,
    async close() {
      await metering.close();
      await journal.close();
    },
  };
}

type Metering = Awaited<ReturnType<typeof processOn>>["metering"];

/** Plays one stream to an end that chance decides: whole, cut by its upstream, left by its caller, or never answered. */
async function play(metering: Metering, hold: Hold, chance: number): Promise<bigint> {
  metering.sent(hold);
  if (chance < 0.1) return (await metering.settleFailed(hold, { kind: "timeout", phase: "first_token" })).charge;
  const upstream = new ScriptedStream();
  const metered = await metering.meter(streamed(upstream), hold);
  if (metered.body.kind !== "stream") throw new Error("not a stream");
  metered.body.stream.pipe({ frames() {}, end() {} });
  for (let frames = Math.floor(chance * 40); frames > 0; frames--) {
    await new Promise((resolve) => setImmediate(resolve));
    upstream.emit([deltaFrame("tok ", 1)]);
  }
  if (chance < 0.3) metered.body.stream.abort();
  else if (chance < 0.4) upstream.end({ kind: "aborted" });
  else {
    upstream.emit([stopFrame(), usageFrame(100, Math.floor(chance * 400)), doneFrame()]);
    upstream.end({ kind: "complete" });
  }
  return (await metered.settled).settlement.charge;
}

test(`of ${STREAMS} concurrent streams on a nearly empty budget none goes above it, and none is refused while it could be paid for`, (t) =>
  withDatabases(t, async (database, t) => {
    const keyrings = new TestKeyrings();
    const tenant = newId<TenantId>();
    const cap = 120n * WORST;
    const budget = budgetOf({ owner: tenant, cap, window: "month", thresholds: [] });
    const tokens = budgetOf({ owner: tenant, unit: "tokens", cap: 10_000_000n, window: "total", thresholds: [] });
    await insertBudgets(database, keyrings, [budget, tokens]);
    const { metering, close } = await processOn(t, await database.open(), keyrings, [budget, tokens]);
    let [left, refused, charged] = [null as bigint | null, 0, 0n];
    const open = new Map<Hold, bigint>();
    let returned = 0n;
    const stream = async (index: number): Promise<void> => {
      for (let turn = index % 50; turn > 0; turn--) await new Promise((resolve) => setImmediate(resolve));
      const chance = ((index * 7_919) % 1_000) / 1_000;
      let hold: Hold;
      try {
        hold = await metering.hold(factsOf({ tenant, bound: BOUND }), PRICE);
      } catch (thrown) {
        assert.ok(thrown instanceof BudgetExceeded, String(thrown));
        refused += 1;
        left ??= thrown.headroom;
        return;
      }
      open.set(hold, WORST);
      const charge = await play(metering, hold, chance);
      open.delete(hold);
      charged += charge;
      returned += WORST - charge;
    };
    await Promise.all(Array.from({ length: STREAMS }, (_, index) => stream(index)));
    // One after another, until nothing more fits: what came back was not lost.
    for (let isLeft = true; isLeft;) {
      try {
        charged += await play(metering, await metering.hold(factsOf({ tenant, bound: BOUND }), PRICE), 0.999);
      } catch (thrown) {
        assert.ok(thrown instanceof BudgetExceeded && thrown.headroom < WORST);
        isLeft = false;
      }
    }
    await metering.flush();
    const spent = await spentUnder(database, budget);
    assert.equal(spent, charged);
    assert.ok(spent + WORST > cap, `${cap - spent} was left in the end`);
    assert.ok(spent <= cap, `${spent} of ${cap}`);
    assert.ok(left !== null && left <= WORST + cap / 100n && left < WORST, `${left} was left at the first refusal`);
    assert.equal(metering.figures().unshipped, 0);
    t.diagnostic(
      `${STREAMS} streams tried, ${STREAMS - refused} granted, ${refused} refused: cap ${cap} pd, spent ${spent}; ${left} left at the first refusal of one that may cost ${WORST}; ${returned} was held and came back`,
    );
    await close();
  }));

test("two processes on one database never grant together: the second refuses until the first has shipped all and closed, then goes on from there", (t) =>
  withDatabases(t, async (database, t) => {
    const keyrings = new TestKeyrings();
    const tenant = newId<TenantId>();
    const budget = budgetOf({ owner: tenant, cap: 10n * WORST, thresholds: [], window: "total" });
    await insertBudgets(database, keyrings, [budget]);
    const opened = await database.open();
    const first = await processOn(t, opened, keyrings, [budget]);
    const second = await processOn(t, opened, keyrings, [budget]);
    const call = async ({ metering }: typeof first) => play(metering, await metering.hold(factsOf({ tenant, bound: BOUND }), PRICE), 0.99);
    const spent = await call(first);
    await assert.rejects(call(second), { code: "overloaded", retryAfterSeconds: 1 });
    await first.close();
    let charged = spent;
    for (let waited = 0; ; waited++) {
      try {
        charged += await call(second);
        break;
      } catch (thrown) {
        if (waited > 30) throw thrown;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
    for (;;) {
      try {
        charged += await call(second);
      } catch (thrown) {
        assert.ok(thrown instanceof BudgetExceeded);
        break;
      }
    }
    await second.metering.flush();
    assert.equal(await spentUnder(database, budget), charged);
    assert.ok(charged <= budget.cap && charged + WORST > budget.cap);
    await second.close();
  }));

test("while PostgreSQL is away a call goes on whose balances are in memory, another is refused, and what was spent meanwhile counts", (t) =>
  withDatabases(t, async (database, t) => {
    const keyrings = new TestKeyrings();
    const tenant = newId<TenantId>();
    const each = budgetOf({ owner: tenant, scope: "user", cap: 3n * WORST, thresholds: [], window: "total" });
    await insertBudgets(database, keyrings, [each]);
    const { metering, counts, close } = await processOn(t, await database.open(), keyrings, [each]);
    const call = async (user: string) => play(metering, await metering.hold(factsOf({ tenant, user, bound: BOUND }), PRICE), 0.99);
    let charged = await call("ada");
    counts.isAway = true;
    charged += await call("ada");
    await assert.rejects(call("bob"), { code: "overloaded" });
    counts.isAway = false;
    charged += await call("bob");
    charged += await call("ada");
    await assert.rejects(call("ada"), BudgetExceeded);
    await metering.flush();
    assert.equal(await spentUnder(database, each), charged);
    await close();
  }));

test("under three budgets a call asks PostgreSQL nothing of its own once their balances are in memory", (t) =>
  withDatabases(t, async (database, t) => {
    const keyrings = new TestKeyrings();
    const tenant = newId<TenantId>();
    const cap = 1_000_000n * WORST;
    const scopes = (["tenant", "project", "user"] as const).map((scope) => budgetOf({ owner: tenant, scope, cap, thresholds: [] }));
    await insertBudgets(database, keyrings, scopes);
    const { metering, counts, close } = await processOn(t, await database.open(), keyrings, scopes);
    const project = newId<never>();
    const call = async (user: string) => play(metering, await metering.hold(factsOf({ tenant, project, user, bound: BOUND }), PRICE), 0.5);
    for (const user of ["ada", "bob"]) await call(user);
    await metering.flush();
    const before = counts.statements;
    // Faster than the shipper's timer: whatever is asked now is asked by the calls.
    const holds: Hold[] = [];
    for (let index = 0; index < 500; index++)
      holds.push(await metering.hold(factsOf({ tenant, project, user: index % 2 === 0 ? "ada" : "bob", bound: BOUND }), PRICE));
    const asked = counts.statements - before;
    assert.ok(asked <= 2, `${asked} transactions in 500 holds`);
    t.diagnostic(`500 holds under three budgets: ${asked} transactions`);
    await Promise.all(holds.map((hold) => play(metering, hold, 0.05)));
    await close();
  }));
