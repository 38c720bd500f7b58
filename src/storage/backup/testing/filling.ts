import type pg from "pg";

/** Rows in every table that the schema has, among them all that a text format can get wrong. As the superuser. */
export async function fill(client: pg.Client, usageRows: number): Promise<void> {
  await client.query(ROWS.replaceAll(":odd", ODD_TEXT));
  for (const [table, statements] of LATER) {
    const { rows } = await client.query<{ known: boolean }>("SELECT to_regclass($1) IS NOT NULL AS known", [table]);
    if (rows[0]?.known === true) await client.query(statements.replaceAll(":odd", ODD_TEXT));
  }
  await client.query(USAGE, [usageRows]);
}

/** What could break a line, a column, a null or an encoding. */
const ODD_TEXT = String.raw`E'tab\there, line\nthere, return\r, back\\slash, \\N, \\., quote '' and " , \u00fc \u6f22 \U0001f980, {"a":1}'`;

const TENANT = "01900000-0000-7000-8000-000000000001";
const PLATFORM = "00000000-0000-0000-0000-000000000000";
const ID = (last: number) => `'01900000-0000-7000-8000-0000000001${String(last).padStart(2, "0")}'`;

const ROWS = `
INSERT INTO config_changes VALUES ('${TENANT}', 7);
UPDATE config_version SET version = 9007199254740991;
INSERT INTO key_directory VALUES ('abcdefghij', '${TENANT}');
INSERT INTO tenant_keys VALUES ('${PLATFORM}', 1, '\\x00ff0a0d5c', now()), ('${TENANT}', 1, '\\x', 'infinity');
INSERT INTO tenants (tenant_id, id, name_sealed, name_index, status, tier, created_at, updated_at)
  VALUES ('${PLATFORM}', '${TENANT}', '\\x5c4e', '\\x0a', 'active', :odd, '2026-01-01 00:00:00.000001+00', now());
INSERT INTO projects (tenant_id, id, name_sealed, name_index, require, created_at, updated_at)
  VALUES ('${TENANT}', ${ID(1)}, '\\x01', '\\x01', ARRAY['', NULL, :odd], now(), now());
INSERT INTO api_keys (tenant_id, id, project_id, name_sealed, name_index, hash, permissions, models, created_by, created_at)
  VALUES ('${TENANT}', 'abcdefghij', ${ID(1)}, '\\x01', '\\x01', '\\x01', '{}', '{}', '', now());
INSERT INTO credentials (tenant_id, id, name_sealed, name_index, provider, created_at, updated_at)
  VALUES ('${PLATFORM}', ${ID(2)}, '\\x01', '\\x01', 'vendor', now(), now());
INSERT INTO models (tenant_id, id, name_sealed, name_index, created_at, updated_at)
  VALUES ('${PLATFORM}', ${ID(3)}, '\\x01', '\\x01', now(), now());
INSERT INTO deployments (tenant_id, id, model_id, name_sealed, name_index, provider, credential_id, upstream_model, options, created_at, updated_at)
  VALUES ('${PLATFORM}', ${ID(4)}, ${ID(3)}, '\\x01', '\\x01', 'vendor', ${ID(2)}, :odd, jsonb_build_object('odd', :odd), now(), now());
INSERT INTO prices (tenant_id, id, deployment_id, effective_at, source, rates, created_at)
  VALUES ('${PLATFORM}', ${ID(5)}, ${ID(4)}, now(), 'stated', '{"input_uncached": "12345678901234567890.000000000001"}', now());
INSERT INTO grants VALUES ('${TENANT}', '${PLATFORM}', ${ID(3)}, now());
INSERT INTO journals VALUES (${ID(6)}, 9007199254740991, now());
INSERT INTO audit_rows (tenant_id, id, actor, actor_kind, action, target, before, status, at)
  SELECT tenant, gen_random_uuid(), :odd, 'key', 'a', 't', jsonb_build_object('n', n), 200, now()
  FROM unnest(ARRAY['${PLATFORM}', '${TENANT}']::uuid[]) tenant, generate_series(1, 50) n;
INSERT INTO idempotency_keys (tenant_id, principal, key_hash, route, body_hash, status, response, created_at, expires_at)
  VALUES ('${TENANT}', :odd, '\\x01', 'r', '\\x01', 201, convert_to(:odd, 'UTF8'), now(), now());`;

