import type { TenantKeyring } from "../../../storage/secrets/index.ts";
import { groupByTenant, openName, type Source } from "../../../storage/snapshot/index.ts";
import type { Budget, BudgetPart } from "./model.ts";
import { type BudgetRow, readBudgets } from "./store.ts";

/** What budgets add to the configuration snapshot. */
export const budgetsSource: Source<readonly ZonedBudgetRow[], BudgetPart> = {
  read: async (tx, tenants) => groupByTenant(await readBudgets(tx, tenants)),
  build: (_tenant, rows = [], keyring) => (rows.length === 0 ? NO_BUDGETS : { budgets: rows.map((row) => budgetOf(keyring, row)) }),
};

/** Most tenants have none. */
const NO_BUDGETS: BudgetPart = { budgets: [] };

/** A row beside its owner's zone. */
export type ZonedBudgetRow = BudgetRow & { readonly time_zone: string };

function budgetOf(keyring: TenantKeyring, row: ZonedBudgetRow): Budget {
  return { ...rulesOf(row), name: openName(keyring, "budgets", row), setByPlatform: row.set_by_platform };
}

/** All but what is sealed or only shown. */
export function rulesOf(row: ZonedBudgetRow): Omit<Budget, "name" | "setByPlatform"> {
  return {
    id: row.id,
    owner: row.tenant_id,
    scope: row.scope,
    project: row.project_id,
    key: row.key_id,
    subjectIndex: row.subject_index?.toString("hex") ?? null,
    unit: row.unit,
    window: row.budget_window,
    rollingSeconds: row.rolling_seconds,
    timeZone: row.time_zone,
    cap: row.cap,
    mode: row.mode,
    thresholds: row.thresholds,
    definition: row.definition,
    epoch: row.epoch,
  };
}
