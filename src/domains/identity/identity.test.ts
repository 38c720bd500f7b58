import assert from "node:assert/strict";
import { test } from "node:test";
import { Problem } from "../../kernel/problem.ts";
import { openConfiguration } from "../../../test/support/configuration.ts";
import { withDatabases } from "../../../test/support/postgres.ts";

const tenant = { tenant: "acme" };
const project = { ...tenant, project: "shop" };

function problem(code: Problem["code"]) {
  return (error: unknown) => {
    assert.ok(error instanceof Problem, String(error));
    assert.equal(error.code, code);
    return true;
  };
}

test("keys are made, used, read, rotated and revoked; the secret is shown once and stored nowhere", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const { act, principal } = configuration;
    const admin = await configuration.admin();
    await act(admin, "tenants.put", { params: tenant });
    await act(admin, "projects.put", { params: project });

    const created = await act(admin, "project_keys.create", { params: project, body: { name: "app", models: ["small"] } });
    assert.equal(created.status, 201);
    assert.deepEqual(created.shownOnce, ["key"]);
    const { id, key } = created.body as { id: string; key: string };
    const caller = await principal(key);
    assert.deepEqual([...caller.permissions].toSorted(), ["models:call", "usage:read"]);
    assert.deepEqual([...(caller.models ?? [])], ["small"]);
    assert.equal(caller.project, configuration.snapshot.current.tenants.get(caller.tenant)?.tenants.projects.keys().next().value);

    const read = await act(admin, "project_keys.get", { params: { ...project, id } });
    assert.equal(read.body["name"], "app");
    assert.equal("key" in read.body, false);
    assert.equal((await act(admin, "project_keys.list", { params: project })).body["last_id"], id);

    await assert.rejects(act(admin, "project_keys.create", { params: project, body: { name: "app" } }), problem("conflict"));

    const rotated = await act(admin, "project_keys.rotate", { params: { ...project, id }, body: { grace_seconds: 60 } });
    assert.equal(rotated.body["name"], "app");
    assert.notEqual(rotated.body["id"], id);
    assert.equal((await principal(rotated.body["key"])).id, rotated.body["id"]);
    assert.equal((await principal(key)).id, id);
    await assert.rejects(act(admin, "project_keys.rotate", { params: { ...project, id } }), problem("conflict"));

    await act(admin, "project_keys.delete", { params: { ...project, id } });
    await assert.rejects(principal(key), problem("invalid_api_key"));
    await assert.rejects(act(admin, "project_keys.get", { params: { ...project, id } }), problem("not_found"));

    const secret = String(rotated.body["key"]).slice(15);
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query(
        "SELECT t.relname, k.api_keys::text FROM (SELECT api_keys FROM api_keys) k, (SELECT 'api_keys' AS relname) t",
      );
      assert.ok(rows.length >= 3);
      assert.equal(JSON.stringify(rows).includes(secret), false);
      assert.equal(JSON.stringify(rows).includes(Buffer.from(secret).toString("hex")), false);
    });
  }));

test("a rotation without grace ends the old key at once", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const admin = await configuration.admin();
    await configuration.act(admin, "tenants.put", { params: tenant });
    const { id, key } = (await configuration.act(admin, "tenant_keys.create", { params: tenant, body: { permissions: ["tenant_admin"] } }))
      .body as { id: string; key: string };
    await configuration.principal(key);
    await configuration.act(admin, "tenant_keys.rotate", { params: { ...tenant, id }, body: { grace_seconds: 0 } });
    await assert.rejects(configuration.principal(key), problem("expired_api_key"));
  }));

