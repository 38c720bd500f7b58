import { sql } from "kysely";
import type { SystemTransaction } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import type { AttemptId, KeyId, ProjectId, TenantId, Uuid } from "../../kernel/ids.ts";
import { TOKEN_CLASSES } from "../../kernel/tokens.ts";
import type { PostedAttempt } from "./budgets/decide.ts";
import type { BudgetLedger } from "./budgets/postings.ts";
import type { AttemptFacts } from "./model.ts";
import type { SettledAttempt } from "./replay.ts";
import type { Tags } from "./tags.ts";

/**
 * Inserts the attempts' usage rows and, for those that are new, their ledger entries: one statement, so that neither is ever
 * without the other. Then what the new ones add to budgets, in the same transaction. Two JSON parameters, what calls have in common being sent once: a third of the bytes of whole rows,
 * which had been a tenth of the CPU of a statement with 43 placeholders a row.
 */
export async function insertSettled(tx: SystemTransaction, rows: UsageRows, postedAt: Date, ledger: BudgetLedger): Promise<void> {
  const budgets = await ledger.begin(tx, rows.tenants());
  const fresh = await insertRows(tx, rows, postedAt, budgets.length > 0);
  if (budgets.length > 0) await ledger.post(tx, budgets, rows.attempts(new Set(fresh)), postedAt);
}

/** Resolves to the ids of the new ones, where they are asked for. */
async function insertRows(tx: SystemTransaction, rows: UsageRows, postedAt: Date, returnsIds: boolean): Promise<AttemptId[]> {
  const inserted = await sql<{ id: AttemptId }>`
    WITH fresh AS (
      INSERT INTO usage_rows (${COLUMN_NAMES})
      SELECT ${COLUMN_NAMES}
      FROM json_to_recordset(${JSON.stringify(rows.own)}::json) AS own(shared integer, ${OWN_TYPES})
      JOIN json_to_recordset(${JSON.stringify(rows.shared)}::json) AS common(shared integer, ${SHARED_TYPES}) USING (shared)
      ON CONFLICT (tenant_id, id) DO NOTHING
      RETURNING tenant_id, id, project_id, key_id, cost, charge
    )
    INSERT INTO ledger_entries (tenant_id, id, project_id, key_id, debit_spend, credit_provider, credit_margin, posted_at)
    SELECT tenant_id, id, project_id, key_id, charge, cost, charge - cost, ${postedAt}::timestamptz FROM fresh
    ${returnsIds ? sql`RETURNING id` : sql``}`.execute(tx);
  return inserted.rows.map(({ id }) => id);
}

/** The last record of the journal that no replay needs; 0 for a journal never seen. */
export async function readWatermark(tx: SystemTransaction, journal: Uuid): Promise<number> {
  const row = await tx.selectFrom("journals").select("watermark").where("id", "=", journal).executeTakeFirst();
  return row?.watermark ?? 0;
}

export async function advanceWatermark(tx: SystemTransaction, journal: Uuid, watermark: number, at: Date): Promise<void> {
  await sql`
    INSERT INTO journals (id, watermark, updated_at) VALUES (${journal}, ${watermark}, ${at})
    ON CONFLICT (id) DO UPDATE SET watermark = greatest(journals.watermark, excluded.watermark), updated_at = excluded.updated_at`.execute(
    tx,
  );
}

/** Usage rows as JSON that `json_to_recordset` reads: amounts as text, bytes as hexadecimal. */
export class UsageRows {
  readonly own: OwnColumns[] = [];
  readonly shared: SharedColumns[] = [];
  readonly #byKey = new Map<string, number>();
  readonly #journal: Uuid;
  readonly #tags: Tags;

  constructor(journal: Uuid, tags: Tags) {
    this.#journal = journal;
    this.#tags = tags;
  }

