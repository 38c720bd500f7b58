import type { Clock } from "../../../kernel/clock.ts";
import { type MemberId, PLATFORM_TENANT, type ProjectId, type TenantId, type Uuid } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { Database, TenantTransaction } from "../../../storage/database/index.ts";
import type { AuditRow } from "../../records/index.ts";
import type { Principal } from "../model.ts";
import type { Origin } from "../origin.ts";
import type { Permission } from "../permissions.ts";
import { type AdmissionOrigin, unlessAway } from "./admission.ts";
import type { ProviderRecord } from "./model.ts";
import type { RecalledKeys } from "./recalled.ts";
import type { ConsoleSession, Sessions, SessionSubject } from "./sessions.ts";
import type { Begun, Finished, SignIn } from "./sign-in.ts";

export interface ConsoleNeeds {
  readonly clock: Clock;
  readonly makeId: <Id extends Uuid>() => Id;
  readonly database: Pick<Database, "forTenant">;
  readonly sessions: Sessions;
  readonly signIn: SignIn;
  readonly providersOf: (tenant: TenantId) => ReadonlyMap<string, ProviderRecord> | undefined;
  readonly tenantNamed: (name: string) => TenantId | undefined;
  /** Null for the platform. */
  readonly tenantName: (tenant: TenantId) => string | null;
  readonly projectName: (tenant: TenantId, project: ProjectId) => string | undefined;
  readonly authenticateKey: (credential: string | null, from: Origin) => Principal | Promise<Principal>;
  readonly keys: RecalledKeys;
  readonly principalOfMember: (tenant: TenantId, member: MemberId) => Principal | null;
  readonly describeMember: (
    tx: TenantTransaction,
    member: MemberId,
  ) => Promise<{ readonly email: string | null; readonly name: string | null } | null>;
  readonly writeAudit: (tx: TenantTransaction, row: AuditRow) => Promise<void>;
}

/** Whom a provider is for: null names the platform. */
export interface Visitor {
  readonly organization: string | null;
  readonly provider: string;
}

/** Somebody who is signed in, as of this request. */
export interface ConsoleUser {
  readonly session: ConsoleSession;
  readonly principal: Principal;
}

/** What the account page shows. */
export interface Account {
  /** Null: the platform. */
  readonly organization: string | null;
  readonly name: string | null;
  readonly email: string | null;
  /** The provider, as its people know it; null for a key. */
  readonly through: string | null;
  /** Over the whole organization. */
  readonly permissions: readonly Permission[];
  readonly projects: readonly { readonly name: string; readonly permissions: readonly Permission[] }[];
}

/** Signing in and out, and who is signed in. All but `providers` reject with Problem overloaded while the database is away. */
export interface Console {
  /** Those that people can sign in with; none for an organization that does not exist. */
  providers(organization: string | null): readonly ProviderRecord[];
  /** Undefined where there is none. */
  provider(visitor: Visitor): ProviderRecord | undefined;
  begin(provider: ProviderRecord, wanted: { redirectUri: string; returnTo: string; invitation: string | null }): Promise<Begun>;
  finish(provider: ProviderRecord, answer: URL, pending: string | null, origin: AdmissionOrigin): Promise<Finished>;
  /** Returns the session's cookie. Rejects with Problem as authentication does, and with permission_denied for a key that calls models. */
  signInWithKey(key: string, origin: AdmissionOrigin & { readonly remoteAddress: string }): Promise<string>;
  /** Null: nobody any more. The rights are those of now. */
  find(cookie: string, remoteAddress: string): Promise<ConsoleUser | null>;
  account(signedIn: ConsoleUser): Promise<Account>;
  /** Ends the session. */
  end(signedIn: ConsoleUser, origin: AdmissionOrigin): Promise<void>;
  /** As `end`. Where to go to be signed out of the provider too; null where there is nothing more to do. */
  signOut(signedIn: ConsoleUser, returnTo: string, origin: AdmissionOrigin): Promise<string | null>;
  /** The origin that `signOut` would send the browser to. */
  endSessionOrigin(signedIn: ConsoleUser, returnTo: string): Promise<string | null>;
}

