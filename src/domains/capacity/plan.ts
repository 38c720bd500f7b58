import type { CapacityPart, Limit, Subject } from "./model.ts";

/** The limits that a call of one key to one model is counted under. */
export interface Plan {
  readonly limits: readonly Limit[];
  /** Under which name each limit counts this subject; equal names are one level. */
  readonly counters: readonly string[];
  readonly isShared: readonly boolean[];
  readonly countsTokens: boolean;
  /** Whether any of them by what a call is expected to use. */
  readonly estimatesTokens: boolean;
  readonly countsPrefixes: boolean;
  /** Whose answers' lengths are averaged. */
  readonly mean: string;
}

/** `platform` says what holds for every tenant and what for those of a tier; `own` what the tenant has beside that. */
export function planOf(subject: Subject, own: CapacityPart, platform: CapacityPart): Plan {
  const tier = subject.tier === null ? undefined : platform.tiers.get(subject.tier);
  const general = platform.limits.filter((limit) => limit.tier === null && isAbout(limit, subject));
  const ofTenant = [...platform.limits.filter((limit) => limit.tier !== null && limit.tier === tier), ...own.limits];
  const particular = ofTenant.filter((limit) => isAbout(limit, subject));
  const limits = [...general, ...particular];
  const isShared = limits.map((limit, index) => index < general.length && SHARED.has(limit.scope));
  return {
    limits,
    counters: limits.map((limit, index) => counterOf(limit, subject, isShared[index] === true)),
    isShared,
    countsTokens: limits.some((limit) => limit.dimension === "tokens"),
    estimatesTokens: limits.some((limit) => limit.dimension === "tokens" && !limit.strict),
    countsPrefixes: limits.some((limit) => limit.dimension === "prefix_tokens"),
    mean: `${subject.tenant} ${subject.key} ${subject.model}`,
  };
}

/** Scopes of a limit for all tenants under which they are counted together. */
const SHARED: ReadonlySet<Limit["scope"]> = new Set(["model", "deployment"]);

function isAbout(limit: Limit, subject: Subject): boolean {
  if (limit.model !== null && limit.model !== subject.model) return false;
  switch (limit.scope) {
    case "key":
      return subject.key !== null && (limit.key === null || limit.key === subject.key);
    case "project":
      return subject.project !== null && (limit.project === null || limit.project === subject.project);
    case "deployment":
      return subject.deployment !== null && (limit.deployment === null || limit.deployment === subject.deployment);
    case "tenant":
    case "model":
      return true;
    default:
      return limit.scope satisfies never;
  }
}

/** What a level is remembered under. A limit that is changed in kind begins anew; one that is changed in numbers does not. */
function counterOf(limit: Limit, subject: Subject, isShared: boolean): string {
  const kind = `${limit.id} ${limit.dimension} ${limit.window} ${limit.strict ? "strict" : ""}`;
  switch (limit.scope) {
    case "key":
      return `${kind} ${subject.key}`;
    case "project":
      return `${kind} ${subject.project}`;
    case "tenant":
      return `${kind} ${subject.tenant}`;
    case "model":
      return `${kind} ${isShared ? "" : subject.tenant} ${subject.model}`;
    case "deployment":
      return `${kind} ${subject.deployment}`;
    default:
      return limit.scope satisfies never;
  }
}