  /** Without a keyring the tenant's key is destroyed, and no two rows may show that they were of one user. */
  add(settled: SettledAttempt, keyring: TenantKeyring | null): void {
    const { facts } = settled.admission;
    const key = keyring === null ? null : sharedKey(facts);
    let index = key === null ? undefined : this.#byKey.get(key);
    if (index === undefined) {
      index = this.shared.length;
      this.shared.push({ shared: index, journal_id: this.#journal, ...sharedColumns(facts, keyring, this.#tags) });
      if (key !== null) this.#byKey.set(key, index);
    }
    this.own.push({ shared: index, ...ownColumns(settled) });
  }

  tenants(): ReadonlySet<TenantId> {
    return new Set(this.shared.map((row) => row.tenant_id as TenantId));
  }

  /** Those of these ids, as budgets count them. */
  attempts(ids: ReadonlySet<AttemptId>): PostedAttempt[] {
    return this.own
      .filter((own) => ids.has(own.id as AttemptId))
      .map((own) => postedAttempt(own, this.shared[own.shared] as SharedColumns));
  }
}

function postedAttempt(own: OwnColumns, shared: SharedColumns): PostedAttempt {
  return {
    id: own.id as AttemptId,
    tenant: shared.tenant_id as TenantId,
    project: shared.project_id as ProjectId | null,
    key: shared.key_id as KeyId | null,
    userIndex: digits(shared.user_index),
    featureIndex: digits(shared.feature_index),
    userSealed: shared.user_sealed,
    featureSealed: shared.feature_sealed,
    kind: shared.kind as string,
    charge: BigInt(own.charge as string),
    worstCase: BigInt(own.worst_case as string),
    tokens: TOKEN_CLASSES.reduce((sum, tokenClass) => sum + (own[tokenClass] as number), 0),
    startedAt: Date.parse(own.started_at as string),
  };
}

/** Without the `\x` before them. */
function digits(bytea: string | null): string | null {
  return bytea?.slice(2) ?? null;
}

type SharedColumns = Readonly<Record<keyof typeof SHARED, string | null>> & { readonly shared: number };
type OwnColumns = Readonly<Record<keyof typeof OWN, string | number | boolean | null>> & { readonly shared: number };

/** Equal for attempts whose shared columns are equal. Ids and names of ours have no space; what strangers wrote has its length before it. */
function sharedKey(facts: AttemptFacts): string {
  const { tenant, project, key, deployment, model, priceVersion, provider, region, kind, bound, user, feature, modelRequested } = facts;
  return `${tenant} ${project} ${key} ${deployment} ${model} ${priceVersion} ${provider} ${kind} ${bound.certainty} ${lengthed(region)}${lengthed(user)}${lengthed(feature)}${modelRequested}`;
}

function lengthed(text: string | null): string {
  return text === null ? "-" : `${text.length}:${text}`;
}

function sharedColumns(facts: AttemptFacts, keyring: TenantKeyring | null, tags: Tags): Omit<SharedColumns, "shared" | "journal_id"> {
  const user = facts.user === null ? null : tags.seal(keyring, "user", facts.user, null);
  const feature = tags.seal(keyring, "feature", facts.feature, null);
  return {
    tenant_id: facts.tenant,
    project_id: facts.project,
    key_id: facts.key,
    user_sealed: user?.sealed ?? null,
    user_index: user?.index ?? null,
    feature_sealed: feature.sealed,
    feature_index: feature.index,
    kind: facts.kind,
    provider: facts.provider,
    model_requested_sealed: tags.seal(keyring, "model_requested", facts.modelRequested, facts.model).sealed,
    model_id: facts.model,
    deployment_id: facts.deployment,
    region: facts.region,
    price_version: facts.priceVersion,
    bound: facts.bound.certainty,
  };
}

function ownColumns({ admission, settlement, sequence }: SettledAttempt): Omit<OwnColumns, "shared"> {
  const { facts } = admission;
  const { tokens, source } = settlement.usage;
  return {
    id: facts.attempt,
    hop: facts.hop,
    call: facts.call,
    trace: facts.trace === null ? null : storable(facts.trace),
    model_served: storable(settlement.modelServed),
    input_uncached: tokens.input_uncached,
    cache_read: tokens.cache_read,
    cache_write_5m: tokens.cache_write_5m,
    cache_write_1h: tokens.cache_write_1h,
    output: tokens.output,
    reasoning: tokens.reasoning,
    audio_input: tokens.audio_input,
    audio_output: tokens.audio_output,
    image: tokens.image,
    cost: settlement.cost.toString(),
    charge: settlement.charge.toString(),
    worst_case: admission.worstCase.toString(),
    source,
    estimated: settlement.estimated,
    dispatch_unknown: settlement.dispatchUnknown,
    status: settlement.status,
    latency_ms: Math.min(settlement.latencyMs, LONGEST_MS),
    first_token_ms: settlement.firstTokenMs === null ? null : Math.min(settlement.firstTokenMs, LONGEST_MS),
    started_at: new Date(facts.startedAt).toISOString(),
    journal_sequence: sequence,
  };
}

/** What an `integer` holds, 24.8 days: a wall clock set forward while an attempt was in flight makes it look longer. */
const LONGEST_MS = 2 ** 31 - 1;

/** What strangers wrote, as PostgreSQL's text can hold it: one row that it refuses would hold up all. */
function storable(text: string): string {
  return text.toWellFormed().replaceAll("\0", "\ufffd");
}

/** Columns that calls of one key, deployment and tags have in common. */
const SHARED = {
  tenant_id: "uuid",
  project_id: "uuid",
  key_id: "text",
  user_sealed: "bytea",
  user_index: "bytea",
  feature_sealed: "bytea",
  feature_index: "bytea",
  kind: "text",
  provider: "text",
  model_requested_sealed: "bytea",
  model_id: "uuid",
  deployment_id: "uuid",
  region: "text",
  price_version: "uuid",
  bound: "text",
  journal_id: "uuid",
} as const;

const OWN = {
  id: "uuid",
  hop: "uuid",
  call: "uuid",
  trace: "text",
  model_served: "text",
  ...(Object.fromEntries(TOKEN_CLASSES.map((tokenClass) => [tokenClass, "bigint"])) as Record<(typeof TOKEN_CLASSES)[number], "bigint">),
  cost: "numeric",
  charge: "numeric",
  worst_case: "numeric",
  source: "text",
  estimated: "boolean",
  dispatch_unknown: "boolean",
  status: "text",
  latency_ms: "integer",
  first_token_ms: "integer",
  started_at: "timestamptz",
  journal_sequence: "bigint",
} as const;

const COLUMN_NAMES = sql.raw([...Object.keys(SHARED), ...Object.keys(OWN)].join(", "));
const SHARED_TYPES = typesOf(SHARED);
const OWN_TYPES = typesOf(OWN);

function typesOf(columns: Readonly<Record<string, string>>) {
  return sql.raw(
    Object.entries(columns)
      .map(([name, type]) => `${name} ${type}`)
      .join(", "),
  );
}
