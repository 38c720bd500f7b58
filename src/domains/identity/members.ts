import type { Clock } from "../../kernel/clock.ts";
import { isUuid, type MemberId, type ProjectId, type TenantId, type Uuid } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import {
  afterId,
  existing,
  type ListQuery,
  notFound,
  type Page,
  requireRevision,
  toPage,
  toUnixSeconds,
  type Written,
} from "../../storage/snapshot/index.ts";
import { beyondCreator, decideRoles, type KeyPlace, permissionsInPlace, placeOf } from "./decide.ts";
import {
  deleteProjectMember,
  findMember,
  findMemberByEmail,
  findMemberForUpdate,
  findProjectMember,
  insertMember,
  listMembers,
  listProjectMembers,
  type MemberRow,
  type ProjectMemberRow,
  findMembers,
  projectsOf,
  putProjectRoles,
  updateMember,
} from "./member-store.ts";
import type { Allowed, Principal } from "./model.ts";

export interface MemberVerbsNeeds {
  readonly clock: Clock;
  readonly makeId: <Id extends Uuid>() => Id;
  /** Of a tenant that the snapshot holds. */
  readonly keyring: (tenant: TenantId) => TenantKeyring;
  /** The live project a path or a body names, by name or id. Throws Problem not_found. */
  readonly projectOf: (tx: TenantTransaction, project: string) => Promise<ProjectId>;
  /** Null for one that is not live. From the snapshot. */
  readonly projectName: (tenant: TenantId, project: ProjectId) => string | null;
}

/** A tenant's members, or the platform's own: the proof names the tenant. Who may change one may see what it was. */
export type ReadMembers = Allowed<"members:read"> | Allowed<"platform:members:read"> | WriteMembers;
export type WriteMembers = Allowed<"members:write"> | Allowed<"platform:members:write">;

/** A person. Times in Unix seconds. */
export interface MemberView {
  readonly id: string;
  readonly email: string | null;
  readonly display_name: string | null;
  /** Over the whole tenant. */
  readonly roles: string[];
  /** The same, as the identity provider had them at the last sign-in. */
  readonly claimed_roles: string[];
  readonly projects: ProjectRolesView[];
  readonly created_by: string;
  readonly created_at: number;
}

export interface ProjectRolesView {
  readonly project: string;
  /** Null where it is archived. */
  readonly name: string | null;
  readonly roles: string[];
  readonly claimed_roles: string[];
}

export interface ProjectMemberView extends ProjectRolesView {
  readonly member: MemberView;
  readonly added_at: number;
}

/** An upsert's fields: omitted keeps. */
export interface MemberFields {
  readonly display_name?: string | null | undefined;
  readonly roles?: readonly string[] | undefined;
  /** All of them: a project that is not named is left. */
  readonly projects?: readonly { readonly project: string; readonly roles: readonly string[] }[] | undefined;
}

/** In the tenant's transaction. All throw Problem. */
export interface MemberVerbs {
  /** By email or id: whoever signs in with this verified address next is this member. */
  put(
    tx: TenantTransaction,
    allowed: WriteMembers,
    emailOrId: string,
    fields: MemberFields,
    ifMatch: number | null,
  ): Promise<Written<MemberView>>;
  get(tx: TenantTransaction, allowed: ReadMembers, emailOrId: string): Promise<{ view: MemberView; revision: number }>;
  /** As `get`, and nobody else changes the member, or its roles in a project, before this transaction ends. */
  getToChange(tx: TenantTransaction, allowed: WriteMembers, emailOrId: string): Promise<MemberView>;
  list(tx: TenantTransaction, allowed: ReadMembers, page: ListQuery, emails?: readonly string[]): Promise<Page<MemberView>>;
  /** What it created ends with it. Returns the member as it was. */
  remove(tx: TenantTransaction, allowed: WriteMembers, emailOrId: string, ifMatch: number | null): Promise<MemberView>;
  putInProject(
    tx: TenantTransaction,
    allowed: WriteMembers,
    project: ProjectId,
    emailOrId: string,
    roles: readonly string[],
  ): Promise<{ before: ProjectMemberView | null; after: ProjectMemberView }>;
  getInProject(tx: TenantTransaction, allowed: ReadMembers, project: ProjectId, emailOrId: string): Promise<ProjectMemberView>;
  listInProject(tx: TenantTransaction, allowed: ReadMembers, project: ProjectId, page: ListQuery): Promise<Page<ProjectMemberView>>;
  removeFromProject(tx: TenantTransaction, allowed: WriteMembers, project: ProjectId, emailOrId: string): Promise<ProjectMemberView>;
}

