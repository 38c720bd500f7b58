import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Principal } from "../../domains/identity/index.ts";
import { PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { systemRandom } from "../../kernel/random.ts";
import { openConfiguration, type Configuration } from "../../../test/support/configuration.ts";
import { silentLog, TEST_MASTER_KEY, type TestDatabase, withDatabases } from "../../../test/support/postgres.ts";
import { bumpConfig, type Database } from "../database/index.ts";
import { createTenantKey, createTenantKeyring, type TenantKeyring, wrapTenantKey } from "../secrets/index.ts";

/** What a snapshot says, without the keyrings, of which only what they derive is compared. */
function contents(configuration: Configuration): unknown {
  const { tenants } = configuration.snapshot.current;
  return [...tenants]
    .toSorted(([one], [other]) => (one < other ? -1 : 1))
    .map(([id, { keyring, ...parts }]) => [id, parts, keyring.secret("cache").toString("hex")]);
}

/** Every name and key id leads to its owner, and to nobody else. */
function assertIndexed(configuration: Configuration): void {
  for (const [id, parts] of configuration.snapshot.current.tenants) {
    for (const key of parts.identity.keys.keys()) assert.equal(configuration.snapshot.ownerOf("keys", key), id);
    if (id !== PLATFORM_TENANT) assert.equal(configuration.snapshot.ownerOf("names", parts.tenants.tenant.name), id);
  }
}

const tenantName = fc.constantFrom("t1", "t2", "t3");
const resourceName = fc.constantFrom("r1", "r2");
const write = fc.oneof(
  fc.record({
    id: fc.constant("tenants.put"),
    params: fc.record({ tenant: tenantName }),
    body: fc.record({
      status: fc.constantFrom("active", "suspended"),
      display_name: fc.option(fc.string({ unit: "grapheme", maxLength: 5 })),
    }),
  }),
  fc.record({ id: fc.constant("tenants.delete"), params: fc.record({ tenant: tenantName }) }),
  fc.record({
    id: fc.constant("projects.put"),
    params: fc.record({ tenant: tenantName, project: resourceName }),
    body: fc.record({ default_max_output_tokens: fc.option(fc.integer({ min: 1, max: 9 })) }),
  }),
  fc.record({ id: fc.constant("projects.delete"), params: fc.record({ tenant: tenantName, project: resourceName }) }),
  fc.record({
    id: fc.constant("project_keys.create"),
    params: fc.record({ tenant: tenantName, project: resourceName }),
    body: fc.constant({}),
  }),
  fc.record({ id: fc.constant("tenant_keys.create"), params: fc.record({ tenant: tenantName }), body: fc.constant({}) }),
  fc.record({
    id: fc.constant("members.put"),
    params: fc.record({ tenant: tenantName, member: fc.constantFrom("ada@example.com", "grace@example.com") }),
    body: fc.record({
      roles: fc.subarray(["developer", "auditor"]),
      projects: fc.constantFrom([], [{ project: "r1", roles: ["developer"] }]),
    }),
  }),
  fc.record({ id: fc.constant("members.delete"), params: fc.record({ tenant: tenantName, member: fc.constant("ada@example.com") }) }),
  fc.record({
    id: fc.constant("models.put"),
    params: fc.record({ model: resourceName }),
    body: fc.record({ visibility: fc.constantFrom("granted", "all") }),
  }),
  fc.record({ id: fc.constant("models.delete"), params: fc.record({ model: resourceName }) }),
  fc.record({
    id: fc.constant("deployments.put"),
    params: fc.record({ model: resourceName, deployment: resourceName }),
    body: fc.record({
      provider: fc.constant("inside"),
      upstream_model: fc.constantFrom("u1", "u2"),
      price: fc.constantFrom("free", { input: "1", output: "2" }),
    }),
  }),
  fc.record({ id: fc.constant("grants.put"), params: fc.record({ tenant: tenantName, model: resourceName }), body: fc.constant({}) }),
  fc.record({ id: fc.constant("grants.delete"), params: fc.record({ tenant: tenantName, model: resourceName }) }),
);

/** What most writes need to be there. */
const GROUND = [
  ...["t1", "t2"].map((tenant) => ({ id: "tenants.put", params: { tenant }, body: { status: "active" } })),
  ...["t1", "t2"].map((tenant) => ({ id: "projects.put", params: { tenant, project: "r1" }, body: {} })),
  { id: "models.put", params: { model: "r1" }, body: {} },
];

test("after any sequence of writes a snapshot that followed them equals one loaded from scratch, here and in another process", (t) =>
  withDatabases(t, async (database, t) => {
    const connection = await database.open();
    const here = await openConfiguration(t, connection);
    const there = await openConfiguration(t, connection, { pollMs: 60_000 });
    const admin = await here.admin();
    let writes = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(write, { minLength: 15, maxLength: 25 }), async (sequence) => {
        for (const request of [...GROUND, ...sequence]) if (await applied(here, admin, request)) writes += 1;
        await there.snapshot.refresh();
        const scratch = await openConfiguration(t, connection);
        assert.equal(here.snapshot.current.version, scratch.snapshot.current.version);
        assert.deepEqual(contents(here), contents(scratch));
        assert.deepEqual(contents(there), contents(scratch));
        for (const configuration of [here, there, scratch]) assertIndexed(configuration);
        await scratch.snapshot.close();
      }),
      { numRuns: 3 },
    );
    t.diagnostic(`${writes} writes took effect`);
    assert.ok(writes > 30);
  }));

