import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type Insertable, sql } from "kysely";
import { silentLog, type TestDatabase, withDatabases } from "../../../test/support/postgres.ts";
import { type AttemptId, leastIdAt, PLATFORM_TENANT, type ProjectId, type TenantId } from "../../kernel/ids.ts";
import { createPool, guarded, withClient } from "./connection.ts";
import { asTenant, bumpConfig, CONFIG_CHANNEL, DatabaseUnavailable, type Database, openDatabase, type Tables, tenantOf } from "./index.ts";

const A = "01900000-0000-7000-8000-00000000000a" as TenantId;
const B = "01900000-0000-7000-8000-00000000000b" as TenantId;
const AT = new Date("2026-11-22T12:00:00Z");

test("a file that is missing is no database that is away", async () => {
  await assert.rejects(
    guarded(() => readFile(join(tmpdir(), "no such file"))),
    { code: "ENOENT" },
  );
  await assert.rejects(
    guarded(() => withClient("postgres:///none?host=/no/such/directory", "test", async () => {})),
    DatabaseUnavailable,
  );
});

test("a tenant's transaction and a job's run as two roles, neither of them above row security", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    const whoAmI = sql<string>`current_user`.as("user");
    const app = await db.forTenant(A, (tx) => tx.selectNoFrom(whoAmI).executeTakeFirstOrThrow());
    const system = await db.forSystem("snapshot", (tx) => tx.selectNoFrom(whoAmI).executeTakeFirstOrThrow());
    assert.match(app.user, /^atrium_app_[0-9a-f]{32}$/);
    assert.match(system.user, /^atrium_system_[0-9a-f]{32}$/);
  });
});

test("a tenant sees its own rows, and another's row is as absent as one that never was", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    const id = await db.forTenant(A, insertProject);
    const find = (tenant: TenantId) => db.forTenant(tenant, (tx) => tx.selectFrom("projects").selectAll().where("id", "=", id).execute());
    assert.equal((await find(A)).length, 1);
    assert.equal((await find(B)).length, 0);
  });
});

test("a tenant's transaction cannot be rid of its predicate", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    const bare = db.forTenant(A, async (tx) => tx.withoutPlugins().selectFrom("projects").selectAll().execute());
    await assert.rejects(bare, /keeps its predicate/);
  });
});

test("a row locked by a read stays locked through the predicate until the transaction ends", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    await db.forTenant(A, insertProject);
    const lockable = () =>
      db.forTenant(A, async (tx) => (await tx.selectFrom("projects as p").selectAll().forUpdate().skipLocked().execute()).length);
    await db.forTenant(A, async (tx) => {
      await tx.selectFrom("projects").selectAll().forUpdate().execute();
      assert.equal(await lockable(), 0);
    });
    assert.equal(await lockable(), 1);
  });
});

test("a transaction that throws leaves nothing", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    const failing = db.forTenant(A, async (tx) => {
      await insertProject(tx);
      throw new Error("changed my mind");
    });
    await assert.rejects(failing, /changed my mind/);
    assert.deepEqual(await db.forTenant(A, (tx) => tx.selectFrom("projects").selectAll().execute()), []);
  });
});

test("the platform's transaction acts for a tenant and returns to itself, also after a failure; no tenant's may", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    await db.forTenant(PLATFORM_TENANT, async (tx) => {
      await asTenant(tx, A, async (inner) => {
        assert.equal(tenantOf(inner), A);
        await insertProject(inner);
      });
      await assert.rejects(
        asTenant(tx, A, async () => Promise.reject(new Error("refused"))),
        /refused/,
      );
      assert.equal(tenantOf(tx), PLATFORM_TENANT);
      await insertProject(tx);
      assert.equal((await tx.selectFrom("projects").selectAll().execute()).length, 1);
    });
    assert.equal((await db.forTenant(A, (tx) => tx.selectFrom("projects").selectAll().execute())).length, 1);
    await assert.rejects(
      db.forTenant(A, (tx) => asTenant(tx, B, async () => {})),
      /only the platform's/,
    );
  });
});

