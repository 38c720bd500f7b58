import assert from "node:assert/strict";
import test from "node:test";
import { newId, TestClock } from "../testing/facts.ts";
import { type Account, Accounts } from "./accounts.ts";
import { WindowBalance } from "./balances.ts";
import { budgetOf } from "./testing/budgets.ts";

const GENERATION_MS = 600_000;
const MOST = 100_000;

function accountOf(budget: Account["budget"], subject: string): Account {
  const name = `${budget.id} ${subject}`;
  return { key: name, line: name, budget, subject, window: { start: 0, end: null }, balance: new WindowBalance(0n), readAt: 0 };
}

test("a flood of users fills its tenant's balances and no other's, and after a generation there is room again though nothing but new users came", () => {
  const clock = new TestClock();
  const accounts = new Accounts(clock);
  const [flooded, other] = [budgetOf({ owner: newId() }), budgetOf({ owner: newId() })];
  for (let user = 0; user < MOST; user++) accounts.put(accountOf(flooded, String(user)));
  assert.throws(() => accounts.expectMore(flooded.owner), { code: "capacity_exceeded" });
  accounts.expectMore(other.owner);
  clock.advance(GENERATION_MS);
  accounts.expectMore(flooded.owner);
  clock.advance(GENERATION_MS);
  accounts.expectMore(flooded.owner);
  assert.equal(accounts.size, 0);
});
