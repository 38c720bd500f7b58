import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Webhook, WebhookVerificationError } from "standardwebhooks";
import { withDatabases } from "../../../test/support/postgres.ts";
import { systemRandom } from "../../kernel/random.ts";
import { EVENTS } from "./events.ts";
import type { DeliveryView } from "./model.ts";
import { newSecret, signedHeaders } from "./signature.ts";
import { claimDeliveries, type ClaimedDelivery, recordAttempt } from "./store.ts";
import { FACTS, prepare, problem, receiver, type Received } from "./testing/stage.ts";

test("the official verifier accepts a delivery, refuses one that was changed, and knows both secrets until the old one's grace ends", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, write, fact, events, outbox, time, act, admin, deliveries } = await prepare(t, database);
    const { url, received } = await receiver(t);
    const { secret = "" } = await put("hook", { url, events: ["*"] });
    const deliver = async (key: string): Promise<Received> => {
      await write(fact(key));
      await outbox.drain();
      return received.at(-1) as Received;
    };
    const verifies = (by: string, { body, headers }: Received): boolean => {
      try {
        new Webhook(by).verify(body, headers);
        return true;
      } catch (error) {
        assert.ok(error instanceof WebhookVerificationError);
        return false;
      }
    };
    const first = await deliver("one");
    const [event] = await events();
    assert.deepEqual(new Webhook(secret).verify(first.body, first.headers), {
      type: "budget.exhausted",
      timestamp: new Date(time.now).toISOString(),
      data: FACTS,
    });
    assert.equal(first.headers["webhook-id"], event?.id);
    assert.equal(first.headers["content-type"], "application/json");
    assert.equal(verifies(secret, { ...first, body: first.body.replace("100.5", "100.4") }), false);
    assert.equal(verifies(secret, { ...first, headers: { ...first.headers, "webhook-id": "other" } }), false);

    const rotated = String(
      (await act(admin, "webhooks.rotate", { params: { tenant: "acme", webhook: "hook" }, body: { grace_seconds: 60 } })).body["secret"],
    );
    const second = await deliver("two");
    assert.deepEqual([verifies(secret, second), verifies(rotated, second), verifies(rotated, first)], [true, true, false]);
    time.now += 61_000;
    const third = await deliver("three");
    assert.deepEqual([verifies(secret, third), verifies(rotated, third)], [false, true]);
    assert.deepEqual(
      (await deliveries("hook")).map(({ status, attempts, last_status }) => [status, attempts, last_status]),
      [
        ["delivered", 1, 204],
        ["delivered", 1, 204],
        ["delivered", 1, 204],
      ],
    );
  }));

test("a delivery that fails comes back after growing delays, the same each time, and is given up after eight", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, write, fact, outbox, time, deliveries } = await prepare(t, database);
    const { url, received } = await receiver(t, (index) => [500, 302, 429, 404][index] ?? 503);
    await put("hook", { url, events: ["*"] });
    await write(fact("one"));
    const began = time.now;
    const attemptedAt: number[] = [];
    for (let step = 0; step < 3_000 && received.length < 9; step++) {
      const before = received.length;
      await outbox.drain();
      if (received.length > before) attemptedAt.push((time.now - began) / 1000);
      const [delivery] = await deliveries("hook");
      if (delivery?.status !== "pending") break;
      // To the second before it is due, and then to when it is.
      time.now = (delivery.next_attempt_at as number) * 1000 - 1;
      assert.equal(await outbox.drain(), 0, "not before its time");
      time.now += 1_001;
    }
    const gaps = attemptedAt.slice(1).map((at, index) => at - (attemptedAt[index] as number));
    const expected = [5, 60, 300, 1_800, 7_200, 18_000, 28_800];
    for (const [index, gap] of gaps.entries())
      assert.ok(gap >= (expected[index] as number) * 0.8 && gap <= (expected[index] as number) * 1.2 + 2, String(gaps));
    assert.deepEqual([gaps.length, received.length], [7, 8]);
    assert.equal(new Set(received.map(({ headers, body }) => `${headers["webhook-id"]} ${body}`)).size, 1);
    const stamps = received.map(({ headers }) => Number(headers["webhook-timestamp"]));
    assert.deepEqual(
      stamps,
      stamps.toSorted((one, two) => one - two),
    );
    assert.equal(new Set(stamps).size, 8);
    const [given] = await deliveries("hook");
    assert.deepEqual([given?.status, given?.attempts, given?.last_status, given?.next_attempt_at], ["failed", 8, 503, null]);
    time.now += 30 * 24 * 3_600_000;
    assert.equal(await outbox.drain(), 0);
    t.diagnostic(`attempts after ${attemptedAt.map((at) => Math.round(at)).join(", ")} s`);
  }));

