import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Webhook } from "standardwebhooks";
import { type AtriumProcess, BOOTSTRAP_KEY, removeData, startAtriumProcess } from "../support/atrium.ts";

// Webhooks of a real server process, to a real endpoint on a network that the operator named.

const HOOK = "tenants/acme/webhooks/ops";
const DELIVERY_MS = 20_000;

interface Received {
  readonly headers: Record<string, string>;
  readonly body: string;
}

test("an endpoint is sent what it verifies, a killed server sends it after its restart, and a URL outside the named networks is refused", async (t) => {
  const received: Received[] = [];
  let status = 204;
  const endpoint = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)]));
      received.push({ headers, body: Buffer.concat(chunks).toString() });
      response.writeHead(status).end();
    });
  });
  endpoint.listen(0, "127.0.0.1");
  await once(endpoint, "listening");
  t.after(() => {
    endpoint.closeAllConnections();
    endpoint.close();
  });
  const url = `http://127.0.0.1:${(endpoint.address() as AddressInfo).port}/canary-path`;
  const environment = { ATRIUM_EGRESS_ALLOW: "127.0.0.1", ATRIUM_LOG_LEVEL: "debug" };
  let atrium = await startAtriumProcess({ environment });
  t.after(async () => {
    assert.equal(await atrium.stop(), 0);
    await removeData(atrium.dataDirectory);
  });
  const arrivals = async (count: number): Promise<Received> => {
    for (const until = Date.now() + DELIVERY_MS; received.length < count && Date.now() < until;) await sleep(20);
    assert.equal(received.length, count, atrium.output());
    return received[count - 1] as Received;
  };

  await atrium.admin("PUT", "tenants/acme", {});
  const { secret } = (await atrium.admin("PUT", HOOK, { url, events: ["*"] })) as { secret: string };
  const { event } = (await atrium.admin("POST", `${HOOK}/test`)) as { event: string };
  const first = await arrivals(1);
  assert.equal((new Webhook(secret).verify(first.body, first.headers) as { type: string }).type, "webhook.test");
  assert.equal(first.headers["webhook-id"], event);
  assert.equal(((await atrium.admin("GET", "tenants/acme/events")) as { data: { id: string }[] }).data[0]?.id, event);

  status = 503;
  await atrium.admin("POST", `${HOOK}/test`);
  const second = await arrivals(2);
  await settled(atrium, ({ attempts, last_status }) => attempts === 1 && last_status === 503);
  const before = atrium.output();
  await atrium.kill();
  status = 204;
  atrium = await startAtriumProcess({ environment, dataDirectory: atrium.dataDirectory });
  const third = await arrivals(3);
  assert.deepEqual([third.headers["webhook-id"], third.body], [second.headers["webhook-id"], second.body]);
  await settled(atrium, ({ status, attempts }) => status === "delivered" && attempts === 2);

  for (const refused of [
    "http://127.0.0.2/",
    "https://169.254.169.254/",
    "https://localhost/",
    "http://example.com@127.0.0.1/",
    "https://0x7f.1/",
  ]) {
    const answer = await fetch(`${atrium.url}/admin/v1/${HOOK}`, {
      method: "PUT",
      headers: { authorization: `Bearer ${BOOTSTRAP_KEY}`, "content-type": "application/json" },
      body: JSON.stringify({ url: refused }),
    });
    const { error } = (await answer.json()) as { error: { param: string } };
    assert.deepEqual([answer.status, error.param], [400, "url"], refused);
  }
  for (const canary of [secret, "canary-path", "whsec_"]) assert.ok(!(before + atrium.output()).includes(canary), `a log has ${canary}`);
});

interface Delivery {
  readonly status: string;
  readonly attempts: number;
  readonly last_status: number | null;
}

/** Until the newest delivery is so: the endpoint has its request before the server has written down the answer. */
async function settled(atrium: AtriumProcess, isSo: (delivery: Delivery) => boolean): Promise<void> {
  let newest: Delivery | undefined;
  for (const until = Date.now() + DELIVERY_MS; Date.now() < until; await sleep(20)) {
    newest = ((await atrium.admin("GET", `${HOOK}/deliveries`)) as { data: Delivery[] }).data[0];
    if (newest !== undefined && isSo(newest)) return;
  }
  assert.fail(`the delivery is still ${JSON.stringify(newest)}`);
}
