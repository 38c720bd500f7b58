import assert from "node:assert/strict";
import test from "node:test";
import type { TenantId } from "../../../kernel/ids.ts";
import { factsOf, newId, TestClock } from "../testing/facts.ts";
import { Holds, type HoldsNeeds } from "./holds.ts";
import { budgetOf } from "./testing/budgets.ts";

test("a PostgreSQL that hangs refuses calls whose balance is not in memory after five seconds; what it says then serves the next", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const tenant: TenantId = newId();
  const clock = new TestClock();
  const budgets = [budgetOf({ owner: tenant })];
  const { promise: answered, resolve: answer } = Promise.withResolvers<void>();
  const readBetween: HoldsNeeds["readBetween"] = async (_first, take, read) => {
    const names = take();
    await answered;
    read(
      names,
      names.map(() => []),
    );
  };
  const holds = new Holds({
    clock,
    budgetsOf: (owner) => (owner === tenant ? budgets : []),
    indexOf: () => null,
    refresh: async () => {},
    readBetween,
  });
  const facts = factsOf({ tenant });
  const reading = holds.places(facts, clock.now());
  assert.ok(reading instanceof Promise);
  const refused = assert.rejects(reading, { code: "overloaded", status: 503 });
  await Promise.resolve();
  t.mock.timers.tick(5_000);
  await refused;
  answer();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal((holds.places(facts, clock.now()) as readonly unknown[]).length, 1);
});
