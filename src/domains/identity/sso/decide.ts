import type { ProjectId } from "../../../kernel/ids.ts";
import type { Claims, ProviderRules } from "./model.ts";

/** What a provider asserts of a subject, in this house's words. */
export interface Assertion {
  readonly subject: string;
  /** Null where the provider names none, or none that it vouches for. */
  readonly email: string | null;
  readonly emailVerified: boolean;
  readonly name: string | null;
  readonly roles: readonly string[];
  readonly projects: readonly { readonly project: ProjectId; readonly roles: readonly string[] }[];
  readonly mayProvision: boolean;
}

export type AssertionVerdict =
  | { readonly kind: "asserted"; readonly assertion: Assertion }
  | { readonly kind: "refused"; readonly reason: "no_subject" | "email_domain" };

/**
 * What the claims say under the provider's rules. Where the provider may speak for some email domains only, a person must come with a
 * verified email of one; a service, which has no email, need not (`isPerson` false).
 */
export function decideAssertion(rules: ProviderRules, claims: Claims, isPerson: boolean): AssertionVerdict {
  const subject = textOf(claims["sub"], MAX_SUBJECT_LENGTH);
  if (subject === null) return { kind: "refused", reason: "no_subject" };
  const email = textOf(claims["email"], MAX_EMAIL_LENGTH);
  const said = claims["email_verified"];
  const emailVerified = email !== null && (said === true || said === "true" || (said === undefined && rules.trustEmail));
  if (rules.emailDomains.length > 0 && (email !== null || isPerson)) {
    const domain = /^.+@([^@]+)$/.exec(email ?? "")?.[1]?.toLowerCase();
    if (!emailVerified || domain === undefined || !rules.emailDomains.includes(domain)) return { kind: "refused", reason: "email_domain" };
  }
  // The domains were asked of whoever has an email; a token without one may be of anybody with an account there.
  const { roles, projects } = rolesOf(rules, groupsOf(rules, claims), email !== null);
  const mayProvision = rules.autoProvision && (roles.length > 0 || projects.length > 0);
  return {
    kind: "asserted",
    assertion: { subject, email, emailVerified, name: textOf(claims["name"], MAX_NAME_LENGTH), roles, projects, mayProvision },
  };
}

/** When the claims were made: never later than now, whatever they say. Both ms since the epoch. */
export function assertedAt({ iat, nbf }: Claims, now: number): number {
  const seconds = typeof iat === "number" ? iat : typeof nbf === "number" ? nbf : 0;
  return Math.max(0, Math.min(seconds * 1000, now));
}

/** A claim by its name or, where there is none of that name, by its path with dots: `realm_access.roles`. */
export function claimAt(claims: Claims, path: string): unknown {
  if (Object.hasOwn(claims, path)) return claims[path];
  let at: unknown = claims;
  for (const part of path.split(".")) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, part)) return undefined;
    at = (at as Claims)[part];
  }
  return at;
}

/** Whether all that the rules ask of a subject is among these claims. */
export function isComplete(rules: ProviderRules, claims: Claims): boolean {
  return claims["email"] !== undefined && (rules.groupRoles.length === 0 || claimAt(claims, rules.groupsClaim) !== undefined);
}

function groupsOf(rules: ProviderRules, claims: Claims): ReadonlySet<string> {
  const claimed = claimAt(claims, rules.groupsClaim);
  const listed = typeof claimed === "string" ? claimed.split(" ") : Array.isArray(claimed) ? claimed : [];
  return new Set(listed.slice(0, MAX_GROUPS).filter((group) => typeof group === "string"));
}

/** `isOfDomains`: of the `email_domains`, whose people the group `*` is. */
function rolesOf(rules: ProviderRules, groups: ReadonlySet<string>, isOfDomains: boolean): Pick<Assertion, "roles" | "projects"> {
  const roles = new Set<string>();
  const projects = new Map<ProjectId, Set<string>>();
  for (const { group, role, project } of rules.groupRoles) {
    if (group === EVERYBODY ? !isOfDomains : !groups.has(group)) continue;
    if (project === null) roles.add(role);
    else projects.set(project, (projects.get(project) ?? new Set()).add(role));
  }
  return { roles: [...roles].toSorted(), projects: [...projects].map(([project, held]) => ({ project, roles: [...held].toSorted() })) };
}

/** An issuer's URL as it must be written, or null. Plain http is a matter of where this installation may connect to. */
export function parseIssuer(text: string): string | null {
  if (!URL.canParse(text) || /\s/.test(text)) return null;
  const url = new URL(text);
  const isWeb = url.protocol === "https:" || url.protocol === "http:";
  return isWeb && url.username === "" && url.password === "" && !/[?#]/.test(text) ? text : null;
}

/** The group that stands for everybody of a provider's `email_domains`. */
export const EVERYBODY = "*";

function textOf(claim: unknown, most: number): string | null {
  return typeof claim === "string" && claim !== "" && claim.length <= most ? claim : null;
}

/** OpenID Connect's own bound on `sub`. */
const MAX_SUBJECT_LENGTH = 255;
const MAX_EMAIL_LENGTH = 254;
const MAX_NAME_LENGTH = 200;
/** Entra lists up to 200 in a token. */
const MAX_GROUPS = 1_000;