test("410 ends the webhook, unless it was changed meanwhile; set to active it is told of what waited", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, write, fact, outbox, act, admin, deliveries } = await prepare(t, database);
    let status: number | Promise<number> = 410;
    const { url, received } = await receiver(t, () => status);
    await put("hook", { url, events: ["*"] });
    const statusNow = async () => (await act(admin, "webhooks.get", { params: { tenant: "acme", webhook: "hook" } })).body["status"];
    await write(fact("one"));
    await write(fact("two"));
    await outbox.drain();
    assert.equal(await statusNow(), "gone");
    assert.equal(received.length, 1);
    await write(fact("three"));
    assert.deepEqual((await deliveries("hook")).map(({ status }) => status).sort(), ["failed", "pending"]);
    status = 204;
    await put("hook", { status: "active" });
    await outbox.drain();
    assert.deepEqual((await deliveries("hook")).map(({ status }) => status).sort(), ["delivered", "failed"]);

    const { promise, resolve } = Promise.withResolvers<number>();
    status = promise;
    await write(fact("four"));
    const draining = outbox.drain();
    while (received.length < 3) await sleep(5);
    await put("hook", { display_name: "changed" });
    resolve(410);
    await draining;
    assert.equal(await statusNow(), "active");
  }));

test("an address that turned private is not called, and looks to the tenant like a name without one", (t) =>
  withDatabases(t, async (database, t) => {
    let answer: string[] | Error = ["127.0.0.1"];
    const { put, write, fact, outbox, deliveries } = await prepare(t, database, async () => {
      if (answer instanceof Error) throw answer;
      return answer;
    });
    const { port, received } = await receiver(t);
    await put("hook", { url: `http://hooks.example.com:${port}/`, events: ["*"] });
    const tell = async (key: string) => {
      await write(fact(key));
      await outbox.drain();
      const { status, last_status, last_error } = (await deliveries("hook"))[0] as DeliveryView;
      return [status, last_status, last_error];
    };
    assert.deepEqual(await tell("one"), ["delivered", 204, null]);
    answer = ["127.0.0.1", "10.0.0.1"];
    assert.deepEqual(await tell("two"), ["pending", null, "not_public"]);
    answer = ["169.254.169.254"];
    assert.deepEqual(await tell("three"), ["pending", null, "not_public"]);
    answer = new Error("ENOTFOUND");
    assert.deepEqual(await tell("four"), ["pending", null, "not_public"]);
    assert.equal(received.length, 1);
  }));

test("a process that dies between claim and delivery, or before it wrote the answer down, leaves a lease; then it is made again under the same id", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, write, fact, time, acme, database: opened, beside, deliveries } = await prepare(t, database);
    const { url, received } = await receiver(t);
    await put("hook", { url, events: ["*"] });
    await write(fact("one"));
    const claim = { now: new Date(time.now), leaseUntil: new Date(time.now + 60_000), most: 10, mostPerTenant: 4, busy: [] };
    const lost = await opened.forSystem("outbox", (tx) => claimDeliveries(tx, claim));
    assert.deepEqual([lost.length, lost[0]?.attempts], [1, 1]);
    assert.equal(await beside.webhooks.outbox.drain(), 0, "the lease is held");
    time.now += 60_000;
    const again = await opened.forSystem("outbox", (tx) =>
      claimDeliveries(tx, { ...claim, now: claim.leaseUntil, leaseUntil: claim.leaseUntil }),
    );
    assert.equal(again[0]?.attempts, 2);
    // Who comes back after its lease has passed on writes down nothing.
    const late = { status: "failed", next_attempt_at: claim.now, last_status: 500, last_error: null } as const;
    await opened.forTenant(acme, (tx) => recordAttempt(tx, lost[0] as ClaimedDelivery, late));
    assert.equal(await beside.webhooks.outbox.drain(), 1);
    assert.deepEqual([received.length, received[0]?.headers["webhook-id"]], [1, lost[0]?.event_id]);
    assert.deepEqual(
      (await deliveries("hook")).map(({ status, attempts }) => [status, attempts]),
      [["delivered", 3]],
    );

    // The endpoint had it, and nobody wrote that down.
    await write(fact("two"));
    await beside.webhooks.outbox.drain();
    await database.asSuperuser((client) => client.query("UPDATE event_deliveries SET status = 'pending' WHERE attempts = 1"));
    time.now += 60_000;
    assert.equal(await beside.webhooks.outbox.drain(), 1);
    assert.equal(received.length, 3);
    assert.equal(received[1]?.headers["webhook-id"], received[2]?.headers["webhook-id"]);
    assert.equal(received[1]?.body, received[2]?.body);
  }));

