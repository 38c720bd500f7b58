import assert from "node:assert/strict";
import { test } from "node:test";
import { Problem } from "../../kernel/problem.ts";
import { openConfiguration } from "../../../test/support/configuration.ts";
import { withDatabases } from "../../../test/support/postgres.ts";

const acme = { tenant: "acme" };
const shop = { ...acme, project: "shop" };

function problem(code: Problem["code"], param: string | null = null) {
  return (error: unknown) => {
    assert.ok(error instanceof Problem, String(error));
    assert.deepEqual([error.code, error.param], [code, param]);
    return true;
  };
}

test("PUT is an idempotent upsert: omitted keeps, null clears, and the revision guards it", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, ...configuration } = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    const first = await act(admin, "tenants.put", {
      params: acme,
      body: { display_name: "Acme", tier: "gold", time_zone: "Europe/Paris" },
    });
    assert.deepEqual([first.status, first.revision], [201, 1]);
    const same = await act(admin, "tenants.put", { params: acme, body: {} });
    assert.deepEqual([same.status, same.revision], [200, 2]);
    assert.deepEqual({ ...same.body, updated_at: 0 }, { ...first.body, updated_at: 0 });
    const cleared = await act(admin, "tenants.put", { params: acme, body: { tier: null, time_zone: null }, ifMatch: 2 });
    assert.deepEqual([cleared.body["display_name"], cleared.body["tier"], cleared.body["time_zone"]], ["Acme", null, "UTC"]);
    await assert.rejects(act(admin, "tenants.put", { params: acme, body: {}, ifMatch: 2 }), problem("revision_mismatch"));
    await assert.rejects(act(admin, "tenants.put", { params: { tenant: "new" }, body: {}, ifMatch: 1 }), problem("revision_mismatch"));
    await assert.rejects(act(admin, "tenants.delete", { params: acme, ifMatch: 1 }), problem("revision_mismatch"));

    const byId = await act(admin, "tenants.put", { params: { tenant: String(first.body["id"]) }, body: { display_name: "By id" } });
    assert.equal(byId.body["name"], "acme");
    assert.deepEqual((await act(admin, "tenants.get", { params: acme })).body, byId.body);

    const project = await act(admin, "projects.put", { params: shop, body: { default_max_output_tokens: 5, require: ["feature"] } });
    const kept = await act(admin, "projects.put", { params: shop, body: { default_max_output_tokens: null } });
    assert.deepEqual(
      [kept.body["id"], kept.body["default_max_output_tokens"], kept.body["require"]],
      [project.body["id"], null, ["feature"]],
    );
    assert.deepEqual((await act(admin, "projects.get", { params: shop })).body, kept.body);
  }));

test("a markup is the platform's to set and to see: the tenant reads itself without it, and its next calls are charged by it", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, tenants, snapshot, ...configuration } = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    assert.equal((await act(admin, "tenants.put", { params: acme })).body["markup"], "1");
    assert.equal((await act(admin, "tenants.put", { params: acme, body: { markup: "1.20" } })).body["markup"], "1.2");
    assert.equal((await act(admin, "tenants.put", { params: acme, body: { tier: "gold" } })).body["markup"], "1.2", "omitted, it stays");
    assert.equal((await act(admin, "tenants.get", { params: acme })).body["markup"], "1.2");
    await act(admin, "projects.put", { params: shop });
    const caller = await configuration.principal((await act(admin, "project_keys.create", { params: shop })).body["key"]);
    const charged = () => tenants.resolve(caller, snapshot.current).record.markupMillionths;
    assert.equal(charged(), 1_200_000);

    const key = (await act(admin, "tenant_keys.create", { params: acme, body: { permissions: ["tenant_admin"] } })).body["key"];
    const own = await configuration.principal(key);
    const seen = (await act(own, "tenants.get", { params: acme })).body;
    assert.deepEqual([seen["name"], "markup" in seen], ["acme", false]);
    await assert.rejects(act(own, "tenants.put", { params: acme, body: { markup: "1" } }), (error) => error instanceof Problem);
    assert.equal(charged(), 1_200_000);

    for (const markup of ["0", "0.009999", "100.000001", "1.0000001", "-1", "1e1", "", "1,2", "x"])
      await assert.rejects(act(admin, "tenants.put", { params: acme, body: { markup } }), problem("invalid_request", "markup"), markup);
    for (const [markup, millionths] of [
      ["0.9", 900_000],
      ["0.01", 10_000],
      ["100", 100_000_000],
      ["1.000001", 1_000_001],
      [null, 1_000_000],
    ] as const) {
      const { body } = await act(admin, "tenants.put", { params: acme, body: { markup } });
      assert.deepEqual([body["markup"], charged()], [markup ?? "1", millionths]);
    }
  }));

