import type { ColumnType, Generated } from "kysely";
import type {
  AttemptId,
  CallId,
  CredentialId,
  DeploymentId,
  HopId,
  InvitationId,
  KeyId,
  MemberId,
  ModelId,
  PriceVersion,
  ProjectId,
  TenantId,
  Uuid,
} from "../../kernel/ids.ts";

/**
 * The tables as the two request roles see them. What the driver hands over: `numeric` is a bigint (all our numerics are
 * whole pico-dollars), `bigint` a safe integer, `timestamptz` a Date, `bytea` a Buffer, `jsonb` the parsed value.
 */
export interface Tables {
  config_version: ConfigVersionTable;
  config_changes: ConfigChangesTable;
  key_directory: KeyDirectoryTable;
  tenant_keys: TenantKeysTable;
  tenants: TenantsTable;
  projects: ProjectsTable;
  api_keys: ApiKeysTable;
  credentials: CredentialsTable;
  models: ModelsTable;
  deployments: DeploymentsTable;
  prices: PricesTable;
  grants: GrantsTable;
  usage_rows: UsageRowsTable;
  ledger_entries: LedgerEntriesTable;
  journals: JournalsTable;
  audit_rows: AuditRowsTable;
  audit_chains: AuditChainsTable;
  idempotency_keys: IdempotencyKeysTable;
  tiers: TiersTable;
  limits: LimitsTable;
  webhooks: WebhooksTable;
  events: EventsTable;
  event_deliveries: EventDeliveriesTable;
  identity_providers: IdentityProvidersTable;
  console_sessions: ConsoleSessionsTable;
  budgets: BudgetsTable;
  budget_openings: BudgetOpeningsTable;
  budget_balances: BudgetBalancesTable;
  budget_alerts: BudgetAlertsTable;
  ledger_adjustments: LedgerAdjustmentsTable;
  budget_keeper: BudgetKeeperTable;
  members: MembersTable;
  project_members: ProjectMembersTable;
  invitations: InvitationsTable;
}

/** Tables without a tenant: every other one is under row security and gets the tenant's predicate. */
export const GLOBAL_TABLES: ReadonlySet<string> = new Set<keyof Tables>(["config_version", "journals", "budget_keeper"]);

/** In a tenant transaction an insert may leave it out: it is filled in, and any other tenant's is refused. */
type OwningTenant = ColumnType<TenantId, TenantId | undefined, never>;
/** Fixed at insertion. */
type Fixed<T> = ColumnType<T, T, never>;
/** Absent at insertion means NULL. */
type Nullable<T> = ColumnType<T | null, T | null | undefined, T | null>;
/** Written as JSON text: the driver would turn a bare array into a PostgreSQL array. */
type NullableJson<T> = ColumnType<T | null, string | null | undefined, string | null>;

/** A resource with a name unique in its parent: sealed for reading, blind index for uniqueness. `revision` is its ETag. */
interface Named {
  name_sealed: Buffer;
  name_index: Buffer;
  display_name_sealed: Nullable<Buffer>;
  revision: Generated<number>;
  created_at: Fixed<Date>;
  updated_at: Date;
  archived_at: Nullable<Date>;
}

export interface ConfigVersionTable {
  singleton: Generated<boolean>;
  version: number;
}

export interface ConfigChangesTable {
  tenant_id: OwningTenant;
  version: Fixed<number>;
}

export interface KeyDirectoryTable {
  key_id: Fixed<KeyId>;
  tenant_id: OwningTenant;
}

export interface TenantKeysTable {
  tenant_id: OwningTenant;
  version: Fixed<number>;
  wrapped: Fixed<Buffer>;
  created_at: Fixed<Date>;
}

/** Rows of the platform tenant; `id` is the tenant described. */
export interface TenantsTable extends Named {
  tenant_id: OwningTenant;
  id: Fixed<TenantId>;
  status: "active" | "suspended";
  tier: Nullable<string>;
  home_region: Nullable<string>;
  time_zone: Generated<string>;
  /** Charge ÷ price: 1,200,000 is ×1.2. */
  markup_millionths: Generated<number>;
}