test("two processes beside each other deliver each event to each endpoint once", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, write, fact, addTenant, outbox, beside, deliveries } = await prepare(t, database);
    const other = await addTenant("other");
    await beside.snapshot.refresh();
    const { url, received } = await receiver(t);
    for (const name of ["a", "b", "c"]) await put(name, { url, events: ["*"] });
    await put("d", { url, events: ["*"] }, "other");
    for (let index = 0; index < 12; index++) await Promise.all([write(fact(`${index}`)), write(fact(`${index}`, other))]);
    const attempts = await Promise.all([outbox.drain(), beside.webhooks.outbox.drain()]);
    const ofAll = (await Promise.all(["a", "b", "c"].map((name) => deliveries(name)))).flat();
    assert.deepEqual(
      [...ofAll, ...(await deliveries("d", "other"))].filter(({ status }) => status !== "delivered"),
      [],
    );
    assert.equal(received.length, 12 * 4);
    const times = Map.groupBy(received, ({ headers }) => headers["webhook-id"]);
    const told = (count: number) => times.values().filter((each) => each.length === count);
    assert.deepEqual([times.size, [...told(3)].length, [...told(1)].length], [24, 12, 12]);
    t.diagnostic(`${attempts.join(" and ")} attempts`);
    assert.ok(
      attempts.every((each) => each > 0),
      "both took part",
    );
  }));

test("endpoints that never answer delay neither the tenant's others nor other tenants, and hold as many places as one tenant may", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, write, fact, addTenant, patientOutbox: outbox } = await prepare(t, database);
    const other = await addTenant("other");
    const { promise: never, resolve: release } = Promise.withResolvers<number>();
    const dead = await receiver(t, () => never);
    const [alive, foreign] = [await receiver(t), await receiver(t)];
    for (const name of ["dead1", "dead2", "dead3"]) await put(name, { url: dead.url, events: ["*"] });
    await put("alive", { url: alive.url, events: ["*"] });
    await put("hook", { url: foreign.url, events: ["*"] }, "other");
    for (const key of ["one", "two", "three"]) await Promise.all([write(fact(key)), write(fact(key, other))]);
    const draining = outbox.drain();
    while (alive.received.length < 3 || foreign.received.length < 3) await sleep(5);
    assert.equal(dead.received.length, 3, "one at a time for each endpoint");
    for (const name of ["dead4", "dead5"]) await put(name, { url: dead.url, events: ["*"] });
    await write(fact("four"));
    const drainingMore = outbox.drain();
    while (dead.received.length < 4) await sleep(5);
    await Promise.race([outbox.drain(), sleep(50)]);
    assert.equal(dead.received.length, 4, "and four endpoints a tenant");
    release(204);
    await Promise.all([draining, drainingMore]);
    await outbox.drain();
    assert.deepEqual([dead.received.length, alive.received.length], [3 * 4 + 2, 4]);
  }));

test("what is due of a tenant that has less under way goes first, however long another's backlog has waited", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, write, fact, addTenant, database: opened, time } = await prepare(t, database);
    const other = await addTenant("other");
    for (const name of ["a", "b", "c"]) await put(name, { url: "http://127.0.0.1:9/", events: ["*"] });
    await put("hook", { url: "http://127.0.0.1:9/", events: ["*"] }, "other");
    for (const key of ["one", "two"]) await write(fact(key));
    time.now += 60_000;
    await write(fact("late", other));
    const claim = { now: new Date(time.now), leaseUntil: new Date(time.now + 60_000), most: 2, mostPerTenant: 4, busy: [] };
    const claimed = await opened.forSystem("outbox", (tx) => claimDeliveries(tx, claim));
    assert.equal(new Set(claimed.map(({ tenant_id }) => tenant_id)).size, 2);
  }));

test("no more waits for one webhook than may, and events are listed all the same", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, admin, acme, put, write, fact, deliveries } = await prepare(t, database);
    const { id } = await put("full", { url: "http://127.0.0.1:9/", events: ["*"] });
    await put("roomy", { url: "http://127.0.0.1:9/", events: ["*"] });
    await write(fact("first"));
    await database.asSuperuser((client) =>
      client.query(
        `WITH filled AS (INSERT INTO events (tenant_id, id, type, fact_key, data_sealed, created_at)
           SELECT tenant_id, gen_random_uuid(), type, 'filled ' || n, data_sealed, created_at FROM events, generate_series(3, 1000) n RETURNING *)
         INSERT INTO event_deliveries (tenant_id, webhook_id, event_id, status, next_attempt_at, created_at)
           SELECT tenant_id, $1, id, 'pending', now(), now() FROM filled WHERE tenant_id = $2`,
        [id, acme],
      ),
    );
    await write(fact("the last that fits"));
    assert.equal(await write(fact("one too many")), true);
    assert.equal((await deliveries("roomy")).length, 3);
    const { rows } = await database.asSuperuser((client) =>
      client.query<{ count: number }>("SELECT count(*)::int AS count FROM event_deliveries WHERE webhook_id = $1", [id]),
    );
    assert.equal(rows[0]?.count, 1_000);
    await assert.rejects(act(admin, "webhooks.test", { params: { tenant: "acme", webhook: "full" } }), problem("conflict"));
    await act(admin, "webhooks.test", { params: { tenant: "acme", webhook: "roomy" } });
  }));

