import { hash } from "node:crypto";
import { decodeJwt, decodeProtectedHeader, errors, type JWTPayload, jwtVerify } from "jose";
import type { Clock } from "../../../kernel/clock.ts";
import type { MemberId, ProjectId, TenantId } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { MemberRecord, Principal } from "../model.ts";
import { assertedAt, claimAt, decideAssertion } from "./decide.ts";
import { type Issuers, IssuerUnreachable } from "./issuers.ts";
import type { ProviderRecord } from "./model.ts";
import type { AdmitMember } from "./admission.ts";

export interface BearerNeeds {
  readonly clock: Clock;
  readonly issuers: Issuers;
  /** From the snapshot: whose tokens these are. */
  readonly providerFor: (issuer: string, audience: string) => ProviderRecord | undefined;
  readonly admit: AdmitMember;
  /** From the snapshot. Undefined: removed. */
  readonly memberOf: (tenant: TenantId, member: MemberId) => MemberRecord | undefined;
  /** Without a project: as the member's rights have it. Null: removed. */
  readonly principalOf: (tenant: TenantId, member: MemberId, project: ProjectId | undefined) => Principal | null;
  /** The live project of this name or id. */
  readonly projectNamed: (tenant: TenantId, nameOrId: string) => ProjectId | undefined;
}

/**
 * Who presents this token. Synchronous once it was verified; what it may do is read from the snapshot each time. Throws Problem, or
 * rejects with one: invalid_api_key for whatever is wrong with it, expired_api_key for one that was good.
 */
export type AuthenticateToken = (token: string) => Principal | Promise<Principal>;

/** Whether a credential has the form of a signed JWT: nothing else does that is accepted here. */
export function isToken(credential: string): boolean {
  return credential.startsWith("eyJ") && credential.length <= MAX_TOKEN_LENGTH && TOKEN.test(credential);
}

export function createAuthenticateToken(needs: BearerNeeds): AuthenticateToken {
  const proven = new Map<string, Proven>();
  const verifying = new Map<TenantId, Map<string, Promise<Principal>>>();
  const standing = (token: Proven): Principal => {
    if (needs.clock.now() >= token.expiresAt) throw new Problem("expired_api_key");
    if (!isUnchanged(needs, token)) throw new Problem("invalid_api_key");
    const principal = needs.principalOf(token.provider.tenant, token.member, token.project);
    if (principal === null) throw new Problem("invalid_api_key");
    return principal;
  };
  const prove = async (text: string, digest: string, found: Found): Promise<Principal> => {
    const token = await verify(needs, text, found);
    const principal = standing(token);
    proven.set(digest, token);
    const oldest = proven.keys().next();
    if (proven.size > MAX_PROVEN && oldest.done !== true) proven.delete(oldest.value);
    return principal;
  };
  return (text) => {
    const digest = hash("sha256", text, "base64");
    const known = proven.get(digest);
    if (known !== undefined && isUnchanged(needs, known)) return standing(known);
    if (known !== undefined) proven.delete(digest);
    const found = findProvider(needs, text);
    if (found === null) throw new Problem("invalid_api_key");
    const { tenant } = found.provider;
    const ofTenant = verifying.get(tenant) ?? new Map<string, Promise<Principal>>();
    const running = ofTenant.get(digest);
    if (running !== undefined) return running;
    if (ofTenant.size >= MAX_VERIFYING_PER_TENANT) throw new Problem("overloaded", { retryAfterSeconds: 1 });
    const proving = prove(text, digest, found).finally(() => {
      ofTenant.delete(digest);
      if (ofTenant.size === 0) verifying.delete(tenant);
    });
    verifying.set(tenant, ofTenant.set(digest, proving));
    return proving;
  };
}

/** A token that was verified: nothing of its text is kept. */
interface Proven extends Found {
  readonly member: MemberId;
  /** Undefined where the token names none. */
  readonly project: ProjectId | undefined;
  /** ms since the epoch. */
  readonly expiresAt: number;
}

interface Found {
  readonly provider: ProviderRecord;
  readonly issuer: string;
  readonly audience: string;
}

/** Whether the provider is as it was: once it was changed or deleted, what it vouched for is asked again. */
function isUnchanged(needs: BearerNeeds, { issuer, audience, provider }: Found): boolean {
  const now = needs.providerFor(issuer, audience);
  return now !== undefined && now.id === provider.id && now.revision === provider.revision;
}

