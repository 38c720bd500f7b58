import type { Clock } from "../../kernel/clock.ts";
import { isUuid, type MemberId, type ProjectId, type TenantId, type Uuid } from "../../kernel/ids.ts";
import { type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { afterId, existing, type ListQuery, type Page, toPage, toUnixSeconds } from "../../storage/snapshot/index.ts";
import { findMember, findMemberForUpdate, insertMember, listMembers, type MemberRow, updateMember } from "./member-store.ts";
import { openText, type ReadMembers, refuseRoles, sealPerson, sealText, type WriteMembers } from "./members.ts";

export interface ServiceAccountVerbsNeeds {
  readonly clock: Clock;
  readonly makeId: <Id extends Uuid>() => Id;
  /** Of a tenant that the snapshot holds. */
  readonly keyring: (tenant: TenantId) => TenantKeyring;
  /** Revokes every key of the account, in the transaction. */
  readonly revokeKeys: (tx: TenantTransaction, member: MemberId) => Promise<void>;
}

/** Times in Unix seconds. */
export interface ServiceAccountView {
  readonly id: string;
  readonly name: string;
  readonly roles: string[];
  readonly created_by: string;
  readonly created_at: number;
}

/** Of one project, in the tenant's transaction. All throw Problem. */
export interface ServiceAccountVerbs {
  create(tx: TenantTransaction, allowed: WriteMembers, project: ProjectId, fields: AccountFields): Promise<ServiceAccountView>;
  get(tx: TenantTransaction, allowed: ReadMembers, project: ProjectId, id: string): Promise<ServiceAccountView>;
  list(tx: TenantTransaction, allowed: ReadMembers, project: ProjectId, page: ListQuery): Promise<Page<ServiceAccountView>>;
  change(
    tx: TenantTransaction,
    allowed: WriteMembers,
    project: ProjectId,
    id: string,
    fields: Partial<AccountFields>,
  ): Promise<{ before: ServiceAccountView; after: ServiceAccountView }>;
  /** Its keys end with it. Returns the account as it was. */
  remove(tx: TenantTransaction, allowed: WriteMembers, project: ProjectId, id: string): Promise<ServiceAccountView>;
}

export interface AccountFields {
  readonly name: string;
  readonly roles: readonly string[];
}

export function createServiceAccountVerbs(needs: ServiceAccountVerbsNeeds): ServiceAccountVerbs {
  const ringOf = (tx: TenantTransaction): TenantKeyring => needs.keyring(tenantOf(tx));
  const view = (tx: TenantTransaction, row: Shown): ServiceAccountView => ({
    id: row.id,
    name: openText(ringOf(tx), row.id, "name_sealed", row.name_sealed) ?? "",
    roles: row.roles,
    created_by: row.created_by,
    created_at: toUnixSeconds(row.created_at),
  });
  const find = async (tx: TenantTransaction, project: ProjectId, id: string, how: typeof findMember): Promise<MemberRow> =>
    existing(isUuid(id) ? await how(tx, { kind: "service_account", project }, id as Uuid as MemberId) : undefined);
  return {
    async create(tx, allowed, project, { name, roles }) {
      refuseRoles(allowed.principal, "project", roles, "role");
      const id = needs.makeId<MemberId>();
      const row = {
        id,
        kind: "service_account" as const,
        project_id: project,
        ...sealPerson(ringOf(tx), id, null, name),
        subject_index: null,
        roles: [...roles],
        revision: 1,
        created_by: allowed.principal.id,
        created_at: new Date(needs.clock.now()),
      };
      await insertMember(tx, row);
      return view(tx, row);
    },
    async get(tx, _allowed, project, id) {
      return view(tx, await find(tx, project, id, findMember));
    },
    async list(tx, _allowed, project, page) {
      const rows = await listMembers(tx, { kind: "service_account", project }, afterId(page.after), page.limit + 1);
      return toPage(rows, page.limit, (row) => view(tx, row));
    },
    async change(tx, allowed, project, id, fields) {
      const row = await find(tx, project, id, findMemberForUpdate);
      if (fields.roles !== undefined) refuseRoles(allowed.principal, "project", fields.roles, "role");
      const changes = {
        name_sealed: fields.name === undefined ? row.name_sealed : sealText(ringOf(tx), row.id, "name_sealed", fields.name),
        roles: [...(fields.roles ?? row.roles)],
        revision: row.revision + 1,
      };
      await updateMember(tx, row.id, changes);
      return { before: view(tx, row), after: view(tx, { ...row, ...changes }) };
    },
    async remove(tx, _allowed, project, id) {
      const row = await find(tx, project, id, findMemberForUpdate);
      await updateMember(tx, row.id, { removed_at: new Date(needs.clock.now()) });
      await needs.revokeKeys(tx, row.id);
      return view(tx, row);
    },
  };
}

type Shown = Pick<MemberRow, "id" | "name_sealed" | "roles" | "created_by" | "created_at">;
