import type { AttemptId, DeploymentId, KeyId, ProjectId, TenantId } from "../../kernel/ids.ts";
import { formatUsd } from "../../kernel/money.ts";
import { TOKEN_CLASSES, type TokenClass } from "../../kernel/tokens.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import type { AttemptStatus } from "./model.ts";
import type { TagColumn, Tags } from "./tags.ts";
import type { HopRow } from "./usage-query.ts";

/** Names as the configuration knows them now; null for what it does not know any more. */
export interface Names {
  tenant(id: TenantId): string | null;
  project(tenant: TenantId, id: ProjectId): string | null;
  deployment(id: DeploymentId): string | null;
  /** The live tenant that a name or id means. */
  tenantNamed(nameOrId: string): TenantId | null;
}

export interface OpenerNeeds {
  readonly tags: (tenant: TenantId) => TenantKeyring | null | Promise<TenantKeyring | null>;
  readonly names: Names;
  readonly sealing: Tags;
}

/** One attempt as readers see it: tags opened, ids named, amounts as exact decimals in USD. */
export interface HopView {
  id: AttemptId;
  hop: string;
  call: string;
  tenant_id: TenantId;
  tenant: string | null;
  project_id: ProjectId | null;
  project: string | null;
  key_id: KeyId | null;
  feature: string;
  user: string | null;
  trace: string | null;
  kind: string;
  provider: string;
  model: string;
  model_served: string;
  deployment_id: DeploymentId;
  deployment: string | null;
  region: string | null;
  price_version: string;
  tokens: Record<TokenClass, number>;
  cost: string;
  charge: string;
  worst_case: string;
  bound: "proof" | "rule";
  source: "reported" | "counted";
  estimated: boolean;
  dispatch_unknown: boolean;
  status: AttemptStatus;
  latency_ms: number;
  first_token_ms: number | null;
  started_at: string;
}

/** Opens what usage rows hold sealed. */
export class Opener {
  readonly #needs: OpenerNeeds;

  constructor(needs: OpenerNeeds) {
    this.#needs = needs;
  }

  async views(rows: readonly HopRow[]): Promise<HopView[]> {
    const keyrings = await this.keyrings(rows.map((row) => row.tenant_id));
    return rows.map((row) => this.#view(row, keyrings.get(row.tenant_id) ?? null));
  }

  async keyrings(tenants: readonly TenantId[]): Promise<Map<TenantId, TenantKeyring | null>> {
    const keyrings = new Map<TenantId, TenantKeyring | null>();
    for (const tenant of new Set(tenants)) keyrings.set(tenant, await this.#needs.tags(tenant));
    return keyrings;
  }

  /** A tag that stands beside its blind index; null where there is none. */
  tag(keyring: TenantKeyring | null, column: TagColumn, sealed: Buffer | null, index: Buffer | null): string | null {
    return index === null ? null : this.open(keyring, column, sealed, index.toString("hex"));
  }

  /** The value, or, when its tenant was erased, a pseudonym. */
  open(keyring: TenantKeyring | null, column: TagColumn, sealed: Buffer | null, beside: string): string {
    return (sealed === null ? null : this.#needs.sealing.open(keyring, column, sealed, beside)) ?? `erased-${beside.slice(0, 8)}`;
  }

  #view(row: HopRow, keyring: TenantKeyring | null): HopView {
    const { names } = this.#needs;
    return {
      id: row.id,
      hop: row.hop,
      call: row.call,
      tenant_id: row.tenant_id,
      tenant: names.tenant(row.tenant_id),
      project_id: row.project_id,
      project: row.project_id === null ? null : names.project(row.tenant_id, row.project_id),
      key_id: row.key_id,
      feature: this.open(keyring, "feature", row.feature_sealed, row.feature_index.toString("hex")),
      user: this.tag(keyring, "user", row.user_sealed, row.user_index),
      trace: row.trace,
      kind: row.kind,
      provider: row.provider,
      model: this.open(keyring, "model_requested", row.model_requested_sealed, row.model_id),
      model_served: row.model_served,
      deployment_id: row.deployment_id,
      deployment: names.deployment(row.deployment_id),
      region: row.region,
      price_version: row.price_version,
      tokens: Object.fromEntries(TOKEN_CLASSES.map((tokenClass) => [tokenClass, row[tokenClass]])) as Record<TokenClass, number>,
      cost: formatUsd(row.cost),
      charge: formatUsd(row.charge),
      worst_case: formatUsd(row.worst_case),
      bound: row.bound,
      source: row.source,
      estimated: row.estimated,
      dispatch_unknown: row.dispatch_unknown,
      status: row.status as AttemptStatus,
      latency_ms: row.latency_ms,
      first_token_ms: row.first_token_ms,
      started_at: row.started_at.toISOString(),
    };
  }
}
