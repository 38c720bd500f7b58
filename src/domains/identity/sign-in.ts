import { createSecretKey } from "node:crypto";
import type { Clock } from "../../kernel/clock.ts";
import type { MemberId, ProjectId, TenantId, Uuid } from "../../kernel/ids.ts";
import { type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { hashInvitation, invitedEmail } from "./invitations.ts";
import {
  findInvitationByEmail,
  findInvitationByToken,
  findMember,
  findMemberByEmail,
  findMemberBySubject,
  insertMember,
  type InvitationRow,
  type MemberRow,
  projectsOf,
  putClaimedProjectRoles,
  putProjectRoles,
  updateInvitation,
  updateMember,
  wasRemoved,
} from "./member-store.ts";
import { emailIndex, normalEmail, openText, sealPerson } from "./members.ts";
import { isRole } from "./permissions.ts";

export interface SignInNeeds {
  readonly pepper: Buffer;
  readonly clock: Clock;
  readonly makeId: <Id extends Uuid>() => Id;
  /** Of a tenant that the snapshot holds. */
  readonly keyring: (tenant: TenantId) => TenantKeyring;
  /** Whether the project lives. */
  readonly isProject: (tenant: TenantId, project: ProjectId) => boolean;
}

/** What an identity provider asserts of somebody, which whoever asks has verified. */
export interface SignIn {
  readonly issuer: string;
  readonly subject: string;
  readonly email: string | null;
  readonly emailVerified: boolean;
  readonly name: string | null;
  /** Of this installation, made of the provider's groups; names that are no roles give nothing. */
  readonly roles: readonly string[];
  readonly projects: readonly { readonly project: ProjectId; readonly roles: readonly string[] }[];
  /** When it was asserted, ms: an older assertion never undoes a newer one. */
  readonly assertedAt: number;
  /** Whether somebody who is not known yet becomes a member. */
  readonly mayProvision: boolean;
  /** The token of an invitation, where one was followed. */
  readonly invitation: string | null;
}

export interface SignedIn {
  readonly member: MemberId;
  /** Whether the configuration changed: then `change` is for the trail. */
  readonly changed: boolean;
  readonly change: { readonly action: SignInAction; readonly before: unknown; readonly after: unknown } | null;
}

type SignInAction = "member.sign_in" | "member.provision" | "invitation.accept";

/** In a transaction of the tenant. Null where nobody of the tenant signs in so. */
export type SignInVerb = (tx: TenantTransaction, facts: SignIn) => Promise<SignedIn | null>;

export function createSignIn(needs: SignInNeeds): SignInVerb {
  const hashing = createSecretKey(needs.pepper);
  return async (tx, facts) => {
    const at: At = { needs, tx, keyring: needs.keyring(tenantOf(tx)), now: new Date(needs.clock.now()), facts };
    const subject = at.keyring.blindIndex("members.subject", JSON.stringify([facts.issuer, facts.subject]));
    const known = await findMemberBySubject(tx, subject);
    if (known !== undefined) return claim(at, known, null);
    const verified = facts.email !== null && facts.emailVerified ? emailIndex(at.keyring, normalEmail(facts.email)) : null;
    const invitation = await findOpenInvitation(at, facts.invitation === null ? null : hashInvitation(hashing, facts.invitation), verified);
    const email = invitation?.email_index ?? verified;
    const named = email === null ? undefined : await findMemberByEmail(tx, email);
    // Somebody else of the same provider has this address: a mailbox that was given to another person takes nothing over.
    if (named !== undefined && named.subject_index !== null) return null;
    if (named !== undefined) {
      await updateMember(tx, named.id, { subject_index: subject });
      return claim(at, named, "member.sign_in");
    }
    if (invitation !== undefined) return accept(at, subject, invitation);
    // Whom an administrator removed comes back by an invitation, not by the group that the provider still has them in.
    return facts.mayProvision && !(await wasRemoved(tx, subject)) ? provision(at, subject, verified) : null;
  };
}

interface At {
  readonly needs: SignInNeeds;
  readonly tx: TenantTransaction;
  readonly keyring: TenantKeyring;
  readonly now: Date;
  readonly facts: SignIn;
}

async function findOpenInvitation({ tx, now }: At, token: Buffer | null, email: Buffer | null): Promise<InvitationRow | undefined> {
  const followed = token === null ? undefined : await findInvitationByToken(tx, token, now);
  return followed ?? (email === null ? undefined : findInvitationByEmail(tx, email, now));
}

async function accept(at: At, subject: Buffer, invitation: InvitationRow): Promise<SignedIn> {
  const { tx, now, needs } = at;
  const email = invitedEmail(at.keyring, invitation);
  const id = await add(at, subject, email, invitation.roles, invitation.created_by);
  for (const { project, roles } of invitation.projects)
    if (needs.isProject(tenantOf(tx), project)) await putProjectRoles(tx, { project_id: project, member_id: id, roles, created_at: now });
  await updateInvitation(tx, invitation.id, { accepted_at: now });
  const after = { member: id, invitation: invitation.id, email, roles: invitation.roles, projects: invitation.projects };
  return { ...(await claimNew(at, id)), change: { action: "invitation.accept", before: null, after } };
}

/** The address counts only where it is verified; without one the member is known by its subject alone, as a service is. */
async function provision(at: At, subject: Buffer, verified: Buffer | null): Promise<SignedIn> {
  const email = verified === null || at.facts.email === null ? null : normalEmail(at.facts.email);
  const id = await add(at, subject, email, [], at.facts.issuer);
  return {
    ...(await claimNew(at, id)),
    change: { action: "member.provision", before: null, after: { member: id, email, ...claimed(at) } },
  };
}

async function add(at: At, subject: Buffer, email: string | null, roles: string[], createdBy: string): Promise<MemberId> {
  const id = at.needs.makeId<MemberId>();
  await insertMember(at.tx, {
    id,
    kind: "user",
    project_id: null,
    ...sealPerson(at.keyring, id, email, at.facts.name?.slice(0, MAX_NAME) ?? null),
    subject_index: subject,
    roles,
    revision: 1,
    created_by: createdBy,
    created_at: at.now,
  });
  return id;
}

const MAX_NAME = 200;

async function claimNew(at: At, id: MemberId): Promise<SignedIn> {
  const row = (await findMember(at.tx, { kind: "user" }, id)) as MemberRow;
  return { ...(await claim(at, row, null)), changed: true };
}

/** Takes in what is claimed, unless something newer was. `action`: what happened even where the claims are as they were. */
async function claim(at: At, row: MemberRow, action: SignInAction | null): Promise<SignedIn> {
  const { tx, facts } = at;
  const wanted = claimed(at);
  if (row.claimed_at !== null && facts.assertedAt <= row.claimed_at.getTime()) return done(row.id, action, null, null);
  const present = (await projectsOf(tx, [row.id])).get(row.id) ?? [];
  const before = {
    claimed_roles: row.claimed_roles,
    projects: present
      .filter((each) => each.claimed_roles.length > 0)
      .map((each) => ({ project: each.project_id, roles: each.claimed_roles })),
  };
  await updateMember(tx, row.id, { claimed_roles: [...wanted.claimed_roles], claimed_at: new Date(facts.assertedAt) });
  for (const { project, roles } of wanted.projects)
    await putClaimedProjectRoles(tx, { project_id: project, member_id: row.id, claimed_roles: roles, created_at: at.now });
  for (const { project } of before.projects)
    if (!wanted.projects.some((each) => each.project === project))
      await putClaimedProjectRoles(tx, { project_id: project, member_id: row.id, claimed_roles: [], created_at: at.now });
  const same = JSON.stringify(ordered(before)) === JSON.stringify(ordered(wanted));
  return done(row.id, same ? action : "member.sign_in", before, wanted);
}

function done(member: MemberId, action: SignInAction | null, before: unknown, after: unknown): SignedIn {
  return { member, changed: action !== null, change: action === null ? null : { action, before, after } };
}

interface Claimed {
  readonly claimed_roles: readonly string[];
  readonly projects: { project: ProjectId; roles: string[] }[];
}

function claimed({ facts, needs, tx }: At): Claimed {
  const tenant = tenantOf(tx);
  const projects = new Map<ProjectId, Set<string>>();
  for (const { project, roles } of facts.projects) {
    if (!needs.isProject(tenant, project)) continue;
    projects.set(project, new Set([...(projects.get(project) ?? []), ...roles.filter(isRole)]));
  }
  return {
    claimed_roles: [...new Set(facts.roles.filter(isRole))].toSorted(),
    projects: [...projects].map(([project, roles]) => ({ project, roles: [...roles].toSorted() })),
  };
}

function ordered({ claimed_roles, projects }: Claimed): Claimed {
  const sorted = projects.map(({ project, roles }) => ({ project, roles: roles.toSorted() }));
  return { claimed_roles: claimed_roles.toSorted(), projects: sorted.toSorted((one, other) => (one.project < other.project ? -1 : 1)) };
}

/** Who a member is, for itself. */
export async function describeMember(
  tx: TenantTransaction,
  keyring: TenantKeyring,
  id: MemberId,
): Promise<{ readonly email: string | null; readonly name: string | null } | null> {
  const row = await findMember(tx, { kind: "user" }, id);
  if (row === undefined) return null;
  return { email: openText(keyring, id, "email_sealed", row.email_sealed), name: openText(keyring, id, "name_sealed", row.name_sealed) };
}