test("a key is never more than its creator: not made, and not taken over by rotation", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const { act, principal } = configuration;
    const admin = await configuration.admin();
    await act(admin, "tenants.put", { params: tenant });
    const strong = (await act(admin, "tenant_keys.create", { params: tenant, body: { name: "strong", permissions: ["tenant_admin"] } }))
      .body;
    const clerk = await principal(
      (await act(admin, "tenant_keys.create", { params: tenant, body: { permissions: ["keys:read", "keys:write"] } })).body["key"],
    );
    await assert.rejects(
      act(clerk, "tenant_keys.create", { params: tenant, body: { permissions: ["tenant_admin"] } }),
      problem("permission_denied"),
    );
    await assert.rejects(
      act(clerk, "tenant_keys.rotate", { params: { ...tenant, id: String(strong["id"]) } }),
      problem("permission_denied"),
    );
    await assert.rejects(act(clerk, "platform_keys.create", { body: { permissions: ["keys:read"] } }), problem("permission_denied"));
    assert.equal((await act(clerk, "tenant_keys.create", { params: tenant, body: { permissions: ["keys:read"] } })).status, 201);

    const brief = await principal(
      (
        await act(admin, "tenant_keys.create", {
          params: tenant,
          body: { permissions: ["tenant_admin"], expires_at: Math.floor(Date.now() / 1000) + 3600 },
        })
      ).body["key"],
    );
    const child = await act(brief, "tenant_keys.create", { params: tenant, body: { permissions: ["keys:read"] } });
    assert.equal(
      child.body["expires_at"],
      Math.floor((brief.key?.expiresAt ?? 0) / 1000),
      "it ends with its creator unless it says sooner",
    );
    await assert.rejects(
      act(brief, "tenant_keys.create", { params: tenant, body: { permissions: ["keys:read"], expires_at: null } }),
      (error) =>
        problem("permission_denied")(error) && String(error).includes(`'expires_at' must be at most ${String(child.body["expires_at"])}.`),
    );
  }));

test("a key whose name is damaged keeps no other key alive: a revoked one stops", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const { act, principal } = configuration;
    const admin = await configuration.admin();
    await act(admin, "tenants.put", { params: tenant });
    const [damaged, revoked] = [
      (await act(admin, "tenant_keys.create", { params: tenant, body: {} })).body,
      (await act(admin, "tenant_keys.create", { params: tenant, body: {} })).body,
    ];
    await database.asSuperuser((client) =>
      client.query("UPDATE api_keys SET name_sealed = set_byte(name_sealed, 33, get_byte(name_sealed, 33) # 1) WHERE id = $1", [
        damaged["id"],
      ]),
    );
    await act(admin, "tenant_keys.delete", { params: { ...tenant, id: String(revoked["id"]) } });
    await assert.rejects(principal(revoked["key"]), problem("invalid_api_key"));
    assert.equal((await principal(damaged["key"])).id, damaged["id"]);
  }));

test("one tenant's keys are not there for another, by any verb", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const { act, principal } = configuration;
    const admin = await configuration.admin();
    for (const name of ["acme", "other"]) await act(admin, "tenants.put", { params: { tenant: name } });
    const adminOf = async (name: string) =>
      principal(
        (await act(admin, "tenant_keys.create", { params: { tenant: name }, body: { permissions: ["tenant_admin"] } })).body["key"],
      );
    const acme = await adminOf("acme");
    const other = await adminOf("other");
    for (const id of ["tenant_keys.get", "tenant_keys.delete", "tenant_keys.rotate"]) {
      await assert.rejects(act(other, id, { params: { tenant: "acme", id: acme.id } }), problem("not_found"));
      await assert.rejects(act(other, id, { params: { tenant: "other", id: acme.id } }), problem("not_found"));
      await assert.rejects(act(other, id, { params: { tenant: "never-was", id: acme.id } }), problem("not_found"));
    }
    assert.equal((await act(acme, "tenant_keys.get", { params: { tenant: "acme", id: acme.id } })).body["id"], acme.id);
  }));

test("a revoked key stops in another process within a second, and a new one works there at once", (t) =>
  withDatabases(t, async (database, t) => {
    const here = await openConfiguration(t, await database.open());
    const there = await openConfiguration(t, await database.open(), { pollMs: 500 });
    const admin = await here.admin();
    await here.act(admin, "tenants.put", { params: tenant });
    const waits: number[] = [];
    for (let round = 0; round < 5; round += 1) {
      const { id, key } = (await here.act(admin, "tenant_keys.create", { params: tenant })).body as { id: string; key: string };
      assert.equal((await there.principal(key)).id, id);
      await here.act(admin, "tenant_keys.delete", { params: { ...tenant, id } });
      const start = performance.now();
      while (
        await there.principal(key).then(
          () => true,
          () => false,
        )
      ) {
        assert.ok(performance.now() - start < 1000, "still accepted after a second");
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      waits.push(performance.now() - start);
    }
    t.diagnostic(`refused elsewhere after ${waits.map((wait) => wait.toFixed(0)).join(", ")} ms`);
  }));
