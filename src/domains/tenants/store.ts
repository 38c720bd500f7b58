import type { Selectable } from "kysely";
import { PLATFORM_TENANT, type ProjectId, type TenantId } from "../../kernel/ids.ts";
import type { SystemTransaction, Tables, TenantTransaction } from "../../storage/database/index.ts";
import { type Address, ofTenants } from "../../storage/snapshot/index.ts";

export type TenantRow = Selectable<Tables["tenants"]>;
export type ProjectRow = Selectable<Tables["projects"]>;
type NewRow<Row> = Omit<Row, "tenant_id" | "archived_at">;
type Changes<Row> = Omit<Row, "tenant_id" | "archived_at" | "id" | "name_sealed" | "name_index" | "created_at">;

/** Runs in the platform's transaction, as all verbs on tenants do. Locked until it ends. */
export function findTenantForUpdate(tx: TenantTransaction, address: Address<TenantId>): Promise<TenantRow | undefined> {
  const live = tx.selectFrom("tenants").selectAll().where("archived_at", "is", null);
  return (address.kind === "id" ? live.where("id", "=", address.id) : live.where("name_index", "=", address.index))
    .forUpdate()
    .executeTakeFirst();
}

export function listTenants(tx: TenantTransaction, after: string | null, count: number): Promise<TenantRow[]> {
  const live = tx.selectFrom("tenants").selectAll().where("archived_at", "is", null);
  return (after === null ? live : live.where("id", ">", after as TenantId)).orderBy("id").limit(count).execute();
}

export async function insertTenant(tx: TenantTransaction, row: NewRow<TenantRow>): Promise<void> {
  await tx.insertInto("tenants").values(row).execute();
}

export async function updateTenant(tx: TenantTransaction, id: TenantId, changes: Changes<TenantRow>): Promise<void> {
  await tx.updateTable("tenants").set(changes).where("id", "=", id).execute();
}

export async function archiveTenant(tx: TenantTransaction, id: TenantId, at: Date): Promise<void> {
  await tx.updateTable("tenants").set({ archived_at: at, updated_at: at }).where("id", "=", id).execute();
}

export function findProject(tx: TenantTransaction, address: Address<ProjectId>): Promise<ProjectRow | undefined> {
  return projectAt(tx, address).executeTakeFirst();
}

/** Kept from being archived until the transaction ends. */
export function findProjectToUse(tx: TenantTransaction, address: Address<ProjectId>): Promise<ProjectRow | undefined> {
  return projectAt(tx, address).forKeyShare().executeTakeFirst();
}

export function findProjectForUpdate(tx: TenantTransaction, address: Address<ProjectId>): Promise<ProjectRow | undefined> {
  return projectAt(tx, address).forUpdate().executeTakeFirst();
}

function projectAt(tx: TenantTransaction, address: Address<ProjectId>) {
  const live = tx.selectFrom("projects").selectAll().where("archived_at", "is", null);
  return address.kind === "id" ? live.where("id", "=", address.id) : live.where("name_index", "=", address.index);
}

export function listProjects(tx: TenantTransaction, after: string | null, count: number, archived: boolean): Promise<ProjectRow[]> {
  let projects = tx.selectFrom("projects").selectAll();
  if (!archived) projects = projects.where("archived_at", "is", null);
  if (after !== null) projects = projects.where("id", ">", after as ProjectId);
  return projects.orderBy("id").limit(count).execute();
}

export async function insertProject(tx: TenantTransaction, row: NewRow<ProjectRow>): Promise<void> {
  await tx.insertInto("projects").values(row).execute();
}

export async function updateProject(tx: TenantTransaction, id: ProjectId, changes: Changes<ProjectRow>): Promise<void> {
  await tx.updateTable("projects").set(changes).where("id", "=", id).execute();
}

export async function archiveProject(tx: TenantTransaction, id: ProjectId, at: Date): Promise<void> {
  await tx.updateTable("projects").set({ archived_at: at, updated_at: at }).where("id", "=", id).execute();
}

/** The live tenants and the revision of each, for the snapshot. */
export async function readRevisions(tx: SystemTransaction): Promise<ReadonlyMap<TenantId, number>> {
  const rows = await tx
    .selectFrom("tenants")
    .select(["id", "revision"])
    .where("tenant_id", "=", PLATFORM_TENANT)
    .where("archived_at", "is", null)
    .execute();
  return new Map(rows.map((row) => [row.id, row.revision]));
}

export function readTenants(tx: SystemTransaction, tenants: readonly TenantId[]): Promise<TenantRow[]> {
  return tx
    .selectFrom("tenants")
    .selectAll()
    .where("tenant_id", "=", PLATFORM_TENANT)
    .where(ofTenants(tenants, "id"))
    .where("archived_at", "is", null)
    .execute();
}

export function readProjects(tx: SystemTransaction, tenants: readonly TenantId[]): Promise<ProjectRow[]> {
  return tx.selectFrom("projects").selectAll().where(ofTenants(tenants)).where("archived_at", "is", null).execute();
}
