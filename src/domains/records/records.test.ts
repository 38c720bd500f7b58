import assert from "node:assert/strict";
import { test } from "node:test";
import { createIdMaker, PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import { systemClock } from "../../kernel/clock.ts";
import { systemRandom } from "../../kernel/random.ts";
import { openConfiguration } from "../../../test/support/configuration.ts";
import { withDatabases } from "../../../test/support/postgres.ts";

const makeId = createIdMaker(systemClock, systemRandom);
const row = (target: string, after: unknown) => ({
  id: makeId(),
  actor: "bootstrap",
  actorKind: "bootstrap" as const,
  action: "project.put",
  target,
  before: null,
  after,
  requestId: "request",
  remoteAddress: "127.0.0.1",
  status: 200,
  at: Date.now(),
});

test("an action's row is there if and only if the action is, sealed, and in its tenant's trail alone", (t) =>
  withDatabases(t, async (database, t) => {
    const connection = await database.open();
    const { act, records, snapshot, ...configuration } = await openConfiguration(t, connection);
    const admin = await configuration.admin();
    for (const tenant of ["acme", "other"]) await act(admin, "tenants.put", { params: { tenant } });
    const acme = snapshot.ownerOf("names", "acme") as TenantId;
    const trail = async (tenant: string) =>
      (await act(admin, "tenant_audit.list", { params: { tenant } })).body["data"] as { target: string; after: unknown }[];

    for (const target of ["one", "two"])
      await connection.forTenant(acme, (tx) => records.audit.write(tx, row(target, { name: "canary-name" })));
    await assert.rejects(
      connection.forTenant(acme, async (tx) => {
        await records.audit.write(tx, row("three", {}));
        throw new Error("the action fails");
      }),
    );
    await connection.forTenant(PLATFORM_TENANT, (tx) => records.audit.write(tx, row("platform", null)));

    assert.deepEqual(
      (await trail("acme")).map((view) => [view.target, view.after]),
      [
        ["two", { name: "canary-name" }],
        ["one", { name: "canary-name" }],
      ],
    );
    assert.deepEqual(await trail("other"), []);
    assert.deepEqual(
      ((await act(admin, "audit.list")).body["data"] as { target: string }[]).map((view) => view.target),
      ["platform", admin.id],
    );
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query("SELECT audit_rows::text FROM audit_rows");
      assert.equal(rows.length, 4);
      assert.equal(JSON.stringify(rows).includes("canary"), false);
    });
  }));

test("nobody changes or removes a row of the trail", (t) =>
  withDatabases(t, async (database, t) => {
    const connection = await database.open();
    const { records } = await openConfiguration(t, connection);
    await connection.forTenant(PLATFORM_TENANT, (tx) => records.audit.write(tx, row("kept", null)));
    await assert.rejects(
      connection.forTenant(PLATFORM_TENANT, (tx) => tx.deleteFrom("audit_rows").execute()),
      /permission denied/,
    );
    await assert.rejects(
      connection.forTenant(PLATFORM_TENANT, (tx) => tx.updateTable("audit_rows").set({ before: "{}" }).execute()),
      /permission denied/,
    );
    await assert.rejects(
      connection.forSystem("ship", (tx) => tx.deleteFrom("audit_rows").execute()),
      /permission denied/,
    );
  }));
