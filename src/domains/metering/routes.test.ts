import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import type { UsageCompletionsResponse, UsageCostsResponse } from "openai/resources/admin/organization/usage";
import { type KeyId, PLATFORM_TENANT, type ProjectId, type TenantId } from "../../kernel/ids.ts";
import { parseUsd } from "../../kernel/money.ts";
import { Problem } from "../../kernel/problem.ts";
import type { Route } from "../../kernel/route.ts";
import type { Database } from "../../storage/database/index.ts";
import { type TestDatabase, withDatabases } from "../../../test/support/postgres.ts";
import { bucketSpans } from "./reports.ts";
import { newId } from "./testing/facts.ts";
import { meteringOn, openTestJournal, temporaryDirectory, TestKeyrings } from "./testing/world.ts";

const DAY = 86_400;
/** Noon of 2026-07-01, UTC. */
const NOON = 1_782_907_200;

/** Metering with routes that are called as the route runner does. */
async function world(t: TestContext, database: TestDatabase) {
  const journal = await openTestJournal(await temporaryDirectory(t));
  const opened = await database.open();
  const keyrings = new TestKeyrings();
  const metering = meteringOn(journal, opened, keyrings);
  await metering.recover();
  t.after(async () => {
    await metering.close();
    await journal.close();
  });
  return { metering, keyrings, ask: caller(opened, metering.routes as unknown as readonly Route[]) };
}

function caller(database: Database, routes: readonly Route[]) {
  return async <Body>(id: string, tenant: TenantId, project: ProjectId | null, query: Record<string, unknown>): Promise<Body> => {
    const route = routes.find((candidate) => candidate.id === id);
    assert.ok(route !== undefined);
    const parsed = route.query.safeParse(query);
    if (!parsed.success) throw new Problem("invalid_request", { message: parsed.error.message });
    const answer = await database.forTenant(tenant, (transaction) =>
      route.handler({ allowed: { tenant, project }, transaction, params: {}, query: parsed.data, body: undefined, ifMatch: null }),
    );
    assert.deepEqual(route.result.parse(answer.body), answer.body, "the answer is not what the route says it is");
    return answer.body as Body;
  };
}

test("a caller sees its own finished calls at once, in the shapes of the OpenAI Admin API", (t) =>
  withDatabases(t, async (database, t) => {
    const { metering, ask } = await world(t, database);
    const [tenant, project] = [newId<TenantId>(), newId<ProjectId>()];
    const startedAt = NOON * 1000;
    await metering.call({ tenant, project, startedAt }, { input_uncached: 10, cache_read: 4, output: 5, reasoning: 2, audio_input: 3 });
    const usage = await ask<UsageCompletionsResponse>("usage.completions", tenant, project, {
      start_time: String(NOON - 10),
      end_time: String(NOON + 10),
    });
    assert.equal(usage.object, "page");
    const [bucket] = usage.data;
    assert.deepEqual(
      [usage.data.length, bucket?.object, bucket?.start_time, bucket?.end_time, usage.has_more, usage.next_page],
      [1, "bucket", NOON - 10, NOON + 10, false, null],
    );
    const [result] = bucket?.results ?? [];
    assert.ok(result?.object === "organization.usage.completions.result");
    assert.deepEqual(
      [
        result.input_tokens,
        result.output_tokens,
        result.num_model_requests,
        result.input_cached_tokens,
        result.input_uncached_tokens,
        result.input_audio_tokens,
        result.output_text_tokens,
        result.model,
        result.project_id,
      ],
      [17, 7, 1, 4, 13, 3, 7, null, null],
    );

    const costs = await ask<UsageCostsResponse>("usage.costs", tenant, project, {
      start_time: String(NOON - 10),
      end_time: String(NOON + 10),
    });
    const [cost] = costs.data[0]?.results ?? [];
    assert.ok(cost?.object === "organization.costs.result");
    assert.deepEqual(cost.amount, { value: 0.00000675, value_exact: "0.00000675", currency: "usd" });
  }));

