import assert from "node:assert/strict";
import { test } from "node:test";
import { openConfiguration } from "../../../test/support/configuration.ts";
import { withDatabases } from "../../../test/support/postgres.ts";
import { isUuid, type KeyId, type ModelId, type ProjectId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import type { ModelRequest } from "../../kernel/request.ts";
import type { Principal } from "../identity/index.ts";
import type { CallFacts, Verdict } from "./index.ts";

const acme = { tenant: "acme" };
const shop = { ...acme, project: "shop" };
const rate = { ...acme, tenant_limit: "rate" };
const sixty = { scope: { kind: "tenant" }, dimension: "requests", limit: 60 };

type Configuration = Awaited<ReturnType<typeof openConfiguration>>;

/** A tenant with a project and a key, and the means to call as it. */
async function prepare(configuration: Configuration) {
  const { act, tenants, capacity, snapshot } = configuration;
  const admin = await configuration.admin();
  await act(admin, "tenants.put", { params: acme });
  const project = (await act(admin, "projects.put", { params: shop })).body["id"] as ProjectId;
  const created = (await act(admin, "project_keys.create", { params: shop })).body;
  const principal = await configuration.principal(created["key"]);
  const call = (by: Principal = principal, model = "model"): Verdict => {
    const { record } = tenants.resolve(by, snapshot.current);
    const facts: CallFacts = {
      tenant: record.id,
      tier: record.tier,
      project: by.project,
      key: by.key?.id ?? null,
      model: model as ModelId,
      deployment: null,
      request: { body: Buffer.alloc(30) } as unknown as ModelRequest,
      bound: () => ({ input: 10, output: 10, certainty: "proof" }),
    };
    return capacity.permit(facts) as Verdict;
  };
  /** The name of the limit that refuses, once `most` calls have passed. */
  const refusedBy = (by?: Principal, most = 1_000): string | null => {
    for (let index = 0; index < most; index++) {
      const verdict = call(by);
      if (verdict.kind === "refused") return verdict.refusal.limit.name;
    }
    return null;
  };
  return { admin, project, keyId: created["id"] as KeyId, call, refusedBy };
}

function problem(code: Problem["code"], param: string | null = null) {
  return (error: unknown) => {
    assert.ok(error instanceof Problem, String(error));
    assert.deepEqual([error.code, error.param], [code, param]);
    return true;
  };
}

test("a limit is an idempotent upsert: omitted keeps, null clears, defaults are shown, and its revision guards it", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const { act } = configuration;
    const { admin } = await prepare(configuration);
    const first = await act(admin, "tenant_limits.put", { params: rate, body: { ...sixty, display_name: "Rate" } });
    assert.deepEqual([first.status, first.revision], [201, 1]);
    assert.deepEqual(
      { ...first.body, id: isUuid(String(first.body["id"])), created_at: 0, updated_at: 0 },
      {
        id: true,
        name: "rate",
        display_name: "Rate",
        set_by: "platform",
        scope: { kind: "tenant" },
        dimension: "requests",
        limit: 60,
        per: "minute",
        burst: 10,
        window: "gcra",
        mode: null,
        created_at: 0,
        updated_at: 0,
      },
    );
    const changed = await act(admin, "tenant_limits.put", { params: rate, body: { burst: 25, limit: 120 } });
    assert.deepEqual([changed.status, changed.revision, changed.body["burst"], changed.body["display_name"]], [200, 2, 25, "Rate"]);
    const cleared = await act(admin, "tenant_limits.put", { params: rate, body: { burst: null, display_name: null } });
    assert.deepEqual([cleared.body["burst"], cleared.body["display_name"]], [20, null]);
    assert.deepEqual((await act(admin, "tenant_limits.get", { params: rate })).body, cleared.body);
    await assert.rejects(act(admin, "tenant_limits.put", { params: rate, body: {}, ifMatch: 1 }), problem("revision_mismatch"));

    const tokens = await act(admin, "tenant_limits.put", {
      params: { ...acme, tenant_limit: "tokens" },
      body: { scope: { kind: "project" }, dimension: "tokens", limit: 1_000, mode: "strict", window: "sliding" },
    });
    assert.deepEqual([tokens.body["burst"], tokens.body["mode"], tokens.body["window"]], [null, "strict", "sliding"]);
    const list = (await act(admin, "tenant_limits.list", { params: acme })).body["data"] as { name: string }[];
    assert.deepEqual(
      list.map(({ name }) => name),
      ["rate", "tokens"],
    );
    await act(admin, "tenant_limits.delete", { params: rate });
    await assert.rejects(act(admin, "tenant_limits.get", { params: rate }), problem("not_found"));
    assert.equal((await act(admin, "tenant_limits.put", { params: rate, body: sixty })).status, 201, "an archived name is free");
  }));

