import type { DeploymentId, KeyId, ModelId, ProjectId, TenantId, Uuid } from "../../kernel/ids.ts";

/** What a limit counts: calls, tokens of input and output, calls at once, tokens of prompt prefixes that are new. */
export const DIMENSIONS = ["requests", "tokens", "concurrency", "prefix_tokens"] as const;
export type Dimension = (typeof DIMENSIONS)[number];

export const SCOPES = ["key", "project", "tenant", "model", "deployment"] as const;
export type ScopeKind = (typeof SCOPES)[number];

export type LimitId = Uuid;
export type TierId = Uuid;

/** The numbers of a limit: what a level is measured against. */
export interface Rule {
  /** A minute; of `concurrency`, at once. */
  readonly amount: number;
  /** The most that one moment can take. */
  readonly burst: number;
  /** Whether tokens are charged at their bound and stay charged until the call has ended. */
  readonly strict: boolean;
}

/** A limit as the configuration snapshot holds it. */
export interface Limit extends Rule {
  readonly id: LimitId;
  readonly name: string;
  /** The tier whose tenants it is for; null for every tenant (a platform's row), or for its own (a tenant's). */
  readonly tier: TierId | null;
  readonly scope: ScopeKind;
  /** The one key, project, model or deployment that is limited; null where each one is. */
  readonly key: KeyId | null;
  readonly project: ProjectId | null;
  readonly model: ModelId | null;
  readonly deployment: DeploymentId | null;
  readonly dimension: Dimension;
  readonly window: "gcra" | "sliding";
}

/** This domain's part of one tenant's snapshot; the platform's also holds its tiers, by name. */
export interface CapacityPart {
  readonly limits: readonly Limit[];
  readonly tiers: ReadonlyMap<string, TierId>;
}

/** Whom and what a call is counted under. */
export interface Subject {
  readonly tenant: TenantId;
  readonly tier: string | null;
  readonly project: ProjectId | null;
  readonly key: KeyId | null;
  readonly model: ModelId;
  /** Where it would go; null where the model has no deployment. */
  readonly deployment: DeploymentId | null;
}

/** What is left under a limit, for headers. */
export interface LimitFigure {
  /** A minute. */
  readonly limit: number;
  /** What would pass at once. */
  readonly remaining: number;
  /** Until all of it is free again. */
  readonly resetSeconds: number;
}

/** The tightest of the caller's own limits on each dimension that dialects have headers for; null where there is none. */
export interface LimitFigures {
  readonly requests: LimitFigure | null;
  readonly tokens: LimitFigure | null;
}

/** Why a call may not pass now. */
export interface Refusal {
  readonly limit: Limit;
  readonly charge: number;
  /** Null: never, whatever time passes. */
  readonly retryAfterSeconds: number | null;
  /** Whether others than the caller's tenant are counted under it: the caller then learns nothing about it. */
  readonly isShared: boolean;
  readonly figures: LimitFigures;
}
