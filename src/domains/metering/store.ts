import { sql } from "kysely";
import type { SystemTransaction } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import type { Uuid } from "../../kernel/ids.ts";
import { TOKEN_CLASSES } from "../../kernel/tokens.ts";
import type { SettledAttempt } from "./replay.ts";
import type { Tags } from "./tags.ts";

/**
 * Inserts the attempts' usage rows and, for those that are new, their ledger entries: one statement, so that neither is ever
 * without the other. One JSON parameter: a statement of 43 placeholders a row costs ten times the CPU to build and send.
 */
export async function insertSettled(tx: SystemTransaction, rows: readonly UsageRow[], postedAt: Date): Promise<void> {
  await sql`
    WITH fresh AS (
      INSERT INTO usage_rows (${COLUMN_NAMES})
      SELECT ${COLUMN_NAMES} FROM json_to_recordset(${JSON.stringify(rows)}::json) AS r(${COLUMN_TYPES})
      ON CONFLICT (tenant_id, id) DO NOTHING
      RETURNING tenant_id, id, project_id, key_id, cost, charge
    )
    INSERT INTO ledger_entries (tenant_id, id, project_id, key_id, debit_spend, credit_provider, credit_margin, posted_at)
    SELECT tenant_id, id, project_id, key_id, charge, cost, charge - cost, ${postedAt}::timestamptz FROM fresh`.execute(tx);
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

/** A usage row as JSON that `json_to_recordset` reads: amounts as text, bytes as hexadecimal. */
export type UsageRow = Readonly<Record<keyof typeof COLUMNS, string | number | boolean | null>>;

export function usageRow(
  { admission, settlement, sequence }: SettledAttempt,
  journal: Uuid,
  keyring: TenantKeyring | null,
  tags: Tags,
): UsageRow {
  const { facts } = admission;
  const { tokens, source } = settlement.usage;
  const user = facts.user === null ? null : tags.seal(keyring, "user", facts.user, null);
  const feature = tags.seal(keyring, "feature", facts.feature, null);
  return {
    tenant_id: facts.tenant,
    id: facts.attempt,
    hop: facts.hop,
    call: facts.call,
    project_id: facts.project,
    key_id: facts.key,
    user_sealed: user?.sealed ?? null,
    user_index: user?.index ?? null,
    feature_sealed: feature.sealed,
    feature_index: feature.index,
    trace: facts.trace === null ? null : storable(facts.trace),
    kind: facts.kind,
    provider: facts.provider,
    model_requested_sealed: tags.seal(keyring, "model_requested", facts.modelRequested, facts.model).sealed,
    model_served: storable(settlement.modelServed),
    model_id: facts.model,
    deployment_id: facts.deployment,
    region: facts.region,
    price_version: facts.priceVersion,
    ...tokens,
    cost: settlement.cost.toString(),
    charge: settlement.charge.toString(),
    worst_case: admission.worstCase.toString(),
    bound: facts.bound.certainty,
    source,
    estimated: settlement.estimated,
    dispatch_unknown: settlement.dispatchUnknown,
    status: settlement.status,
    latency_ms: Math.min(settlement.latencyMs, LONGEST_MS),
    first_token_ms: settlement.firstTokenMs === null ? null : Math.min(settlement.firstTokenMs, LONGEST_MS),
    started_at: new Date(facts.startedAt).toISOString(),
    journal_id: journal,
    journal_sequence: sequence,
  };
}

/** What an `integer` holds, 24.8 days: a wall clock set forward while an attempt was in flight makes it look longer. */
const LONGEST_MS = 2 ** 31 - 1;

/** What strangers wrote, as PostgreSQL's text can hold it: one row that it refuses would hold up all. */
function storable(text: string): string {
  return text.toWellFormed().replaceAll("\0", "\ufffd");
}

const COLUMNS = {
  tenant_id: "uuid",
  id: "uuid",
  hop: "uuid",
  call: "uuid",
  project_id: "uuid",
  key_id: "text",
  user_sealed: "bytea",
  user_index: "bytea",
  feature_sealed: "bytea",
  feature_index: "bytea",
  trace: "text",
  kind: "text",
  provider: "text",
  model_requested_sealed: "bytea",
  model_served: "text",
  model_id: "uuid",
  deployment_id: "uuid",
  region: "text",
  price_version: "uuid",
  ...(Object.fromEntries(TOKEN_CLASSES.map((tokenClass) => [tokenClass, "bigint"])) as Record<(typeof TOKEN_CLASSES)[number], "bigint">),
  cost: "numeric",
  charge: "numeric",
  worst_case: "numeric",
  bound: "text",
  source: "text",
  estimated: "boolean",
  dispatch_unknown: "boolean",
  status: "text",
  latency_ms: "integer",
  first_token_ms: "integer",
  started_at: "timestamptz",
  journal_id: "uuid",
  journal_sequence: "bigint",
} as const;

const COLUMN_NAMES = sql.raw(Object.keys(COLUMNS).join(", "));
const COLUMN_TYPES = sql.raw(
  Object.entries(COLUMNS)
    .map(([name, type]) => `${name} ${type}`)
    .join(", "),
);