test("what a dimension, a window or an owner has no use for is refused by name", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const { act } = configuration;
    const { admin } = await prepare(configuration);
    const slots = { scope: { kind: "tenant" }, dimension: "concurrency", limit: 4 };
    const cases: [object, string][] = [
      [{ dimension: "requests", limit: 1 }, "scope"],
      [{ scope: { kind: "tenant" }, limit: 1 }, "dimension"],
      [{ scope: { kind: "tenant" }, dimension: "requests" }, "limit"],
      [{ ...slots, per: "minute" }, "per"],
      [{ ...slots, window: "sliding" }, "window"],
      [{ ...slots, burst: 5 }, "burst"],
      [{ ...sixty, window: "sliding", burst: 5 }, "burst"],
      [{ ...sixty, mode: "strict" }, "mode"],
      [{ ...sixty, scope: { kind: "deployment" } }, "scope.kind"],
      [{ ...sixty, scope: { kind: "key", key: "0000000000" } }, "scope.key"],
      [{ ...sixty, scope: { kind: "tenant", key: "0000000000" } }, "scope.key"],
      [{ ...sixty, scope: { kind: "project", project: "none" } }, "scope.project"],
      [{ ...sixty, scope: { kind: "model", model: "none" } }, "scope.model"],
      [{ ...sixty, scope: { kind: "tenant", deployment: "main" } }, "scope.deployment"],
    ];
    for (const [body, param] of cases)
      await assert.rejects(
        act(admin, "tenant_limits.put", { params: rate, body }),
        problem("invalid_request", param),
        JSON.stringify(body),
      );
    const forAll = { ...sixty, scope: { kind: "project", project: "shop" } };
    await assert.rejects(
      act(admin, "platform_limits.put", { params: { platform_limit: "x" }, body: forAll }),
      problem("invalid_request", "scope.project"),
    );
    for (const body of [
      { ...sixty, limit: 0 },
      { ...sixty, limit: 500_000_001 },
      { ...sixty, limit: 1.5 },
      { ...sixty, per: "hour" },
    ])
      await assert.rejects(act(admin, "tenant_limits.put", { params: rate, body }));
  }));

