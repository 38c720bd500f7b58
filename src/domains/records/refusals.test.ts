import assert from "node:assert/strict";
import { test } from "node:test";
import { openConfiguration } from "../../../test/support/configuration.ts";
import { silentLog, withDatabases } from "../../../test/support/postgres.ts";
import { systemClock } from "../../kernel/clock.ts";
import { createIdMaker, type KeyId, PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import { Problem, type ProblemCode } from "../../kernel/problem.ts";
import { systemRandom } from "../../kernel/random.ts";
import { DatabaseUnavailable } from "../../storage/database/index.ts";
import { createRefusals, type RefusalsNeeds } from "./refusals.ts";

const makeId = createIdMaker(systemClock, systemRandom);
const ACME = makeId<TenantId>();
const MINUTE = 60_000;
const START = Date.parse("2026-11-22T08:00:30Z");

interface Written {
  readonly tenant: TenantId;
  readonly rows: readonly Record<string, unknown>[];
}

/** Refusals over a database that only takes rows down, and keys of the form `<owner>:<id>`. */
function setting(more: Partial<RefusalsNeeds> = {}) {
  const time = { now: START };
  const written: Written[] = [];
  const warnings: object[] = [];
  const forTenant = async (tenant: TenantId, work: (tx: never) => Promise<unknown>) => {
    const values = (rows: Record<string, unknown>[]) => ({ execute: async () => void written.push({ tenant, rows }) });
    return work({ insertInto: () => ({ values }) } as never);
  };
  const refusals = createRefusals({
    database: { forTenant } as unknown as RefusalsNeeds["database"],
    clock: { now: () => time.now, monotonic: () => time.now },
    makeId,
    log: { ...silentLog, warn: (fields) => void warnings.push(fields) },
    presented: (credential) => ({ id: credential as KeyId, hash: Buffer.from(credential) }),
    ownersOf: async (keys) => new Map(keys.filter(({ id }) => id.startsWith("acme:")).map((key) => [key, ACME])),
    ...more,
  });
  const note = (code: ProblemCode, { id = "key1", tenant = ACME, route = "projects.put", from = "10.0.0.1" } = {}) =>
    refusals.note({ route, principal: { id, kind: "key", tenant }, credential: "x", remoteAddress: from, problem: new Problem(code) });
  const stranger = (credential: string, code: ProblemCode = "invalid_api_key") =>
    refusals.note({ route: "projects.put", principal: null, credential, remoteAddress: "10.0.0.9", problem: new Problem(code) });
  return { time, written, warnings, refusals, note, stranger };
}

test("the refusals of one principal, route, code and minute are one row with their number, written when the minute is over", async () => {
  const { time, written, refusals, note } = setting();
  for (let n = 0; n < 1_000; n++) note("permission_denied");
  note("not_found", { route: "projects.get", from: "10.0.0.1" });
  note("not_found", { route: "projects.get", from: "10.0.0.2" });
  note("permission_denied", { id: "key2" });
  await refusals.flush();
  assert.equal(written.length, 0, "the minute is not over");
  time.now += MINUTE;
  note("permission_denied");
  await refusals.flush();
  await refusals.flush();
  const rows = written.flatMap((each) => each.rows);
  assert.deepEqual(
    rows.map((row) => [row["actor"], row["action"], row["target"], row["status"], row["count"], row["remote_address"], row["at"]]),
    [
      ["key1", "refused.permission_denied", "projects.put", 403, 1_000, "10.0.0.1", new Date(START - 30_000)],
      ["key1", "refused.not_found", "projects.get", 404, 2, null, new Date(START - 30_000)],
      ["key2", "refused.permission_denied", "projects.put", 403, 1, "10.0.0.1", new Date(START - 30_000)],
    ],
  );
  await refusals.flush(true);
  assert.equal(written.flatMap((each) => each.rows).length, 4);
});

test("only what authorization refused is one: other problems and failures leave no row", async () => {
  const { written, refusals, note } = setting();
  for (const code of ["invalid_request", "conflict", "rate_limit_exceeded", "upstream_error", "unknown_route"] as const)
    assert.equal(note(code), null);
  assert.equal(refusals.note({ route: "r", principal: null, credential: null, remoteAddress: "::1", problem: new TypeError("bug") }), null);
  for (const code of [
    "permission_denied",
    "tenant_suspended",
    "not_found",
    "model_not_found",
    "expired_api_key",
    "invalid_api_key",
  ] as const)
    assert.equal(note(code), code);
  await refusals.flush(true);
  assert.equal(written.flatMap((each) => each.rows).length, 6);
});

test("a refused credential that was a tenant's key is in that tenant's trail; one that is nobody's is counted and forgotten", async () => {
  const { written, refusals, stranger } = setting();
  for (let n = 0; n < 7; n++) stranger("acme:revoked");
  stranger("acme:expired", "expired_api_key");
  assert.equal(stranger("nobody:1"), "invalid_api_key");
  await refusals.flush(true);
  assert.deepEqual(
    written.flatMap(({ tenant, rows }) => rows.map((row) => [tenant, row["actor"], row["action"], row["count"]])),
    [
      [ACME, "acme:revoked", "refused.invalid_api_key", 7],
      [ACME, "acme:expired", "refused.expired_api_key", 1],
    ],
  );
});

test("a flood of made-up credentials, or of one tenant's refusals, is bounded, said, and crowds nobody else out", async () => {
  const { written, warnings, refusals, note, stranger } = setting();
  for (let n = 0; n < 50_000; n++) stranger(`acme:${n}`);
  for (let n = 0; n < 5_000; n++) note("permission_denied", { id: `key${n}`, tenant: PLATFORM_TENANT });
  note("permission_denied", { tenant: makeId<TenantId>() });
  await refusals.flush(true);
  const perTenant = Map.groupBy(written, ({ tenant }) => tenant);
  assert.deepEqual(
    [...perTenant.values()].map((each) => each.flatMap(({ rows }) => rows).length).sort((a, b) => a - b),
    [1, 500, 500],
  );
  assert.deepEqual(warnings, [{ refusals: 49_000 + 4_500 + 500 }]);
});

test("what the database did not take is written with the next flush, once", async () => {
  let away = true;
  const inner = setting();
  const forTenant = ((tenant: TenantId, work: (tx: never) => Promise<unknown>) => {
    if (away) throw new DatabaseUnavailable("gone");
    const values = (rows: Record<string, unknown>[]) => ({ execute: async () => void inner.written.push({ tenant, rows }) });
    return work({ insertInto: () => ({ values }) } as never);
  }) as unknown as RefusalsNeeds["database"]["forTenant"];
  const { refusals, note } = setting({ database: { forTenant } });
  note("permission_denied");
  await assert.rejects(refusals.flush(true), DatabaseUnavailable);
  note("permission_denied");
  away = false;
  await refusals.flush(true);
  await refusals.flush(true);
  assert.deepEqual(
    inner.written.map(({ rows }) => rows.map((row) => row["count"])),
    [[2]],
  );
});

test("a trail that cannot be written to keeps no other tenant's refusals from theirs", async () => {
  const [broken, whole] = [makeId<TenantId>(), makeId<TenantId>()];
  const inner = setting();
  const forTenant = (async (tenant: TenantId, work: (tx: never) => Promise<unknown>) => {
    if (tenant === broken) throw new Error("this tenant's rows are refused");
    const values = (rows: Record<string, unknown>[]) => ({ execute: async () => void inner.written.push({ tenant, rows }) });
    return work({ insertInto: () => ({ values }) } as never);
  }) as unknown as RefusalsNeeds["database"]["forTenant"];
  const { refusals, note } = setting({ database: { forTenant } });
  note("permission_denied", { tenant: broken });
  note("permission_denied", { tenant: whole });
  await assert.rejects(refusals.flush(true), /are refused/);
  assert.deepEqual(
    inner.written.map(({ tenant }) => tenant),
    [whole],
  );
});

test("a revoked key and an expired one are recognised by their secret, and a guessed secret accuses nobody", (t) =>
  withDatabases(t, async (database, t) => {
    const connection = await database.open();
    const time = { now: START };
    const clock = { now: () => time.now, monotonic: () => performance.now() };
    const { act, identity, ...configuration } = await openConfiguration(t, connection, { clock });
    const admin = await configuration.admin();
    await act(admin, "tenants.put", { params: { tenant: "acme" } });
    const create = async (body: object) =>
      (await act(admin, "tenant_keys.create", { params: { tenant: "acme" }, body })).body as { id: string; key: string };
    const revoked = await create({ name: "revoked" });
    const expired = await create({ name: "expired", expires_at: Math.floor(START / 1000) + 1 });
    const kept = await create({ name: "kept" });
    await act(admin, "tenant_keys.delete", { params: { tenant: "acme", id: revoked.id } });
    time.now += MINUTE;

    const refusals = createRefusals({
      database: connection,
      clock,
      makeId,
      log: silentLog,
      presented: identity.presented.of,
      ownersOf: identity.presented.owners,
    });
    const present = async (credential: string) => {
      try {
        await identity.authenticate(credential, { family: "chat.completions", address: "::1" });
        assert.fail("it should be refused");
      } catch (problem) {
        refusals.note({ route: "openai.chat.completions", principal: null, credential, remoteAddress: "::1", problem });
      }
    };
    const guess = identity.presented.of(kept.key);
    assert.ok(guess !== null);
    await present(revoked.key);
    await present(expired.key);
    const wrong = `${kept.key.slice(0, 15)}${"A".repeat(43)}`;
    await present(`${wrong}${"0".repeat(6)}`);
    assert.deepEqual((await identity.presented.owners([{ ...guess, hash: Buffer.alloc(32) }])).size, 0);
    await refusals.flush(true);

    const trail = (await act(admin, "tenant_audit.list", { params: { tenant: "acme" } })).body["data"] as Record<string, unknown>[];
    assert.deepEqual(
      new Map(trail.map((row) => [row["actor"], row["action"]])),
      new Map([
        [expired.id, "refused.expired_api_key"],
        [revoked.id, "refused.invalid_api_key"],
      ]),
    );
    assert.equal(trail.length, 2);
  }));
