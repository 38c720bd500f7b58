import { PLATFORM_TENANT, type TenantId, type Uuid } from "../../../kernel/ids.ts";
import { formatUsd, parseUsd } from "../../../kernel/money.ts";
import { asTenant, type TenantTransaction, tenantOf } from "../../../storage/database/index.ts";
import { afterId, type ListQuery, notFound, type Page, toPage, toUnixSeconds } from "../../../storage/snapshot/index.ts";
import type { Allowed } from "../../identity/index.ts";
import { type Attribution, INDEXED_AS, subjectOf } from "./model.ts";
import type { BudgetVerbsNeeds } from "./needs.ts";
import { keyOf, projectOf, refuse } from "./scope.ts";
import { rulesOf } from "./source.ts";
import {
  addAdjusted,
  type AdjustmentRow,
  type Fresh,
  insertAdjustment,
  listAdjustments,
  listOpenUsdBudgets,
  shareBalances,
  touchBudget,
} from "./store.ts";
import { spanAt } from "./windows.ts";

export interface AdjustmentFields {
  /** USD; negative gives back. */
  readonly amount: string;
  readonly project?: string | undefined;
  readonly key?: string | undefined;
  readonly user?: string | undefined;
  readonly feature?: string | undefined;
  readonly reason: string;
}

export interface AdjustmentView {
  readonly id: string;
  readonly amount: string;
  readonly project: string | null;
  readonly key: string | null;
  readonly user: string | null;
  readonly feature: string | null;
  readonly reason: string;
  readonly created_by: string;
  readonly created_at: number;
}

/** All throw Problem. */
export interface AdjustmentVerbs {
  /** In the platform's transaction: what is charged to a tenant, or given back to it, beside its calls. Counts in the windows in force. */
  create(
    tx: TenantTransaction,
    allowed: Allowed<"platform:budgets:write">,
    tenant: string,
    fields: AdjustmentFields,
  ): Promise<{ readonly tenant: TenantId; readonly view: AdjustmentView }>;
  /** In the tenant's. */
  list(tx: TenantTransaction, allowed: Allowed<"budgets:read">, page: ListQuery): Promise<Page<AdjustmentView>>;
}

export function createAdjustmentVerbs(needs: BudgetVerbsNeeds): AdjustmentVerbs {
  return {
    async create(tx, allowed, tenantName, fields) {
      const tenant = await needs.findTenant(tenantName);
      if (tenant === null || tenant === PLATFORM_TENANT) throw notFound();
      await shareBalances(tx);
      const row = await asTenant(tx, tenant, async (inside) => {
        const made = await rowOf(needs, inside, allowed.principal.id, fields);
        await insertAdjustment(inside, made);
        return made;
      });
      // The platform's balances first, as `addPostings` orders them: neither waits for the other in a circle.
      await adjust(needs, tx, PLATFORM_TENANT, row);
      return await asTenant(tx, tenant, async (inside) => {
        await adjust(needs, inside, tenant, row);
        return { tenant, view: viewOf(needs, inside, row) };
      });
    },

    async list(tx, _allowed, page) {
      const rows = await listAdjustments(tx, afterId(page.after), page.limit + 1);
      return toPage(rows, page.limit, (row) => viewOf(needs, tx, row));
    },
  };
}

async function rowOf(needs: BudgetVerbsNeeds, tx: TenantTransaction, by: string, fields: AdjustmentFields): Promise<Fresh<AdjustmentRow>> {
  const keyring = needs.keyring(tenantOf(tx));
  const id = needs.makeId<Uuid>();
  const amount = signedUsd(fields.amount);
  const now = new Date(needs.clock.now());
  const tag = (column: "user" | "feature", value: string | undefined) => {
    if (value === undefined) return { sealed: null, index: null };
    const index = keyring.blindIndex(INDEXED_AS[column], value);
    return { index, sealed: keyring.seal(value, { table: "usage_rows", column, row: index.toString("hex") }) };
  };
  const [user, feature] = [tag("user", fields.user), tag("feature", fields.feature)];
  return {
    id,
    project_id: fields.project === undefined ? null : await projectOf(needs, tx, fields.project, "project"),
    key_id: fields.key === undefined ? null : await keyOf(needs, tx, fields.key, "key"),
    user_sealed: user.sealed,
    user_index: user.index,
    feature_sealed: feature.sealed,
    feature_index: feature.index,
    debit_spend: amount,
    credit_margin: amount,
    reason_sealed: keyring.seal(fields.reason, reasonAt(id)),
    created_by: by,
    created_at: now,
    effective_at: now,
  };
}

function reasonAt(id: string) {
  return { table: "ledger_adjustments", column: "reason_sealed", row: id };
}

function signedUsd(text: string): bigint {
  const amount = parseUsd(text.replace(/^-/, ""));
  if (amount === null || amount === 0n)
    return refuse("amount", "'amount' is a decimal string of USD with at most 12 decimals, not zero: \"-5.25\" gives back.");
  return text.startsWith("-") ? -amount : amount;
}

/** Adds it to each of the owner's balances that an attempt of this attribution would be counted under now. */
async function adjust(needs: BudgetVerbsNeeds, tx: TenantTransaction, owner: TenantId, row: Fresh<AdjustmentRow>): Promise<void> {
  const of: Attribution = {
    project: row.project_id,
    key: row.key_id,
    userIndex: row.user_index?.toString("hex") ?? null,
    featureIndex: row.feature_index?.toString("hex") ?? null,
  };
  for (const budget of await listOpenUsdBudgets(tx)) {
    const rules = rulesOf({ ...budget, tenant_id: owner });
    const subject = subjectOf(rules, of);
    if (subject === null) continue;
    const sealed = rules.scope === "user" ? row.user_sealed : rules.scope === "feature" ? row.feature_sealed : null;
    const span = spanAt(rules, row.effective_at.getTime());
    await addAdjusted(tx, { budget: budget.id, subject, sealed, span, amount: row.debit_spend });
    await touchBudget(tx, budget.id, new Date(needs.clock.now()));
  }
}

function viewOf(needs: BudgetVerbsNeeds, tx: TenantTransaction, row: Fresh<AdjustmentRow>): AdjustmentView {
  const tenant = tenantOf(tx);
  const keyring = needs.keyring(tenant);
  const opened = (column: "user" | "feature", sealed: Buffer | null, index: Buffer | null): string | null =>
    sealed === null || index === null ? null : needs.sealing.open(keyring, column, sealed, index.toString("hex"));
  return {
    id: row.id,
    amount: formatUsd(row.debit_spend),
    project: row.project_id === null ? null : (needs.projectName(tenant, row.project_id) ?? row.project_id),
    key: row.key_id,
    user: opened("user", row.user_sealed, row.user_index),
    feature: opened("feature", row.feature_sealed, row.feature_index),
    reason: keyring.open(row.reason_sealed, reasonAt(row.id)).toString(),
    created_by: row.created_by,
    created_at: toUnixSeconds(row.created_at),
  };
}