test("a limit is in force for the next call; so are its change, its end, a tenant's tier, and what the platform sets for everybody", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const { act } = configuration;
    const { admin, refusedBy } = await prepare(configuration);
    assert.equal(refusedBy(), null);
    await act(admin, "tenant_limits.put", { params: rate, body: { ...sixty, burst: 3 } });
    assert.equal(refusedBy(), "rate");
    await act(admin, "tenant_limits.put", { params: rate, body: { burst: 30 } });
    assert.equal(refusedBy(undefined, 20), null, "more at once is let through at once");
    assert.equal(refusedBy(), "rate");
    await act(admin, "tenant_limits.delete", { params: rate });
    assert.equal(refusedBy(), null);

    await act(admin, "tiers.put", { params: { tier: "gold" }, body: { display_name: "Gold" } });
    await act(admin, "tier_limits.put", { params: { tier: "gold", tier_limit: "golden" }, body: { ...sixty, burst: 2 } });
    assert.equal(refusedBy(), null, "a tier that nobody has limits nobody");
    await act(admin, "tenants.put", { params: acme, body: { tier: "gold" } });
    assert.equal(refusedBy(), "golden");
    const slots = { params: { tier: "gold", tier_limit: "slots" }, body: { scope: { kind: "key" }, dimension: "concurrency", limit: 1 } };
    await act(admin, "tier_limits.put", slots);
    assert.equal(((await act(admin, "tier_limits.list", { params: { tier: "gold" } })).body["data"] as object[]).length, 2);
    assert.equal(((await act(admin, "platform_limits.list")).body["data"] as object[]).length, 0);
    await assert.rejects(act(admin, "tier_limits.get", { params: { tier: "silver", tier_limit: "golden" } }), problem("not_found"));
    await act(admin, "tiers.delete", { params: { tier: "gold" } });
    assert.equal(refusedBy(), null);
    await assert.rejects(act(admin, "tier_limits.get", { params: { tier: "gold", tier_limit: "golden" } }), problem("not_found"));

    await act(admin, "platform_limits.put", { params: { platform_limit: "floor" }, body: { ...sixty, burst: 1 } });
    assert.equal(refusedBy(), "floor");
    await act(admin, "platform_limits.delete", { params: { platform_limit: "floor" } });
    assert.equal(refusedBy(), null);
  }));

test("a limit of one key or project is shown by it, and outlives its archiving without limiting anybody else", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const { act } = configuration;
    const { admin, keyId, project, refusedBy } = await prepare(configuration);
    const ofProject = {
      params: { ...acme, tenant_limit: "of-shop" },
      body: { ...sixty, scope: { kind: "project", project: "shop" }, burst: 1 },
    };
    const ofKey = { params: { ...acme, tenant_limit: "of-key" }, body: { ...sixty, scope: { kind: "key", key: keyId }, burst: 1 } };
    assert.deepEqual((await act(admin, "tenant_limits.put", ofKey)).body["scope"], { kind: "key", key: keyId });
    assert.equal(refusedBy(), "of-key");
    await act(admin, "tenant_limits.delete", { params: ofKey.params });
    assert.deepEqual((await act(admin, "tenant_limits.put", ofProject)).body["scope"], { kind: "project", project: "shop" });
    assert.equal(refusedBy(), "of-shop");
    await act(admin, "tenant_limits.put", ofKey);

    await act(admin, "projects.delete", { params: shop });
    assert.deepEqual((await act(admin, "tenant_limits.get", { params: ofProject.params })).body["scope"], { kind: "project", project });
    await act(admin, "projects.put", { params: shop });
    const again = await configuration.principal((await act(admin, "project_keys.create", { params: shop })).body["key"]);
    assert.equal(refusedBy(again), null, "a project of the same name is another one, and its key another key");
    await assert.rejects(act(admin, "tenant_limits.put", ofKey), problem("invalid_request", "scope.key"));
  }));

test("a tenant reads its own limits and writes none of them", (t) =>
  withDatabases(t, async (database, t) => {
    const configuration = await openConfiguration(t, await database.open());
    const { act } = configuration;
    const { admin } = await prepare(configuration);
    await act(admin, "tenant_limits.put", { params: rate, body: sixty });
    const { key } = (await act(admin, "tenant_keys.create", { params: acme, body: { permissions: ["tenant_admin"] } })).body;
    const own = await configuration.principal(key);
    assert.equal((await act(own, "tenant_limits.get", { params: rate })).body["limit"], 60);
    await assert.rejects(act(own, "tenant_limits.put", { params: rate, body: { limit: 600 } }), problem("permission_denied"));
    await assert.rejects(act(own, "tenant_limits.delete", { params: rate }), problem("permission_denied"));
  }));
