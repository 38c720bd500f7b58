import type { Egress } from "../../../egress/index.ts";
import type { Clock } from "../../../kernel/clock.ts";
import { type MemberId, PLATFORM_TENANT, type ProjectId, type TenantId, type Uuid } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { RandomBytes } from "../../../kernel/random.ts";
import type { Database, TenantTransaction } from "../../../storage/database/index.ts";
import { derive, type MasterKey, type TenantKeyring } from "../../../storage/secrets/index.ts";
import { notFound, type SnapshotStore } from "../../../storage/snapshot/index.ts";
import type { AuditRow } from "../../records/index.ts";
import type { IdentityPart, Principal } from "../model.ts";
import type { Origin } from "../origin.ts";
import { type AdmissionNeeds, createAdmitMember } from "./admission.ts";
import { createAuthenticateToken, isToken } from "./bearer.ts";
import { type Console, createConsole } from "./console.ts";
import { createIssuers } from "./issuers.ts";
import { audienceKey, type ProviderRecord, type SsoPart } from "./model.ts";
import { createProviderVerbs } from "./providers.ts";
import { ssoRoutes } from "./routes.ts";
import { createRecalledKeys } from "./recalled.ts";
import { createSessions } from "./sessions.ts";
import { createSignIn } from "./sign-in.ts";

export type { Console, ConsoleUser, Visitor } from "./console.ts";
export type { ProviderRecord, SsoPart } from "./model.ts";
export { callbackPath, visitPath } from "./providers.ts";
export { sameText } from "./sessions.ts";
export { SignInRefused } from "./sign-in.ts";
export { ssoSource } from "./source.ts";

/** What this folder reads of the configuration snapshot. */
export interface SsoParts {
  readonly sso: SsoPart;
  readonly identity: IdentityPart;
  readonly tenants: {
    readonly tenant: { readonly name: string };
    readonly projects: ReadonlyMap<ProjectId, { readonly name: string }>;
  };
  readonly keyring: TenantKeyring;
}

/** The snapshot's index of issuers' audiences. */
export const AUDIENCE_INDEX = "audiences";

export interface SsoNeeds {
  readonly database: Pick<Database, "forTenant">;
  readonly snapshot: SnapshotStore<SsoParts>;
  readonly masterKey: MasterKey;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly makeId: <Id extends Uuid>() => Id;
  readonly egress: Pick<Egress, "fetch" | "vet">;
  readonly signIn: AdmissionNeeds["signIn"];
  readonly authenticateKey: (credential: string | null, from: Origin) => Principal | Promise<Principal>;
  /** As `pepperOf` derives it. */
  readonly pepper: Buffer;
  /** ATRIUM_BOOTSTRAP_KEY. */
  readonly bootstrapKey: string | null;
  /** Configuration older than this is not trusted, ms. */
  readonly stalenessBoundMs: number;
  /** Null: removed. */
  readonly principalOfMember: (tenant: TenantId, member: MemberId, project?: ProjectId) => Principal | null;
  readonly describeMember: (
    tx: TenantTransaction,
    member: MemberId,
  ) => Promise<{ readonly email: string | null; readonly name: string | null } | null>;
  readonly writeAudit: (tx: TenantTransaction, row: AuditRow) => Promise<void>;
  readonly bumpConfig: (tx: TenantTransaction) => Promise<number>;
  readonly projectOf: (tx: TenantTransaction, nameOrId: string) => Promise<ProjectId>;
  /** The tenant of this name, from the snapshot. */
  readonly tenantNamed: (name: string) => TenantId | undefined;
}

export interface Sso {
  /** Who presents this, be it a key or a token. As the authentication of keys, which is asked for everything that is no token. */
  authenticate(credential: string | null, from: Origin): Principal | Promise<Principal>;
  readonly console: Console;
  readonly routes: ReturnType<typeof ssoRoutes>;
}

/** Sign-in of people with OpenID Connect, bearer tokens of services, and the console's sessions. */
export function createSso(needs: SsoNeeds): Sso {
  const { snapshot } = needs;
  const partsOf = (tenant: TenantId): SsoParts | undefined => snapshot.current.tenants.get(tenant);
  const keyring = (tenant: TenantId): TenantKeyring => {
    const parts = partsOf(tenant);
    if (parts === undefined) throw notFound();
    return parts.keyring;
  };
  const providerFor = (issuer: string, audience: string): ProviderRecord | undefined => {
    const key = audienceKey(issuer, audience);
    const owner = snapshot.ownerOf(AUDIENCE_INDEX, key);
    return owner === undefined ? undefined : partsOf(owner)?.sso.byAudience.get(key);
  };
  const projectName = (tenant: TenantId, project: ProjectId): string | undefined => partsOf(tenant)?.tenants.projects.get(project)?.name;
  const admit = createAdmitMember({
    ...needs,
    memberCount: (tenant) => partsOf(tenant)?.identity.members.size ?? 0,
    catchUp: (version) => snapshot.catchUp(version),
  });
  const fetchGuarded = (url: string, init: RequestInit): Promise<Response> => needs.egress.fetch(url, init);
  const issuers = createIssuers({ clock: needs.clock, fetchGuarded });
  const sessions = createSessions({
    ...needs,
    cookieSecret: derive(needs.masterKey, "session-cookie", 1),
    keyring: (tenant) => partsOf(tenant)?.keyring,
  });
  const authenticateToken = createAuthenticateToken({
    clock: needs.clock,
    issuers,
    providerFor,
    admit,
    memberOf: (tenant, member) => partsOf(tenant)?.identity.members.get(member),
    principalOf: needs.principalOfMember,
    projectNamed: (tenant, nameOrId) => projectNamed(partsOf(tenant), nameOrId),
  });
  const providers = createProviderVerbs({
    ...needs,
    keyring,
    vet: needs.egress.vet,
    refresh: () => snapshot.refresh(),
    providerFor,
    projectName,
    tenantName: (tenant) => partsOf(tenant)?.tenants.tenant.name,
  });
  return {
    authenticate(credential, from) {
      if (credential === null || !isToken(credential)) return needs.authenticateKey(credential, from);
      if (snapshot.stalenessMs() > needs.stalenessBoundMs) throw new Problem("overloaded", { message: STALE, retryAfterSeconds: 1 });
      return authenticateToken(credential);
    },
    console: createConsole({
      ...needs,
      keys: createRecalledKeys({ ...needs, knownKey: (tenant, id) => partsOf(tenant)?.identity.keys.get(id) }),
      sessions,
      signIn: createSignIn({ ...needs, fetchGuarded, issuers, admit, sessions, keyring: ({ tenant }) => keyring(tenant) }),
      providersOf: (tenant) => partsOf(tenant)?.sso.byName,
      projectName,
      tenantName: (tenant) => (tenant === PLATFORM_TENANT ? null : (partsOf(tenant)?.tenants.tenant.name ?? null)),
    }),
    routes: ssoRoutes(providers),
  };
}

const STALE = "This server has lost sight of its configuration for too long to trust a token. Retry later.";

function projectNamed(parts: SsoParts | undefined, nameOrId: string): ProjectId | undefined {
  for (const [id, { name }] of parts?.tenants.projects ?? []) if (id === nameOrId || name === nameOrId) return id;
  return undefined;
}
