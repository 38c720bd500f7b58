import type { Selectable, Updateable } from "kysely";
import type { InvitationId, MemberId, ProjectId, TenantId } from "../../kernel/ids.ts";
import type { SystemTransaction, Tables, TenantTransaction } from "../../storage/database/index.ts";
import { ofTenants } from "../../storage/snapshot/index.ts";

export type MemberRow = Selectable<Tables["members"]>;
export type ProjectMemberRow = Selectable<Tables["project_members"]>;
export type InvitationRow = Selectable<Tables["invitations"]>;
type NewMemberRow = Omit<MemberRow, "tenant_id" | "removed_at" | "claimed_roles" | "claimed_at">;
type NewInvitationRow = Omit<InvitationRow, "tenant_id" | "accepted_at" | "withdrawn_at" | "projects"> & { readonly projects: string };

/** People only, or the service accounts of one project. */
export type MemberScope = { readonly kind: "user" } | { readonly kind: "service_account"; readonly project: ProjectId };

export function listMembers(
  tx: TenantTransaction,
  scope: MemberScope,
  after: string | null,
  count: number,
  emails: readonly Buffer[] | null = null,
): Promise<MemberRow[]> {
  let members = inScope(tx, scope);
  if (emails !== null) members = members.where("email_index", "in", emails);
  return (after === null ? members : members.where("id", ">", after as MemberId)).orderBy("id").limit(count).execute();
}

export function findMember(tx: TenantTransaction, scope: MemberScope, id: MemberId): Promise<MemberRow | undefined> {
  return inScope(tx, scope).where("id", "=", id).executeTakeFirst();
}

/** Locked until the transaction ends. */
export function findMemberForUpdate(tx: TenantTransaction, scope: MemberScope, id: MemberId): Promise<MemberRow | undefined> {
  return inScope(tx, scope).where("id", "=", id).forUpdate().executeTakeFirst();
}

/** Locked until the transaction ends. */
export function findMemberByEmail(tx: TenantTransaction, email: Buffer): Promise<MemberRow | undefined> {
  return live(tx).where("email_index", "=", email).forUpdate().executeTakeFirst();
}

/** Locked until the transaction ends. */
export function findMemberBySubject(tx: TenantTransaction, subject: Buffer): Promise<MemberRow | undefined> {
  return live(tx).where("subject_index", "=", subject).forUpdate().executeTakeFirst();
}

/** Live members of any kind. */
export async function findMembers(tx: TenantTransaction, ids: readonly MemberId[]): Promise<ReadonlyMap<MemberId, MemberRow>> {
  if (ids.length === 0) return new Map();
  const rows = await live(tx).where("id", "in", ids).execute();
  return new Map(rows.map((row) => [row.id, row]));
}

function live(tx: TenantTransaction) {
  return tx.selectFrom("members").selectAll().where("removed_at", "is", null);
}

function inScope(tx: TenantTransaction, scope: MemberScope) {
  const ofKind = live(tx).where("kind", "=", scope.kind);
  return scope.kind === "user" ? ofKind : ofKind.where("project_id", "=", scope.project);
}

export async function insertMember(tx: TenantTransaction, row: NewMemberRow): Promise<void> {
  await tx.insertInto("members").values(row).execute();
}

export async function updateMember(tx: TenantTransaction, id: MemberId, changes: Updateable<Tables["members"]>): Promise<void> {
  await tx.updateTable("members").set(changes).where("id", "=", id).execute();
}

/** Whether somebody of this subject was a member once. */
export async function wasRemoved(tx: TenantTransaction, subject: Buffer): Promise<boolean> {
  const removed = await tx
    .selectFrom("members")
    .select("id")
    .where("subject_index", "=", subject)
    .where("removed_at", "is not", null)
    .limit(1)
    .executeTakeFirst();
  return removed !== undefined;
}

/** For the archiving of a project. */
export async function removeServiceAccountsOf(tx: TenantTransaction, project: ProjectId, at: Date): Promise<void> {
  await tx.updateTable("members").set({ removed_at: at }).where("project_id", "=", project).where("removed_at", "is", null).execute();
}

export function readMembers(tx: SystemTransaction, tenants: readonly TenantId[]): Promise<MemberRow[]> {
  return tx.selectFrom("members").selectAll().where(ofTenants(tenants)).where("removed_at", "is", null).execute();
}

export function readProjectMembers(tx: SystemTransaction, tenants: readonly TenantId[]): Promise<ProjectMemberRow[]> {
  return tx.selectFrom("project_members").selectAll().where(ofTenants(tenants)).execute();
}

