import { createSecretKey, type KeyObject } from "node:crypto";
import type { Clock } from "../../kernel/clock.ts";
import { type InvitationId, isUuid, type ProjectId, type TenantId, type Uuid } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import type { RandomBytes } from "../../kernel/random.ts";
import { type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { afterId, existing, type ListQuery, type Page, toPage, toUnixSeconds } from "../../storage/snapshot/index.ts";
import { hashKey } from "./authenticate.ts";
import { placeOf } from "./decide.ts";
import { newKeySecret } from "./key-format.ts";
import {
  findInvitation,
  findMemberByEmail,
  insertInvitation,
  type InvitationRow,
  listInvitations,
  updateInvitation,
} from "./member-store.ts";
import { emailIndex, parseEmail, type ReadMembers, refuseRoles, type WriteMembers } from "./members.ts";

export interface InvitationVerbsNeeds {
  readonly pepper: Buffer;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly makeId: <Id extends Uuid>() => Id;
  /** Of a tenant that the snapshot holds. */
  readonly keyring: (tenant: TenantId) => TenantKeyring;
  /** The live project of this name or id. Throws Problem not_found. */
  readonly projectOf: (tx: TenantTransaction, project: string) => Promise<ProjectId>;
}

/** Times in Unix seconds. */
export interface InvitationView {
  readonly id: string;
  readonly email: string;
  readonly roles: string[];
  readonly projects: { readonly project: string; readonly roles: string[] }[];
  readonly status: "pending" | "accepted" | "expired";
  readonly created_by: string;
  readonly created_at: number;
  readonly expires_at: number;
  readonly accepted_at: number | null;
}

export interface NewInvitation {
  readonly email: string;
  /** Over the whole tenant. */
  readonly roles: readonly string[];
  readonly projects: readonly { readonly project: string; readonly roles: readonly string[] }[];
}

/** In the tenant's transaction. All throw Problem. */
export interface InvitationVerbs {
  /** Accepted by the first sign-in with the token, or with this verified address. The token is shown this once. */
  create(tx: TenantTransaction, allowed: WriteMembers, fields: NewInvitation): Promise<{ view: InvitationView; token: string }>;
  get(tx: TenantTransaction, allowed: ReadMembers, id: string): Promise<InvitationView>;
  list(tx: TenantTransaction, allowed: ReadMembers, page: ListQuery): Promise<Page<InvitationView>>;
  /** Throws conflict for one that was accepted: remove the member. */
  withdraw(tx: TenantTransaction, allowed: WriteMembers, id: string): Promise<InvitationView>;
}

export function createInvitationVerbs(needs: InvitationVerbsNeeds): InvitationVerbs {
  const hashing = createSecretKey(needs.pepper);
  const view = (tx: TenantTransaction, row: Omit<InvitationRow, "tenant_id">): InvitationView =>
    viewOf(needs.keyring(tenantOf(tx)), row, needs.clock.now());
  const find = async (tx: TenantTransaction, id: string): Promise<InvitationRow> =>
    existing(isUuid(id) ? await findInvitation(tx, id as Uuid as InvitationId) : undefined);
  return {
    async create(tx, allowed, fields) {
      const keyring = needs.keyring(tenantOf(tx));
      const email = parseEmail(fields.email);
      refuseRoles(allowed.principal, placeOf(tenantOf(tx), null), fields.roles, "role");
      if ((await findMemberByEmail(tx, emailIndex(keyring, email))) !== undefined)
        throw new Problem("conflict", { param: "email", message: "This address is a member's already. Change the member instead." });
      const token = `${PREFIX}${newKeySecret(needs.random)}`;
      const projects = await projectsFor(needs, tx, allowed, fields);
      const row = rowOf(needs, keyring, { email, roles: fields.roles, projects, createdBy: allowed.principal.id });
      const stored = { ...row, token_hash: hashInvitation(hashing, token) };
      await insertInvitation(tx, { ...stored, projects: JSON.stringify(projects) });
      return { view: view(tx, { ...stored, accepted_at: null, withdrawn_at: null }), token };
    },
    async get(tx, _allowed, id) {
      return view(tx, await find(tx, id));
    },
    async list(tx, _allowed, page) {
      const rows = await listInvitations(tx, afterId(page.after), page.limit + 1);
      return toPage(rows, page.limit, (row) => view(tx, row));
    },
    async withdraw(tx, _allowed, id) {
      const row = await find(tx, id);
      if (row.accepted_at !== null) throw new Problem("conflict", { message: "This invitation was accepted. Remove the member instead." });
      await updateInvitation(tx, row.id, { withdrawn_at: new Date(needs.clock.now()) });
      return view(tx, row);
    },
  };
}

/** The token as it is stored. */
export function hashInvitation(pepper: KeyObject, token: string): Buffer {
  return hashKey(pepper, token);
}

type InvitedTo = { project: ProjectId; roles: string[] }[];

async function projectsFor(
  needs: InvitationVerbsNeeds,
  tx: TenantTransaction,
  allowed: WriteMembers,
  { projects }: NewInvitation,
): Promise<InvitedTo> {
  const found: InvitedTo = [];
  for (const { project, roles } of projects) {
    refuseRoles(allowed.principal, "project", roles, "projects");
    found.push({ project: await needs.projectOf(tx, project), roles: [...roles] });
  }
  return found;
}

function rowOf(
  needs: InvitationVerbsNeeds,
  keyring: TenantKeyring,
  fields: { readonly email: string; readonly roles: readonly string[]; readonly projects: InvitedTo; readonly createdBy: string },
) {
  const id = needs.makeId<InvitationId>();
  const now = needs.clock.now();
  return {
    id,
    email_sealed: keyring.seal(fields.email, { table: "invitations", column: "email_sealed", row: id }),
    email_index: emailIndex(keyring, fields.email),
    roles: [...fields.roles],
    projects: fields.projects,
    expires_at: new Date(now + LIFE_MS),
    created_by: fields.createdBy,
    created_at: new Date(now),
  };
}

export function invitedEmail(keyring: TenantKeyring, row: Pick<InvitationRow, "id" | "email_sealed">): string {
  return keyring.open(row.email_sealed, { table: "invitations", column: "email_sealed", row: row.id }).toString();
}

function viewOf(keyring: TenantKeyring, row: Omit<InvitationRow, "tenant_id">, now: number): InvitationView {
  return {
    id: row.id,
    email: invitedEmail(keyring, row),
    roles: row.roles,
    projects: row.projects,
    status: row.accepted_at !== null ? "accepted" : row.expires_at.getTime() <= now ? "expired" : "pending",
    created_by: row.created_by,
    created_at: toUnixSeconds(row.created_at),
    expires_at: toUnixSeconds(row.expires_at),
    accepted_at: row.accepted_at === null ? null : toUnixSeconds(row.accepted_at),
  };
}

const PREFIX = "atri_";
/** As long as OpenAI's. */
const LIFE_MS = 7 * 86_400_000;
