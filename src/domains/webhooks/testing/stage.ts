import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import { openConfiguration } from "../../../../test/support/configuration.ts";
import { silentLog, type TestDatabase } from "../../../../test/support/postgres.ts";
import { createEgress } from "../../../egress/index.ts";
import type { TenantId } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";
import { Outbox } from "../outbox.ts";
import type { DeliveryView, EventView, NewEvent, WebhookView } from "../model.ts";

const ALLOW = [{ address: "127.0.0.1", prefixLength: 32, family: "ipv4" }] as const;

export interface Received {
  readonly headers: Record<string, string>;
  readonly body: string;
}

/** A real endpoint. `answer` gives the status of the nth request, from 0; while it is pending, the answer is. */
export async function receiver(t: TestContext, answer: (index: number) => number | Promise<number> = () => 204) {
  const received: Received[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", async () => {
      const index = received.push({ headers: headersOf(request), body: Buffer.concat(chunks).toString() }) - 1;
      response.writeHead(await answer(index), { location: "/elsewhere" }).end();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { received, port, url: `http://127.0.0.1:${port}/hook?a=b` };
}

function headersOf({ headers }: IncomingMessage): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)]));
}

/** An installation on a clock of its own, with a tenant. */
export async function prepare(t: TestContext, database: TestDatabase, lookup?: (name: string) => Promise<string[]>) {
  const time = { now: Date.now() };
  const clock = { now: () => time.now, monotonic: () => time.now };
  const opened = await database.open();
  const egress = { allow: ALLOW, ...(lookup === undefined ? {} : { lookup }) };
  const processes = await Promise.all([1, 2].map(() => openConfiguration(t, opened, { clock, egress })));
  const [configuration, beside] = processes as [(typeof processes)[0], (typeof processes)[0]];
  const { act, webhooks } = configuration;
  const admin = await configuration.admin();
  const addTenant = async (name: string) => (await act(admin, "tenants.put", { params: { tenant: name } })).body["id"] as TenantId;
  const acme = await addTenant("acme");
  await beside.snapshot.refresh();
  const put = async (webhook: string, body: object, tenant = "acme") =>
    (await act(admin, "webhooks.put", { params: { tenant, webhook }, body })).body as unknown as WebhookView & { secret?: string };
  const read = async <View>(id: string, webhook?: string, tenant = "acme") =>
    (await act(admin, id, { params: webhook === undefined ? { tenant } : { tenant, webhook } })).body["data"] as View[];
  return {
    ...configuration,
    beside,
    database: opened,
    admin,
    acme,
    time,
    addTenant,
    put,
    deliveries: (webhook: string, tenant?: string) => read<DeliveryView>("webhooks.deliveries", webhook, tenant),
    events: (tenant?: string) => read<EventView>("events.list", undefined, tenant),
    outbox: webhooks.outbox,
    /** One that waits for an answer as long as it takes. */
    patientOutbox: new Outbox({
      database: opened,
      clock,
      chance: () => 0.5,
      log: silentLog,
      request: (url, request) => createEgress(egress).request(url, { ...request, timeoutMs: 600_000 }),
      keyringOf: configuration.snapshot.keyringOf,
      isLive: () => true,
    }),
    /** As the shipper of usage does. */
    write: (event: NewEvent) => opened.forSystem("ship", (tx) => webhooks.writeEvent(tx, event)),
    fact: (key: string, tenant = acme): NewEvent<"budget.exhausted"> => ({
      tenant,
      type: "budget.exhausted",
      key,
      data: FACTS,
      at: time.now,
    }),
  };
}

export const FACTS = {
  budget_id: "01900000-0000-7000-8000-000000000001",
  budget: "monthly",
  scope: { kind: "tenant", id: null },
  unit: "usd",
  window: "month",
  window_start: 1_700_000_000,
  window_end: 1_702_000_000,
  cap: "100",
  spent: "100.5",
} as const;

export function problem(code: Problem["code"], param: string | null = null) {
  return (error: unknown) => {
    assert.ok(error instanceof Problem, String(error));
    assert.deepEqual([error.code, error.param], [code, param]);
    return true;
  };
}