export function listProjectMembers(
  tx: TenantTransaction,
  project: ProjectId,
  after: string | null,
  count: number,
): Promise<ProjectMemberRow[]> {
  const rows = tx.selectFrom("project_members").selectAll().where("project_id", "=", project);
  return (after === null ? rows : rows.where("member_id", ">", after as MemberId)).orderBy("member_id").limit(count).execute();
}

export function findProjectMember(tx: TenantTransaction, project: ProjectId, member: MemberId): Promise<ProjectMemberRow | undefined> {
  return tx.selectFrom("project_members").selectAll().where("project_id", "=", project).where("member_id", "=", member).executeTakeFirst();
}

export async function projectsOf(
  tx: TenantTransaction,
  members: readonly MemberId[],
): Promise<ReadonlyMap<MemberId, readonly ProjectMemberRow[]>> {
  const rows =
    members.length === 0
      ? []
      : await tx.selectFrom("project_members").selectAll().where("member_id", "in", members).orderBy("project_id").execute();
  const byMember = new Map<MemberId, ProjectMemberRow[]>();
  for (const row of rows) byMember.set(row.member_id, [...(byMember.get(row.member_id) ?? []), row]);
  return byMember;
}

/** Sets the roles given in the project; what is claimed there stays. */
export async function putProjectRoles(
  tx: TenantTransaction,
  row: { readonly project_id: ProjectId; readonly member_id: MemberId; readonly roles: string[]; readonly created_at: Date },
): Promise<void> {
  await tx
    .insertInto("project_members")
    .values(row)
    .onConflict((conflict) => conflict.columns(["tenant_id", "project_id", "member_id"]).doUpdateSet({ roles: row.roles }))
    .execute();
}

/** Sets the roles claimed in the project; what is given there stays. */
export async function putClaimedProjectRoles(
  tx: TenantTransaction,
  row: { readonly project_id: ProjectId; readonly member_id: MemberId; readonly claimed_roles: string[]; readonly created_at: Date },
): Promise<void> {
  await tx
    .insertInto("project_members")
    .values(row)
    .onConflict((conflict) => conflict.columns(["tenant_id", "project_id", "member_id"]).doUpdateSet({ claimed_roles: row.claimed_roles }))
    .execute();
}

export async function deleteProjectMember(tx: TenantTransaction, project: ProjectId, member: MemberId): Promise<void> {
  await tx.deleteFrom("project_members").where("project_id", "=", project).where("member_id", "=", member).execute();
}

export async function insertInvitation(tx: TenantTransaction, row: NewInvitationRow): Promise<void> {
  await tx.insertInto("invitations").values(row).execute();
}

export function listInvitations(tx: TenantTransaction, after: string | null, count: number): Promise<InvitationRow[]> {
  const rows = tx.selectFrom("invitations").selectAll().where("withdrawn_at", "is", null);
  return (after === null ? rows : rows.where("id", ">", after as InvitationId)).orderBy("id").limit(count).execute();
}

/** Not withdrawn. Locked until the transaction ends. */
export function findInvitation(tx: TenantTransaction, id: InvitationId): Promise<InvitationRow | undefined> {
  return tx.selectFrom("invitations").selectAll().where("withdrawn_at", "is", null).where("id", "=", id).forUpdate().executeTakeFirst();
}

/** Open at this time. Locked until the transaction ends. */
export function findInvitationByToken(tx: TenantTransaction, token: Buffer, now: Date): Promise<InvitationRow | undefined> {
  return open(tx, now).where("token_hash", "=", token).forUpdate().executeTakeFirst();
}

/** The newest that is open at this time. Locked until the transaction ends. */
export function findInvitationByEmail(tx: TenantTransaction, email: Buffer, now: Date): Promise<InvitationRow | undefined> {
  return open(tx, now).where("email_index", "=", email).orderBy("id", "desc").limit(1).forUpdate().executeTakeFirst();
}

function open(tx: TenantTransaction, now: Date) {
  return tx
    .selectFrom("invitations")
    .selectAll()
    .where("accepted_at", "is", null)
    .where("withdrawn_at", "is", null)
    .where("expires_at", ">", now);
}

export async function updateInvitation(
  tx: TenantTransaction,
  id: InvitationId,
  changes: Pick<Updateable<Tables["invitations"]>, "accepted_at" | "withdrawn_at">,
): Promise<void> {
  await tx.updateTable("invitations").set(changes).where("id", "=", id).execute();
}
