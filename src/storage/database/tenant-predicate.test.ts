import assert from "node:assert/strict";
import { test } from "node:test";
import { DummyDriver, Kysely, PostgresAdapter, PostgresIntrospector, PostgresQueryCompiler, sql } from "kysely";
import type { TenantId } from "../../kernel/ids.ts";
import type { ModelId, ProjectId } from "../../kernel/ids.ts";
import type { Tables } from "./schema.ts";
import { TenantPredicate } from "./tenant-predicate.ts";

const OURS = "01900000-0000-7000-8000-000000000001" as TenantId;
const THEIRS = "01900000-0000-7000-8000-000000000002" as TenantId;
const AT = new Date(0);

const kysely = new Kysely<Tables>({
  dialect: {
    createAdapter: () => new PostgresAdapter(),
    createDriver: () => new DummyDriver(),
    createIntrospector: (db) => new PostgresIntrospector(db),
    createQueryCompiler: () => new PostgresQueryCompiler(),
  },
}).withPlugin(new TenantPredicate(OURS));

test("a table read, in FROM, any JOIN, a subquery or a WITH, is its tenant's rows", () => {
  const rows = (table: string) => new RegExp(`\\(select \\* from "${table}" where "${table}"\\."tenant_id" = \\$\\d+\\) as`);
  const join = kysely
    .selectFrom("projects as p")
    .leftJoin("api_keys as k", "k.project_id", "p.id")
    .fullJoin("models", "models.id", "p.id" as never)
    .selectAll("p")
    .compile();
  for (const table of ["projects", "api_keys", "models"]) assert.match(join.sql, rows(table));
  assert.deepEqual(join.parameters, [OURS, OURS, OURS]);

  const subquery = kysely
    .selectFrom("projects")
    .selectAll()
    .where("id", "in", kysely.selectFrom("api_keys").select("project_id").$castTo<ProjectId>())
    .compile();
  for (const table of ["projects", "api_keys"]) assert.match(subquery.sql, rows(table));

  const named = kysely
    .with("mine", (db) => db.selectFrom("models").selectAll())
    .selectFrom("mine")
    .selectAll()
    .compile();
  assert.match(
    named.sql,
    /with "mine" as \(select \* from \(select \* from "models" where "models"\."tenant_id" = \$1\) as "models"\) select \* from "mine"$/,
  );
});

test("a query's name that hides a table hides it only in that statement", () => {
  const inner = kysely
    .with("models", (db) => db.selectFrom("projects").select("id"))
    .selectFrom("models")
    .selectAll();
  assert.deepEqual(inner.compile().parameters, [OURS]);
  assert.deepEqual(kysely.selectFrom("models").selectAll().compile().parameters, [OURS]);
});

test("a query that has the name of the table it reads, reads its tenant's rows of it", () => {
  const shadowing = kysely
    .with("models", (db) => db.selectFrom("models").selectAll())
    .selectFrom("models")
    .selectAll()
    .compile();
  assert.match(
    shadowing.sql,
    /as \(select \* from \(select \* from "models" where "models"\."tenant_id" = \$1\) as "models"\) select \* from "models"$/,
  );
  const later = kysely
    .with("first", (db) => db.selectFrom("models").selectAll())
    .with("models", (db) => db.selectFrom("first").selectAll())
    .selectFrom((db) => db.selectFrom("models").selectAll().as("nested"))
    .selectAll()
    .compile();
  assert.match(later.sql, /select \* from \(select \* from "models"\) as "nested"$/);
  assert.deepEqual(later.parameters, [OURS]);
  const recursive = kysely
    .withRecursive("tree", (db) => db.selectFrom("projects").select("id").union(db.selectFrom("tree").select("tree.id")))
    .selectFrom("tree")
    .selectAll()
    .compile();
  assert.deepEqual(recursive.parameters, [OURS]);
});

test("an update or a delete has the predicate around whatever its own WHERE says", () => {
  const update = kysely
    .updateTable("models as m")
    .set({ visibility: "all" })
    .where((row) => row.or([row("m.visibility", "=", "granted"), row.lit(true)]))
    .compile();
  assert.match(update.sql, /where \(\("m"\."visibility" = \$2 or true\)\) and "m"\."tenant_id" = \$3$/);
  const remove = kysely.deleteFrom("grants").using("models").whereRef("models.id", "=", "grants.model_id").compile();
  assert.match(
    remove.sql,
    /using \(select \* from "models" where "models"\."tenant_id" = \$1\) as "models" where .* and "grants"\."tenant_id" = \$2$/,
  );
  const bare = kysely.deleteFrom("grants").compile();
  assert.match(bare.sql, /where "grants"\."tenant_id" = \$1$/);
});

test("an inserted row gets the tenant, and another tenant's is refused", () => {
  const row = { model_owner_id: THEIRS, model_id: "m" as unknown as ModelId, created_at: AT };
  const filled = kysely.insertInto("grants").values([row, row]).compile();
  assert.equal(
    filled.sql,
    'insert into "grants" ("model_owner_id", "model_id", "created_at", "tenant_id") values ($1, $2, $3, $4), ($5, $6, $7, $8)',
  );
  assert.equal(filled.parameters[3], OURS);
  assert.equal(filled.parameters[7], OURS);
  kysely
    .insertInto("grants")
    .values({ ...row, tenant_id: OURS })
    .compile();
  assert.throws(
    () =>
      kysely
        .insertInto("grants")
        .values({ ...row, tenant_id: THEIRS })
        .compile(),
    /a row of another tenant/,
  );
  assert.throws(
    () =>
      kysely
        .insertInto("grants")
        .values([{ ...row, tenant_id: OURS }, row])
        .compile(),
    /a row of another tenant/,
  );
});

test("tables of no tenant are left alone", () => {
  assert.equal(kysely.selectFrom("config_version").select("version").compile().sql, 'select "version" from "config_version"');
});

test("what could name a table or change the tenant past the predicate is refused", () => {
  const refused: (() => unknown)[] = [
    () => sql`select * from models`.compile(kysely),
    () => sql`update ${sql.table("models")} set visibility = 'all'`.compile(kysely),
    () => sql`set local app.tenant_id = 'x'`.compile(kysely),
    () => sql`set role postgres`.compile(kysely),
    () => kysely.selectNoFrom(sql`set_config('app.tenant_id', 'x', true)`.as("x")).compile(),
    () => kysely.selectNoFrom(sql`(select count(*) from models)`.as("x")).compile(),
    () =>
      kysely
        .selectFrom(sql`models`.as("m"))
        .select(sql`1`.as("x"))
        .compile(),
    () => kysely.insertInto("grants").columns(["model_id"]).expression(kysely.selectFrom("models").select("id")).compile(),
    () =>
      kysely
        .mergeInto("models")
        .using("projects", "projects.id", "models.id" as never)
        .whenMatched()
        .thenDelete()
        .compile(),
  ];
  for (const [index, attempt] of refused.entries()) assert.throws(attempt, /refused in a tenant transaction/, `attempt ${index}`);
  const harmless = kysely
    .selectFrom("usage_rows")
    .select(sql<number>`date_trunc('day', started_at)`.as("day"))
    .groupBy(sql`extract(month from started_at)`);
  assert.doesNotThrow(() => harmless.compile());
});
