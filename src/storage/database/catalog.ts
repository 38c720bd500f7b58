import type pg from "pg";
import type { Uuid } from "../../kernel/ids.ts";
import { GLOBAL_TABLES } from "./schema.ts";
import { roleName } from "./roles.ts";

/** Something in the database that could let one tenant see another. */
export interface Finding {
  readonly rule: string;
  readonly object: string;
  readonly detail: string;
}

/** Reads pg_catalog, on any connection to the database, and reports what the isolation of rows does not allow. */
export async function auditCatalog(client: pg.ClientBase): Promise<Finding[]> {
  const roles = await catalogRoles(client);
  const findings: Finding[] = [];
  for (const [rule, query] of Object.entries(RULES)) {
    const { rows } = await client.query<{ object: string; detail: string }>(WITH_NAMES + query, [
      roles.app,
      roles.system,
      roles.owner,
      OWN_TABLES,
    ]);
    for (const row of rows) findings.push({ rule, object: row.object, detail: row.detail });
  }
  return findings;
}

/** The schema, its policies and grants as text, alike on every server and for every installation: the golden file. */
export async function describeCatalog(client: pg.ClientBase): Promise<string> {
  const roles = await catalogRoles(client);
  const { rows } = await client.query<{ line: string }>(WITH_NAMES + DESCRIPTION, [roles.app, roles.system, roles.owner, OWN_TABLES]);
  const named = (line: string) =>
    line.replaceAll(roles.app, "atrium_app").replaceAll(roles.system, "atrium_system").replaceAll(roles.owner, "atrium_owner");
  return rows.map((row) => `${named(row.line)}\n`).join("");
}

async function catalogRoles(client: pg.ClientBase): Promise<{ app: string; system: string; owner: string }> {
  const { rows } = await client.query<{ id: Uuid; owner: string }>(
    "SELECT i.id, pg_get_userbyid(c.relowner) AS owner FROM installation i, pg_class c WHERE c.oid = 'installation'::regclass",
  );
  const row = rows[0];
  if (row === undefined) throw new Error("not an Atrium database");
  return { app: roleName("app", row.id), system: roleName("system", row.id), owner: row.owner };
}

/** Tables of no tenant, two of them the migrations' own. */
const OWN_TABLES: readonly string[] = [...GLOBAL_TABLES, "installation", "schema_migrations"];

/** $1 app, $2 system, $3 owner, $4 tables of no tenant. */
const WITH_NAMES = `
WITH names AS (SELECT $1::text AS app, $2::text AS system, $3::text AS owner, $4::text[] AS own_tables),
relations AS (
  SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema()
),
tenant_tables AS (
  SELECT r.* FROM relations r, names WHERE r.relkind IN ('r', 'p') AND NOT r.relispartition AND r.relname <> ALL (names.own_tables)
),
policies AS (
  SELECT r.relname, p.polname, p.polcmd, p.polpermissive,
    (SELECT array_agg(coalesce(a.rolname, 'PUBLIC')::text ORDER BY 1) FROM unnest(p.polroles) u(id) LEFT JOIN pg_roles a ON a.oid = u.id) AS roles,
    pg_get_expr(p.polqual, p.polrelid) AS using_text, pg_get_expr(p.polwithcheck, p.polrelid) AS check_text
  FROM pg_policy p JOIN relations r ON r.oid = p.polrelid
),
privileges AS (
  SELECT r.oid, r.relname, r.relispartition, coalesce(g.rolname, 'PUBLIC')::text AS grantee, a.privilege_type
  FROM relations r CROSS JOIN LATERAL aclexplode(r.relacl) a LEFT JOIN pg_roles g ON g.oid = a.grantee
  WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f')
)
`;

const TENANT_IS_CURRENT = "(tenant_id = (NULLIF(current_setting(''app.tenant_id''::text, true), ''''::text))::uuid)";

/** What atrium_system may do across tenants. Each addition is a decision. */
const SYSTEM_POLICIES = [
  ...["config_changes", "key_directory", "tenant_keys", "tenants", "projects", "api_keys", "credentials", "models"].map(
    (table) => `${table} SELECT`,
  ),
  ...["deployments", "prices", "grants", "usage_rows", "ledger_entries", "audit_chains", "tiers", "limits"].map(
    (table) => `${table} SELECT`,
  ),
  ...["members", "project_members", "identity_providers"].map((table) => `${table} SELECT`),
  "webhooks SELECT",
  ...["SELECT", "INSERT", "DELETE"].map((verb) => `events ${verb}`),
  ...["SELECT", "INSERT", "UPDATE", "DELETE"].map((verb) => `event_deliveries ${verb}`),
  ...["usage_rows", "ledger_entries"].map((table) => `${table} INSERT`),
  ...["budgets", "ledger_adjustments"].map((table) => `${table} SELECT`),
  ...["budget_openings", "budget_balances", "budget_alerts"].flatMap((table) =>
    ["SELECT", "INSERT", "UPDATE", "DELETE"].map((verb) => `${table} ${verb}`),
  ),
];

