import assert from "node:assert/strict";
import { test } from "node:test";
import { withDatabases } from "../../../../test/support/postgres.ts";
import { Problem } from "../../../kernel/problem.ts";
import { MAX_BUDGETS } from "./model.ts";
import { openLedger, usd } from "./testing/ledger.ts";

const monthly = { scope: { kind: "tenant" }, unit: "usd", window: "month", cap: "10" };

function problem(code: Problem["code"], param: string | null = null) {
  return (error: unknown) => {
    assert.ok(error instanceof Problem, String(error));
    assert.deepEqual([error.code, error.param], [code, param]);
    return true;
  };
}

test("a budget is an idempotent upsert: omitted keeps, null clears, defaults are shown, and its revision guards it", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, admin, tenant } = await openLedger(t, database);
    await tenant("acme");
    const params = { tenant: "acme", budget: "cap" };
    const first = await act(admin, "budgets.put", { params, body: { ...monthly, display_name: "Cap" } });
    assert.deepEqual([first.status, first.revision], [201, 1]);
    const { id, created_at: _made, updated_at: _changed, ...body } = first.body;
    assert.deepEqual(body, {
      name: "cap",
      display_name: "Cap",
      set_by: "platform",
      ...monthly,
      mode: "reject",
      thresholds: [50, 80, 100],
      spent: null,
      held: null,
      remaining: null,
      exhausted: null,
      window_start: null,
      resets_at: null,
    });
    const { body: read } = await act(admin, "budgets.get", { params });
    assert.deepEqual([read["spent"], read["held"], read["remaining"], read["exhausted"]], ["0", "0", "10", false]);
    const change = { mode: "soft", thresholds: [90, 10, 90], display_name: null, cap: "0.000000000001", window: "rolling_36h" };
    const second = await act(admin, "budgets.put", { params, body: change, ifMatch: 1 });
    assert.deepEqual([second.status, second.revision, second.body["id"]], [200, 2, id]);
    const { mode, thresholds, display_name, cap, window, unit } = second.body;
    assert.deepEqual({ mode, thresholds, display_name, cap, window, unit }, { ...change, thresholds: [10, 90], unit: "usd" });
    const third = await act(admin, "budgets.put", { params, body: { mode: null, thresholds: null } });
    assert.deepEqual([third.body["mode"], third.body["thresholds"]], ["reject", [50, 80, 100]]);
    await assert.rejects(act(admin, "budgets.put", { params, body: {}, ifMatch: 2 }), problem("revision_mismatch"));
    await act(admin, "budgets.delete", { params });
    await assert.rejects(act(admin, "budgets.get", { params }), problem("not_found"));
    const again = await act(admin, "budgets.put", { params, body: monthly });
    assert.equal(again.status, 201);
    assert.notEqual(again.body["id"], id);
  }));

