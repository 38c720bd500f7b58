import type { Clock } from "../../../kernel/clock.ts";
import type { TenantId, Uuid } from "../../../kernel/ids.ts";
import type { TenantKeyring } from "../../../storage/secrets/index.ts";
import { notFound, type SnapshotStore } from "../../../storage/snapshot/index.ts";
import type { IdentityPart } from "../../identity/index.ts";
import type { TenantPart } from "../../tenants/index.ts";
import type { BudgetMeans, BudgetVerbsNeeds } from "./needs.ts";
import { budgetRoutes } from "./routes.ts";

/** What the verbs read of the configuration snapshot. */
export interface BudgetParts {
  readonly identity: Pick<IdentityPart, "keys">;
  readonly tenants: TenantPart;
  readonly keyring: TenantKeyring;
}

export interface BudgetsNeeds extends Pick<BudgetVerbsNeeds, "projectOf" | "findTenant"> {
  readonly snapshot: SnapshotStore<BudgetParts>;
  readonly clock: Clock;
  readonly makeId: <Id extends Uuid>() => Id;
  readonly means: BudgetMeans;
}

/** The routes of budgets and adjustments. */
export function createBudgets({ snapshot, means, ...needs }: BudgetsNeeds): { readonly routes: ReturnType<typeof budgetRoutes> } {
  const partsOf = (tenant: TenantId): BudgetParts => {
    const parts = snapshot.current.tenants.get(tenant);
    if (parts === undefined) throw notFound();
    return parts;
  };
  const verbs: BudgetVerbsNeeds = {
    ...needs,
    ...means,
    keyring: (tenant) => partsOf(tenant).keyring,
    timeZoneOf: (tenant) => partsOf(tenant).tenants.tenant.timeZone,
    projectName: (tenant, id) => partsOf(tenant).tenants.projects.get(id)?.name,
    async hasKey(tenant, id) {
      await snapshot.refresh();
      return partsOf(tenant).identity.keys.has(id);
    },
  };
  return { routes: budgetRoutes(verbs) };
}