/** By what the token says of itself, which nothing proves yet. Null where it names no provider, or several. */
function findProvider(needs: BearerNeeds, text: string): Found | null {
  let claims: JWTPayload;
  try {
    const { alg, typ } = decodeProtectedHeader(text);
    if (typeof alg !== "string" || alg === "none" || alg.startsWith("HS") || !isTokenType(typ)) return null;
    claims = decodeJwt(text);
    // Bound to a key of its holder (RFC 7800), so that whoever only shows it has not proven to be the holder.
    if (claims["cnf"] !== undefined) return null;
  } catch {
    return null;
  }
  const issuer = claims.iss;
  const audiences = [claims.aud ?? []].flat();
  if (typeof issuer !== "string" || audiences.length > MAX_AUDIENCES) return null;
  const found = audiences.flatMap((audience) => {
    const provider = typeof audience === "string" ? needs.providerFor(issuer, audience) : undefined;
    return provider === undefined ? [] : [{ provider, issuer, audience }];
  });
  const [first, ...rest] = found;
  return first === undefined || rest.some(({ provider }) => provider !== first.provider) ? null : first;
}

/** Other JWTs of an issuer (logout tokens, security events, requests) say in `typ` what they are, and say nothing of who presents them. */
function isTokenType(typ: unknown): boolean {
  return typ === undefined || (typeof typ === "string" && TOKEN_TYPES.has(typ.toLowerCase().replace(/^application\//, "")));
}

async function verify(needs: BearerNeeds, text: string, found: Found): Promise<Proven> {
  const claims = await verifiedClaims(needs, text, found);
  const { provider } = found;
  const verdict = decideAssertion(provider.rules, claims, false);
  if (verdict.kind === "refused") throw new Problem("invalid_api_key");
  const member = await needs.admit(provider, verdict.assertion, assertedAt(claims, needs.clock.now()));
  if (member === null) throw new Problem("invalid_api_key");
  return {
    ...found,
    member,
    project: projectOf(needs, provider, member, claims),
    expiresAt: ((claims.exp as number) + CLOCK_TOLERANCE_SECONDS) * 1000,
  };
}

async function verifiedClaims(needs: BearerNeeds, text: string, { provider, issuer, audience }: Found): Promise<JWTPayload> {
  try {
    const { keys } = await needs.issuers.of(provider.tenant, provider.issuer);
    const { payload } = await jwtVerify(text, keys, {
      algorithms: [...provider.rules.algorithms],
      issuer,
      audience,
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
      currentDate: new Date(needs.clock.now()),
      requiredClaims: ["exp", "sub"],
    });
    return payload;
  } catch (cause) {
    if (cause instanceof IssuerUnreachable || cause instanceof errors.JWKSTimeout)
      throw new Problem("overloaded", { message: UNREACHABLE, retryAfterSeconds: RETRY_AFTER_SECONDS, cause });
    throw new Problem(cause instanceof errors.JWTExpired ? "expired_api_key" : "invalid_api_key", { cause });
  }
}

/** The project that the claim names, where the subject has rights in it or over all. */
function projectOf(needs: BearerNeeds, { tenant, rules }: ProviderRecord, id: MemberId, claims: JWTPayload): ProjectId | undefined {
  const claimed = rules.projectClaim === null ? undefined : claimAt(claims, rules.projectClaim);
  if (claimed === undefined) return undefined;
  const member = needs.memberOf(tenant, id);
  const project = typeof claimed === "string" ? needs.projectNamed(tenant, claimed) : undefined;
  if (member === undefined || project === undefined || !(member.projects.has(project) || member.permissions.has("models:call")))
    throw new Problem("invalid_api_key");
  return project;
}

const TOKEN = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;
/** RFC 9068, what most write in its place, and SPIFFE. */
const TOKEN_TYPES: ReadonlySet<string> = new Set(["at+jwt", "jwt", "jose"]);
const UNREACHABLE = "The identity provider of this token cannot be reached to verify it. Retry later.";
const RETRY_AFTER_SECONDS = 5;
/** With 200 groups in it, one of Entra's has about 8,000 characters. Headers in all are bounded at 32 KiB. */
const MAX_TOKEN_LENGTH = 16_384;
const MAX_AUDIENCES = 20;
/** About 0.3 kB each. */
const MAX_PROVEN = 10_000;
/** One tenant's, so that a provider that answers slowly keeps no other tenant's tokens waiting. */
const MAX_VERIFYING_PER_TENANT = 64;
const CLOCK_TOLERANCE_SECONDS = 30;