const LIMITS = `
INSERT INTO tiers (tenant_id, id, name_sealed, name_index, created_at, updated_at)
  VALUES ('${PLATFORM}', ${ID(7)}, '\\x01', '\\x01', now(), now());
INSERT INTO limits (tenant_id, id, tier_id, name_sealed, name_index, scope, deployment_id, dimension, amount, rate_window, token_mode, created_at, updated_at)
  VALUES ('${PLATFORM}', ${ID(8)}, ${ID(7)}, '\\x01', '\\x01', 'deployment', ${ID(4)}, 'tokens', 500000000, 'sliding', 'strict', now(), now())`;

const BUDGETS = `
INSERT INTO budgets (tenant_id, id, name_sealed, name_index, set_by_platform, scope, subject_sealed, subject_index, unit, budget_window,
    rolling_seconds, cap, mode, thresholds, definition, epoch, created_at, updated_at)
  VALUES ('${TENANT}', ${ID(9)}, '\\x01', '\\x01', true, 'user', '\\x5c', '\\x0a', 'usd', 'rolling', 86400, 10::numeric ^ 37, 'wait', '{50,1000}', 1, 1, now(), now());
INSERT INTO budget_openings VALUES ('${TENANT}', ${ID(9)}, 1, 1, 'Europe/Berlin', '-infinity');
INSERT INTO budget_balances (tenant_id, budget_id, subject, window_start, posted, adjusted)
  VALUES ('${TENANT}', ${ID(9)}, :odd, now(), 10::numeric ^ 37, -(10::numeric ^ 37)), ('${TENANT}', ${ID(9)}, '', '-infinity', 0, 0);
INSERT INTO budget_alerts VALUES ('${TENANT}', ${ID(9)}, '', now(), 0, now());
INSERT INTO ledger_adjustments (tenant_id, id, debit_spend, credit_margin, reason_sealed, created_by, created_at, effective_at)
  VALUES ('${TENANT}', ${ID(10)}, -1, -1, '\\x5c4e', :odd, now(), now());
INSERT INTO budget_keeper (journal_id, taken_at) VALUES (${ID(6)}, now())`;

const MEMBERS = `
INSERT INTO members (tenant_id, id, kind, email_sealed, email_index, roles, created_by, created_at)
  VALUES ('${TENANT}', ${ID(11)}, 'user', '\\x01', '\\x01', ARRAY[:odd], :odd, now());
INSERT INTO project_members (tenant_id, project_id, member_id, created_at) VALUES ('${TENANT}', ${ID(1)}, ${ID(11)}, now());
INSERT INTO invitations (tenant_id, id, email_sealed, email_index, roles, projects, token_hash, expires_at, created_by, created_at)
  VALUES ('${TENANT}', ${ID(12)}, '\\x01', '\\x01', '{}', jsonb_build_array(:odd), '\\x01', 'infinity', '', now())`;

const WEBHOOKS = `
INSERT INTO webhooks (tenant_id, id, name_sealed, name_index, url_sealed, events, status, secret_sealed, created_at, updated_at)
  VALUES ('${TENANT}', ${ID(13)}, '\\x01', '\\x01', '\\x01', ARRAY[:odd], 'gone', '\\x5c', now(), now());
INSERT INTO events VALUES ('${TENANT}', ${ID(14)}, 't', :odd, '\\x00ff0a0d5c', now());
INSERT INTO event_deliveries (tenant_id, webhook_id, event_id, status, next_attempt_at, last_error, created_at)
  VALUES ('${TENANT}', ${ID(13)}, ${ID(14)}, 'failed', now(), :odd, now())`;