test("what makes no sense is refused, naming the field", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, admin, tenant } = await openLedger(t, database);
    const { key } = await tenant("acme");
    const other = await tenant("other");
    const refusals: readonly [Record<string, unknown>, string][] = [
      [{ ...monthly, cap: undefined }, "cap"],
      [{ ...monthly, unit: undefined }, "unit"],
      [{ ...monthly, window: undefined }, "window"],
      [{ ...monthly, scope: undefined }, "scope"],
      [{ ...monthly, cap: "-1" }, "cap"],
      [{ ...monthly, cap: "1e3" }, "cap"],
      [{ ...monthly, cap: "0.0000000000001" }, "cap"],
      [{ ...monthly, unit: "tokens", cap: "1.5" }, "cap"],
      [{ ...monthly, window: "year" }, "window"],
      [{ ...monthly, window: "rolling_9999d" }, "window"],
      [{ ...monthly, scope: { kind: "platform" } }, "scope.kind"],
      [{ ...monthly, scope: { kind: "tenant", project: "shop" } }, "scope.project"],
      [{ ...monthly, scope: { kind: "project", project: "nope" } }, "scope.project"],
      [{ ...monthly, scope: { kind: "key", key: other.key } }, "scope.key"],
      [{ ...monthly, scope: { kind: "user", feature: "x" } }, "scope.feature"],
    ];
    for (const [body, param] of refusals)
      await assert.rejects(
        act(admin, "budgets.put", { params: { tenant: "acme", budget: "cap" }, body }),
        problem("invalid_request", param),
        param,
      );
    const platform = { params: { platform_budget: "all" }, body: monthly };
    await assert.rejects(act(admin, "platform_budgets.put", platform), problem("invalid_request", "scope.kind"));
    const put = (budget: string, body: Record<string, unknown>) => act(admin, "budgets.put", { params: { tenant: "acme", budget }, body });
    await put("cap", { ...monthly, scope: { kind: "key", key } });
    await assert.rejects(put("cap", { unit: "tokens" }), problem("invalid_request", "cap"));
    await database.asSuperuser(async (client) => {
      const columns =
        "tenant_id, set_by_platform, scope, unit, budget_window, cap, mode, thresholds, definition, epoch, created_at, updated_at";
      await client.query(
        `INSERT INTO budgets (id, name_sealed, name_index, ${columns})
         SELECT gen_random_uuid(), '', convert_to(n::text, 'UTF8'), ${columns} FROM budgets, generate_series(2, ${MAX_BUDGETS}) n`,
      );
    });
    await assert.rejects(put("one-too-many", monthly), problem("invalid_request"));
  }));

test("a tenant sees what the platform set for it, and changes and ends only its own", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, admin, tenant, principal } = await openLedger(t, database);
    await tenant("acme");
    const params = { tenant: "acme", budget: "given" };
    await act(admin, "budgets.put", { params, body: monthly });
    const created = await act(admin, "tenant_keys.create", { params: { tenant: "acme" }, body: { permissions: ["finance"] } });
    const finance = await principal(created.body["key"]);
    assert.equal((await act(finance, "budgets.get", { params })).body["set_by"], "platform");
    await assert.rejects(act(finance, "budgets.put", { params, body: { cap: "1000" } }), problem("permission_denied"));
    await assert.rejects(act(finance, "budgets.delete", { params }), problem("permission_denied"));
    const own = { tenant: "acme", budget: "own" };
    const made = await act(finance, "budgets.put", { params: own, body: { ...monthly, cap: "1" } });
    assert.equal(made.body["set_by"], "tenant");
    assert.equal((await act(finance, "budgets.put", { params: own, body: { cap: "2" } })).body["cap"], "2");
    assert.equal((await act(admin, "budgets.put", { params: own, body: { cap: "3" } })).body["cap"], "3");
    await act(finance, "budgets.delete", { params: own });
    const developer = await principal(
      (await act(admin, "tenant_keys.create", { params: { tenant: "acme" }, body: { permissions: ["developer"] } })).body["key"],
    );
    await assert.rejects(act(developer, "budgets.get", { params }), problem("permission_denied"));
    for (const [route, adjusting] of [
      ["adjustments.create", { params: { tenant: "acme" }, body: { amount: "-1", reason: "mine" } }],
      ["platform_budgets.list", {}],
    ] as const)
      await assert.rejects(act(finance, route, adjusting), problem("permission_denied"));
  }));

