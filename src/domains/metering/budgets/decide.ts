import { type AttemptId, PLATFORM_TENANT, type TenantId } from "../../../kernel/ids.ts";
import { type Attribution, type Budget, subjectOf, type Unit } from "./model.ts";
import { spanAt, type Window } from "./windows.ts";

/** A budget that balances are kept of. */
export interface CountingBudget extends Omit<Budget, "name" | "setByPlatform"> {
  readonly nameSealed: Buffer;
  /** Attempts admitted since then are counted, ms since the epoch. */
  readonly countsFrom: number;
}

/** An attempt whose usage row is new. */
export interface PostedAttempt extends Attribution {
  readonly id: AttemptId;
  readonly tenant: TenantId;
  /** As PostgreSQL reads `bytea`. */
  readonly userSealed: string | null;
  readonly featureSealed: string | null;
  readonly kind: string;
  /** Pico-dollars. */
  readonly charge: bigint;
  readonly worstCase: bigint;
  /** Of all classes. */
  readonly tokens: number;
  /** ms since the epoch. */
  readonly startedAt: number;
}

/** What an attempt adds to a balance. */
export interface Amounts {
  posted: bigint;
  overage: bigint;
}

/** The sum of what some attempts add to one balance. */
export interface Posting extends Amounts {
  readonly budget: CountingBudget;
  readonly subject: string;
  readonly subjectSealed: string | null;
  readonly span: Window;
}

/** What the attempts add to each balance that they are counted under. */
export function postingsOf(budgets: readonly CountingBudget[], attempts: readonly PostedAttempt[]): Posting[] {
  const byOwner = Map.groupBy(budgets, ({ owner }) => owner);
  const ofAll = byOwner.get(PLATFORM_TENANT) ?? [];
  const spans = new Map<CountingBudget, Window>();
  const postings = new Map<string, Posting>();
  for (const attempt of attempts) {
    if (attempt.kind === "count") continue;
    for (const budget of [...ofAll, ...(byOwner.get(attempt.tenant) ?? [])]) {
      const subject = subjectOf(budget, attempt);
      if (subject === null || attempt.startedAt < budget.countsFrom) continue;
      const span = spanOf(spans, budget, attempt.startedAt);
      const key = `${budget.id} ${span.start} ${subject}`;
      let posting = postings.get(key);
      if (posting === undefined)
        postings.set(key, (posting = { budget, subject, subjectSealed: sealedOf(budget, attempt), span, posted: 0n, overage: 0n }));
      const { posted, overage } = amountsOf(budget.unit, attempt);
      posting.posted += posted;
      posting.overage += overage;
    }
  }
  return [...postings.values()];
}

/** The last span of each budget is remembered: one in a calendar takes tens of microseconds, and attempts come in order. */
function spanOf(spans: Map<CountingBudget, Window>, budget: CountingBudget, at: number): Window {
  let span = spans.get(budget);
  if (span === undefined || at < span.start || (span.end !== null && at >= span.end)) spans.set(budget, (span = spanAt(budget, at)));
  return span;
}

function sealedOf({ scope }: CountingBudget, attempt: PostedAttempt): string | null {
  return scope === "user" ? attempt.userSealed : scope === "feature" ? attempt.featureSealed : null;
}

/** Money above its hold is overage. Of tokens and requests the row does not say what was held. */
function amountsOf(unit: Unit, { charge, worstCase, tokens }: PostedAttempt): Amounts {
  switch (unit) {
    case "usd":
      return charge <= worstCase ? { posted: charge, overage: 0n } : { posted: worstCase, overage: charge - worstCase };
    case "tokens":
      return { posted: BigInt(tokens), overage: 0n };
    case "requests":
      return { posted: 1n, overage: 0n };
    default:
      return unit satisfies never;
  }
}

/** What stands against a budget in one window. */
export interface Standing {
  /** posted + adjusted + overage. */
  readonly used: bigint;
  readonly overage: bigint;
}

/** Alerts due at this standing: percents of the cap, and {@link OVERAGE}. */
export function alertsDue({ cap, thresholds }: Pick<Budget, "cap" | "thresholds">, { used, overage }: Standing): number[] {
  const reached = used <= 0n ? [] : thresholds.filter((percent) => used * 100n >= cap * BigInt(percent));
  return overage > 0n ? [OVERAGE, ...reached] : reached;
}

/** The alert of something charged above its hold, among percents. */
export const OVERAGE = 0;