test("a project's key sees its project only, a key above projects the tenant, and nobody another tenant, whatever they filter by", (t) =>
  withDatabases(t, async (database, t) => {
    const { metering, ask } = await world(t, database);
    const [tenant, stranger] = [newId<TenantId>(), newId<TenantId>()];
    const [mine, sibling, foreign] = [newId<ProjectId>(), newId<ProjectId>(), newId<ProjectId>()];
    for (const [owner, project] of [
      [tenant, mine],
      [tenant, mine],
      [tenant, sibling],
      [stranger, foreign],
    ] as const)
      await metering.call({ tenant: owner, project, startedAt: NOON * 1000 });
    const requests = async (owner: TenantId, project: ProjectId | null, filter: Record<string, unknown> = {}) => {
      const page = await ask<UsageCompletionsResponse>("usage.completions", owner, project, {
        start_time: NOON - 10,
        end_time: NOON + 10,
        ...filter,
      });
      return page.data
        .flatMap((bucket) => bucket.results)
        .reduce((sum, result) => sum + ("num_model_requests" in result ? (result.num_model_requests ?? 0) : 0), 0);
    };
    assert.equal(await requests(tenant, mine), 2);
    assert.equal(await requests(tenant, null), 3);
    assert.equal(await requests(tenant, null, { project_ids: sibling }), 1);
    assert.equal(await requests(tenant, mine, { project_ids: sibling }), 0);
    assert.equal(await requests(tenant, null, { project_ids: [foreign, "no-id", mine] }), 2);
    assert.equal(await requests(stranger, null), 1);
    assert.equal(await requests(PLATFORM_TENANT, null), 0);
  }));

test("usage and costs are grouped and filtered by project, key, model, feature and user, and the groups add up", (t) =>
  withDatabases(t, async (database, t) => {
    const { metering, ask } = await world(t, database);
    const tenant = newId<TenantId>();
    const model = newId<never>();
    for (let index = 0; index < 12; index++) {
      await metering.call({
        tenant,
        startedAt: NOON * 1000,
        ...(index % 2 === 0 ? { model, modelRequested: "large" } : {}),
        feature: `f${index % 3}`,
        user: index < 6 ? "ada" : null,
        key: `key000000${index % 4}` as KeyId,
      });
    }
    const ask2 = async (route: string, query: Record<string, unknown>) =>
      (
        await ask<{ data: { results: Record<string, unknown>[] }[] }>(route, tenant, null, {
          start_time: NOON - 10,
          end_time: NOON + 10,
          ...query,
        })
      ).data.flatMap((bucket) => bucket.results);
    const counts = async (query: Record<string, unknown>, field: string) =>
      (await ask2("usage.completions", query))
        .map((result) => [result[field], result["num_model_requests"]])
        .toSorted((a, b) => String(a[0]).localeCompare(String(b[0])));
    assert.deepEqual(await counts({ group_by: "feature" }, "feature"), [
      ["f0", 4],
      ["f1", 4],
      ["f2", 4],
    ]);
    assert.deepEqual(await counts({ group_by: ["user"] }, "user"), [
      ["ada", 6],
      [null, 6],
    ]);
    assert.deepEqual(await counts({ group_by: "user_id" }, "user_id"), [[null, 12]]);
    assert.deepEqual(
      (await counts({ group_by: "model" }, "model")).filter(([name]) => name === "large"),
      [["large", 6]],
    );
    assert.deepEqual(await counts({ group_by: "api_key_id", models: "large" }, "api_key_id"), [
      ["key0000000", 3],
      ["key0000002", 3],
    ]);
    assert.deepEqual(await counts({ group_by: "api_key_id", api_key_ids: ["key0000001", "nobody"] }, "api_key_id"), [["key0000001", 3]]);
    assert.deepEqual(await counts({ models: "absent" }, "model"), []);
    assert.deepEqual(await counts({ user_ids: "someone" }, "model"), []);
    assert.equal((await ask2("usage.completions", { group_by: "feature,user,model" })).length > 6, true);
    const line = (await ask2("usage.costs", { group_by: "line_item", line_items: "large" }))[0];
    assert.deepEqual(
      [line?.["line_item"], line?.["quantity"], (line?.["amount"] as { value_exact: string } | undefined)?.value_exact],
      ["large", 90, "0.000027"],
    );
    const exact = (await ask2("usage.costs", { group_by: "feature" })).map(
      (result) => parseUsd((result["amount"] as { value_exact: string }).value_exact) ?? 0n,
    );
    assert.equal(
      exact.reduce((a, b) => a + b, 0n),
      12n * 4_500_000n,
    );
  }));