test("who watches is told, once it is in force, whose parts are new or gone, and nobody else's", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const { act, snapshot } = configuration;
    const admin = await configuration.admin();
    const put = async (tenant: string) => (await act(admin, "tenants.put", { params: { tenant } })).body["id"] as TenantId;
    const [one, other] = [await put("one"), await put("other")];
    const told: { changed: ReadonlySet<TenantId>; status: string | undefined }[] = [];
    snapshot.watch((changed) => told.push({ changed, status: snapshot.current.tenants.get(one)?.tenants.tenant.status }));
    await act(admin, "tenants.put", { params: { tenant: "one" }, body: { status: "suspended" } });
    assert.ok(told.some(({ changed, status }) => changed.has(one) && status === "suspended"));
    assert.ok(told.every(({ changed }) => !changed.has(other)));
    await act(admin, "tenants.delete", { params: { tenant: "other" } });
    assert.ok(told.some(({ changed }) => changed.has(other)));
    const before = told.length;
    await snapshot.refresh();
    assert.equal(told.length, before, "without a change nobody is told");
  }));

async function applied(
  configuration: Configuration,
  admin: Principal,
  request: { id: string; params: Record<string, string>; body?: unknown },
): Promise<boolean> {
  try {
    await configuration.act(admin, request.id, request);
    return true;
  } catch (error) {
    if (error instanceof Problem && error.status < 500) return false;
    throw error;
  }
}

test("a change re-reads only the tenants it names: the others keep the very same parts", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    for (const tenant of ["t1", "t2"]) await configuration.act(admin, "tenants.put", { params: { tenant } });
    const before = configuration.snapshot.current;
    const [t1, t2] = ["t1", "t2"].map((name) => configuration.snapshot.ownerOf("names", name) as TenantId) as [TenantId, TenantId];
    await configuration.act(admin, "projects.put", { params: { tenant: "t1", project: "p" } });
    const after = configuration.snapshot.current;
    assert.notEqual(after.tenants.get(t1), before.tenants.get(t1));
    assert.equal(after.tenants.get(t2), before.tenants.get(t2));
    assert.equal(after.tenants.get(PLATFORM_TENANT), before.tenants.get(PLATFORM_TENANT));
    assert.equal(before.tenants.get(t1)?.tenants.projects.size, 0, "a call that took the snapshot before keeps it");

    await configuration.act(admin, "tenants.put", { params: { tenant: "t1" }, body: { status: "suspended" } });
    assert.equal(configuration.snapshot.current.tenants.get(t1)?.tenants.tenant.status, "suspended");
    assert.equal(
      configuration.snapshot.current.tenants.get(t2),
      before.tenants.get(t2),
      "a change of one tenant's row does not re-read another",
    );
  }));