/** It answers whose a key id is, before a tenant is known; atrium_system alone reads it. */
const KEYS_NOT_LED_BY_TENANT = ["key_directory_pkey"];
/** A reference to a catalog row is (owner_id, id). */
const REFERENCES_TO_CATALOG = ["grants_model_owner_id_model_id_fkey"];
/** Kept as written. */
const IMMUTABLE_TABLES = ["audit_rows", "ledger_entries", "usage_rows", "prices", "config_changes", "ledger_adjustments"];

const list = (names: readonly string[]) => `ARRAY[${names.map((name) => `'${name}'`).join(", ")}]`;

/** A policy's verb as a word. */
const VERB = "(CASE polcmd WHEN '*' THEN 'ALL' WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' ELSE 'DELETE' END)";

const IS_TENANT_POLICY = `polcmd = '*' AND polpermissive AND roles = ARRAY[names.app]
  AND using_text = '${TENANT_IS_CURRENT}' AND check_text = '${TENANT_IS_CURRENT}'`;

/** Each query selects the offending (object, detail). */
const RULES: Readonly<Record<string, string>> = {
  "a tenant table has tenant_id uuid NOT NULL": `
    SELECT t.relname AS object, 'no such column' AS detail FROM tenant_tables t WHERE NOT EXISTS (
      SELECT FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attname = 'tenant_id' AND a.atttypid = 'uuid'::regtype AND a.attnotnull)`,
  "row security is enabled and forced": `
    SELECT relname AS object, format('enabled %s, forced %s', relrowsecurity, relforcerowsecurity) AS detail
    FROM tenant_tables WHERE NOT (relrowsecurity AND relforcerowsecurity)`,
  "a tenant table has the full tenant policy": `
    SELECT t.relname AS object, 'no policy FOR ALL with USING and WITH CHECK on the current tenant' AS detail FROM tenant_tables t, names
    WHERE NOT EXISTS (SELECT FROM policies WHERE policies.relname = t.relname AND ${IS_TENANT_POLICY})`,
  "no policy beside the tenant's and the listed ones of atrium_system": `
    SELECT format('%s.%s', relname, polname) AS object, format('%s to %s', ${VERB}, roles) AS detail FROM policies, names
    WHERE NOT (${IS_TENANT_POLICY})
      AND NOT (roles = ARRAY[names.system] AND format('%s %s', relname, ${VERB}) = ANY (${list(SYSTEM_POLICIES)}))`,
  "an index is led by tenant_id": `
    SELECT i.relname AS object, format('led by %s', coalesce(a.attname, 'an expression')) AS detail
    FROM tenant_tables t JOIN pg_index x ON x.indrelid = t.oid JOIN pg_class i ON i.oid = x.indexrelid
    LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0]
    WHERE a.attname IS DISTINCT FROM 'tenant_id' AND i.relname <> ALL (${list(KEYS_NOT_LED_BY_TENANT)})`,
  "a tenant table has a primary key": `
    SELECT t.relname AS object, 'none' AS detail FROM tenant_tables t WHERE NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = t.oid AND x.indisprimary)`,
  "a foreign key is led by tenant_id": `
    SELECT k.conname AS object, format('%s to %s', here.attname, there.attname) AS detail
    FROM pg_constraint k JOIN tenant_tables t ON t.oid = k.conrelid
    JOIN pg_attribute here ON here.attrelid = k.conrelid AND here.attnum = k.conkey[1]
    JOIN pg_attribute there ON there.attrelid = k.confrelid AND there.attnum = k.confkey[1]
    WHERE k.contype = 'f' AND NOT (here.attname = 'tenant_id' AND there.attname = 'tenant_id') AND k.conname <> ALL (${list(REFERENCES_TO_CATALOG)})`,
  "a view runs with the rights of who reads it": `
    SELECT relname AS object, CASE relkind WHEN 'm' THEN 'materialized' ELSE 'not security_invoker' END AS detail FROM relations
    WHERE relkind = 'm' OR (relkind = 'v' AND NOT coalesce(reloptions && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1'], false))`,
  "no function runs with the rights of its owner": `
    SELECT p.oid::regprocedure::text AS object, 'SECURITY DEFINER' AS detail FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')`,
  "no role is above row security": `
    SELECT r.rolname AS object, format('superuser %s, bypassrls %s, createdb %s, replication %s, createrole %s', rolsuper, rolbypassrls, rolcreatedb, rolreplication, rolcreaterole) AS detail
    FROM pg_roles r, names WHERE r.rolname IN (names.app, names.system, names.owner)
      AND (rolsuper OR rolbypassrls OR rolreplication OR (r.rolname <> names.owner AND (rolcreatedb OR rolcreaterole)))`,
  "all three roles exist": `
    SELECT wanted AS object, 'missing' AS detail FROM names, unnest(ARRAY[app, system, owner]) wanted WHERE wanted NOT IN (SELECT rolname FROM pg_roles)`,
  "a request role is a member of nothing": `
    SELECT m.rolname AS object, format('member of %s', g.rolname) AS detail FROM names, pg_auth_members a
    JOIN pg_roles m ON m.oid = a.member JOIN pg_roles g ON g.oid = a.roleid WHERE m.rolname IN (names.app, names.system)`,
  "the owner owns every relation": `
    SELECT r.relname AS object, format('owned by %s', pg_get_userbyid(r.relowner)) AS detail FROM relations r, names
    WHERE r.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND pg_get_userbyid(r.relowner) <> names.owner`,
  "a request role creates nothing in the schema": `
    SELECT role AS object, 'CREATE' AS detail FROM names, unnest(ARRAY[app, system]) role
    WHERE role IN (SELECT rolname FROM pg_roles) AND has_schema_privilege(role, current_schema(), 'CREATE')`,
  "a partition is granted to nobody": `
    SELECT DISTINCT relname AS object, format('%s to %s', privilege_type, grantee) AS detail FROM privileges, names WHERE relispartition AND grantee <> names.owner`,
  "only the request roles are granted tables, and only rows' verbs": `
    SELECT relname AS object, format('%s to %s', privilege_type, grantee) AS detail FROM privileges, names
    WHERE NOT relispartition AND grantee <> names.owner
      AND NOT (grantee IN (names.app, names.system) AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE'))`,
  "what is kept as written is not changed": `
    SELECT relname AS object, format('%s to %s', privilege_type, grantee) AS detail FROM privileges, names
    WHERE relname = ANY (${list(IMMUTABLE_TABLES)}) AND grantee <> names.owner AND privilege_type NOT IN ('SELECT', 'INSERT')`,
  "nothing is granted by the column": `
    SELECT format('%s.%s', r.relname, a.attname) AS object, a.attacl::text AS detail FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid WHERE a.attacl IS NOT NULL`,
  // The minors that closed the last holes in row security (CVE-2024-10976, CVE-2025-8713).
  "the server has the fixes that row security needs": `
    SELECT 'server' AS object, current_setting('server_version') AS detail FROM (SELECT current_setting('server_version_num')::int AS number) v
    WHERE number < 150014 OR (number / 10000 = 16 AND number < 160010) OR (number / 10000 = 17 AND number < 170006)`,
};

