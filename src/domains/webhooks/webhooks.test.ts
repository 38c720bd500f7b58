import assert from "node:assert/strict";
import { test } from "node:test";
import { withDatabases } from "../../../test/support/postgres.ts";
import { PLATFORM_TENANT } from "../../kernel/ids.ts";
import type { Principal } from "../identity/index.ts";
import { EVENTS } from "./events.ts";
import { FACTS, prepare, problem, receiver } from "./testing/stage.ts";

test("a webhook is an upsert whose secret is shown once; its URL is judged when it is set", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, admin, put } = await prepare(t, database);
    const params = { tenant: "acme", webhook: "ops" };
    const created = await act(admin, "webhooks.put", { params, body: { url: "https://93.184.216.34/hook", events: ["*", "*"] } });
    assert.deepEqual([created.status, created.revision, created.shownOnce], [201, 1, ["secret"]]);
    assert.match(String(created.body["secret"]), /^whsec_[A-Za-z0-9+/]{43}=$/);
    assert.ok(!JSON.stringify(created.change).includes("whsec_"), "the audit row has no secret");
    const { secret: _, ...view } = created.body;
    assert.deepEqual(
      { ...view, id: "", created_at: 0, updated_at: 0 },
      {
        id: "",
        name: "ops",
        display_name: null,
        url: "https://93.184.216.34/hook",
        events: ["*"],
        status: "active",
        created_at: 0,
        updated_at: 0,
      },
    );
    const changed = await act(admin, "webhooks.put", { params, body: { status: "paused", display_name: "Ops" }, ifMatch: 1 });
    assert.deepEqual([changed.status, changed.revision, changed.body["status"], "secret" in changed.body], [200, 2, "paused", false]);
    assert.deepEqual((await act(admin, "webhooks.get", { params })).body, changed.body);
    await assert.rejects(act(admin, "webhooks.put", { params, body: {}, ifMatch: 1 }), problem("revision_mismatch"));
    await assert.rejects(act(admin, "webhooks.test", { params }), problem("conflict"));

    for (const url of ["https://127.0.0.2/", "http://93.184.216.34/", "https://localhost/", "https://user@93.184.216.34/", "nonsense"]) {
      await assert.rejects(put("new", { url, events: ["*"] }), problem("invalid_request", "url"), url);
      await assert.rejects(put("ops", { url }), problem("invalid_request", "url"), url);
    }
    await assert.rejects(put("new", { events: ["*"] }), problem("invalid_request", "url"));
    await assert.rejects(put("new", { url: "https://93.184.216.34/" }), problem("invalid_request", "events"));
    await assert.rejects(put("new", { url: "https://93.184.216.34/", events: ["unknown"] }));

    const rotated = await act(admin, "webhooks.rotate", { params, body: { grace_seconds: 60 } });
    assert.notEqual(rotated.body["secret"], created.body["secret"]);
    assert.deepEqual(rotated.shownOnce, ["secret"]);
    await act(admin, "webhooks.delete", { params });
    await assert.rejects(act(admin, "webhooks.get", { params }), problem("not_found"));
    assert.ok((await put("ops", { url: "https://93.184.216.34/", events: ["*"] })).secret);
    for (let index = 1; index < 50; index++) await put(`w${index}`, { url: "https://93.184.216.34/", events: ["*"] });
    await assert.rejects(put("w50", { url: "https://93.184.216.34/", events: ["*"] }), problem("conflict"));
  }));

test("a fact is there once, with a delivery for each webhook that asks for its type, or not at all", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, write, fact, events, deliveries, database: opened, webhooks, acme, act, admin } = await prepare(t, database);
    const { url } = await receiver(t);
    await put("all", { url, events: ["*"] });
    await put("some", { url, events: ["budget.exhausted", "budget.overage"] });
    await put("others", { url, events: ["budget.overage"] });
    await put("paused", { url, events: ["*"], status: "paused" });
    assert.equal(await write(fact("one")), true);
    assert.equal(await write({ ...fact("one"), data: { ...FACTS, spent: "200" } }), false, "whoever notices it again");
    assert.equal(await opened.forTenant(acme, (tx) => webhooks.writeEvent(tx, fact("one"))), false, "nor in a tenant's transaction");
    await assert.rejects(
      opened.forSystem("ship", async (tx) => {
        assert.equal(await webhooks.writeEvent(tx, fact("undone")), true);
        throw new Error("rolled back");
      }),
      /rolled back/,
    );
    assert.equal(
      await opened.forTenant(acme, (tx) => webhooks.writeEvent(tx, fact("two"))),
      true,
      "a tenant's transaction writes facts as well",
    );
    const listed = await events();
    assert.deepEqual(
      listed.map(({ type, data }) => [type, EVENTS["budget.exhausted"].data.parse(data).spent]),
      [
        ["budget.exhausted", "100.5"],
        ["budget.exhausted", "100.5"],
      ],
    );
    const told = await Promise.all(["all", "some", "others", "paused"].map(async (name) => (await deliveries(name)).length));
    assert.deepEqual(told, [2, 2, 0, 0]);
    const page = await act(admin, "events.list", { params: { tenant: "acme" }, query: { limit: "1", type: "budget.exhausted" } });
    assert.deepEqual([page.body["has_more"], page.body["last_id"]], [true, listed[0]?.id]);
    const next = await act(admin, "events.list", {
      params: { tenant: "acme" },
      query: { limit: "1", after: String(page.body["last_id"]) },
    });
    assert.deepEqual([next.body["has_more"], next.body["last_id"]], [false, listed[1]?.id]);
  }));