test("buckets are pages: following next_page covers the time once, and a page of another tenant, report or hand is refused", (t) =>
  withDatabases(t, async (database, t) => {
    const { metering, ask } = await world(t, database);
    const [tenant, other] = [newId<TenantId>(), newId<TenantId>()];
    for (let day = 0; day < 10; day++) await metering.call({ tenant, startedAt: (NOON + day * DAY) * 1000 });
    const query = { start_time: NOON, end_time: NOON + 10 * DAY, limit: 3 };
    const seen: number[][] = [];
    let page: string | null = null;
    let first: string | null = null;
    do {
      const body: UsageCompletionsResponse = await ask("usage.completions", tenant, null, { ...query, ...(page === null ? {} : { page }) });
      seen.push(...body.data.map((bucket) => [bucket.start_time, bucket.end_time, bucket.results.length]));
      assert.equal(body.has_more, body.next_page !== null);
      page = body.next_page;
      first ??= page;
    } while (page !== null);
    assert.equal(seen.length, 11);
    assert.deepEqual([seen[0]?.[0], seen.at(-1)?.[1]], [NOON, NOON + 10 * DAY]);
    for (let index = 1; index < seen.length; index++) assert.equal(seen[index]?.[0], seen[index - 1]?.[1]);
    assert.equal(
      seen.reduce((sum, [, , results]) => sum + (results ?? 0), 0),
      10,
    );
    for (const [route, owner, given] of [
      ["usage.completions", other, first],
      ["usage.costs", tenant, first],
      ["usage.completions", tenant, "page_AAAA"],
      ["usage.completions", tenant, "x"],
    ] as const) {
      await assert.rejects(
        ask(route, owner, null, { ...query, page: given }),
        (thrown) => thrown instanceof Problem && thrown.param === "page",
      );
    }
    await assert.rejects(
      ask("usage.completions", tenant, null, { start_time: NOON, end_time: NOON }),
      (thrown) => thrown instanceof Problem && thrown.param === "end_time",
    );
  }));

test("bucketSpans tile any time exactly, aligned to UTC", () => {
  fc.assert(
    fc.property(
      fc.nat(10_000_000),
      fc.integer({ min: 1, max: 1_000_000 }),
      fc.constantFrom(60, 3600, DAY),
      fc.integer({ min: 1, max: 200 }),
      (from, length, width, limit) => {
        const spans = bucketSpans(from, from + length, width, limit);
        assert.equal(spans[0]?.start, from);
        for (const [index, span] of spans.entries()) {
          assert.ok(span.start < span.end && span.end - span.start <= width);
          assert.equal(Math.floor(span.start / width) * width, span.bucket);
          assert.equal(span.end, spans[index + 1]?.start ?? span.end);
        }
        assert.equal(spans.at(-1)?.end === from + length, spans.length < limit || spans.at(-1)?.end === from + length);
      },
    ),
  );
});

