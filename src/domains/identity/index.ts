import type { Clock } from "../../kernel/clock.ts";
import type { KeyId, MemberId, ProjectId, TenantId, Uuid } from "../../kernel/ids.ts";
import type { RandomBytes } from "../../kernel/random.ts";
import { type Database, type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import type { SnapshotStore } from "../../storage/snapshot/index.ts";
import { type Allow, createAllow } from "./allow.ts";
import { type Authenticate, createAuthenticate, principalOfMember } from "./authenticate.ts";
import { createEnded, type Ended } from "./ended.ts";
import { createInvitationVerbs } from "./invitations.ts";
import { createMemberVerbs } from "./members.ts";
import type { IdentityPart, MemberRecord, Principal } from "./model.ts";
import { createPresentedKeys, type PresentedKeys } from "./presented.ts";
import { type IdentityRoutesNeeds, identityRoutes } from "./routes.ts";
import { createServiceAccountVerbs } from "./service-accounts.ts";
import { createKeyVerbs, createServiceAccountKeys, type KeyVerbs } from "./service.ts";
import { openSession } from "./session.ts";
import { createSignIn, describeMember, type SignInVerb } from "./sign-in.ts";
import { ownerInDirectory } from "./store.ts";

export type { Allow } from "./allow.ts";
export type { Authenticate } from "./authenticate.ts";
export type { Ended, EndedBy } from "./ended.ts";
export type { Allowed, IdentityPart, Principal, Proofs, Session } from "./model.ts";
export type { Origin, RouteFamily } from "./origin.ts";
export type { PresentedKey } from "./presented.ts";
export { pepperOf } from "./pepper.ts";
export { PERMISSIONS, ROLES, type Permission, type Role } from "./permissions.ts";
export { type KeyVerbs, mintAdminKey } from "./service.ts";
export type { SignIn, SignInVerb } from "./sign-in.ts";
export { identitySource } from "./source.ts";
export * from "./sso/index.ts";

/** What this domain reads of the configuration snapshot. */
export interface IdentityParts {
  readonly identity: IdentityPart;
  readonly tenants: {
    readonly tenant: { readonly status: "active" | "suspended" };
    readonly projects: ReadonlyMap<ProjectId, { readonly name: string }>;
  };
  readonly keyring: TenantKeyring;
}

/** The snapshot's index of key ids. */
export const KEY_INDEX = "keys";

export interface IdentityNeeds {
  readonly database: Database;
  readonly snapshot: SnapshotStore<IdentityParts>;
  /** As `pepperOf` derives it. */
  readonly pepper: Buffer;
  readonly bootstrapKey: string | null;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly makeId: <Id extends Uuid>() => Id;
  /** Configuration older than this is not trusted, ms. */
  readonly stalenessBoundMs: number;
  readonly projectOf: IdentityRoutesNeeds["projectOf"];
}

export interface Identity {
  readonly authenticate: Authenticate;
  readonly allow: Allow;
  readonly ended: Ended;
  readonly openSession: typeof openSession;
  readonly keys: KeyVerbs;
  readonly members: SignedInMembers;
  readonly presented: PresentedKeys;
  readonly routes: ReturnType<typeof identityRoutes>;
}

/** Who comes without a key: by a session, or a token of an identity provider. */
export interface SignedInMembers {
  /**
   * What the member is now, in the project or above them; null where it is no member any more. Without a project: above them, or in
   * its only one where it may do nothing above. From the snapshot.
   */
  principal(tenant: TenantId, member: MemberId, project?: ProjectId | null): Principal | null;
  readonly signIn: SignInVerb;
  /** For its own eyes; null where it is no member any more. */
  describe(tx: TenantTransaction, member: MemberId): Promise<{ readonly email: string | null; readonly name: string | null } | null>;
}

export function createIdentity(needs: IdentityNeeds): Identity {
  const partsOf = (tenant: TenantId): IdentityParts | undefined => needs.snapshot.current.tenants.get(tenant);
  const keyring = (tenant: TenantId): TenantKeyring => keyringOf(partsOf(tenant));
  const verbsNeeds = { ...needs, keyring };
  const keys = createKeyVerbs(verbsNeeds);
  const knownKey = createKnownKey(needs.snapshot);
  const statusOf = (tenant: TenantId) => partsOf(tenant)?.tenants.tenant.status;
  const memberOf = (tenant: TenantId, id: MemberId) => partsOf(tenant)?.identity.members.get(id);
  const isProject = (tenant: TenantId, project: ProjectId) => partsOf(tenant)?.tenants.projects.has(project) === true;
  return {
    authenticate: createAuthenticate({
      ...needs,
      knownKey,
      ownerInDirectory: (id) => ownerInDirectory(needs.database, id),
      refresh: () => needs.snapshot.refresh(),
      stalenessMs: () => needs.snapshot.stalenessMs(),
    }),
    allow: createAllow(statusOf),
    ended: createEnded({ statusOf, knownKey, memberOf, isProject }),
    openSession,
    keys,
    members: {
      principal(tenant, id, project) {
        const member = memberOf(tenant, id);
        return member === undefined ? null : principalOfMember(member, project === undefined ? projectOfChoice(member) : project);
      },
      signIn: createSignIn({ ...verbsNeeds, isProject }),
      describe: (tx, member) => describeMember(tx, keyring(tenantOf(tx)), member),
    },
    presented: createPresentedKeys(needs.pepper, needs.database),
    routes: identityRoutes({
      ...verbsNeeds,
      keys,
      members: createMemberVerbs({
        ...verbsNeeds,
        projectName: (tenant, project) => partsOf(tenant)?.tenants.projects.get(project)?.name ?? null,
      }),
      invitations: createInvitationVerbs(verbsNeeds),
      accounts: createServiceAccountVerbs({ ...verbsNeeds, revokeKeys: keys.revokeMember }),
      accountKeys: createServiceAccountKeys(verbsNeeds),
    }),
  };
}

function createKnownKey(snapshot: IdentityNeeds["snapshot"]) {
  return (id: KeyId) => {
    const owner = snapshot.ownerOf(KEY_INDEX, id);
    return owner === undefined ? undefined : snapshot.current.tenants.get(owner)?.identity.keys.get(id);
  };
}

function projectOfChoice(member: MemberRecord): ProjectId | null {
  const [only, ...others] = member.projects.keys();
  return member.permissions.size === 0 && others.length === 0 ? (only ?? null) : null;
}

function keyringOf(parts: IdentityParts | undefined): TenantKeyring {
  if (parts === undefined) throw new Error("a verb runs for a tenant that the snapshot does not hold");
  return parts.keyring;
}
