import type { RandomBytes } from "../../kernel/random.ts";
import type { BudgetMeans } from "./budgets/needs.ts";
import { createReports, type ReportNeeds, type Reports } from "./reports.ts";
import { meteringRoutes } from "./routes.ts";
import { createService, type Metering, type MeteringNeeds } from "./service.ts";
import { Tags } from "./tags.ts";

export type { AttemptFacts, Hold, MeteredResponse, Settlement } from "./model.ts";
export { createBudgets } from "./budgets/index.ts";
export { budgetsSource } from "./budgets/source.ts";
export { announceRepair, type BalanceDifference, verifyBalances, type VerifyReport } from "./budgets/verify.ts";
export { releaseBudgets } from "./budgets/keeper.ts";
export { formatAmount } from "./budgets/model.ts";
export { type Keeper, readKeeper } from "./budgets/store-postings.ts";
export { BudgetExceeded } from "./budgets/exceeded.ts";
export type { Owner } from "./budgets/holds.ts";
export type { Turn } from "./budgets/waiting.ts";
export type { Answers } from "./hold.ts";
export { EXPORT_FORMATS } from "./exports.ts";
export { namesIn } from "./names.ts";
export type { Metering, MeteringNeeds } from "./service.ts";

/** Usage as PostgreSQL has it, for a command beside a server. */
export function createShippedReports(needs: Omit<ReportNeeds, "sealing" | "flush"> & { readonly random: RandomBytes }): Reports {
  return createReports({ ...needs, sealing: new Tags(needs.random), flush: async () => {} });
}

/** The verbs of an attempt's money, and the routes that report it. `recover` comes first. */
export function createMetering(
  needs: MeteringNeeds,
): Metering & { readonly routes: ReturnType<typeof meteringRoutes>; readonly budgets: BudgetMeans } {
  const { metering, reports, budgets } = createService(needs);
  return { ...metering, routes: meteringRoutes(reports), budgets };
}