test("what one tenant is told of reaches no other's endpoints and lists; the platform's own go to the platform's", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, write, fact, events, addTenant, outbox, act, admin, principal } = await prepare(t, database);
    const other = await addTenant("other");
    const [ofAcme, ofOther, ofPlatform] = [await receiver(t), await receiver(t), await receiver(t)];
    await put("hook", { url: ofAcme.url, events: ["*"] });
    await put("hook", { url: ofOther.url, events: ["*"] }, "other");
    await act(admin, "platform_webhooks.put", { params: { platform_webhook: "hook" }, body: { url: ofPlatform.url, events: ["*"] } });
    await write(fact("same"));
    await write({ ...fact("same", other), data: { ...FACTS, budget: "of other" } });
    await write({ ...fact("same", PLATFORM_TENANT), data: { ...FACTS, budget: "of platform" } });
    assert.equal(await outbox.drain(), 3);
    const budgets = [ofAcme, ofOther, ofPlatform].map(({ received }) =>
      received.map(({ body }) => (JSON.parse(body) as { data: { budget: string } }).data.budget),
    );
    assert.deepEqual(budgets, [["monthly"], ["of other"], ["of platform"]]);
    assert.deepEqual([(await events()).length, (await events("other")).length], [1, 1]);
    assert.equal(((await act(admin, "platform_events.list")).body["data"] as unknown[]).length, 1);
    const made = await act(admin, "tenant_keys.create", { params: { tenant: "other" }, body: { permissions: ["tenant_admin"] } });
    const foreign = await principal(made.body["key"]);
    for (const id of ["webhooks.get", "webhooks.deliveries", "webhooks.rotate", "webhooks.test", "webhooks.delete"])
      await assert.rejects(act(foreign, id, { params: { tenant: "acme", webhook: "hook" } }), problem("not_found"), id);
    await assert.rejects(act(foreign, "events.list", { params: { tenant: "acme" } }), problem("not_found"));
  }));

test("events and their deliveries are let go after 90 days, and nothing is sealed in plain text", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, write, fact, outbox, events, time } = await prepare(t, database);
    const { url } = await receiver(t);
    const { secret = "" } = await put("hook", { url, events: ["*"] });
    await write(fact("old"));
    time.now += 30 * 24 * 3_600_000;
    await write(fact("new"));
    await outbox.drain();
    const rows = await database.asSuperuser(async (client) => {
      const { rows } = await client.query<{ text: string }>(
        "SELECT w::text AS text FROM webhooks w UNION ALL SELECT e::text FROM events e UNION ALL SELECT d::text FROM event_deliveries d",
      );
      return rows.map(({ text }) => text).join("\n");
    });
    for (const canary of [url, secret, "monthly", "100.5"])
      assert.ok(!rows.includes(canary) && !rows.includes(Buffer.from(canary).toString("hex")), canary);
    assert.equal((await events()).length, 2);
    time.now += 60 * 24 * 3_600_000 + 1;
    await outbox.drain();
    assert.equal((await events()).length, 1);
  }));

test("a tenant's admin has its own webhooks, and a developer none", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, admin, principal } = await prepare(t, database);
    const mint = async (role: string): Promise<Principal> =>
      principal((await act(admin, "tenant_keys.create", { params: { tenant: "acme" }, body: { permissions: [role] } })).body["key"]);
    const params = { tenant: "acme", webhook: "hook" };
    const body = { url: "https://93.184.216.34/", events: ["*"] };
    await assert.rejects(act(await mint("developer"), "webhooks.put", { params, body }), problem("permission_denied"));
    const own = await mint("tenant_admin");
    assert.equal((await act(own, "webhooks.put", { params, body })).status, 201);
    await assert.rejects(act(own, "platform_webhooks.list"), problem("permission_denied"));
  }));