test("a write reaches another process by notice, and within the poll interval when notices are lost", (t) =>
  withDatabases(t, async (database, t) => {
    const here = await openConfiguration(t, await database.open());
    const connection = await database.open();
    const noticed = await openConfiguration(t, connection, { pollMs: 60_000 });
    const deaf: Database = {
      ...connection,
      forSystem: connection.forSystem,
      forTenant: connection.forTenant,
      listen: async () => ({ close: async () => {} }),
    };
    const polled = await openConfiguration(t, deaf, { pollMs: 500 });
    const admin = await here.admin();
    await here.act(admin, "tenants.put", { params: { tenant: "t1" } });
    const start = performance.now();
    const reached = async (configuration: Configuration): Promise<number> => {
      while (configuration.snapshot.ownerOf("names", "t1") === undefined) {
        assert.ok(performance.now() - start < 2000, "not within two seconds");
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      return performance.now() - start;
    };
    const [byNotice, byPoll] = await Promise.all([reached(noticed), reached(polled)]);
    t.diagnostic(`by notice after ${byNotice.toFixed(0)} ms, by poll after ${byPoll.toFixed(0)} ms`);
    assert.ok(byPoll < 1000);
  }));

test("while the database is away the last snapshot stays, and its staleness grows", (t) =>
  withDatabases(t, async (database, t) => {
    const connection = await database.open();
    let away = false;
    const flaky: Database = {
      ...connection,
      forTenant: connection.forTenant,
      listen: connection.listen,
      forSystem: (job, work) => (away ? Promise.reject(new Error("away")) : connection.forSystem(job, work)),
    };
    const configuration = await openConfiguration(t, flaky, { pollMs: 20 });
    const admin = await configuration.admin();
    await configuration.act(admin, "tenants.put", { params: { tenant: "t1" } });
    const { tenants } = configuration.snapshot.current;
    away = true;
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(configuration.snapshot.current.tenants, tenants);
    assert.ok(configuration.snapshot.stalenessMs() > 200);
    await assert.rejects(configuration.snapshot.refresh());
    away = false;
    await configuration.snapshot.refresh();
    assert.ok(configuration.snapshot.stalenessMs() < 200);
  }));

test("a damaged row keeps its part as it was, is logged, and holds nothing else back: a key is revoked all the same", (t) =>
  withDatabases(t, async (database, t) => {
    const faults: object[] = [];
    const configuration = await openConfiguration(t, await database.open(), {
      log: { ...silentLog, error: (fields) => faults.push(fields) },
    });
    const { act, snapshot } = configuration;
    const admin = await configuration.admin();
    await act(admin, "models.put", { params: { model: "m" }, body: { visibility: "all" } });
    const { id, key } = (await act(admin, "platform_keys.create", { body: { permissions: ["keys:read"] } })).body as {
      id: string;
      key: string;
    };
    await database.asSuperuser((client) =>
      client.query("UPDATE models SET name_sealed = set_byte(name_sealed, 33, get_byte(name_sealed, 33) # 1)"),
    );
    await act(admin, "platform_keys.delete", { params: { id } });
    await assert.rejects(configuration.principal(key));
    assert.ok(snapshot.current.tenants.get(PLATFORM_TENANT)?.catalog.models.has("m"));
    assert.deepEqual(
      faults.map((fault) => "part" in fault && fault.part),
      ["catalog"],
    );
    await database.asSuperuser((client) =>
      client.query("UPDATE models SET name_sealed = set_byte(name_sealed, 33, get_byte(name_sealed, 33) # 1)"),
    );
    await act(admin, "tenants.put", { params: { tenant: "t1" } });
    assert.equal(faults.length, 1, "the repaired part is read with the next change, whatever that names");
  }));

test("an archived tenant's keys are still found, so that what it was charged can be sealed; destroyed ones are null", (t) =>
  withDatabases(t, async (test, t) => {
    const configuration = await openConfiguration(t, await test.open());
    const admin = await configuration.admin();
    await configuration.act(admin, "tenants.put", { params: { tenant: "gone" }, body: {} });
    const id = configuration.snapshot.ownerOf("names", "gone") as TenantId;
    const before = configuration.snapshot.keyringOf(id) as TenantKeyring;
    await configuration.act(admin, "tenants.delete", { params: { tenant: "gone" } });
    assert.equal(configuration.snapshot.current.tenants.has(id), false);
    const after = await configuration.snapshot.keyringOf(id);
    assert.deepEqual(after?.secret("cache"), before.secret("cache"));
    await test.asSuperuser((client) => client.query("DELETE FROM tenant_keys WHERE tenant_id = $1", [id]));
    assert.equal(await configuration.snapshot.keyringOf(id), null);
  }));

test("a version that went back is a restored backup: everything is read again", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open(), { pollMs: 60_000 });
    const admin = await configuration.admin();
    await configuration.act(admin, "tenants.put", { params: { tenant: "t1" } });
    await configuration.act(admin, "projects.put", { params: { tenant: "t1", project: "p" } });
    await database.asSuperuser(async (client) => {
      await client.query("UPDATE projects SET archived_at = now()");
      await client.query("UPDATE config_version SET version = 1");
    });
    await configuration.snapshot.refresh();
    const id = configuration.snapshot.ownerOf("names", "t1") as TenantId;
    assert.equal(configuration.snapshot.current.version, 1);
    assert.equal(configuration.snapshot.current.tenants.get(id)?.tenants.projects.size, 0);
  }));