test("a name that looks like an id, or that a path cannot carry, is refused", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, ...configuration } = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    for (const tenant of [
      "018f0000-0000-7000-8000-000000000000",
      "018F0000-0000-7000-8000-00000000000A",
      "a b",
      "-a",
      "a/b",
      "a".repeat(101),
      "ä",
      "*",
      "platform",
    ]) {
      await assert.rejects(act(admin, "tenants.put", { params: { tenant } }), problem("invalid_request", "tenant"), tenant);
    }
    await act(admin, "tenants.put", { params: acme });
    await assert.rejects(act(admin, "projects.put", { params: { ...acme, project: "a b" } }), problem("invalid_request", "project"));
  }));

test("an archived name answers 404, and a later PUT makes a new id", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, ...configuration } = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    const old = (await act(admin, "tenants.put", { params: acme })).body["id"];
    const key = (await act(admin, "tenant_keys.create", { params: acme, body: { permissions: ["tenant_admin"] } })).body["key"];
    await configuration.principal(key);
    assert.deepEqual((await act(admin, "tenants.delete", { params: acme })).body, { id: old, deleted: true });
    await assert.rejects(act(admin, "tenants.get", { params: acme }), problem("not_found"));
    await assert.rejects(act(admin, "tenants.get", { params: { tenant: String(old) } }), problem("not_found"));
    await assert.rejects(act(admin, "tenants.delete", { params: acme }), problem("not_found"));
    await assert.rejects(configuration.principal(key), problem("invalid_api_key"));
    const again = (await act(admin, "tenants.put", { params: acme })).body["id"];
    assert.notEqual(again, old);
    await assert.rejects(
      configuration.principal(key),
      problem("invalid_api_key"),
      "the archived tenant's key does not come back with the name",
    );

    const project = (await act(admin, "projects.put", { params: shop })).body["id"];
    await act(admin, "projects.delete", { params: shop });
    await assert.rejects(act(admin, "projects.get", { params: { ...acme, project: String(project) } }), problem("not_found"));
    assert.notEqual((await act(admin, "projects.put", { params: shop })).body["id"], project);
  }));

test("two upserts of one new name at once make one row", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, ...configuration } = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    const tenants = await Promise.all(Array.from({ length: 8 }, () => act(admin, "tenants.put", { params: acme })));
    assert.equal(new Set(tenants.map((answer) => answer.body["id"])).size, 1);
    assert.equal(tenants.filter((answer) => answer.status === 201).length, 1);
    const projects = await Promise.all(Array.from({ length: 8 }, () => act(admin, "projects.put", { params: shop })));
    assert.equal(new Set(projects.map((answer) => answer.body["id"])).size, 1);
  }));

