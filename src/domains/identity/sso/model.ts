import type { ProjectId, TenantId, Uuid } from "../../../kernel/ids.ts";
import type { Role } from "../permissions.ts";

export type ProviderId = Uuid;

/** Signature algorithms that a provider may be allowed: asymmetric ones alone, so that no public key is ever taken for a shared secret. */
export const ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"] as const;
export type Algorithm = (typeof ALGORITHMS)[number];

/** What the claims of a provider mean here. */
export interface ProviderRules {
  /** `aud` values of bearer tokens that are meant for this installation; none: bearer tokens of this provider are refused. */
  readonly audiences: readonly string[];
  readonly algorithms: readonly Algorithm[];
  readonly scopes: readonly string[];
  /** The claim that lists the subject's groups: its name, or a path with dots. */
  readonly groupsClaim: string;
  /** The claim of bearer tokens that names the project they call for; null: the subject's only project. */
  readonly projectClaim: string | null;
  readonly groupRoles: readonly GroupRole[];
  /** Lower case. Empty: any. */
  readonly emailDomains: readonly string[];
  /** Whether its emails count as verified where it does not say so. */
  readonly trustEmail: boolean;
  /** Whether subjects with a role of a group, and not known here, become members. */
  readonly autoProvision: boolean;
}

/** `group` is `*` for everybody of the `emailDomains`; `project` null for the whole tenant. */
export interface GroupRole {
  readonly group: string;
  readonly role: Role;
  readonly project: ProjectId | null;
}

/** An identity provider as the configuration snapshot holds it. */
export interface ProviderRecord {
  readonly id: ProviderId;
  readonly tenant: TenantId;
  readonly name: string;
  readonly displayName: string | null;
  /** As its tokens write it in `iss`. */
  readonly issuer: string;
  /** Null: nobody signs in to the console with it. */
  readonly clientId: string | null;
  /** As stored: opened for each use, so that memory holds no secret. */
  readonly clientSecretSealed: Buffer | null;
  readonly rules: ProviderRules;
  readonly revision: number;
}

/** This folder's part of one tenant's snapshot. */
export interface SsoPart {
  readonly byName: ReadonlyMap<string, ProviderRecord>;
  /** By `audienceKey`. */
  readonly byAudience: ReadonlyMap<string, ProviderRecord>;
}

/** What finds the provider of a bearer token, of all tenants'. */
export function audienceKey(issuer: string, audience: string): string {
  return JSON.stringify([issuer, audience]);
}

export type Claims = Readonly<Record<string, unknown>>;