const SIGN_IN = `
INSERT INTO identity_providers (tenant_id, id, name_sealed, name_index, issuer, rules_sealed, created_at, updated_at)
  VALUES ('${TENANT}', ${ID(15)}, '\\x01', '\\x01', :odd, '\\x5c', now(), now());
INSERT INTO console_sessions VALUES ('${TENANT}', ${ID(16)}, sha256(''), 'key', :odd, '\\x01', now(), now(), 'infinity')`;

/** Of later schemas than the first, each by a table that it came with. */
const LATER = [
  ["limits", LIMITS],
  ["budgets", BUDGETS],
  ["members", MEMBERS],
  ["webhooks", WEBHOOKS],
  ["identity_providers", SIGN_IN],
] as const;

/** Spread over this month, the default partition, and nine tenths of nothing else than numbers as large as a column takes. */
const USAGE = `
WITH fresh AS (
  INSERT INTO usage_rows (tenant_id, id, hop, call, feature_sealed, feature_index, trace, kind, provider, model_requested_sealed, model_served,
    model_id, deployment_id, price_version, input_uncached, output, cost, charge, worst_case, bound, source, status, latency_ms, started_at,
    journal_id, journal_sequence)
  SELECT '${TENANT}', id, id, id, '\\x5c', '\\x0a', CASE WHEN n % 3 = 0 THEN ${ODD_TEXT} END, 'generate', 'vendor', '\\x01', 'served',
    ${ID(3)}, ${ID(4)}, ${ID(5)}, n, 9007199254740991, 10::numeric ^ 37 + n, 10::numeric ^ 37 + 2 * n, 10::numeric ^ 37 + 2 * n,
    'proof', 'reported', 'completed', n, now(), ${ID(6)}, n
  FROM (SELECT n, (lpad(to_hex((extract(epoch FROM now() - CASE WHEN n % 10 = 0 THEN interval '400 days' ELSE interval '0' END) * 1000)::bigint), 12, '0')
    || '7000' || '8' || lpad(to_hex(n), 15, '0'))::uuid AS id FROM generate_series(1, $1::integer) n) rows
  RETURNING *
)
INSERT INTO ledger_entries (tenant_id, id, debit_spend, credit_provider, credit_margin, posted_at)
SELECT tenant_id, id, charge, cost, charge - cost, now() FROM fresh`;

export interface Contents {
  /** Rows and a checksum of them in any order, by table. */
  readonly tables: Readonly<Record<string, string>>;
  /** Σ charge of the usage rows, Σ debit and Σ credits of the ledger, pico-dollars; and how many rows do not balance or have no entry. */
  readonly money: { readonly usage: string; readonly debits: string; readonly credits: string; readonly wrong: number };
}

/** Everything, as the superuser sees it. */
export async function contentsOf(client: pg.Client): Promise<Contents> {
  const { rows } = await client.query<{ name: string }>(
    "SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1",
  );
  const tables: Record<string, string> = {};
  await client.query("SET TimeZone = 'UTC'");
  for (const { name } of rows) {
    const { rows: found } = await client.query<{ text: string }>(
      `SELECT count(*) || ' ' || coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text) COLLATE "C")), '') AS text FROM ${name} t`,
    );
    tables[name] = found[0]?.text ?? "";
  }
  const { rows: money } = await client.query<Contents["money"]>(`
    SELECT (SELECT coalesce(sum(charge), 0) FROM usage_rows)::text AS usage, (SELECT coalesce(sum(debit_spend), 0) FROM ledger_entries)::text AS debits,
      (SELECT coalesce(sum(credit_provider + credit_margin), 0) FROM ledger_entries)::text AS credits,
      (SELECT count(*)::int FROM usage_rows u FULL JOIN ledger_entries l USING (tenant_id, id)
        WHERE u.charge IS NULL OR l.debit_spend IS NULL OR u.charge <> l.debit_spend OR u.cost <> l.credit_provider) AS wrong`);
  return { tables, money: money[0] as Contents["money"] };
}
