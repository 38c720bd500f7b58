import type { KeyId, ProjectId, TenantId, Uuid } from "../../../kernel/ids.ts";
import { formatUsd, parseUsd } from "../../../kernel/money.ts";

export const SCOPES = ["platform", "tenant", "project", "key", "user", "feature"] as const;
export type ScopeKind = (typeof SCOPES)[number];

export const UNITS = ["usd", "tokens", "requests"] as const;
export type Unit = (typeof UNITS)[number];

export const WINDOWS = ["day", "week", "month", "total", "rolling"] as const;
export type WindowKind = (typeof WINDOWS)[number];

/** What happens to a call that does not fit; `soft` lets it pass and only alerts. */
export const MODES = ["reject", "wait", "clamp", "soft"] as const;
export type Mode = (typeof MODES)[number];

export type BudgetId = Uuid;

/** When the sums of a budget begin and end. */
export interface WindowRule {
  readonly window: WindowKind;
  /** Of `rolling` alone. A multiple of {@link BUCKETS}. */
  readonly rollingSeconds: number | null;
  /** IANA zone of the tenant; the platform's is UTC. */
  readonly timeZone: string;
}

/** A budget as the configuration snapshot holds it. */
export interface Budget extends WindowRule {
  readonly id: BudgetId;
  /** The platform's counts all tenants together. */
  readonly owner: TenantId;
  readonly name: string;
  readonly setByPlatform: boolean;
  readonly scope: ScopeKind;
  /** The one project, key, user or feature that is counted; all null where each one is. */
  readonly project: ProjectId | null;
  readonly key: KeyId | null;
  /** Blind index of the user or feature, hexadecimal, as usage rows have it. */
  readonly subjectIndex: string | null;
  readonly unit: Unit;
  /** Pico-dollars, tokens or requests. */
  readonly cap: bigint;
  readonly mode: Mode;
  /** Percent of the cap, ascending. */
  readonly thresholds: readonly number[];
  /** Another number: other rows are counted, or in another unit. */
  readonly definition: number;
  /** Another number: other sums. What was kept in memory of the budget is then read again. */
  readonly epoch: number;
}

/** This domain's part of one tenant's snapshot. */
export interface BudgetPart {
  readonly budgets: readonly Budget[];
}

/** Whose an attempt is, as budgets see it. */
export interface Attribution {
  readonly project: ProjectId | null;
  readonly key: KeyId | null;
  /** Blind indexes, hexadecimal. */
  readonly userIndex: string | null;
  readonly featureIndex: string | null;
}

/** Which of a budget's balances an attempt is counted under; null where the budget is not about it. `''` where it names none. */
export function subjectOf(budget: Pick<Budget, "scope" | "project" | "key" | "subjectIndex">, of: Attribution): string | null {
  switch (budget.scope) {
    case "platform":
    case "tenant":
      return "";
    case "project":
      return among(budget.project, of.project);
    case "key":
      return among(budget.key, of.key);
    case "user":
      return among(budget.subjectIndex, of.userIndex);
    case "feature":
      return among(budget.subjectIndex, of.featureIndex);
    default:
      return budget.scope satisfies never;
  }
}

function among(only: string | null, found: string | null): string | null {
  return only === null || only === found ? (found ?? "") : null;
}

/** Whether each project, key, user or feature has a balance of its own. */
export function isTemplate({ scope, project, key, subjectIndex }: Pick<Budget, "scope" | "project" | "key" | "subjectIndex">): boolean {
  return scope !== "platform" && scope !== "tenant" && (project ?? key ?? subjectIndex) === null;
}

/** The columns that blind indexes of users and features are made for; as in usage rows. */
export const INDEXED_AS = { user: "usage_rows.user", feature: "usage_rows.feature" } as const;

/** A decimal string of the unit, as users write and read it; null where it is none. */
export function parseAmount(unit: Unit, text: string): bigint | null {
  if (unit === "usd") return parseUsd(text);
  return /^\d{1,15}$/.test(text) ? BigInt(text) : null;
}

export function formatAmount(unit: Unit, amount: bigint): string {
  return unit === "usd" ? formatUsd(amount) : amount.toString();
}

/** A rolling window counts in this many buckets; a bucket leaves when all of it is outside. */
export const BUCKETS = 24;
/** 366 days. */
export const LONGEST_ROLLING_SECONDS = 366 * 86_400;
export const DEFAULT_THRESHOLDS: readonly number[] = [50, 80, 100];
/** Of a budget that is nothing but an alert. */
export const ALERT_ONLY_THRESHOLDS: readonly number[] = [100];
export const MAX_THRESHOLDS = 20;
/** Of one tenant: each is looked at in every call of it. */
export const MAX_BUDGETS = 200;