test("a job has no grant on what it has no business with, and a tenant writes neither usage nor ledger", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    const denied = { code: "42501" };
    for (const table of ["audit_rows", "idempotency_keys"] as const) {
      await assert.rejects(
        db.forSystem("report", (tx) => tx.selectFrom(table).selectAll().execute()),
        denied,
        table,
      );
    }
    await assert.rejects(
      db.forSystem("ship", (tx) => tx.deleteFrom("ledger_entries").execute()),
      denied,
    );
    await assert.rejects(
      db.forSystem("ship", (tx) => tx.updateTable("tenants").set({ status: "active" }).execute()),
      denied,
    );
    await assert.rejects(
      db.forTenant(A, (tx) => tx.insertInto("ledger_entries").values(ledgerEntry(A)).execute()),
      denied,
    );
    await assert.rejects(
      db.forTenant(A, (tx) => tx.insertInto("usage_rows").values(usageRow(A, ATTEMPT)).execute()),
      denied,
    );
    await assert.rejects(
      db.forTenant(A, (tx) => tx.selectFrom("key_directory").selectAll().execute()),
      denied,
    );
  });
});

test("a job that reads sees one snapshot of the database throughout, and cannot write", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    await db.forSystem("snapshot", async (tx) => {
      const version = () => tx.selectFrom("config_version").select("version").executeTakeFirstOrThrow();
      assert.deepEqual(await version(), { version: 0 });
      await db.forTenant(A, bumpConfig);
      assert.deepEqual(await version(), { version: 0 });
    });
    const writing = db.forSystem("report", (tx) => tx.insertInto("ledger_entries").values(ledgerEntry(A)).execute());
    await assert.rejects(writing, (error: Error) => (error.cause as { code?: string }).code === "25006");
  });
});

test("a query that a frozen server never answers ends as DatabaseUnavailable", async (t) => {
  await withDatabases(t, async (database) => {
    const pool = createPool(database.url, "frozen", 1, 200, silentLog);
    await assert.rejects(
      guarded(() => pool.query("SELECT pg_sleep(1)")),
      DatabaseUnavailable,
    );
    await pool.end();
  });
});

test("a frozen server is no answer: ping fails in two seconds", async (t) => {
  await withDatabases(t, async (database, t) => {
    const db = await database.open();
    await db.ping();
    // The backend of the one pooled connection, stopped in the middle of nothing.
    const pid = await database.asSuperuser(
      async (client) =>
        (await client.query("SELECT pid FROM pg_stat_activity WHERE application_name = 'atrium app' AND datname = current_database()"))
          .rows[0]?.pid as number,
    );
    try {
      process.kill(pid, "SIGSTOP");
    } catch (error) {
      const reason = `skipped: the server's processes are not ours to stop (${String(error)})`;
      t.diagnostic(reason);
      return t.skip(reason);
    }
    try {
      await assert.rejects(db.ping(), DatabaseUnavailable);
    } finally {
      process.kill(pid, "SIGCONT");
    }
    await db.ping();
  });
});

test("a shipped row lies in the month of its id, a replay of it changes nothing, and an unbalanced entry is refused", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    const ship = () =>
      db.forSystem("ship", async (tx) => {
        const { numInsertedOrUpdatedRows } = await tx
          .insertInto("usage_rows")
          .values(usageRow(A, ATTEMPT))
          .onConflict((on) => on.doNothing())
          .executeTakeFirstOrThrow();
        await tx
          .insertInto("ledger_entries")
          .values(ledgerEntry(A))
          .onConflict((on) => on.doNothing())
          .execute();
        return Number(numInsertedOrUpdatedRows);
      });
    assert.deepEqual([await ship(), await ship()], [1, 0]);
    const month = new Date().toISOString().slice(0, 7).replace("-", "_");
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query("SELECT tableoid::regclass::text AS partition FROM usage_rows");
      assert.deepEqual(rows, [{ partition: `usage_rows_${month}` }]);
    });
    const unbalanced = { ...ledgerEntry(B), debit_spend: 3n };
    await assert.rejects(
      db.forSystem("ship", (tx) => tx.insertInto("ledger_entries").values(unbalanced).execute()),
      { code: "23514" },
    );
  });
});

test("money arrives as a bigint of up to 38 digits, counts as safe integers, JSON as values, and sums keep their type", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    const cost = 10n ** 37n + 1n;
    await db.forSystem("ship", (tx) =>
      tx
        .insertInto("usage_rows")
        .values({ ...usageRow(A, ATTEMPT), cost, output: 2 ** 53 - 1 })
        .execute(),
    );
    const row = await db.forTenant(A, (tx) =>
      tx
        .selectFrom("usage_rows")
        .select((rows) => ["cost", "output", "started_at", "feature_index", rows.fn.sum<bigint>("charge").over().as("total")])
        .executeTakeFirstOrThrow(),
    );
    const after = [{ tier: null }, 1];
    const audit = {
      id: ATTEMPT,
      actor: "a",
      actor_kind: "key",
      action: "write",
      target: "t",
      after: JSON.stringify(after),
      status: 200,
      at: AT,
    };
    await db.forTenant(A, async (tx) => {
      await tx.insertInto("audit_rows").values(audit).execute();
      assert.deepEqual(await tx.selectFrom("audit_rows").select(["before", "after"]).execute(), [{ before: null, after }]);
    });
    assert.deepEqual(row, { cost, output: 2 ** 53 - 1, started_at: AT, feature_index: Buffer.from("f"), total: 1n });
  });
});

