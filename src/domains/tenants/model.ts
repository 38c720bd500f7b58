import type { Brand } from "../../kernel/brand.ts";
import type { ProjectId, TenantId } from "../../kernel/ids.ts";

/** One isolated customer or line of business, as the configuration snapshot holds it. */
export interface TenantRecord {
  readonly id: TenantId;
  readonly name: string;
  readonly displayName: string | null;
  readonly status: "active" | "suspended";
  readonly tier: string | null;
  readonly homeRegion: string | null;
  /** IANA zone; budgets' calendar windows are computed in it. */
  readonly timeZone: string;
  /** What it pays of each price: 1,200,000 is ×1.2. */
  readonly markupMillionths: number;
  /** The ETag of the row. */
  readonly revision: number;
  /** Unix seconds. */
  readonly createdAt: number;
  readonly updatedAt: number;
}

export interface ProjectRecord {
  readonly id: ProjectId;
  readonly name: string;
  readonly displayName: string | null;
  readonly defaultMaxOutputTokens: number | null;
  /** Attribution the project's calls must carry, e.g. `feature`. */
  readonly require: readonly string[];
}

/** The tenants domain's part of one tenant's snapshot. */
export interface TenantPart {
  readonly tenant: TenantRecord;
  readonly projects: ReadonlyMap<ProjectId, ProjectRecord>;
}

/**
 * The tenant a call runs for, and its project. Minted only by this domain's `resolve`, from the principal alone: nothing
 * the caller sent can name a tenant.
 */
export type Tenant = Brand<{ readonly record: TenantRecord; readonly project: ProjectRecord | null }, "Tenant">;
