import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { emptyDatabase, freshDatabase, type TestDatabase, withDatabases } from "../../../test/support/postgres.ts";
import { masterKeyFrom } from "../secrets/index.ts";
import { auditCatalog } from "./catalog.ts";
import { withClient } from "./connection.ts";
import { openDatabase } from "./index.ts";
import { migrate, type MigrateOptions, type Migration, readMigrations, schemaStatus } from "./migrate.ts";
import { DatabaseRefusal, type RefusalCode } from "./refusal.ts";

test("five processes that start at once on an empty database make one installation", async (t) => {
  await withDatabases(t, async ({ backend }, t) => {
    const database = await emptyDatabase(t, backend);
    const opened = await Promise.all(Array.from({ length: 5 }, () => database.open()));
    assert.equal(new Set(opened.map((each) => each.installationId)).size, 1);
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query("SELECT count(*)::int AS migrations FROM schema_migrations");
      assert.deepEqual(rows, [{ migrations: readMigrations().length }]);
    });
  });
});

test("a process with another master key is refused, and changes nothing", async (t) => {
  await withDatabases(t, async (database) => {
    const other = openDatabase({ ...database.options, masterKey: masterKeyFrom("b8".repeat(32)) });
    await assert.rejects(other, refusal("master_key_mismatch", /another master key/));
    await (await database.open()).ping();
  });
});

test("a schema newer than the release knows is refused, and so is a migration edited after it was applied", async (t) => {
  await withDatabases(t, async (database) => {
    const options = { ...database.options, url: database.url };
    const known = readMigrations();
    const next = { version: known.length + 1, name: "next", sql: "CREATE TABLE later (id integer)" };
    await migrate({ ...options, migrations: [...known, next] });
    await assert.rejects(database.open(), refusal("schema_newer", /start the newer release/));
    const edited = [...known, { ...next, sql: "CREATE TABLE later (id bigint)" }];
    await assert.rejects(migrate({ ...options, migrations: edited }), refusal("migration_changed", /next/));
  });
});

test("a check names what is pending and what cannot run, and changes nothing", async (t) => {
  await withDatabases(t, async ({ backend }, t) => {
    const database = await emptyDatabase(t, backend);
    const options = { ...database.options, url: database.url };
    const [first, ...later] = readMigrations();
    assert.ok(first !== undefined);
    const check = (migrations: readonly Migration[], masterKey = options.masterKey) =>
      database.asSuperuser(async (client) => {
        await client.query("BEGIN READ ONLY");
        return schemaStatus(client, masterKey, migrations);
      });
    assert.deepEqual(await check([first, ...later]), { installation: null, applied: [], pending: [first, ...later] });
    await migrate({ ...options, migrations: [first] });
    const { applied, pending } = await check([first, ...later]);
    assert.deepEqual([applied.map(({ name }) => name), pending], [[first.name], later]);
    assert.deepEqual((await check([first])).pending, []);
    await assert.rejects(check(later), refusal("schema_newer", /start the newer release/));
    await assert.rejects(check([{ ...first, sql: "SELECT 1" }]), refusal("migration_changed", /edited/));
    await assert.rejects(check([first], masterKeyFrom("b8".repeat(32))), refusal("master_key_mismatch", /another master key/));
  });
});

test("a migration that fails leaves nothing of itself, and those before it stay", async (t) => {
  await withDatabases(t, async (database) => {
    const options = { ...database.options, url: database.url };
    const known = readMigrations();
    const broken = { version: known.length + 1, name: "broken", sql: "CREATE TABLE half (id integer); SELECT 1/0" };
    await assert.rejects(migrate({ ...options, migrations: [...known, broken] }), /division by zero/);
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query("SELECT to_regclass('half') AS half, (SELECT max(version) FROM schema_migrations) AS version");
      assert.deepEqual(rows, [{ half: null, version: known.length }]);
    });
    await (await database.open()).ping();
  });
});