const DESCRIPTION = `
SELECT line FROM (
  SELECT r.relname AS relation, 0 AS section, '' AS name,
    format('table %s%s', r.relname, CASE WHEN r.relname = ANY (names.own_tables) THEN ' (no tenant)' WHEN r.relkind = 'p' THEN ' partitioned by ' || pg_get_partkeydef(r.oid) ELSE '' END) AS line
  FROM relations r, names WHERE r.relkind IN ('r', 'p') AND NOT r.relispartition
  UNION ALL
  SELECT r.relname, 1, lpad(a.attnum::text, 4, '0'),
    format('  %s %s%s%s', a.attname, format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN ' not null' ELSE '' END,
      coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), ''))
  FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum WHERE r.relkind IN ('r', 'p') AND NOT r.relispartition
  UNION ALL
  SELECT r.relname, 2, k.conname, format('  constraint %s %s', k.conname, pg_get_constraintdef(k.oid))
  FROM pg_constraint k JOIN relations r ON r.oid = k.conrelid WHERE k.contype IN ('p', 'u', 'f', 'c') AND NOT r.relispartition
  UNION ALL
  SELECT r.relname, 3, i.relname, format('  index %s', substring(pg_get_indexdef(i.oid) FROM 'INDEX (.*)$'))
  FROM relations r JOIN pg_index x ON x.indrelid = r.oid JOIN pg_class i ON i.oid = x.indexrelid WHERE NOT r.relispartition AND r.relkind IN ('r', 'p')
  UNION ALL
  SELECT relname, 4, polname, format('  policy %s for %s to %s%s%s', polname, ${VERB}, array_to_string(roles, ', '),
    coalesce(' using ' || using_text, ''), coalesce(' with check ' || check_text, '')) FROM policies
  UNION ALL
  SELECT relname, 5, grantee, format('  grant %s to %s', string_agg(privilege_type, ', ' ORDER BY privilege_type), grantee)
  FROM privileges, names WHERE NOT relispartition AND grantee <> names.owner GROUP BY relname, grantee
) lines ORDER BY relation COLLATE "C", section, name COLLATE "C", line COLLATE "C"`;