const PEOPLE = { kind: "user" } as const;

export function createMemberVerbs(needs: MemberVerbsNeeds): MemberVerbs {
  const people = new People(needs);
  return {
    async put(tx, allowed, emailOrId, fields, ifMatch) {
      const row = await people.find(tx, emailOrId, true);
      requireRevision(ifMatch, row?.revision ?? 0);
      if (row === undefined) return people.add(tx, allowed.principal, emailOrId, fields);
      const [before] = await people.views(tx, [row]);
      const after = await people.change(tx, allowed.principal, row, fields);
      return { before: before as MemberView, after, revision: row.revision + 1 };
    },

    async get(tx, _allowed, emailOrId) {
      const row = existing(await people.find(tx, emailOrId, false));
      const [view] = await people.views(tx, [row]);
      return { view: view as MemberView, revision: row.revision };
    },

    async getToChange(tx, _allowed, emailOrId) {
      const { id } = existing(await people.find(tx, emailOrId, true));
      const [view] = await people.views(tx, [existing(await people.find(tx, id, true))]);
      return view as MemberView;
    },

    async list(tx, _allowed, page, emails) {
      const indexes = emails?.map((email) => people.index(tx, email));
      const rows = await listMembers(tx, PEOPLE, afterId(page.after), page.limit + 1, indexes ?? null);
      const views = new Map((await people.views(tx, rows)).map((view) => [view.id, view]));
      return toPage(rows, page.limit, (row) => views.get(row.id) as MemberView);
    },

    async remove(tx, allowed, emailOrId, ifMatch) {
      const row = existing(await people.find(tx, emailOrId, true));
      requireRevision(ifMatch, row.revision);
      const [before] = await people.views(tx, [row]);
      await people.refuseAbove(tx, allowed.principal, row);
      for (const project of before?.projects ?? []) await deleteProjectMember(tx, project.project as ProjectId, row.id);
      await updateMember(tx, row.id, { removed_at: new Date(needs.clock.now()) });
      return before as MemberView;
    },

    async putInProject(tx, allowed, project, emailOrId, roles) {
      const row = existing(await people.find(tx, emailOrId, true));
      const before = await findProjectMember(tx, project, row.id);
      const [view] = await people.views(tx, [row]);
      refuseRoles(allowed.principal, "project", roles, "role");
      await people.refuseAbove(tx, allowed.principal, row);
      const after = {
        project_id: project,
        member_id: row.id,
        roles: [...roles],
        created_at: before?.created_at ?? new Date(needs.clock.now()),
      };
      await putProjectRoles(tx, after);
      return {
        before: before === undefined ? null : people.inProject(tx, view as MemberView, before),
        after: people.inProject(tx, view as MemberView, { ...after, claimed_roles: before?.claimed_roles ?? [] }),
      };
    },

    async getInProject(tx, _allowed, project, emailOrId) {
      const row = existing(await people.find(tx, emailOrId, false));
      const held = existing(await findProjectMember(tx, project, row.id));
      const [view] = await people.views(tx, [row]);
      return people.inProject(tx, view as MemberView, held);
    },

    async listInProject(tx, _allowed, project, page) {
      const held = await listProjectMembers(tx, project, afterId(page.after), page.limit + 1);
      const rows = await findMembers(
        tx,
        held.map((each) => each.member_id),
      );
      const views = new Map((await people.views(tx, [...rows.values()])).map((view) => [view.id, view]));
      return toPage(
        held.map((each) => ({ ...each, id: each.member_id })),
        page.limit,
        (each) => people.inProject(tx, views.get(each.member_id) as MemberView, each),
      );
    },

    async removeFromProject(tx, allowed, project, emailOrId) {
      const row = existing(await people.find(tx, emailOrId, true));
      const held = existing(await findProjectMember(tx, project, row.id));
      await people.refuseAbove(tx, allowed.principal, row);
      const [view] = await people.views(tx, [row]);
      await deleteProjectMember(tx, project, row.id);
      return people.inProject(tx, view as MemberView, held);
    },
  };
}