test("an owner that is no superuser and may create roles needs nobody's help", async (t) => {
  await withDatabases(t, async ({ backend }, t) => {
    const database = await emptyDatabase(t, backend);
    const owner = await makeOwner(database, "CREATEROLE");
    const db = await openDatabase({ ...database.options, databaseUrl: owner.url });
    t.after(() => db.close());
    await db.ping();
    assert.deepEqual(await database.asSuperuser(auditCatalog), []);
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query("SELECT pg_get_userbyid(relowner) AS owner FROM pg_class WHERE relname = 'usage_rows'");
      assert.deepEqual(rows, [{ owner: owner.name }]);
    });
  });
});

test("an owner that may not create roles stops with the SQL to run once; when it was run, the start goes through", async (t) => {
  await withDatabases(t, async ({ backend }, t) => {
    const database = await emptyDatabase(t, backend);
    const owner = await makeOwner(database, "");
    const options = { ...database.options, databaseUrl: owner.url };
    const refused = await openDatabase(options).then(
      () => null,
      (error: unknown) => error,
    );
    assert.ok(refused instanceof DatabaseRefusal && refused.code === "roles_missing", String(refused));
    const statements = refused.message.slice(refused.message.indexOf("CREATE ROLE"));
    assert.match(statements, /^(CREATE ROLE "atrium_(app|system)_[0-9a-f]{32}" LOGIN PASSWORD 'SCRAM-SHA-256\$[^']+';\n?){2}$/);
    await database.asSuperuser((client) => client.query(statements));
    const db = await openDatabase(options);
    t.after(() => db.close());
    await db.ping();
    assert.deepEqual(await database.asSuperuser(auditCatalog), []);
  });
});

test("request roles restored with another password get the derived one back", async (t) => {
  await withDatabases(t, async ({ backend }, t) => {
    const database = await emptyDatabase(t, backend);
    await (await database.open()).ping();
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query<{ id: string }>("SELECT replace(id::text, '-', '') AS id FROM installation");
      await client.query(`ALTER ROLE atrium_system_${rows[0]?.id} PASSWORD 'something else'`);
    });
    const db = await database.open();
    await db.forSystem("snapshot", (tx) => tx.selectFrom("config_version").selectAll().execute());
  });
});

test("no statement that reaches the server holds a role's password", async (t) => {
  const database = await emptyDatabase(t, "embedded");
  const { roles } = await migrate({ ...database.options, url: database.url } satisfies MigrateOptions);
  for (const role of [roles.app, roles.system]) {
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query("SELECT rolpassword FROM pg_authid WHERE rolname = $1", [role.name]);
      assert.match(rows[0]?.rolpassword, /^SCRAM-SHA-256\$/);
      assert.ok(!rows[0]?.rolpassword.includes(role.password));
    });
  }
  const url = new URL(database.url);
  url.username = roles.app.name;
  url.password = "wrong";
  await assert.rejects(
    withClient(url.href, "test", async () => {}),
    { code: "28P01" },
  );
});

test("a database copied from a template opens in well under the time of a migration", async (t) => {
  const startedAt = performance.now();
  const database = await freshDatabase(t, "embedded");
  const copiedAt = performance.now();
  await database.open();
  t.diagnostic(`copy ${(copiedAt - startedAt).toFixed(0)} ms, open ${(performance.now() - copiedAt).toFixed(0)} ms`);
});

async function makeOwner(database: TestDatabase, attributes: string): Promise<{ name: string; url: string }> {
  const name = `owner_${randomBytes(6).toString("hex")}`;
  await database.asSuperuser(async (client) => {
    await client.query(`CREATE ROLE ${name} LOGIN ${attributes} PASSWORD 'owner'`);
    const { rows } = await client.query<{ database: string }>("SELECT current_database() AS database");
    await client.query(`ALTER DATABASE ${rows[0]?.database} OWNER TO ${name}`);
  });
  const url = new URL(database.url);
  url.username = name;
  url.password = "owner";
  return { name, url: url.href };
}

function refusal(code: RefusalCode, message: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof DatabaseRefusal && error.code === code && message.test(error.message);
}
