import type { ProjectId, Uuid } from "../../../kernel/ids.ts";
import { formatUsd } from "../../../kernel/money.ts";
import type { TenantTransaction } from "../../../storage/database/index.ts";
import { existing, notFound, type Written } from "../../../storage/snapshot/index.ts";
import type { Allowed } from "../../identity/index.ts";
import { ALERT_ONLY_THRESHOLDS, parseAmount } from "./model.ts";
import type { BudgetVerbs, BudgetView } from "./service.ts";
import { listSpendAlerts } from "./store.ts";

/** A budget of money by the month, as OpenAI's Admin API calls it: a *spend limit* refuses, a *spend alert* only tells. */
export interface SpendView {
  /** The budget's. */
  readonly id: string;
  readonly cents: number;
  readonly exhausted: boolean;
}

type Read = Allowed<"budgets:read">;
type Write = Allowed<"budgets:write">;

/** Of a project, or of the tenant (null), in the tenant's transaction. All throw Problem. */
export interface SpendVerbs {
  limit(tx: TenantTransaction, allowed: Read, project: ProjectId | null): Promise<SpendView>;
  setLimit(tx: TenantTransaction, allowed: Write, project: ProjectId | null, cents: number): Promise<Written<SpendView>>;
  endLimit(tx: TenantTransaction, allowed: Write, project: ProjectId | null): Promise<SpendView>;
  /** At most `MAX_BUDGETS`. */
  alerts(tx: TenantTransaction, allowed: Read, project: ProjectId | null): Promise<SpendView[]>;
  alert(tx: TenantTransaction, allowed: Read, project: ProjectId | null, id: string): Promise<SpendView>;
  createAlert(tx: TenantTransaction, allowed: Write, project: ProjectId | null, cents: number): Promise<Written<SpendView>>;
  changeAlert(tx: TenantTransaction, allowed: Write, project: ProjectId | null, id: string, cents: number): Promise<Written<SpendView>>;
  endAlert(tx: TenantTransaction, allowed: Write, project: ProjectId | null, id: string): Promise<SpendView>;
}

export function createSpendVerbs(budgets: BudgetVerbs<"budgets:read", "budgets:write">, makeId: <Id extends Uuid>() => Id): SpendVerbs {
  const alertRow = async (tx: TenantTransaction, project: ProjectId | null, id: string) =>
    existing((await listSpendAlerts(tx, project)).find((row) => row.id === id));
  return {
    limit: async (tx, allowed, project) => limitOf((await budgets.get(tx, allowed, limitName(project))).view, project),

    async setLimit(tx, allowed, project, cents) {
      const fields = { scope: scopeOf(project), unit: "usd", window: "month", cap: capOf(cents), mode: "reject" } as const;
      return writtenOf(await budgets.put(tx, allowed, limitName(project), fields, null));
    },

    endLimit: async (tx, allowed, project) => limitOf(await budgets.archive(tx, allowed, limitName(project), null), project),

    alerts: async (tx, _allowed, project) => (await listSpendAlerts(tx, project)).map(rowView),
    alert: async (tx, _allowed, project, id) => rowView(await alertRow(tx, project, id)),

    async createAlert(tx, allowed, project, cents) {
      const counted = { scope: scopeOf(project), unit: "usd", window: "month" } as const;
      const fields = { ...counted, cap: capOf(cents), mode: "soft", thresholds: ALERT_ONLY_THRESHOLDS } as const;
      return writtenOf(await budgets.put(tx, allowed, `spend-alert-${makeId()}`, fields, null));
    },

    async changeAlert(tx, allowed, project, id, cents) {
      const row = await alertRow(tx, project, id);
      return writtenOf(await budgets.put(tx, allowed, row.id, { cap: capOf(cents) }, null));
    },

    async endAlert(tx, allowed, project, id) {
      const row = await alertRow(tx, project, id);
      return spendOf(await budgets.archive(tx, allowed, row.id, null));
    },
  };
}

function scopeOf(project: ProjectId | null) {
  return project === null ? ({ kind: "tenant" } as const) : ({ kind: "project", project } as const);
}

/** There is one, and whoever lists budgets is to know it. */
function limitName(project: ProjectId | null): string {
  return project === null ? "spend-limit" : `spend-limit-${project}`;
}

/** One that is counted otherwise by now is no spend limit, until it is set again. */
function limitOf(view: BudgetView, project: ProjectId | null): SpendView {
  const { unit, window, mode, scope } = view;
  if (unit !== "usd" || window !== "month" || mode === "soft" || scope.kind !== scopeOf(project).kind) throw notFound();
  return spendOf(view);
}

const PICO_DOLLARS_PER_CENT = 10_000_000_000n;

function capOf(cents: number): string {
  return formatUsd(BigInt(cents) * PICO_DOLLARS_PER_CENT);
}

/** A cap that was set as a budget's may have a fraction of a cent. */
function centsOf(cap: bigint): number {
  return Number(cap) / Number(PICO_DOLLARS_PER_CENT);
}

function spendOf({ id, cap, exhausted }: BudgetView): SpendView {
  return { id, cents: centsOf(parseAmount("usd", cap) ?? 0n), exhausted: exhausted === true };
}

/** An alert tells when it is exhausted, so nobody asks it. */
function rowView({ id, cap }: { readonly id: string; readonly cap: bigint }): SpendView {
  return { id, cents: centsOf(cap), exhausted: false };
}

function writtenOf({ before, after, revision }: Written<BudgetView>): Written<SpendView> {
  return { before: before === null ? null : spendOf(before), after: spendOf(after), revision };
}