test("the platform's report adds up all tenants by any dimension; tags of different tenants that read the same are one group unless tenants are asked for", (t) =>
  withDatabases(t, async (database, t) => {
    const { metering, ask } = await world(t, database);
    const [one, other] = [newId<TenantId>(), newId<TenantId>()];
    const projects = [one, one, other].map((tenant) => [tenant, newId<ProjectId>()] as const);
    for (const [tenant, project] of projects) await metering.call({ tenant, project, feature: "search", startedAt: NOON * 1000 });
    const hold = await metering.call({ tenant: other, project: null, feature: "chat", startedAt: NOON * 1000 }, { output: 1_000_000 });
    assert.equal(hold.cost, 600_000_000_000n);
    type Row = {
      project: string | null;
      tenant_id: string | null;
      tenant: string | null;
      feature: string | null;
      requests: number;
      charge: string;
      cost: string;
    };
    const report = async (query: Record<string, unknown>) =>
      (await ask<{ data: Row[] }>("platform_usage.report", PLATFORM_TENANT, null, { start_time: NOON - 10, end_time: NOON + 10, ...query }))
        .data;
    assert.deepEqual(
      (await report({})).map((row) => [row.tenant_id, row.requests, row.charge]),
      [[null, 4, "0.6000135"]],
    );
    assert.deepEqual(
      (await report({ group_by: "tenant" })).map((row) => [row.tenant_id, row.requests, row.cost]),
      [
        [other, 2, "0.6000045"],
        [one, 2, "0.000009"],
      ],
    );
    assert.deepEqual(
      (await report({ group_by: "feature" })).map((row) => [row.tenant_id, row.feature, row.requests]),
      [
        [null, "chat", 1],
        [null, "search", 3],
      ],
    );
    assert.equal((await report({ group_by: "tenant,feature" })).length, 3);
    assert.deepEqual(
      (await report({ group_by: "project" })).map((row) => String(row.project)).toSorted(),
      ["null", ...projects.map(([tenant, project]) => `project-${tenant.slice(-4)}-${project.slice(-4)}`)].toSorted(),
    );
    assert.equal(
      (await report({ group_by: "tenant", tenant: one })).length,
      1,
      "a tenant without a name, being archived, is found by its id",
    );
    await assert.rejects(report({ tenant: "nobody" }), (thrown) => thrown instanceof Problem && thrown.param === "tenant");
    assert.deepEqual(await report({ start_time: NOON + 10, end_time: NOON + 20 }), []);
  }));

test("usage rows are listed newest first, page by page, with money as exact decimal strings", (t) =>
  withDatabases(t, async (database, t) => {
    const { metering, ask } = await world(t, database);
    const settled = [];
    for (let index = 0; index < 7; index++) settled.push(await metering.call({ tenant: newId<TenantId>() }));
    const ids = settled.map((settlement) => settlement.attempt).toSorted();
    type Page = { data: Record<string, unknown>[]; has_more: boolean; last_id: string | null };
    const list = (query: Record<string, unknown>) => ask<Page>("platform_usage.hops", PLATFORM_TENANT, null, query);
    const seen: unknown[] = [];
    for (let after: string | null = null; ;) {
      const page: Page = await list({ limit: "3", ...(after === null ? {} : { after }) });
      seen.push(...page.data.map((row) => row["id"]));
      after = page.last_id;
      if (!page.has_more) break;
    }
    assert.deepEqual(seen, ids.toReversed());
    const [row] = (await list({ limit: 1 })).data;
    assert.deepEqual(
      [
        row?.["cost"],
        row?.["charge"],
        row?.["status"],
        row?.["estimated"],
        row?.["dispatch_unknown"],
        row?.["feature"],
        row?.["user"],
        row?.["model"],
      ],
      ["0.0000045", "0.0000045", "completed", false, false, "search", "ada", "small"],
    );
    assert.equal((await list({ order: "asc", limit: 1 })).data[0]?.["id"], ids[0]);
    await assert.rejects(list({ after: "x" }), (thrown) => thrown instanceof Problem && thrown.param === "after");
  }));