export interface ProjectsTable extends Named {
  tenant_id: OwningTenant;
  id: Fixed<ProjectId>;
  default_max_output_tokens: Nullable<number>;
  require: Generated<string[]>;
}

export interface ApiKeysTable {
  tenant_id: OwningTenant;
  id: Fixed<KeyId>;
  /** NULL: a key above projects. */
  project_id: ColumnType<ProjectId | null, ProjectId | null | undefined, never>;
  name_sealed: Buffer;
  name_index: Buffer;
  hash: Fixed<Buffer>;
  permissions: string[];
  /** Names of the models it may call; NULL: all that its tenant is granted. */
  models: Nullable<string[]>;
  expires_at: Nullable<Date>;
  revoked_at: Nullable<Date>;
  grace_until: Nullable<Date>;
  /** The service account that calls with it; NULL: nobody's but its own. */
  member_id: ColumnType<MemberId | null, MemberId | null | undefined, never>;
  /** The key or member of the same tenant that made it and bounds it at every use; NULL where that is the platform, or the machine. */
  creator: Nullable<KeyId | MemberId>;
  /** Families of endpoints, and CIDRs; NULL: any. */
  routes: Nullable<string[]>;
  ip_ranges: Nullable<string[]>;
  created_by: Fixed<string>;
  created_at: Fixed<Date>;
}

export interface CredentialsTable extends Named {
  tenant_id: OwningTenant;
  id: Fixed<CredentialId>;
  provider: string;
  base_url: Nullable<string>;
  secret_sealed: Nullable<Buffer>;
  secret_version: Generated<number>;
  proxy_sealed: Nullable<Buffer>;
  ca: Nullable<string>;
  client_cert: Nullable<string>;
  client_key_sealed: Nullable<Buffer>;
}

export interface ModelsTable extends Named {
  tenant_id: OwningTenant;
  id: Fixed<ModelId>;
  visibility: Generated<"granted" | "all">;
  capabilities: Generated<string[]>;
  context_window: Nullable<number>;
  max_output_tokens: Nullable<number>;
}

export interface DeploymentsTable extends Named {
  tenant_id: OwningTenant;
  id: Fixed<DeploymentId>;
  model_id: Fixed<ModelId>;
  provider: string;
  credential_id: Nullable<CredentialId>;
  upstream_model: string;
  region: Nullable<string>;
  position: Generated<number>;
  options: ColumnType<Record<string, unknown>, string | undefined, string>;
}

export interface PricesTable {
  tenant_id: OwningTenant;
  id: Fixed<PriceVersion>;
  deployment_id: Fixed<DeploymentId>;
  effective_at: Fixed<Date>;
  source: Fixed<"stated" | "free" | "dataset">;
  /** Token class → pico-dollars a unit, as a decimal string. */
  rates: ColumnType<Record<string, string>, string, never>;
  /** Long-context rates, shortest first. */
  tiers: ColumnType<{ above: number; rates: Record<string, string> }[], string | undefined, never>;
  /** Where the dataset says so; null for any other source. */
  dataset: ColumnType<Record<string, unknown> | null, string | null | undefined, never>;
  created_at: Fixed<Date>;
}

/** `tenant_id` is the grantee. */
export interface GrantsTable {
  tenant_id: OwningTenant;
  model_owner_id: Fixed<TenantId>;
  model_id: Fixed<ModelId>;
  created_at: Fixed<Date>;
}

