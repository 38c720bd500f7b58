import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { withDatabases } from "../../../test/support/postgres.ts";
import { auditCatalog, describeCatalog, type Finding } from "./catalog.ts";

const GOLDEN = join(import.meta.dirname, "catalog.golden.txt");

test("the catalog audit finds nothing in a migrated database", async (t) => {
  await withDatabases(t, async (database, t) => {
    const findings = await database.asSuperuser(auditCatalog);
    assert.deepEqual(findings, []);
    t.diagnostic(`${findings.length} findings`);
  });
});

test("the schema, its policies and its grants are those of the golden file, on every server", async (t) => {
  await withDatabases(t, async (database) => {
    const description = await database.asSuperuser(describeCatalog);
    if (process.env["UPDATE_GOLDEN"] === "1") writeFileSync(GOLDEN, description);
    assert.equal(description, readFileSync(GOLDEN, "utf8"), "to accept the change: UPDATE_GOLDEN=1, and read the diff");
  });
});

/** Each defect, and the rule that must name it. `:app`, `:system`, `:owner` are the installation's roles. */
const DEFECTS: readonly { sql: string; rule: string; object: RegExp }[] = [
  { sql: "CREATE TABLE notes (id uuid PRIMARY KEY)", rule: "a tenant table has tenant_id uuid NOT NULL", object: /^notes$/ },
  { sql: "CREATE TABLE notes (tenant_id uuid, id uuid)", rule: "a tenant table has tenant_id uuid NOT NULL", object: /^notes$/ },
  { sql: "ALTER TABLE projects NO FORCE ROW LEVEL SECURITY", rule: "row security is enabled and forced", object: /^projects$/ },
  { sql: "ALTER TABLE usage_rows DISABLE ROW LEVEL SECURITY", rule: "row security is enabled and forced", object: /^usage_rows$/ },
  { sql: "DROP POLICY tenant ON models", rule: "a tenant table has the full tenant policy", object: /^models$/ },
  { sql: "ALTER POLICY tenant ON models WITH CHECK (true)", rule: "a tenant table has the full tenant policy", object: /^models$/ },
  {
    sql: "ALTER POLICY tenant ON models USING (tenant_id = current_setting('app.tenant_id', true)::uuid)",
    rule: "a tenant table has the full tenant policy",
    object: /^models$/,
  },
  {
    sql: "CREATE POLICY leak ON models FOR SELECT TO :app USING (true)",
    rule: "no policy beside the tenant's and the listed ones of atrium_system",
    object: /^models\.leak$/,
  },
  {
    sql: "CREATE POLICY leak ON audit_rows FOR SELECT TO :system USING (true)",
    rule: "no policy beside the tenant's and the listed ones of atrium_system",
    object: /^audit_rows\.leak$/,
  },
  {
    sql: "CREATE POLICY leak ON prices TO PUBLIC USING (true)",
    rule: "no policy beside the tenant's and the listed ones of atrium_system",
    object: /^prices\.leak$/,
  },
  { sql: "CREATE INDEX by_name ON projects (name_index)", rule: "an index is led by tenant_id", object: /^by_name$/ },
  {
    sql: "CREATE UNIQUE INDEX by_expression ON projects ((id::text), tenant_id)",
    rule: "an index is led by tenant_id",
    object: /^by_expression$/,
  },
  { sql: "ALTER TABLE prices DROP CONSTRAINT prices_pkey", rule: "a tenant table has a primary key", object: /^prices$/ },
  {
    sql: "CREATE UNIQUE INDEX p ON projects (id, tenant_id); ALTER TABLE prices ADD CONSTRAINT loose FOREIGN KEY (id, tenant_id) REFERENCES projects (id, tenant_id)",
    rule: "a foreign key is led by tenant_id",
    object: /^loose$/,
  },
  { sql: "CREATE VIEW everything AS SELECT * FROM projects", rule: "a view runs with the rights of who reads it", object: /^everything$/ },
  {
    sql: "CREATE MATERIALIZED VIEW everything AS SELECT * FROM projects",
    rule: "a view runs with the rights of who reads it",
    object: /^everything$/,
  },
  {
    sql: "CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT 1::bigint'",
    rule: "no function runs with the rights of its owner",
    object: /^peek\(\)$/,
  },
  { sql: "ALTER ROLE :app BYPASSRLS", rule: "no role is above row security", object: /^atrium_app_/ },
  { sql: "ALTER ROLE :system SUPERUSER", rule: "no role is above row security", object: /^atrium_system_/ },
  { sql: "ALTER ROLE :owner SUPERUSER", rule: "no role is above row security", object: /^atrium_owner_/ },
  { sql: "GRANT :owner TO :app", rule: "a request role is a member of nothing", object: /^atrium_app_/ },
  { sql: "GRANT pg_read_all_data TO :system", rule: "a request role is a member of nothing", object: /^atrium_system_/ },
  { sql: "ALTER TABLE journals OWNER TO postgres", rule: "the owner owns every relation", object: /^journals$/ },
  { sql: "GRANT CREATE ON SCHEMA public TO PUBLIC", rule: "a request role creates nothing in the schema", object: /^atrium_/ },
  { sql: "GRANT SELECT ON usage_rows_default TO :app", rule: "a partition is granted to nobody", object: /^usage_rows_default$/ },
  {
    sql: "GRANT SELECT ON projects TO PUBLIC",
    rule: "only the request roles are granted tables, and only rows' verbs",
    object: /^projects$/,
  },
  {
    sql: "GRANT TRUNCATE ON projects TO :app",
    rule: "only the request roles are granted tables, and only rows' verbs",
    object: /^projects$/,
  },
  { sql: "GRANT UPDATE ON ledger_entries TO :system", rule: "what is kept as written is not changed", object: /^ledger_entries$/ },
  { sql: "GRANT DELETE ON audit_rows TO :app", rule: "what is kept as written is not changed", object: /^audit_rows$/ },
  { sql: "GRANT SELECT (hash) ON api_keys TO :system", rule: "nothing is granted by the column", object: /^api_keys\.hash$/ },
];

test("the catalog audit finds each planted defect, under the rule that is about it", async (t) => {
  await withDatabases(t, async (database, t) => {
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query<{ id: string }>("SELECT replace(id::text, '-', '') AS id FROM installation");
      const named = (sql: string) => sql.replaceAll(/:(app|system|owner)\b/g, (_, kind: string) => `atrium_${kind}_${rows[0]?.id}`);
      for (const defect of DEFECTS) {
        // Roles are the cluster's, and the rest of this database is needed whole: nothing planted is ever committed.
        await client.query("BEGIN");
        await client.query(named(defect.sql));
        const findings: Finding[] = await auditCatalog(client);
        await client.query("ROLLBACK");
        const found = findings.some((finding) => finding.rule === defect.rule && defect.object.test(finding.object));
        assert.ok(found, `${defect.sql}: not among ${JSON.stringify(findings)}`);
      }
      assert.deepEqual(await auditCatalog(client), []);
    });
    t.diagnostic(`${DEFECTS.length} of ${DEFECTS.length} planted defects found`);
  });
});