test("an endpoint's answer counts by its status, whatever its body is or does", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, write, fact, outbox, deliveries } = await prepare(t, database);
    const server = createServer((_, response) => void response.writeHead(200, { "content-length": 1e12 }).write("never the whole"));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    t.after(() => server.close());
    await put("endless", { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, events: ["*"] });
    await write(fact("one"));
    await outbox.drain();
    assert.deepEqual(
      (await deliveries("endless")).map(({ status, last_status }) => [status, last_status]),
      [["delivered", 200]],
    );
  }));

test("a stop cuts what hangs, and the next process makes it again; a started outbox delivers by itself", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, write, fact, outbox, beside, time, deliveries } = await prepare(t, database);
    const { promise: never } = Promise.withResolvers<number>();
    const { url, received } = await receiver(t, (index) => (index === 0 ? never : 204));
    await put("hook", { url, events: ["*"] });
    outbox.start();
    await write(fact("one"));
    while (received.length < 1) await sleep(5);
    await outbox.close();
    const [cut] = await deliveries("hook");
    assert.deepEqual([cut?.status, cut?.attempts, cut?.last_error], ["pending", 1, null]);
    time.now += 60_000;
    assert.equal(await beside.webhooks.outbox.drain(), 1);
    assert.deepEqual([received.length, received[0]?.headers["webhook-id"] === received[1]?.headers["webhook-id"]], [2, true]);
  }));

test("what waited for a webhook that was deleted, or for a tenant that was, is never sent", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, write, fact, outbox, act, admin, addTenant } = await prepare(t, database);
    const other = await addTenant("other");
    const { url, received } = await receiver(t);
    await put("hook", { url, events: ["*"] });
    await put("hook", { url, events: ["*"] }, "other");
    await write(fact("one"));
    await write(fact("one", other));
    await act(admin, "webhooks.delete", { params: { tenant: "acme", webhook: "hook" } });
    await act(admin, "tenants.delete", { params: { tenant: "other" } });
    await outbox.drain();
    assert.equal(received.length, 0);
  }));

test("a test event goes to the webhook it was asked for, and to it alone", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, outbox, act, admin } = await prepare(t, database);
    const [one, two] = [await receiver(t), await receiver(t)];
    const { id } = await put("one", { url: one.url, events: ["budget.overage"] });
    await put("two", { url: two.url, events: ["*"] });
    const { event } = (await act(admin, "webhooks.test", { params: { tenant: "acme", webhook: "one" } })).body;
    await outbox.drain();
    assert.deepEqual([one.received.length, two.received.length], [1, 0]);
    const { type, data } = JSON.parse(one.received[0]?.body ?? "") as { type: "webhook.test"; data: unknown };
    assert.deepEqual(EVENTS[type].data.parse(data), { webhook_id: id, webhook: "one" });
    assert.equal(one.received[0]?.headers["webhook-id"], event);
  }));

test("the guide's receiver takes what is sent to it, and refuses what is not signed", async (t) => {
  const guide = readFileSync(path.join(import.meta.dirname, "..", "..", "..", "docs", "guide", "webhooks.md"), "utf8");
  const code =
    /```js\n([^]*?)```/.exec(guide)?.[1]?.replace(".listen(8080)", ".listen(0, function () { console.log(this.address().port); })") ?? "";
  const secret = newSecret(systemRandom);
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], {
    env: { ...process.env, WEBHOOK_SECRET: secret },
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => child.kill());
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const url = `http://127.0.0.1:${(await lines.next()).value}`;
  const body = JSON.stringify({ type: "webhook.test", timestamp: "2026-11-22T00:00:00.000Z", data: {} });
  const post = async (headers: Record<string, string>) => (await fetch(url, { method: "POST", body, headers })).status;
  const headers = signedHeaders([secret], { id: "event-1", timestamp: Math.floor(Date.now() / 1000), body });
  assert.equal(await post(headers), 204);
  assert.match(String((await lines.next()).value), /^event-1 webhook\.test /);
  assert.equal(await post({ ...headers, "webhook-id": "event-2" }), 400);
});
