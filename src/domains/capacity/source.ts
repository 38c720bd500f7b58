import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { groupByTenant, openName, type Source } from "../../storage/snapshot/index.ts";
import type { CapacityPart, Dimension, Limit } from "./model.ts";
import { type Fresh, type LimitRow, readCapacity, type TierRow } from "./store.ts";

export interface CapacityRows {
  readonly limits: readonly LimitRow[];
  readonly tiers: readonly TierRow[];
}

/** This domain's share of the configuration snapshot. */
export const capacitySource: Source<CapacityRows, CapacityPart> = {
  async read(tx, tenants) {
    const rows = await readCapacity(tx, tenants);
    const limits = groupByTenant(rows.limits);
    const tiers = groupByTenant(rows.tiers);
    return new Map(tenants.map((id) => [id, { limits: limits.get(id) ?? [], tiers: tiers.get(id) ?? [] }]));
  },
  build: (_tenant, { limits, tiers } = NO_ROWS, keyring) => ({
    limits: limits.length === 0 ? NO_LIMITS : limits.map((row) => limitOf(keyring, row)),
    tiers: tiers.length === 0 ? NO_TIERS : new Map(tiers.map((row) => [openName(keyring, "tiers", row), row.id])),
  }),
};

const NO_ROWS: CapacityRows = { limits: [], tiers: [] };

/** Most tenants have none, and an empty map takes 200 bytes. The part itself is each tenant's own: what is counted goes by it. */
const NO_LIMITS: CapacityPart["limits"] = [];
const NO_TIERS: CapacityPart["tiers"] = new Map();

export function limitOf(keyring: TenantKeyring, row: Fresh<LimitRow>): Limit {
  return {
    id: row.id,
    name: openName(keyring, "limits", row),
    tier: row.tier_id,
    scope: row.scope,
    key: row.key_id,
    project: row.project_id,
    model: row.model_id,
    deployment: row.deployment_id,
    dimension: row.dimension,
    amount: row.amount,
    burst: row.burst ?? defaultBurst(row.dimension, row.rate_window, row.amount),
    window: row.rate_window,
    strict: row.dimension === "tokens" && row.token_mode === "strict",
  };
}

/** Ten seconds' worth of requests; of tokens a minute's, for one prompt may be that large. A sliding window has no other burst than itself. */
function defaultBurst(dimension: Dimension, window: "gcra" | "sliding", amount: number): number {
  return dimension === "requests" && window === "gcra" ? Math.ceil(amount / 6) : amount;
}