/** One attempt. Written by the shipper alone; a tenant transaction may read it. Money in pico-dollars, times in milliseconds. */
export interface UsageRowsTable {
  tenant_id: Fixed<TenantId>;
  id: Fixed<AttemptId>;
  hop: Fixed<HopId>;
  call: Fixed<CallId>;
  parent_hop: Nullable<HopId>;
  project_id: Nullable<ProjectId>;
  key_id: Nullable<KeyId>;
  user_sealed: Nullable<Buffer>;
  user_index: Nullable<Buffer>;
  feature_sealed: Buffer;
  feature_index: Buffer;
  trace: Nullable<string>;
  kind: "generate" | "count" | "embed" | "rerank" | "guardrail" | "judge" | "tool" | "cache";
  provider: string;
  model_requested_sealed: Buffer;
  model_served: string;
  model_id: ModelId;
  deployment_id: DeploymentId;
  region: Nullable<string>;
  price_version: PriceVersion;
  input_uncached: Generated<number>;
  cache_read: Generated<number>;
  cache_write_5m: Generated<number>;
  cache_write_1h: Generated<number>;
  output: Generated<number>;
  reasoning: Generated<number>;
  audio_input: Generated<number>;
  audio_output: Generated<number>;
  image: Generated<number>;
  cost: bigint;
  charge: bigint;
  /** W: the most this attempt could have cost on its deployment. */
  worst_case: bigint;
  bound: "proof" | "rule";
  source: "reported" | "counted";
  estimated: Generated<boolean>;
  dispatch_unknown: Generated<boolean>;
  status: string;
  latency_ms: number;
  first_token_ms: Nullable<number>;
  started_at: Date;
  journal_id: Uuid;
  journal_sequence: number;
}

/** One immutable double entry an attempt: debit = credit_provider + credit_margin, pico-dollars. */
export interface LedgerEntriesTable {
  tenant_id: Fixed<TenantId>;
  id: Fixed<AttemptId>;
  project_id: Nullable<ProjectId>;
  key_id: Nullable<KeyId>;
  debit_spend: Fixed<bigint>;
  credit_provider: Fixed<bigint>;
  credit_margin: Fixed<bigint>;
  posted_at: Fixed<Date>;
}

export interface JournalsTable {
  id: Fixed<Uuid>;
  watermark: number;
  updated_at: Date;
}

export interface AuditRowsTable {
  tenant_id: OwningTenant;
  id: Fixed<Uuid>;
  actor: Fixed<string>;
  actor_kind: Fixed<string>;
  action: Fixed<string>;
  target: Fixed<string>;
  before: NullableJson<unknown>;
  after: NullableJson<unknown>;
  request_id: ColumnType<string | null, string | null | undefined, never>;
  remote_address: ColumnType<string | null, string | null | undefined, never>;
  status: Fixed<number>;
  /** How many times: more than one where refusals of one minute are one row. */
  count: Generated<number>;
  at: Fixed<Date>;
  sequence: Link<number>;
  hash: Link<Buffer>;
  before_digest: Link<Buffer | null>;
  after_digest: Link<Buffer | null>;
}

/** A row's place in its tenant's chain, which the database gives it. */
type Link<T> = ColumnType<T, never, never>;

/** The newest row of a tenant's trail. The insertion of a row moves it. */
export interface AuditChainsTable {
  tenant_id: OwningTenant;
  sequence: Link<number>;
  hash: Link<Buffer>;
}

export interface IdempotencyKeysTable {
  tenant_id: OwningTenant;
  principal: Fixed<string>;
  key_hash: Fixed<Buffer>;
  route: Fixed<string>;
  body_hash: Fixed<Buffer>;
  status: Nullable<number>;
  response: Nullable<Buffer>;
  created_at: Fixed<Date>;
  expires_at: Date;
}

/** Rows of the platform. */
export interface TiersTable extends Named {
  tenant_id: OwningTenant;
  id: Fixed<Uuid>;
}

