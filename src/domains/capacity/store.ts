import type { Selectable } from "kysely";
import type { TenantId } from "../../kernel/ids.ts";
import type { SystemTransaction, Tables, TenantTransaction } from "../../storage/database/index.ts";
import { type Address, ofTenants } from "../../storage/snapshot/index.ts";
import type { LimitId, TierId } from "./model.ts";

export type LimitRow = Selectable<Tables["limits"]>;
export type TierRow = Selectable<Tables["tiers"]>;
export type Fresh<Row> = Omit<Row, "tenant_id" | "archived_at">;
type Changes<Row> = Omit<
  Row,
  "tenant_id" | "archived_at" | "id" | "tier_id" | "name_sealed" | "name_index" | "set_by_platform" | "created_at"
>;

/** Of the transaction's tenant; of the tier where one is given. */
export function findLimit(tx: TenantTransaction, tier: TierId | null, address: Address<LimitId>): Promise<LimitRow | undefined> {
  return limitAt(tx, tier, address).executeTakeFirst();
}

/** Locked until the transaction ends. */
export function findLimitForUpdate(tx: TenantTransaction, tier: TierId | null, address: Address<LimitId>): Promise<LimitRow | undefined> {
  return limitAt(tx, tier, address).forUpdate().executeTakeFirst();
}

function limitAt(tx: TenantTransaction, tier: TierId | null, address: Address<LimitId>) {
  const live = liveLimits(tx, tier);
  return address.kind === "id" ? live.where("id", "=", address.id) : live.where("name_index", "=", address.index);
}

function liveLimits(tx: TenantTransaction, tier: TierId | null) {
  const live = tx.selectFrom("limits").selectAll().where("archived_at", "is", null);
  return tier === null ? live.where("tier_id", "is", null) : live.where("tier_id", "=", tier);
}

export function listLimits(tx: TenantTransaction, tier: TierId | null, after: string | null, count: number): Promise<LimitRow[]> {
  const live = liveLimits(tx, tier);
  return (after === null ? live : live.where("id", ">", after as LimitId)).orderBy("id").limit(count).execute();
}

/** All of a tenant's, oldest first. */
export function readLimits(tx: TenantTransaction): Promise<LimitRow[]> {
  return liveLimits(tx, null).orderBy("id").execute();
}

/** Those that the tenant set itself. */
export async function countOwnLimits(tx: TenantTransaction): Promise<number> {
  const counted = tx.selectFrom("limits").where("archived_at", "is", null).where("set_by_platform", "=", false);
  const { count } = await counted.select((row) => row.fn.countAll<number>().as("count")).executeTakeFirstOrThrow();
  return count;
}

export async function insertLimit(tx: TenantTransaction, row: Fresh<LimitRow>): Promise<void> {
  await tx.insertInto("limits").values(row).execute();
}

export async function updateLimit(tx: TenantTransaction, id: LimitId, changes: Changes<LimitRow>): Promise<void> {
  await tx.updateTable("limits").set(changes).where("id", "=", id).execute();
}

export async function archiveLimit(tx: TenantTransaction, id: LimitId, at: Date): Promise<void> {
  await tx.updateTable("limits").set({ archived_at: at, updated_at: at }).where("id", "=", id).execute();
}

export function findTier(tx: TenantTransaction, address: Address<TierId>): Promise<TierRow | undefined> {
  return tierAt(tx, address).executeTakeFirst();
}

/** Locked until the transaction ends: a tier is not archived under a limit that is being made. */
export function findTierForUpdate(tx: TenantTransaction, address: Address<TierId>): Promise<TierRow | undefined> {
  return tierAt(tx, address).forUpdate().executeTakeFirst();
}

function tierAt(tx: TenantTransaction, address: Address<TierId>) {
  const live = tx.selectFrom("tiers").selectAll().where("archived_at", "is", null);
  return address.kind === "id" ? live.where("id", "=", address.id) : live.where("name_index", "=", address.index);
}

export function listTiers(tx: TenantTransaction, after: string | null, count: number): Promise<TierRow[]> {
  const live = tx.selectFrom("tiers").selectAll().where("archived_at", "is", null);
  return (after === null ? live : live.where("id", ">", after as TierId)).orderBy("id").limit(count).execute();
}

export async function insertTier(tx: TenantTransaction, row: Fresh<TierRow>): Promise<void> {
  await tx.insertInto("tiers").values(row).execute();
}

export async function updateTier(tx: TenantTransaction, id: TierId, changes: Omit<Changes<TierRow>, "tier_id">): Promise<void> {
  await tx.updateTable("tiers").set(changes).where("id", "=", id).execute();
}

/** The tier and its limits. */
export async function archiveTier(tx: TenantTransaction, id: TierId, at: Date): Promise<void> {
  const archived = { archived_at: at, updated_at: at };
  await tx.updateTable("limits").set(archived).where("tier_id", "=", id).where("archived_at", "is", null).execute();
  await tx.updateTable("tiers").set(archived).where("id", "=", id).execute();
}

/** The live rows of many tenants, two queries in all. */
export async function readCapacity(tx: SystemTransaction, tenants: readonly TenantId[]): Promise<{ limits: LimitRow[]; tiers: TierRow[] }> {
  const whose = ofTenants(tenants);
  return {
    limits: await tx.selectFrom("limits").selectAll().where(whose).where("archived_at", "is", null).orderBy("id").execute(),
    tiers: await tx.selectFrom("tiers").selectAll().where(whose).where("archived_at", "is", null).execute(),
  };
}