test("an adjustment counts at once in each budget of money that an attempt like it would count in, and is read again as it was made", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const { act, admin } = ledger;
    const acme = await ledger.tenant("acme");
    await ledger.tenant("other");
    const bodies: Record<string, Record<string, unknown>> = {
      tenant: monthly,
      project: { ...monthly, scope: { kind: "project", project: "shop" } },
      user: { ...monthly, scope: { kind: "user", user: "ada" } },
      feature: { ...monthly, scope: { kind: "feature", feature: "search" } },
      rolling: { ...monthly, window: "rolling_1h" },
      tokens: { ...monthly, unit: "tokens", cap: "1000" },
    };
    for (const [name, body] of Object.entries(bodies)) await ledger.putBudget("acme", name, body);
    await ledger.putBudget("other", "tenant", monthly);
    await act(admin, "platform_budgets.put", { params: { platform_budget: "all" }, body: { ...monthly, scope: { kind: "platform" } } });
    await ledger.ledger.open(null);
    await ledger.ship(acme.id, { charge: usd(9), project: acme.project, user: "ada", feature: "search" });
    assert.equal(ledger.events.length, 12);
    const adjust = (amount: string, fields: Record<string, string> = {}) =>
      act(admin, "adjustments.create", { params: { tenant: "acme" }, body: { amount, reason: `because of ${amount}`, ...fields } });
    const made = await adjust("-2.5", { project: "shop", user: "ada" });
    assert.equal(made.status, 201);
    await adjust("3");
    const spent = async (name: string) => (await ledger.budget("acme", name))["spent"];
    const sums = Object.fromEntries(await Promise.all(Object.keys(bodies).map(async (name) => [name, await spent(name)])));
    assert.deepEqual(sums, { tenant: "9.5", project: "6.5", user: "6.5", feature: "9", rolling: "9.5", tokens: "15" });
    assert.equal((await ledger.budget("other", "tenant"))["spent"], "0");
    assert.equal((await act(admin, "platform_budgets.get", { params: { platform_budget: "all" } })).body["spent"], "9.5");
    const { body } = await act(admin, "adjustments.list", { params: { tenant: "acme" } });
    const listed = body["data"] as Record<string, unknown>[];
    const { created_at: _at, id: _id, ...first } = listed[0] as Record<string, unknown>;
    assert.deepEqual(first, {
      amount: "-2.5",
      project: "shop",
      key: null,
      user: "ada",
      feature: null,
      reason: "because of -2.5",
      created_by: admin.id,
    });
    assert.equal(listed.length, 2);
    // What the credit took below a threshold, a charge brings back over it: told again.
    await adjust("0.5", { project: "shop" });
    await adjust("2", { project: "shop" });
    assert.equal(await spent("project"), "9");
    const again = ledger.events.filter(({ data }) => data.budget === "project" && "threshold" in data && data.threshold === 80);
    assert.equal(again.length, 2);
    for (const amount of ["0", "1.2.3", "--1", "five"]) await assert.rejects(adjust(amount), problem("invalid_request", "amount"));
    await assert.rejects(adjust("1", { project: "nope" }), problem("invalid_request", "project"));
    await assert.rejects(
      act(admin, "adjustments.create", { params: { tenant: "nobody" }, body: { amount: "1", reason: "r" } }),
      problem("not_found"),
    );
  }));

test("names, users and reasons are unreadable in the database", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const acme = await ledger.tenant("acme");
    const canary = "canary-of-budgets";
    await ledger.putBudget("acme", canary, { ...monthly, scope: { kind: "user", user: canary }, display_name: canary });
    await ledger.putBudget("acme", "each", { ...monthly, scope: { kind: "user" }, thresholds: [1] });
    await ledger.ledger.open(null);
    await ledger.ship(acme.id, { charge: usd(1), user: canary });
    await ledger.act(ledger.admin, "adjustments.create", {
      params: { tenant: "acme" },
      body: { amount: "1", user: canary, feature: canary, reason: canary },
    });
    assert.equal((await ledger.budget("acme", canary))["spent"], "2");
    assert.ok(ledger.events.some(({ data }) => data.scope.id === canary));
    await database.asSuperuser(async (client) => {
      for (const table of ["budgets", "budget_balances", "budget_alerts", "ledger_adjustments", "events"]) {
        const { rows } = await client.query<{ text: string }>(`SELECT t::text AS text FROM ${table} t`);
        assert.ok(rows.length > 0, table);
        const needles = [canary, Buffer.from(canary).toString("hex")];
        for (const { text } of rows) for (const needle of needles) assert.ok(!text.includes(needle), `${table}: ${text}`);
      }
    });
  }));