/** A scope that names no key, project, model or deployment is each one of them. */
export interface LimitsTable extends Named {
  tenant_id: OwningTenant;
  id: Fixed<Uuid>;
  /** Of the platform's rows: the tier whose tenants it is for. */
  tier_id: ColumnType<Uuid | null, Uuid | null | undefined, never>;
  scope: "key" | "project" | "tenant" | "model" | "deployment";
  key_id: Nullable<KeyId>;
  project_id: Nullable<ProjectId>;
  model_id: Nullable<ModelId>;
  deployment_id: Nullable<DeploymentId>;
  dimension: "requests" | "tokens" | "concurrency" | "prefix_tokens";
  /** A minute, or at once. */
  amount: number;
  /** NULL: the dimension's default. */
  burst: Nullable<number>;
  rate_window: "gcra" | "sliding";
  token_mode: "estimated" | "strict";
  /** Of a tenant's rows: whether it may only read it. */
  set_by_platform: Fixed<boolean>;
}

/** A person, or a service account of one project. */
export interface MembersTable {
  tenant_id: OwningTenant;
  id: Fixed<MemberId>;
  kind: Fixed<"user" | "service_account">;
  /** A service account's; NULL for people. */
  project_id: ColumnType<ProjectId | null, ProjectId | null | undefined, never>;
  name_sealed: Nullable<Buffer>;
  email_sealed: Nullable<Buffer>;
  email_index: Nullable<Buffer>;
  /** Of issuer and subject; NULL until the first sign-in. */
  subject_index: Nullable<Buffer>;
  /** Over the whole tenant. */
  roles: Generated<string[]>;
  /** The same, as the newest assertion of the identity provider has them, which was made at `claimed_at`. */
  claimed_roles: Generated<string[]>;
  claimed_at: Nullable<Date>;
  /** Its ETag. */
  revision: Generated<number>;
  created_by: Fixed<string>;
  created_at: Fixed<Date>;
  removed_at: Nullable<Date>;
}

export interface ProjectMembersTable {
  tenant_id: OwningTenant;
  project_id: Fixed<ProjectId>;
  member_id: Fixed<MemberId>;
  roles: Generated<string[]>;
  claimed_roles: Generated<string[]>;
  created_at: Fixed<Date>;
}

export interface InvitationsTable {
  tenant_id: OwningTenant;
  id: Fixed<InvitationId>;
  email_sealed: Fixed<Buffer>;
  email_index: Fixed<Buffer>;
  roles: Fixed<string[]>;
  projects: ColumnType<{ project: ProjectId; roles: string[] }[], string, never>;
  /** Of the token that was shown once. */
  token_hash: Fixed<Buffer>;
  expires_at: Fixed<Date>;
  created_by: Fixed<string>;
  created_at: Fixed<Date>;
  accepted_at: Nullable<Date>;
  withdrawn_at: Nullable<Date>;
}

/** A scope that names no project, key, user or feature is each one of them. Amounts in the budget's unit, money in pico-dollars. */
export interface BudgetsTable extends Named {
  tenant_id: OwningTenant;
  id: Fixed<Uuid>;
  set_by_platform: Fixed<boolean>;
  scope: "platform" | "tenant" | "project" | "key" | "user" | "feature";
  project_id: Nullable<ProjectId>;
  key_id: Nullable<KeyId>;
  subject_sealed: Nullable<Buffer>;
  subject_index: Nullable<Buffer>;
  unit: "usd" | "tokens" | "requests";
  budget_window: "day" | "week" | "month" | "total" | "rolling";
  rolling_seconds: Nullable<number>;
  cap: bigint;
  mode: "reject" | "wait" | "clamp" | "soft";
  /** Percent of the cap. */
  thresholds: number[];
  definition: number;
  epoch: number;
}

/** Written by atrium_system alone. */
export interface BudgetOpeningsTable {
  tenant_id: Fixed<TenantId>;
  budget_id: Fixed<Uuid>;
  definition: number;
  epoch: number;
  time_zone: string;
  counts_from: Date;
}

