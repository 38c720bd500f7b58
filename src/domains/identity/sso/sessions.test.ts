import assert from "node:assert/strict";
import { test } from "node:test";
import { type TestDatabase, withDatabases } from "../../../../test/support/postgres.ts";
import { createIdMaker, PLATFORM_TENANT, type TenantId, type Uuid } from "../../../kernel/ids.ts";
import { systemRandom } from "../../../kernel/random.ts";
import { createTenantKey, createTenantKeyring } from "../../../storage/secrets/index.ts";
import { createSessions, type SessionSubject } from "./sessions.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const PROVIDER = { id: "01900000-0000-7000-8000-0000000000cc" as Uuid, issuer: "https://id.acme.test" };
const ADA: SessionSubject = { kind: "member", id: "ada" };

test("a session ends after an hour without a use, and after twelve whatever its uses", async (t) => {
  await withDatabases(t, async (database) => {
    const { open, find, time } = await sessionsOn(database);
    const idle = await open(ADA);
    time.now += HOUR_MS - 1;
    assert.ok(await find(idle));
    time.now += HOUR_MS;
    assert.equal(await find(idle), null);
    const used = await open(ADA);
    const begun = time.now;
    while (time.now < begun + 12 * HOUR_MS - 30 * MINUTE_MS) {
      time.now += 30 * MINUTE_MS;
      assert.ok((await find(used)) !== null || time.now >= begun + 12 * HOUR_MS);
    }
    time.now = begun + 12 * HOUR_MS;
    assert.equal(await find(used), null);
  });
});

test("of one subject's sessions the newest twenty live, and what has ended is gone with the next sign-in", async (t) => {
  await withDatabases(t, async (database) => {
    const { open, find, rows, time } = await sessionsOn(database);
    const other = await open({ kind: "key", id: "other" });
    const cookies = [];
    for (let count = 0; count < 23; count++) {
      time.now += 1;
      cookies.push(await open(ADA));
    }
    const alive = await Promise.all(cookies.map(async (cookie) => (await find(cookie)) !== null));
    assert.deepEqual(alive, [...Array<boolean>(3).fill(false), ...Array<boolean>(20).fill(true)]);
    assert.ok(await find(other));
    time.now += 2 * HOUR_MS;
    await open(ADA);
    assert.equal(await rows(), 1);
  });
});

test("a cookie finds its own session only: not in another tenant, not with another secret, and in no other form", async (t) => {
  await withDatabases(t, async (database) => {
    const { open, find, tenants, looked } = await sessionsOn(database);
    const cookie = await open(ADA);
    const found = await find(cookie);
    assert.deepEqual([found?.tenant, found?.subject, found?.provider, found?.idToken], [tenants[0], ADA, PROVIDER, "a.b.c"]);
    const secret = cookie.slice(37);
    for (const wrong of [
      `${tenants[1]}.${secret}`,
      `${PLATFORM_TENANT}.${secret}`,
      `${tenants[0]}.${"A".repeat(43)}`,
      `${tenants[0]}.${"A".repeat(43)}.${"A".repeat(22)}`,
      cookie.slice(0, -1) + (cookie.endsWith("A") ? "B" : "A"),
      `${tenants[0]?.toUpperCase()}.${secret}`,
      `${cookie}A`,
      ` ${cookie}`,
      `${tenants[0]}.`,
      secret,
      "",
      "' OR 1=1 --",
    ])
      assert.equal(await find(wrong), null, wrong);
    assert.equal(looked(), 1, "for what this installation did not make nobody looks");
  });
});

/** Sessions of the first of two tenants. */
async function sessionsOn(database: TestDatabase) {
  const opened = await database.open();
  const time = { now: Date.parse("2026-11-22") };
  const clock = { now: () => time.now, monotonic: () => time.now };
  const makeId = createIdMaker(clock, systemRandom);
  const tenants = [makeId<TenantId>(), makeId<TenantId>()] as const;
  const keyrings = new Map(tenants.map((tenant) => [tenant, createTenantKeyring(tenant, new Map([[1, createTenantKey()]]))]));
  let looked = 0;
  const sessions = createSessions({
    database: { forTenant: (tenant, work) => (looked++, opened.forTenant(tenant, work)) },
    clock,
    random: systemRandom,
    makeId,
    cookieSecret: Buffer.alloc(32, 7),
    keyring: (tenant) => keyrings.get(tenant),
  });
  return {
    time,
    tenants,
    looked: () => looked,
    find: sessions.find,
    open: (subject: SessionSubject) =>
      opened.forTenant(tenants[0], (tx) => sessions.open(tx, { tenant: tenants[0], subject, provider: PROVIDER, idToken: "a.b.c" })),
    rows: () => database.asSuperuser(async (client) => (await client.query("SELECT 1 FROM console_sessions")).rows.length),
  };
}
