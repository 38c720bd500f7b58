import type { Selectable } from "kysely";
import type { KeyId, MemberId, ProjectId, TenantId } from "../../kernel/ids.ts";
import type { Database, SystemTransaction, Tables, TenantTransaction } from "../../storage/database/index.ts";
import { ofTenants } from "../../storage/snapshot/index.ts";

export type KeyRow = Selectable<Tables["api_keys"]>;

export interface NewKeyRow {
  readonly id: KeyId;
  readonly project_id: ProjectId | null;
  readonly name_sealed: Buffer;
  readonly name_index: Buffer;
  readonly hash: Buffer;
  readonly permissions: string[];
  readonly models: string[] | null;
  readonly expires_at: Date | null;
  readonly routes: string[] | null;
  readonly ip_ranges: string[] | null;
  readonly member_id: MemberId | null;
  readonly creator: KeyId | MemberId | null;
  readonly created_by: string;
  readonly created_at: Date;
}

/** False where a live key of the project has this name. */
export async function insertKey(tx: TenantTransaction, row: NewKeyRow): Promise<boolean> {
  const inserted = await tx
    .insertInto("api_keys")
    .values(row)
    .onConflict((conflict) => conflict.doNothing())
    .returning("id")
    .executeTakeFirst();
  if (inserted === undefined) return false;
  await tx.insertInto("key_directory").values({ key_id: row.id }).execute();
  return true;
}

export function findKey(tx: TenantTransaction, project: ProjectId | null, id: KeyId): Promise<KeyRow | undefined> {
  return inProject(tx, project).where("id", "=", id).executeTakeFirst();
}

/** Locked until the transaction ends, so that two rotations of one key come one after the other. */
export function findKeyForUpdate(tx: TenantTransaction, project: ProjectId | null, id: KeyId): Promise<KeyRow | undefined> {
  return inProject(tx, project).where("id", "=", id).forUpdate().executeTakeFirst();
}

export function listKeys(
  tx: TenantTransaction,
  project: ProjectId | null,
  after: KeyId | null,
  count: number,
  order: "asc" | "desc",
): Promise<KeyRow[]> {
  const keys = inProject(tx, project);
  const rest = after === null ? keys : keys.where("id", order === "asc" ? ">" : "<", after);
  return rest.orderBy("id", order).limit(count).execute();
}

function inProject(tx: TenantTransaction, project: ProjectId | null) {
  const live = tx.selectFrom("api_keys").selectAll().where("revoked_at", "is", null);
  return project === null ? live.where("project_id", "is", null) : live.where("project_id", "=", project);
}

export async function setRevoked(tx: TenantTransaction, id: KeyId, at: Date): Promise<void> {
  await tx.updateTable("api_keys").set({ revoked_at: at }).where("id", "=", id).execute();
}

export async function setProjectRevoked(tx: TenantTransaction, project: ProjectId, at: Date): Promise<void> {
  await tx.updateTable("api_keys").set({ revoked_at: at }).where("project_id", "=", project).where("revoked_at", "is", null).execute();
}

export async function setMemberRevoked(tx: TenantTransaction, member: MemberId, at: Date): Promise<void> {
  await tx.updateTable("api_keys").set({ revoked_at: at }).where("member_id", "=", member).where("revoked_at", "is", null).execute();
}

/** Who bounds the key of this id at use; null where nobody does, and for what is no key. */
export async function creatorOf(tx: TenantTransaction, id: string): Promise<string | null> {
  const row = await tx
    .selectFrom("api_keys")
    .select("creator")
    .where("id", "=", id as KeyId)
    .executeTakeFirst();
  return row?.creator ?? null;
}

/** What a key made is its successor's from now on. */
export async function handOver(tx: TenantTransaction, from: KeyId, to: KeyId): Promise<void> {
  await tx.updateTable("api_keys").set({ creator: to }).where("creator", "=", from).where("id", "!=", to).execute();
}

export async function setGrace(tx: TenantTransaction, id: KeyId, until: Date): Promise<void> {
  await tx.updateTable("api_keys").set({ grace_until: until }).where("id", "=", id).execute();
}

export function readLiveKeys(tx: SystemTransaction, tenants: readonly TenantId[]): Promise<KeyRow[]> {
  return tx.selectFrom("api_keys").selectAll().where(ofTenants(tenants)).where("revoked_at", "is", null).execute();
}

export function ownerInDirectory(database: Database, id: KeyId): Promise<TenantId | undefined> {
  return database.forSystem("key-lookup", async (tx) => {
    const row = await tx.selectFrom("key_directory").select("tenant_id").where("key_id", "=", id).executeTakeFirst();
    return row?.tenant_id;
  });
}

/** Of keys of any state and any tenant. */
export function readKeyHashes(database: Database, ids: readonly KeyId[]): Promise<Pick<KeyRow, "id" | "tenant_id" | "hash">[]> {
  if (ids.length === 0) return Promise.resolve([]);
  return database.forSystem("key-lookup", (tx) =>
    tx
      .selectFrom("key_directory")
      .innerJoin("api_keys", (join) =>
        join.onRef("api_keys.tenant_id", "=", "key_directory.tenant_id").onRef("api_keys.id", "=", "key_directory.key_id"),
      )
      .select(["api_keys.id", "api_keys.tenant_id", "api_keys.hash"])
      .where("key_directory.key_id", "in", ids)
      .execute(),
  );
}