export interface BudgetBalancesTable {
  /** The budget's owner. */
  tenant_id: OwningTenant;
  budget_id: Fixed<Uuid>;
  subject: Fixed<string>;
  subject_sealed: Nullable<Buffer>;
  window_start: Fixed<Date>;
  window_end: Nullable<Date>;
  posted: Generated<bigint>;
  held: Generated<bigint>;
  adjusted: Generated<bigint>;
  overage: Generated<bigint>;
}

/** Written by atrium_system alone. */
export interface BudgetAlertsTable {
  tenant_id: Fixed<TenantId>;
  budget_id: Fixed<Uuid>;
  subject: Fixed<string>;
  window_start: Fixed<Date>;
  threshold: Fixed<number>;
  at: Fixed<Date>;
}

/** One immutable double entry: debit = credit, pico-dollars; negative is a credit to the tenant. */
export interface LedgerAdjustmentsTable {
  tenant_id: OwningTenant;
  id: Fixed<Uuid>;
  project_id: ColumnType<ProjectId | null, ProjectId | null | undefined, never>;
  key_id: ColumnType<KeyId | null, KeyId | null | undefined, never>;
  user_sealed: ColumnType<Buffer | null, Buffer | null | undefined, never>;
  user_index: ColumnType<Buffer | null, Buffer | null | undefined, never>;
  feature_sealed: ColumnType<Buffer | null, Buffer | null | undefined, never>;
  feature_index: ColumnType<Buffer | null, Buffer | null | undefined, never>;
  debit_spend: Fixed<bigint>;
  credit_margin: Fixed<bigint>;
  reason_sealed: Fixed<Buffer>;
  created_by: Fixed<string>;
  created_at: Fixed<Date>;
  effective_at: Fixed<Date>;
}

/** One row: the process that may grant holds under hard budgets. */
export interface BudgetKeeperTable {
  singleton: Generated<boolean>;
  journal_id: Uuid;
  taken_at: Date;
  released_at: Nullable<Date>;
}

export interface IdentityProvidersTable extends Named {
  tenant_id: OwningTenant;
  id: Fixed<Uuid>;
  issuer: string;
  client_id: Nullable<string>;
  client_secret_sealed: Nullable<Buffer>;
  rules_sealed: Buffer;
}

export interface ConsoleSessionsTable {
  tenant_id: OwningTenant;
  id: Fixed<Uuid>;
  cookie_hash: Fixed<Buffer>;
  subject_kind: Fixed<"member" | "key" | "bootstrap">;
  /** The id of the member or of the key. */
  subject: Fixed<string>;
  content_sealed: Fixed<Buffer>;
  created_at: Fixed<Date>;
  /** Ends then, unless it is used before. */
  idle_at: Date;
  expires_at: Fixed<Date>;
}

export interface WebhooksTable extends Named {
  tenant_id: OwningTenant;
  id: Fixed<Uuid>;
  url_sealed: Buffer;
  /** Types of events; `*` is all of them. */
  events: string[];
  status: "active" | "paused" | "gone";
  secret_sealed: Buffer;
  previous_secret_sealed: Nullable<Buffer>;
  previous_secret_until: Nullable<Date>;
}

/** A fact that a tenant is told of; once for each `fact_key`. */
export interface EventsTable {
  tenant_id: OwningTenant;
  id: Fixed<Uuid>;
  type: Fixed<string>;
  fact_key: Fixed<string>;
  data_sealed: Fixed<Buffer>;
  created_at: Fixed<Date>;
}

/** The outbox: one row for each event and each endpoint that is told of it. */
export interface EventDeliveriesTable {
  tenant_id: OwningTenant;
  webhook_id: Fixed<Uuid>;
  event_id: Fixed<Uuid>;
  status: "pending" | "delivered" | "failed" | "canceled";
  attempts: Generated<number>;
  /** While an attempt is under way: the end of its lease. */
  next_attempt_at: Date;
  last_attempt_at: Nullable<Date>;
  /** The HTTP status of the last answer. */
  last_status: Nullable<number>;
  last_error: Nullable<string>;
  created_at: Fixed<Date>;
}