test("a name is unique among its parent's living resources, and free again when the resource is archived", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    const first = await db.forTenant(A, insertProject);
    await assert.rejects(
      db.forTenant(A, (tx) => insertProject(tx, 2)),
      { code: "23505" },
    );
    await db.forTenant(B, (tx) => insertProject(tx));
    await db.forTenant(A, (tx) => tx.updateTable("projects").set({ archived_at: AT }).where("id", "=", first).execute());
    await db.forTenant(A, (tx) => insertProject(tx, 2));
  });
});

test("configuration versions commit in order and without gaps, however many write at once, and each is announced", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    const heard: number[] = [];
    const listener = await db.listen(
      CONFIG_CHANNEL,
      (payload) => heard.push(Number(payload)),
      (error) => assert.fail(error),
    );
    const writers = 20;
    await Promise.all(
      Array.from({ length: writers }, (_, index) =>
        db.forTenant(index % 2 === 0 ? A : B, async (tx) => {
          await sleep(index % 5);
          await bumpConfig(tx);
        }),
      ),
    );
    const expected = Array.from({ length: writers }, (_, index) => index + 1);
    const changes = await db.forSystem("snapshot", (tx) =>
      tx.selectFrom("config_changes").select(["tenant_id", "version"]).orderBy("version").execute(),
    );
    assert.deepEqual(
      changes.map((change) => change.version),
      expected,
    );
    assert.equal(changes.filter((change) => change.tenant_id === A).length, writers / 2);
    await until(() => heard.length === writers);
    assert.deepEqual(heard, expected);
    await listener.close();
  });
});

test("a listener whose connection is killed says so, reconnects and hears again", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    const heard: string[] = [];
    const losses: Error[] = [];
    const listener = await db.listen(
      "news",
      (payload) => heard.push(payload),
      (error) => losses.push(error),
    );
    await terminate(database, "atrium listen news");
    await until(() => losses.length === 1);
    await until(() =>
      database.asSuperuser(
        async (client) =>
          (
            await client.query(
              "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'atrium listen news' AND query LIKE 'LISTEN%'",
            )
          ).rowCount === 1,
      ),
    );
    await database.asSuperuser((client) => client.query("NOTIFY news, 'again'"));
    await until(() => heard.length === 1);
    assert.deepEqual(heard, ["again"]);
    await listener.close();
    assert.equal(losses.length, 1, "closing is no loss");
  });
});

test("work whose connection is killed fails with DatabaseUnavailable, and the next work finds a new connection", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    const killed = db.forTenant(A, (tx) => tx.selectNoFrom(sql`pg_sleep(20)`.as("slept")).execute());
    const outcome = assert.rejects(killed, DatabaseUnavailable);
    await until(() => terminate(database, "atrium tenant"));
    await outcome;
    await db.ping();
    await db.forTenant(A, insertProject);
  });
});