export function createConsole(needs: ConsoleNeeds): Console {
  const tenantOf = (organization: string | null): TenantId | undefined => {
    if (organization === null) return PLATFORM_TENANT;
    const tenant = needs.tenantNamed(organization);
    return tenant === PLATFORM_TENANT ? undefined : tenant;
  };
  const named = (organization: string | null): ReadonlyMap<string, ProviderRecord> | undefined => {
    const tenant = tenantOf(organization);
    return tenant === undefined ? undefined : needs.providersOf(tenant);
  };
  /** Undefined for a key's session, and once the provider was deleted, is for sign-in no more, or vouches for another issuer's people. */
  const providerOf = ({ tenant, provider }: ConsoleSession): ProviderRecord | undefined =>
    [...(needs.providersOf(tenant)?.values() ?? [])].find(
      ({ id, issuer, clientId }) => id === provider?.id && issuer === provider.issuer && clientId !== null,
    );
  const end = ({ session, principal }: ConsoleUser, origin: AdmissionOrigin): Promise<void> =>
    unlessAway(() =>
      needs.database.forTenant(session.tenant, async (tx) => {
        if (await needs.sessions.close(tx, session.id)) await needs.writeAudit(tx, deedOf(needs, principal, "console.sign_out", origin));
      }),
    );
  return {
    end,
    providers: (organization) => [...(named(organization)?.values() ?? [])].filter(({ clientId }) => clientId !== null),
    provider: ({ organization, provider }) => named(organization)?.get(provider),
    begin: (provider, wanted) => needs.signIn.begin(provider, wanted),
    finish: (provider, answer, pending, origin) => needs.signIn.finish(provider, answer, pending, origin),

    async signInWithKey(key, origin) {
      const principal = await needs.authenticateKey(key, { family: "console", address: origin.remoteAddress });
      const { tenant } = principal;
      const subject = needs.keys.subjectOf(principal);
      if (subject === null)
        throw new Problem("permission_denied", { message: "This key calls models. Sign in with an administrator's key." });
      return unlessAway(() =>
        needs.database.forTenant(tenant, async (tx) => {
          const cookie = await needs.sessions.open(tx, { tenant, subject, provider: null, idToken: null });
          await needs.writeAudit(tx, deedOf(needs, principal, "console.sign_in", origin));
          return cookie;
        }),
      );
    },

    async find(cookie, address) {
      const session = await unlessAway(() => needs.sessions.find(cookie));
      if (session !== null && session.provider !== null && providerOf(session) === undefined) return null;
      const principal = session === null ? null : principalOf(needs, session.tenant, session.subject, address);
      return session === null || principal === null ? null : { session, principal };
    },

    async account(user) {
      const { session, principal } = user;
      const provider = providerOf(session);
      const { tenant, subject } = session;
      const described =
        subject.kind === "member"
          ? await unlessAway(() => needs.database.forTenant(tenant, (tx) => needs.describeMember(tx, subject.id as MemberId)))
          : null;
      return {
        organization: needs.tenantName(tenant),
        name: described?.name ?? (subject.kind === "member" ? null : subject.kind === "key" ? `Key ${subject.id}` : "Bootstrap key"),
        email: described?.email ?? null,
        through: provider?.displayName ?? provider?.name ?? null,
        permissions: [...(principal.member ?? principal).permissions].toSorted(),
        projects: [...(principal.member?.projects ?? [])].map(([project, permissions]) => ({
          name: needs.projectName(tenant, project) ?? project,
          permissions: [...permissions].toSorted(),
        })),
      };
    },

    async signOut(signedIn, returnTo, origin) {
      await end(signedIn, origin);
      const provider = providerOf(signedIn.session);
      return provider === undefined ? null : needs.signIn.endSession(provider, signedIn.session.idToken, returnTo);
    },

    async endSessionOrigin(signedIn, returnTo) {
      const provider = providerOf(signedIn.session);
      const url = provider === undefined ? null : await needs.signIn.endSession(provider, null, returnTo);
      return url === null ? null : new URL(url).origin;
    },
  };
}

/** Null for a member that was removed, and for a key that was revoked or has expired. */
function principalOf(needs: ConsoleNeeds, tenant: TenantId, subject: SessionSubject, address: string): Principal | null {
  if (subject.kind === "member") return needs.principalOfMember(tenant, subject.id as MemberId);
  try {
    return needs.keys.principalOf(tenant, subject, { family: "console", address });
  } catch (error) {
    if (error instanceof Problem && error.status < 500) return null;
    throw error;
  }
}

function deedOf(needs: Pick<ConsoleNeeds, "clock" | "makeId">, principal: Principal, action: string, origin: AdmissionOrigin): AuditRow {
  return {
    id: needs.makeId(),
    actor: principal.id,
    actorKind: principal.kind,
    action,
    target: principal.id,
    before: null,
    after: null,
    ...origin,
    status: 200,
    at: needs.clock.now(),
  };
}
