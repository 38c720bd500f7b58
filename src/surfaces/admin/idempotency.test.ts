import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { z } from "zod";
import { forged } from "../../../test/contracts/toy-platform.ts";
import { type TestDatabase, withDatabases } from "../../../test/support/postgres.ts";
import type { Principal, Proofs } from "../../domains/identity/index.ts";
import { createIdMaker, type TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { systemRandom } from "../../kernel/random.ts";
import { routeBuilder } from "../../kernel/route.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import { createTenantKey, createTenantKeyring } from "../../storage/secrets/index.ts";
import { createLog } from "../../telemetry/index.ts";
import { createHttpServer } from "../http/server.ts";
import { mountRoutes, type RunnerNeeds } from "./index.ts";

const HOUR_MS = 3_600_000;

test("the same key and body get the same answer without what is shown once, and the action runs once", async (t) => {
  await withDatabases(t, async (database, t) => {
    const { post, ran } = await serverOn(database, t);
    const first = await post({ name: "a" }, { key: "k1" });
    const again = await post({ name: "a" }, { key: "k1" });
    assert.deepEqual([first.status, first.body["secret"], first.replayed], [201, "shown once 1", undefined]);
    assert.deepEqual([again.status, again.body, again.etag, again.replayed], [201, { id: 1, name: "a" }, first.etag, "true"]);
    assert.equal(await ran(), 1);
  });
});

test("the same key with another body, or another path, is 409 and runs nothing", async (t) => {
  await withDatabases(t, async (database, t) => {
    const { post, ran } = await serverOn(database, t);
    await post({ name: "a" }, { key: "k1" });
    for (const answer of [await post({ name: "b" }, { key: "k1" }), await post({ name: "a" }, { key: "k1", thing: "other" })]) {
      assert.deepEqual([answer.status, answer.code], [409, "idempotency_mismatch"]);
    }
    assert.equal(await ran(), 1);
  });
});

test("concurrent duplicates run once and get one answer", async (t) => {
  await withDatabases(t, async (database, t) => {
    const { post, ran } = await serverOn(database, t);
    const answers = await Promise.all(Array.from({ length: 8 }, () => post({ name: "a" }, { key: "k1" })));
    assert.deepEqual(new Set(answers.map(({ status, body }) => JSON.stringify([status, body["id"]]))).size, 1);
    assert.equal(answers.filter(({ body }) => "secret" in body).length, 1);
    assert.equal(await ran(), 1);
  });
});

test("an action that failed is not remembered: its retry runs", async (t) => {
  await withDatabases(t, async (database, t) => {
    const { post, ran } = await serverOn(database, t);
    assert.equal((await post({ name: "refused once" }, { key: "k1" })).status, 409);
    assert.equal((await post({ name: "refused once" }, { key: "k1" })).status, 201);
    assert.equal(await ran(), 1);
  });
});

test("another principal's key, another key and no key are other requests", async (t) => {
  await withDatabases(t, async (database, t) => {
    const { post, ran } = await serverOn(database, t);
    for (const [key, principal] of [
      ["k1", "p1"],
      ["k1", "p2"],
      ["k2", "p1"],
      [null, "p1"],
      [null, "p1"],
    ] as const) {
      assert.equal((await post({ name: "a" }, { key, principal })).status, 201);
    }
    assert.equal(await ran(), 5);
  });
});

test("after 24 hours the key is free again, and what was remembered is gone", async (t) => {
  await withDatabases(t, async (database, t) => {
    const { post, ran, time } = await serverOn(database, t);
    await post({ name: "a" }, { key: "k1" });
    time.now += 23 * HOUR_MS;
    assert.equal((await post({ name: "a" }, { key: "k1" })).replayed, "true");
    time.now += HOUR_MS;
    assert.equal((await post({ name: "b" }, { key: "k1" })).status, 201);
    assert.equal(await ran(), 2);
    assert.equal(await database.asSuperuser(async (client) => (await client.query("SELECT * FROM idempotency_keys")).rows.length), 1);
  });
});

test("what is remembered holds neither the secret nor, in clear, the answer", async (t) => {
  await withDatabases(t, async (database, t) => {
    const { post } = await serverOn(database, t);
    await post({ name: "canary-name" }, { key: "k1" });
    const text = await database.asSuperuser(async (client) =>
      JSON.stringify((await client.query("SELECT encode(response, 'escape') AS response, * FROM idempotency_keys")).rows),
    );
    assert.doesNotMatch(text, /canary-name|shown once|k1"/);
  });
});

/** One POST route on a real database, whose handler leaves a row each time it runs to its end. */
async function serverOn(database: TestDatabase, t: TestContext) {
  const opened = await database.open();
  const time = { now: Date.parse("2026-11-22") };
  const makeId = createIdMaker({ now: () => time.now, monotonic: () => time.now }, systemRandom);
  const tenant = makeId<TenantId>();
  const keyring = createTenantKeyring(tenant, new Map([[1, createTenantKey()]]));
  const needs: RunnerNeeds = {
    clock: { now: () => time.now, monotonic: () => time.now },
    makeId,
    forTenant: (id, work) => opened.forTenant(id, work),
    authenticate: (credential: string | null) => forged<Principal>({ kind: "key", id: credential, tenant }),
    allow: (principal, permission) => forged({ principal, permission, tenant, project: null }),
    findTenant: () => tenant,
    writeAudit: async (transaction, { id, actor, actorKind, action, target, status, at }) => {
      await transaction
        .insertInto("audit_rows")
        .values({ id, actor, actor_kind: actorKind, action, target, status, at: new Date(at) })
        .execute();
    },
    bumpConfig: async () => 0,
    catchUp: async () => {},
    keyringOf: () => keyring,
    refused: () => {},
  };
  const server = createHttpServer({ newId: makeId, log: createLog("silent") });
  mountRoutes(server, [thingsCreate()], needs);
  t.after(() => server.close());
  const post = async (body: object, { key, principal = "p1", thing = "x" }: { key: string | null; principal?: string; thing?: string }) => {
    const headers = {
      authorization: `Bearer ${principal}`,
      "content-type": "application/json",
      ...(key === null ? {} : { "idempotency-key": key }),
    };
    const answer = await server.inject({ method: "POST", url: `/admin/v1/things/${thing}/grow`, headers, payload: JSON.stringify(body) });
    const json = answer.json() as Record<string, unknown> & { error?: { code: string } };
    return {
      status: answer.statusCode,
      body: json,
      code: json.error?.code,
      etag: answer.headers["etag"],
      replayed: answer.headers["idempotent-replayed"],
    };
  };
  const ran = () => database.asSuperuser(async (client) => (await client.query("SELECT * FROM audit_rows")).rows.length);
  return { post, ran, time };
}

function thingsCreate() {
  let runs = 0;
  let refused = false;
  return routeBuilder<Proofs, TenantTransaction>()({
    id: "things.grow",
    method: "POST",
    path: "/admin/v1/things/{thing}/grow",
    summary: "Grow a thing.",
    permission: "platform:catalog:write",
    reach: "platform",
    params: z.strictObject({ thing: z.string() }),
    query: z.strictObject({}),
    body: z.strictObject({ name: z.string() }),
    result: z.strictObject({ id: z.number(), name: z.string(), secret: z.string() }),
    example: { params: { thing: "x" }, body: { name: "a" } },
    audit: { action: "things.grow" },
    handler: async ({ body }) => {
      if (body.name === "refused once" && !refused) {
        refused = true;
        throw new Problem("conflict");
      }
      runs += 1;
      return { status: 201, body: { id: runs, name: body.name, secret: `shown once ${runs}` }, revision: runs, shownOnce: ["secret"] };
    },
  });
}