test("a server that only reads, as a standby does, or lets nobody in is a database that is away", async (t) => {
  await withDatabases(t, async (database) => {
    const db = await database.open();
    const write = () => db.forTenant(PLATFORM_TENANT, (tx) => bumpConfig(tx));
    const reconnecting = (...changes: readonly string[]) =>
      database.asSuperuser(async (client) => {
        for (const change of changes) await client.query(change);
        await client.query(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
      });
    await write();
    const app = `atrium_app_${db.installationId.replaceAll("-", "")}`;
    const awayBy = [`ALTER ROLE ${app} SET default_transaction_read_only = on`, `ALTER ROLE ${app} NOLOGIN`];
    for (const change of awayBy) {
      await reconnecting(change);
      for (let attempt = 0; attempt < 3; attempt += 1) await assert.rejects(write, DatabaseUnavailable, change);
    }
    await reconnecting(`ALTER ROLE ${app} LOGIN`, `ALTER ROLE ${app} RESET default_transaction_read_only`);
    await until(async () => (await write().catch(() => 0)) > 0);
  });
});

test("an open without a server fails with DatabaseUnavailable, and an unreadable URL is refused without being repeated", async (t) => {
  await withDatabases(t, async (database) => {
    const unreachable = "postgres://u:secret@127.0.0.1:1/atrium";
    await assert.rejects(openDatabase({ ...database.options, databaseUrl: unreachable }), DatabaseUnavailable);
    for (const setting of ["databaseUrl", "migrationUrl", "listenUrl"]) {
      await assert.rejects(openDatabase({ ...database.options, [setting]: "mysql://u:secret@h/x" }), (error: Error) => {
        assert.match(error.message, /DATABASE_URL must look like/);
        assert.doesNotMatch(error.message, /secret/);
        return true;
      });
    }
  });
});

test("partitions reach three months ahead, and rows that waited in the default one move to their month", async (t) => {
  await withDatabases(t, async (database) => {
    let now = Date.UTC(2031, 10, 22);
    const db = await openDatabase({ ...database.options, clock: { now: () => now, monotonic: () => 0 } });
    t.after(() => db.close());
    const june = leastIdAt(Date.UTC(2032, 5, 15)) as unknown as AttemptId;
    await db.forSystem("ship", (tx) => tx.insertInto("usage_rows").values(usageRow(A, june)).execute());
    assert.equal(await partitionOf(database), "usage_rows_default");
    assert.deepEqual(await db.ensurePartitions(), [], "nothing is missing");
    now = Date.UTC(2032, 2, 31);
    const made = await db.ensurePartitions();
    assert.deepEqual(
      made.filter((name) => name.startsWith("usage_rows")),
      ["usage_rows_2032_03", "usage_rows_2032_04", "usage_rows_2032_05", "usage_rows_2032_06"],
    );
    assert.equal(await partitionOf(database), "usage_rows_2032_06");
    assert.equal((await db.forTenant(A, (tx) => tx.selectFrom("usage_rows").select("id").execute())).length, 1);
    assert.equal((await db.forTenant(B, (tx) => tx.selectFrom("usage_rows").select("id").execute())).length, 0);
  });
});

test("a pool's idle connection that breaks ends nothing", async (t) => {
  await withDatabases(t, async (database) => {
    const pool = createPool(database.url, "idle", 1, 60_000, silentLog);
    await pool.query("SELECT 1");
    await terminate(database, "atrium idle");
    await until(() => pool.totalCount === 0);
    await pool.query("SELECT 1");
    await pool.end();
  });
});

const ATTEMPT = leastIdAt(Date.now()) as unknown as AttemptId;

async function insertProject(tx: Parameters<Parameters<Database["forTenant"]>[1]>[0], serial = 1): Promise<ProjectId> {
  const id = `01900000-0000-7000-8000-0000000000${String(serial).padStart(2, "0")}` as ProjectId;
  const name = Buffer.from("name");
  await tx.insertInto("projects").values({ id, name_sealed: name, name_index: name, created_at: AT, updated_at: AT }).execute();
  return id;
}

function ledgerEntry(tenant: TenantId): Insertable<Tables["ledger_entries"]> {
  return { tenant_id: tenant, id: ATTEMPT, debit_spend: 2n, credit_provider: 1n, credit_margin: 1n, posted_at: AT };
}

function usageRow(tenant: TenantId, id: AttemptId): Insertable<Tables["usage_rows"]> {
  const filler = <Id extends string>() => ATTEMPT as string as Id;
  return {
    tenant_id: tenant,
    id,
    hop: filler(),
    call: filler(),
    feature_sealed: Buffer.from("f"),
    feature_index: Buffer.from("f"),
    kind: "generate",
    provider: "simulated",
    model_requested_sealed: Buffer.from("m"),
    model_served: "m",
    model_id: filler(),
    deployment_id: filler(),
    price_version: filler(),
    cost: 1n,
    charge: 1n,
    worst_case: 1n,
    bound: "rule",
    source: "counted",
    status: "completed",
    latency_ms: 1,
    started_at: AT,
    journal_id: filler(),
    journal_sequence: 1,
  };
}

async function partitionOf(database: TestDatabase): Promise<unknown> {
  return database.asSuperuser(
    async (client) => (await client.query("SELECT tableoid::regclass::text AS partition FROM usage_rows")).rows[0]?.partition,
  );
}

/** Whether a connection of that name was there to kill. */
async function terminate(database: TestDatabase, applicationName: string): Promise<boolean> {
  const found = await database.asSuperuser((client) =>
    client.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()", [
      applicationName,
    ]),
  );
  return (found.rowCount ?? 0) > 0;
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let waitedMs = 0; waitedMs < 10_000; waitedMs += 10) {
    if (await condition()) return;
    await sleep(10);
  }
  assert.fail(`never: ${condition.toString()}`);
}