test("10,000 tenants load in a number of queries that does not grow with them one by one", (t) =>
  withDatabases(t, async (database, t) => {
    const connection = await database.open();
    const first = await openConfiguration(t, connection);
    const sample = await onboard(first);
    await copyTenant(database, connection, sample, TENANTS);
    let transactions = 0;
    const counting: Database = {
      ...connection,
      forTenant: connection.forTenant,
      listen: connection.listen,
      forSystem: (job, work) => {
        transactions += 1;
        return connection.forSystem(job, work);
      },
    };
    const start = performance.now();
    const blocked = longestTurn();
    const loaded = await openConfiguration(t, counting);
    t.diagnostic(
      `${TENANTS} tenants in ${(performance.now() - start).toFixed(0)} ms, ${transactions} transactions, longest turn ${blocked.stop().toFixed(0)} ms`,
    );
    assert.equal(loaded.snapshot.current.tenants.size, TENANTS + 2);
    assert.ok(transactions <= 1 + Math.ceil((TENANTS + 2) / 2000));
  }));

async function onboard(configuration: Configuration): Promise<TenantId> {
  const admin = await configuration.admin();
  await configuration.act(admin, "tenants.put", { params: { tenant: "sample" } });
  return configuration.snapshot.ownerOf("names", "sample") as TenantId;
}

/** Rows as the front door makes them, but written in bulk: each tenant has a key and names sealed with it. */
async function copyTenant(database: TestDatabase, connection: Database, sample: TenantId, count: number): Promise<void> {
  const ids: string[] = [];
  const wrapped: Buffer[] = [];
  const names: Buffer[] = [];
  for (let index = 0; index < count; index += 1) {
    const id = (sample.slice(0, 24) + index.toString(16).padStart(12, "0")) as TenantId;
    const key = createTenantKey(systemRandom);
    ids.push(id);
    wrapped.push(wrapTenantKey(TEST_MASTER_KEY, id, 1, key, systemRandom));
    names.push(createTenantKeyring(id, new Map([[1, key]])).seal(`tenant-${index}`, { table: "tenants", column: "name_sealed", row: id }));
  }
  await database.asSuperuser(async (client) => {
    await client.query("INSERT INTO tenant_keys SELECT id, 1, wrapped, now() FROM unnest($1::uuid[], $2::bytea[]) AS rows(id, wrapped)", [
      ids,
      wrapped,
    ]);
    await client.query(
      "INSERT INTO tenants (tenant_id, id, name_sealed, name_index, status, created_at, updated_at) SELECT $1, id, name, sha256(name), 'active', now(), now() FROM unnest($2::uuid[], $3::bytea[]) AS rows(id, name)",
      [PLATFORM_TENANT, ids, names],
    );
  });
  await connection.forTenant(PLATFORM_TENANT, (tx) => bumpConfig(tx));
}

function longestTurn(): { stop(): number } {
  let longest = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }, 1);
  return {
    stop() {
      clearInterval(timer);
      return longest;
    },
  };
}

const TENANTS = 10_000;