test("a suspended tenant is refused everywhere, while the platform still administers it", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, tenants, snapshot, ...configuration } = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    await act(admin, "tenants.put", { params: acme });
    const own = await configuration.principal(
      (await act(admin, "tenant_keys.create", { params: acme, body: { permissions: ["tenant_admin"] } })).body["key"],
    );
    assert.equal(tenants.resolve(own, snapshot.current).record.name, "acme");
    await act(admin, "tenants.put", { params: acme, body: { status: "suspended" } });
    assert.throws(() => tenants.resolve(own, snapshot.current), problem("tenant_suspended"));
    await assert.rejects(act(own, "projects.list", { params: acme }), problem("tenant_suspended"));
    await act(admin, "projects.put", { params: shop });
    await act(admin, "tenants.put", { params: acme, body: { status: "active" } });
    assert.equal((await act(own, "projects.list", { params: acme })).body["last_id"] === null, false);
  }));

test("archiving a project revokes its keys in the same transaction", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, tenants, snapshot, ...configuration } = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    await act(admin, "tenants.put", { params: acme });
    await act(admin, "projects.put", { params: shop });
    const key = (await act(admin, "project_keys.create", { params: shop })).body["key"];
    const caller = await configuration.principal(key);
    assert.equal(tenants.resolve(caller, snapshot.current).project?.name, "shop");
    await act(admin, "projects.delete", { params: shop });
    assert.throws(() => tenants.resolve(caller, snapshot.current), problem("invalid_api_key"), "a principal found before is checked again");
    await act(admin, "projects.put", { params: shop });
    await assert.rejects(configuration.principal(key), problem("invalid_api_key"));
  }));

test("a key made while its project is being archived is refused, or ends with it", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, snapshot, ...configuration } = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    await act(admin, "tenants.put", { params: acme });
    for (let round = 0; round < 10; round += 1) {
      const params = { ...acme, project: `shop-${round}` };
      await act(admin, "projects.put", { params });
      await Promise.allSettled([act(admin, "projects.delete", { params }), act(admin, "project_keys.create", { params })]);
      const live = [...snapshot.current.tenants.values()].flatMap((parts) => [...parts.identity.keys.values()]);
      assert.deepEqual(
        live.filter((key) => key.project !== null),
        [],
        "a live key that no route can name any more",
      );
    }
  }));

test("a tenant's names are nowhere in the database but sealed with its own key", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, ...configuration } = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    await act(admin, "tenants.put", { params: { tenant: "canary-tenant" }, body: { display_name: "Canary Display" } });
    await act(admin, "projects.put", { params: { tenant: "canary-tenant", project: "canary-project" } });
    await act(admin, "tenant_keys.create", { params: { tenant: "canary-tenant" }, body: { name: "canary-key" } });
    await database.asSuperuser(async (client) => {
      for (const table of ["tenants", "projects", "api_keys", "key_directory", "tenant_keys", "config_changes"]) {
        const { rows } = await client.query(`SELECT ${table}::text AS row FROM ${table}`);
        for (const { row } of rows as { row: string }[]) {
          assert.equal(/canary/i.test(row), false, table);
          assert.equal(row.includes(Buffer.from("anary").toString("hex")), false, table);
        }
      }
    });
  }));

test("lists page through everything once, oldest first, and see what another process has just made", (t) =>
  withDatabases(t, async (database, t) => {
    const connection = await database.open();
    const { act, ...configuration } = await openConfiguration(t, connection);
    const there = await openConfiguration(t, connection, { pollMs: 60_000 });
    const admin = await configuration.admin();
    const names = ["t1", "t2", "t3", "t4", "t5"];
    for (const tenant of names) await act(admin, "tenants.put", { params: { tenant } });
    const seen: unknown[] = [];
    let after: string | undefined;
    for (let more = true; more;) {
      const { body } = await there.act(admin, "tenants.list", { query: { limit: "2", ...(after === undefined ? {} : { after }) } });
      seen.push(...(body["data"] as { name: string }[]).map((view) => view.name));
      after = body["last_id"] as string;
      more = body["has_more"] as boolean;
    }
    assert.deepEqual(seen, names);
    await assert.rejects(act(admin, "tenants.list", { query: { after: "t1" } }), problem("invalid_request", "after"));
  }));
