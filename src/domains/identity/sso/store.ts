import type { Selectable } from "kysely";
import type { TenantId, Uuid } from "../../../kernel/ids.ts";
import type { SystemTransaction, Tables, TenantTransaction } from "../../../storage/database/index.ts";
import { type Address, ofTenants } from "../../../storage/snapshot/index.ts";
import type { ProviderId } from "./model.ts";

export type ProviderRow = Selectable<Tables["identity_providers"]>;
export type FreshProvider = Omit<ProviderRow, "tenant_id" | "archived_at">;
export type ProviderChanges = Omit<FreshProvider, "id" | "name_sealed" | "name_index" | "created_at">;
export type SessionRow = Selectable<Tables["console_sessions"]>;

export function findProvider(tx: TenantTransaction, address: Address<ProviderId>): Promise<ProviderRow | undefined> {
  return providerAt(tx, address).executeTakeFirst();
}

/** Locked until the transaction ends. */
export function findProviderForUpdate(tx: TenantTransaction, address: Address<ProviderId>): Promise<ProviderRow | undefined> {
  return providerAt(tx, address).forUpdate().executeTakeFirst();
}

function providerAt(tx: TenantTransaction, address: Address<ProviderId>) {
  const live = tx.selectFrom("identity_providers").selectAll().where("archived_at", "is", null);
  return address.kind === "id" ? live.where("id", "=", address.id) : live.where("name_index", "=", address.index);
}

export function listProviders(tx: TenantTransaction, after: string | null, count: number): Promise<ProviderRow[]> {
  const live = tx.selectFrom("identity_providers").selectAll().where("archived_at", "is", null);
  return (after === null ? live : live.where("id", ">", after as ProviderId)).orderBy("id").limit(count).execute();
}

export async function countProviders(tx: TenantTransaction): Promise<number> {
  const { count } = await tx
    .selectFrom("identity_providers")
    .select((row) => row.fn.countAll<number>().as("count"))
    .where("archived_at", "is", null)
    .executeTakeFirstOrThrow();
  return count;
}

export async function insertProvider(tx: TenantTransaction, row: FreshProvider): Promise<void> {
  await tx.insertInto("identity_providers").values(row).execute();
}

export async function updateProvider(tx: TenantTransaction, id: ProviderId, changes: ProviderChanges): Promise<void> {
  await tx.updateTable("identity_providers").set(changes).where("id", "=", id).execute();
}

export async function archiveProvider(tx: TenantTransaction, id: ProviderId, at: Date): Promise<void> {
  await tx.updateTable("identity_providers").set({ archived_at: at, updated_at: at }).where("id", "=", id).execute();
}

export function readProviders(tx: SystemTransaction, tenants: readonly TenantId[]): Promise<ProviderRow[]> {
  return tx.selectFrom("identity_providers").selectAll().where(ofTenants(tenants)).where("archived_at", "is", null).orderBy("id").execute();
}

export async function insertSession(tx: TenantTransaction, row: Omit<SessionRow, "tenant_id">): Promise<void> {
  await tx.insertInto("console_sessions").values(row).execute();
}

export function findSession(tx: TenantTransaction, cookieHash: Buffer): Promise<SessionRow | undefined> {
  return tx.selectFrom("console_sessions").selectAll().where("cookie_hash", "=", cookieHash).executeTakeFirst();
}

export async function touchSession(tx: TenantTransaction, id: Uuid, idleAt: Date): Promise<void> {
  await tx.updateTable("console_sessions").set({ idle_at: idleAt }).where("id", "=", id).execute();
}

/** Whether it was there. */
export async function deleteSession(tx: TenantTransaction, id: Uuid): Promise<boolean> {
  const deleted = await tx.deleteFrom("console_sessions").where("id", "=", id).returning("id").executeTakeFirst();
  return deleted !== undefined;
}

/** Those that have ended, of the whole tenant, and of the subject's all but its newest. */
export async function trimSessions(tx: TenantTransaction, subject: string, now: Date, keep: number): Promise<void> {
  await tx
    .deleteFrom("console_sessions")
    .where((row) => row.or([row("expires_at", "<=", now), row("idle_at", "<=", now)]))
    .execute();
  const surplus = await tx
    .selectFrom("console_sessions")
    .select("id")
    .where("subject", "=", subject)
    .orderBy("created_at", "desc")
    .offset(keep)
    .limit(SURPLUS)
    .execute();
  if (surplus.length > 0)
    await tx
      .deleteFrom("console_sessions")
      .where(
        "id",
        "in",
        surplus.map(({ id }) => id),
      )
      .execute();
}

/** Each sign-in adds one, so that more than this are over only where the bound was lowered. */
const SURPLUS = 100;
