import { PLATFORM_TENANT } from "../../../../kernel/ids.ts";
import type { TenantKeyring } from "../../../../storage/secrets/index.ts";
import { sealName } from "../../../../storage/snapshot/index.ts";
import type { TestDatabase } from "../../../../../test/support/postgres.ts";
import { newId } from "../../testing/facts.ts";
import type { TestKeyrings } from "../../testing/world.ts";
import type { Budget } from "../model.ts";

/** A budget of $1 a day for the platform, but for the changes. */
export function budgetOf(changes: Partial<Budget> = {}): Budget {
  return {
    id: newId(),
    owner: PLATFORM_TENANT,
    name: "cap",
    setByPlatform: false,
    scope: "tenant",
    project: null,
    key: null,
    subjectIndex: null,
    unit: "usd",
    window: "day",
    rollingSeconds: null,
    timeZone: "UTC",
    cap: 1_000_000_000_000n,
    mode: "reject",
    thresholds: [50, 80, 100],
    definition: 1,
    epoch: 1,
    ...changes,
  };
}

/** Makes rows of them, as a PUT would. */
export async function insertBudgets(database: TestDatabase, keyrings: TestKeyrings, budgets: readonly Budget[]): Promise<void> {
  for (const budget of budgets) {
    const keyring = keyrings.of(budget.owner) as TenantKeyring;
    const named = sealName(keyring, "budgets", budget.id, budget.name, keyring.blindIndex("budgets.name", budget.id));
    const { owner, id, scope, unit, window, rollingSeconds, cap, mode, thresholds, epoch } = budget;
    await database.asSuperuser((client) =>
      client.query(
        `INSERT INTO budgets (tenant_id, id, name_sealed, name_index, set_by_platform, scope, unit, budget_window, rolling_seconds, cap, mode,
           thresholds, definition, epoch, created_at, updated_at)
         VALUES ($1, $2, $3, $4, false, $5, $6, $7, $8, $9, $10, $11, 1, $12, now(), now())`,
        [owner, id, named.name_sealed, named.name_index, scope, unit, window, rollingSeconds, cap.toString(), mode, thresholds, epoch],
      ),
    );
  }
}

/** What the database has against a budget, over all subjects and windows. */
export function spentUnder(database: TestDatabase, budget: Budget): Promise<bigint> {
  return database.asSuperuser(async (client) => {
    const { rows } = await client.query<{ spent: string }>(
      "SELECT coalesce(sum(posted + adjusted + overage), 0)::text AS spent FROM budget_balances WHERE budget_id = $1",
      [budget.id],
    );
    return BigInt((rows[0] as { spent: string }).spent);
  });
}