/** What the verbs share. */
class People {
  readonly #needs: MemberVerbsNeeds;

  constructor(needs: MemberVerbsNeeds) {
    this.#needs = needs;
  }

  index(tx: TenantTransaction, email: string): Buffer {
    return emailIndex(this.#needs.keyring(tenantOf(tx)), normalEmail(email));
  }

  find(tx: TenantTransaction, emailOrId: string, toChange: boolean): Promise<MemberRow | undefined> {
    if (!isUuid(emailOrId)) return findMemberByEmail(tx, this.index(tx, emailOrId));
    return (toChange ? findMemberForUpdate : findMember)(tx, PEOPLE, emailOrId as Uuid as MemberId);
  }

  async add(tx: TenantTransaction, granter: Principal, email: string, fields: MemberFields): Promise<Written<MemberView>> {
    const id = this.#needs.makeId<MemberId>();
    const now = new Date(this.#needs.clock.now());
    refuseRoles(granter, placeOf(tenantOf(tx), null), fields.roles ?? [], "roles");
    if (isUuid(email)) throw notFound();
    const row = {
      id,
      kind: "user" as const,
      project_id: null,
      ...sealPerson(this.#needs.keyring(tenantOf(tx)), id, parseEmail(email), fields.display_name ?? null),
      subject_index: null,
      roles: [...(fields.roles ?? [])],
      revision: 1,
      created_by: granter.id,
      created_at: now,
    };
    await insertMember(tx, row);
    await this.#putProjects(tx, granter, id, fields.projects ?? [], []);
    const [after] = await this.views(tx, [{ ...row, claimed_roles: [] }]);
    return { before: null, after: after as MemberView, revision: 1 };
  }

  async change(tx: TenantTransaction, granter: Principal, row: MemberRow, fields: MemberFields): Promise<MemberView> {
    const keyring = this.#needs.keyring(tenantOf(tx));
    await this.refuseAbove(tx, granter, row);
    if (fields.roles !== undefined) refuseRoles(granter, placeOf(tenantOf(tx), null), fields.roles, "roles");
    const changes = {
      name_sealed: fields.display_name === undefined ? row.name_sealed : sealText(keyring, row.id, "name_sealed", fields.display_name),
      roles: fields.roles === undefined ? row.roles : [...fields.roles],
      revision: row.revision + 1,
    };
    await updateMember(tx, row.id, changes);
    if (fields.projects !== undefined) {
      const present = (await projectsOf(tx, [row.id])).get(row.id) ?? [];
      await this.#putProjects(tx, granter, row.id, fields.projects, present);
    }
    const [after] = await this.views(tx, [{ ...row, ...changes }]);
    return after as MemberView;
  }

  /** What is claimed in a project stays until the identity provider says otherwise. */
  async #putProjects(
    tx: TenantTransaction,
    granter: Principal,
    member: MemberId,
    wanted: NonNullable<MemberFields["projects"]>,
    present: readonly ProjectMemberRow[],
  ): Promise<void> {
    const kept = new Set<ProjectId>();
    const created_at = new Date(this.#needs.clock.now());
    for (const { project, roles } of wanted) {
      refuseRoles(granter, "project", roles, "projects");
      const id = await this.#needs.projectOf(tx, project);
      kept.add(id);
      await putProjectRoles(tx, { project_id: id, member_id: member, roles: [...roles], created_at });
    }
    for (const { project_id, claimed_roles } of present) {
      if (kept.has(project_id)) continue;
      if (claimed_roles.length === 0) await deleteProjectMember(tx, project_id, member);
      else await putProjectRoles(tx, { project_id, member_id: member, roles: [], created_at });
    }
  }

  /** Who holds more than the principal is not its to change. Throws permission_denied. */
  async refuseAbove(tx: TenantTransaction, principal: Principal, row: MemberRow): Promise<void> {
    const held = permissionsInPlace([...row.roles, ...row.claimed_roles], placeOf(tenantOf(tx), null));
    const beyond = beyondCreator(principal, [...held], "members:write");
    if (beyond !== undefined)
      throw new Problem("permission_denied", { message: `This member holds more than this key does: '${beyond}'.` });
  }

  async views(tx: TenantTransaction, rows: readonly Shown[]): Promise<MemberView[]> {
    const keyring = this.#needs.keyring(tenantOf(tx));
    const projects = await projectsOf(
      tx,
      rows.map((row) => row.id),
    );
    return rows.map((row) => ({
      id: row.id,
      email: openText(keyring, row.id, "email_sealed", row.email_sealed),
      display_name: openText(keyring, row.id, "name_sealed", row.name_sealed),
      roles: row.roles,
      claimed_roles: row.claimed_roles,
      projects: (projects.get(row.id) ?? []).map((held) => this.#rolesIn(tx, held)),
      created_by: row.created_by,
      created_at: toUnixSeconds(row.created_at),
    }));
  }

  inProject(tx: TenantTransaction, member: MemberView, held: Omit<ProjectMemberRow, "tenant_id">): ProjectMemberView {
    return { ...this.#rolesIn(tx, held), member, added_at: toUnixSeconds(held.created_at) };
  }

  #rolesIn(tx: TenantTransaction, held: Omit<ProjectMemberRow, "tenant_id">): ProjectRolesView {
    const name = this.#needs.projectName(tenantOf(tx), held.project_id);
    return { project: held.project_id, name, roles: held.roles, claimed_roles: held.claimed_roles };
  }
}

type Shown = Omit<
  MemberRow,
  "tenant_id" | "removed_at" | "claimed_at" | "subject_index" | "revision" | "kind" | "project_id" | "email_index"
>;

/** Throws Problem: an unknown role or one of elsewhere, or more than the granter holds. */
export function refuseRoles(granter: Principal, place: KeyPlace, roles: readonly string[], param: string): void {
  const decision = decideRoles(granter, place, roles);
  switch (decision.kind) {
    case "granted":
      return;
    case "unknown_role":
      throw new Problem("invalid_request", { param, message: `'${decision.name}' is no role.` });
    case "wrong_place":
      throw new Problem("invalid_request", { param, message: `'${decision.name}' is no role for a member of ${PLACES[place]}.` });
    case "beyond_granter":
      throw new Problem("permission_denied", {
        param,
        message: `Nobody gives more than they hold: this key lacks '${decision.permission}'.`,
      });
    default:
      return decision satisfies never;
  }
}

const PLACES: Readonly<Record<KeyPlace, string>> = { platform: "the platform", tenant: "a tenant", project: "a project" };

/** As it is stored and compared: mailboxes that differ in case are one in practice. */
export function normalEmail(email: string): string {
  return email.normalize("NFC").toLowerCase();
}

/** Throws Problem invalid_request. */
export function parseEmail(text: string): string {
  const email = normalEmail(text);
  if (email.length > MAX_EMAIL || !EMAIL.test(email))
    throw new Problem("invalid_request", { param: "email", message: "'email' must be an email address, such as ada@example.com." });
  return email;
}

const MAX_EMAIL = 254;
const EMAIL = /^[^\s@<>",;]{1,64}@[^\s@<>",;.]+(?:\.[^\s@<>",;.]+)*$/;

export function emailIndex(keyring: TenantKeyring, email: string): Buffer {
  return keyring.blindIndex("members.email", email);
}

/** The columns that say who a member is. */
export function sealPerson(keyring: TenantKeyring, id: MemberId, email: string | null, name: string | null) {
  return {
    name_sealed: sealText(keyring, id, "name_sealed", name),
    email_sealed: sealText(keyring, id, "email_sealed", email),
    email_index: email === null ? null : emailIndex(keyring, email),
  };
}

type SealedColumn = "name_sealed" | "email_sealed";

export function sealText(keyring: TenantKeyring, row: MemberId, column: SealedColumn, text: string | null): Buffer | null {
  return text === null ? null : keyring.seal(text, { table: "members", column, row });
}

export function openText(keyring: TenantKeyring, row: MemberId, column: SealedColumn, sealed: Buffer | null): string | null {
  return sealed === null ? null : keyring.open(sealed, { table: "members", column, row }).toString();
}
