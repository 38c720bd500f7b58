import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import path from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";
import {
  chunkOf,
  completionOf,
  DONE,
  type Exchange,
  JSON_HEADERS,
  type ScriptedUpstream,
  SSE_HEADERS,
  scriptedUpstream,
  sse,
  streamOf,
  textChunk,
} from "../../src/domains/providers/testing/scripted-upstream.ts";
import { type AtriumProcess, BOOTSTRAP_KEY, createTenancy, removeData, startAtriumProcess, type Tenancy } from "../support/atrium.ts";
import { startTestServer, type TestServer } from "../support/postgres-server.ts";
import { headOf, openConnection, postOf } from "./raw-http.ts";

// The failure table of capacity.md over a real server process. The upstream is scripted from the official SDK's own types; the
// client is that SDK wherever it can be.

const SECRET = "sk-upstream-canary-0123456789";
const GOSSIP = "the upstream's own words";
const HURRIED = { connect_timeout_ms: 400, first_token_timeout_ms: 500, idle_timeout_ms: 400, total_timeout_ms: 20_000 };

type Script = (exchange: Exchange) => void | Promise<void>;
let script: Script = () => undefined;
let upstream: ScriptedUpstream;
let atrium: AtriumProcess;
let key: string;

before(async () => {
  upstream = await scriptedUpstream((exchange) => script(exchange));
  atrium = await startAtriumProcess();
  ({ key } = await prepare(atrium));
});

after(async () => {
  const code = await atrium.stop();
  await upstream.close();
  await removeData(atrium.dataDirectory);
  assert.equal(code, 0);
  assert.doesNotMatch(atrium.output(), /uncaught|unhandled|MaxListeners|TypeError/i);
  assert.ok(!atrium.output().includes(SECRET), "the upstream's secret was printed");
});

/** One tenant and three models: `hurried` gives up soon, `patient` has the usual timeouts, `closed` is where nobody listens. */
async function prepare(server: AtriumProcess): Promise<Tenancy> {
  await server.admin("PUT", "credentials/account", { provider: "openai_compatible", base_url: upstream.baseUrl, api_key: SECRET });
  await server.admin("PUT", "credentials/nobody", {
    provider: "openai_compatible",
    base_url: `http://127.0.0.1:${await closedPort()}/v1`,
    api_key: SECRET,
  });
  for (const [model, credential, timeouts] of [
    ["hurried", "account", HURRIED],
    ["patient", "account", {}],
    ["closed", "nobody", HURRIED],
  ] as const) {
    await server.admin("PUT", `models/${model}`, {});
    await server.admin("PUT", `models/${model}/deployments/main`, {
      provider: "openai_compatible",
      credential,
      upstream_model: "upstream-model",
      price: { input: "1", output: "2" },
      ...timeouts,
    });
  }
  const tenancy = await createTenancy(server, "failing", "hurried");
  for (const model of ["patient", "closed"]) await server.admin("PUT", `tenants/failing/grants/${model}`, {});
  return tenancy;
}

async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const sdk = (server: AtriumProcess, apiKey: string): OpenAI => new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries: 0 });
const messages = [{ role: "user" as const, content: "Say something." }];

/** What the SDK makes of one call: what it threw, and the text that had come before. A clean end fails the test. */
async function failureOf(
  feature: string,
  model: string,
  stream: boolean,
): Promise<{ error: InstanceType<typeof OpenAI.APIError>; text: string }> {
  let text = "";
  try {
    const options = { headers: { "x-atrium-feature": feature } };
    if (stream)
      for await (const chunk of await sdk(atrium, key).chat.completions.create({ model, messages, stream: true }, options))
        text += chunk.choices[0]?.delta.content ?? "";
    else text = JSON.stringify(await sdk(atrium, key).chat.completions.create({ model, messages }, options));
  } catch (error) {
    assert.ok(error instanceof OpenAI.APIError, `not a typed error of the SDK: ${String(error)}`);
    return { error, text };
  }
  return assert.fail(`a clean end: ${text}`);
}

interface Row {
  readonly feature: string;
  readonly status: string;
  readonly charge: string;
  readonly estimated: boolean;
}

/** The rows of the features named, once there is one for each. */
async function rowsOf(server: AtriumProcess, features: readonly string[]): Promise<Row[]> {
  for (let look = 0; ; look++) {
    const rows: Row[] = [];
    for (let cursor = ""; ;) {
      const page = (await server.admin("GET", `usage/hops?limit=100${cursor}`)) as { data: Row[]; has_more: boolean; last_id: string };
      rows.push(...page.data.filter((row) => features.includes(row.feature)));
      if (!page.has_more) break;
      cursor = `&after=${encodeURIComponent(page.last_id)}`;
    }
    if (rows.length >= features.length || look === 50) return rows;
    await sleep(100);
  }
}

interface Case {
  readonly name: string;
  readonly model?: "hurried" | "closed";
  /** Where the failure shows: in a plain call, before a stream has begun, or after its first byte. */
  readonly shapes: readonly ("plain" | "stream" | "midstream")[];
  readonly script: Script;
  /** Null in the middle of a stream, where the status has been sent. */
  readonly status: number;
  readonly code: string;
  readonly row: "failed" | "truncated" | "aborted";
}

const opening = sse(chunkOf([{ index: 0, delta: { role: "assistant", content: "" }, finish_reason: null }]));
const begun = opening + sse(textChunk("one ")) + sse(textChunk("two "));
const fault =
  (status: number, body: object | string, headers: Record<string, string> = JSON_HEADERS): Script =>
  (exchange) => {
    exchange.head(status, headers);
    exchange.end(typeof body === "string" ? body : JSON.stringify(body));
  };
const said = { error: { message: `${GOSSIP} ${SECRET}`, type: "whatever", param: null, code: "odd" } };
const midstream =
  (rest: Script): Script =>
  async (exchange) => {
    exchange.head(200, SSE_HEADERS);
    exchange.write(begun);
    await exchange.wait(20);
    await rest(exchange);
  };

const CASES: readonly Case[] = [
  {
    name: "refuses the connection",
    model: "closed",
    shapes: ["plain", "stream"],
    script: () => undefined,
    status: 502,
    code: "upstream_error",
    row: "failed",
  },
  {
    name: "hangs before its headers",
    shapes: ["plain", "stream"],
    script: () => undefined,
    status: 504,
    code: "upstream_timeout",
    row: "failed",
  },
  {
    name: "hangs after its headers",
    shapes: ["stream"],
    script: (exchange) => exchange.head(200, SSE_HEADERS),
    status: 504,
    code: "upstream_timeout",
    row: "failed",
  },
  {
    name: "hangs in the middle of a body",
    shapes: ["plain"],
    script: (exchange) => (exchange.head(200, JSON_HEADERS), exchange.write('{"id":')),
    status: 504,
    code: "upstream_timeout",
    row: "failed",
  },
  {
    name: "hangs in the middle of a stream",
    shapes: ["midstream"],
    script: midstream(() => undefined),
    status: 504,
    code: "upstream_timeout",
    row: "truncated",
  },
  {
    name: "resets the connection at once",
    shapes: ["plain", "stream"],
    script: (exchange) => exchange.reset(),
    status: 502,
    code: "upstream_error",
    row: "failed",
  },
  {
    name: "does not speak HTTP",
    shapes: ["plain", "stream"],
    script: (exchange) => exchange.raw(`${SECRET} is not HTTP\r\n\r\n`),
    status: 502,
    code: "upstream_error",
    row: "failed",
  },
  {
    name: "answers with a web page",
    shapes: ["plain", "stream"],
    script: fault(200, `<h1>${GOSSIP}</h1>`, { "content-type": "text/html" }),
    status: 502,
    code: "upstream_error",
    row: "failed",
  },
  {
    name: "answers with JSON that is cut",
    shapes: ["plain"],
    script: fault(200, '{"id":"x","choices":[', JSON_HEADERS),
    status: 502,
    code: "upstream_error",
    row: "failed",
  },
  {
    name: "answers with less than it announced",
    shapes: ["plain"],
    script: async (exchange) => {
      exchange.head(200, { ...JSON_HEADERS, "content-length": "5000" });
      exchange.write(JSON.stringify(completionOf("hi")));
      await exchange.wait(20);
      exchange.reset();
    },
    status: 502,
    code: "upstream_error",
    row: "failed",
  },
  {
    name: "answers with JSON that is no completion",
    shapes: ["plain"],
    script: fault(200, [1, 2, 3]),
    status: 502,
    code: "upstream_error",
    row: "failed",
  },
  {
    name: "answers 200 with an error inside",
    shapes: ["plain"],
    script: fault(200, said),
    status: 502,
    code: "upstream_error",
    row: "failed",
  },
  {
    name: "compresses what was asked for plain",
    shapes: ["plain", "stream"],
    script: fault(200, "\x1f\x8b", { ...SSE_HEADERS, "content-encoding": "gzip" }),
    status: 502,
    code: "upstream_error",
    row: "failed",
  },
  {
    name: "redirects",
    shapes: ["plain", "stream"],
    script: fault(307, "", { location: "http://127.0.0.1:1/elsewhere" }),
    status: 502,
    code: "upstream_error",
    row: "failed",
  },
  { name: "says 401", shapes: ["plain", "stream"], script: fault(401, said), status: 502, code: "upstream_error", row: "failed" },
  { name: "says 403", shapes: ["plain", "stream"], script: fault(403, said), status: 502, code: "upstream_error", row: "failed" },
  { name: "says 404", shapes: ["plain"], script: fault(404, said), status: 502, code: "upstream_error", row: "failed" },
  {
    name: "says 429",
    shapes: ["plain", "stream"],
    script: fault(429, said, { ...JSON_HEADERS, "retry-after": "7" }),
    status: 429,
    code: "capacity_exceeded",
    row: "failed",
  },
  { name: "says 500", shapes: ["plain", "stream"], script: fault(500, said), status: 502, code: "upstream_error", row: "failed" },
  {
    name: "says 503 with a page",
    shapes: ["plain"],
    script: fault(503, `<pre>${GOSSIP}</pre>`, { "content-type": "text/html" }),
    status: 502,
    code: "upstream_error",
    row: "failed",
  },
  { name: "says 529", shapes: ["stream"], script: fault(529, said), status: 502, code: "upstream_error", row: "failed" },
  {
    name: "begins with an event that is too large",
    shapes: ["stream"],
    script: (exchange) => (exchange.head(200, SSE_HEADERS), exchange.write(`data: {"x":"${"y".repeat(17 * 1024 * 1024)}`)),
    status: 502,
    code: "upstream_error",
    row: "failed",
  },
  {
    name: "begins a stream with an error event",
    shapes: ["stream"],
    script: fault(200, `data: ${JSON.stringify(said)}\n\n`, SSE_HEADERS),
    status: 502,
    code: "upstream_error",
    row: "failed",
  },
  {
    name: "ends a stream before anything came",
    shapes: ["stream"],
    script: fault(200, "", SSE_HEADERS),
    status: 502,
    code: "upstream_error",
    row: "failed",
  },
  {
    name: "sends an event that is too large",
    shapes: ["midstream"],
    script: midstream((exchange) => exchange.write(`data: {"x":"${"y".repeat(17 * 1024 * 1024)}`)),
    status: 502,
    code: "upstream_error",
    row: "truncated",
  },
  {
    name: "sends an error event in a stream",
    shapes: ["midstream"],
    script: midstream((exchange) => exchange.end(`data: ${JSON.stringify(said)}\n\n${DONE}`)),
    status: 502,
    code: "upstream_error",
    row: "truncated",
  },
  {
    name: "sends events that are not JSON",
    shapes: ["midstream"],
    script: midstream((exchange) => exchange.end(`data: ${GOSSIP}\n\n${DONE}`)),
    status: 502,
    code: "upstream_error",
    row: "truncated",
  },
  {
    name: "cuts the stream",
    shapes: ["midstream"],
    script: midstream((exchange) => exchange.reset()),
    status: 502,
    code: "upstream_error",
    row: "truncated",
  },
  {
    name: "ends the stream without [DONE]",
    shapes: ["midstream"],
    script: midstream((exchange) => exchange.end()),
    status: 502,
    code: "upstream_error",
    row: "truncated",
  },
  {
    name: "says [DONE] before a choice has finished",
    shapes: ["midstream"],
    script: midstream((exchange) => exchange.end(DONE)),
    status: 502,
    code: "upstream_error",
    row: "truncated",
  },
];

test("every failure of an upstream is a typed error of the official SDK, never a clean end, and tells nothing of the upstream", async (t) => {
  const features = new Map<string, Case["row"]>();
  for (const each of CASES) {
    for (const shape of each.shapes) {
      const feature = `${each.name} (${shape})`;
      features.set(feature, each.row);
      await t.test(`an upstream that ${feature}`, async () => {
        script = each.script;
        const { error, text } = await failureOf(feature, each.model ?? "hurried", shape !== "plain");
        if (shape === "midstream") {
          assert.equal(text, "one two ", "what had come before the failure was delivered");
          assert.equal(error.status, undefined, "the status had been sent: the failure is an event of the stream");
        } else {
          assert.equal(error.status, each.status);
          assert.equal(text, "");
        }
        assert.equal(error.code, each.code);
        assert.equal(error.type, { 429: "rate_limit_error", 502: "upstream_error", 504: "upstream_timeout" }[each.status]);
        assert.ok(
          !`${error.message}${JSON.stringify(error.error)}${JSON.stringify([...(error.headers ?? [])])}`.match(
            new RegExp(`${SECRET}|${GOSSIP}|127\\.0\\.0\\.1|ECONN|UND_ERR`),
          ),
          error.message,
        );
        if (each.status === 429) assert.equal(error.headers?.get("retry-after"), "7");
      });
    }
  }
  const rows = await rowsOf(atrium, [...features.keys()]);
  const charged = Object.fromEntries(rows.map((row) => [row.feature, row.status]));
  assert.equal(rows.length, features.size, "one row for each dispatched attempt");
  for (const [feature, status] of features) assert.equal(charged[feature], status, feature);
  t.diagnostic(`${features.size} failures, ${rows.length} rows`);
});

test("what is the caller's own fault comes with the upstream's words, less our secret, as the SDK's BadRequestError", async () => {
  for (const [status, body, expected] of [
    [
      400,
      { error: { message: `'temperature' is too high for ${SECRET}`, type: "invalid_request_error", param: "temperature", code: null } },
      { code: "upstream_rejected", param: "temperature" },
    ],
    [422, { detail: "stop has too many entries" }, { code: "upstream_rejected", param: null }],
    [
      400,
      {
        error: {
          message: "This model's maximum context length is 10 tokens.",
          type: "invalid_request_error",
          param: "messages",
          code: "context_length_exceeded",
        },
      },
      { code: "context_length_exceeded", param: "messages" },
    ],
  ] as const) {
    script = fault(status, body);
    for (const stream of [false, true]) {
      const { error } = await failureOf("callers-fault", "hurried", stream);
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.deepEqual({ code: error.code, param: error.param ?? null, type: error.type }, { ...expected, type: "invalid_request_error" });
      assert.match(error.message, /temperature|too many entries|maximum context length/);
      assert.ok(!error.message.includes(SECRET));
    }
  }
});

test("model text that looks like the end of the stream arrives as text", async () => {
  const hostile = ["\n\ndata: [DONE]\n\n", 'data: {"error":{"message":"no"}}\n\n', "\r\r\u2028", "😀"];
  script = fault(200, streamOf(hostile), SSE_HEADERS);
  let text = "";
  for await (const chunk of await sdk(atrium, key).chat.completions.create({ model: "hurried", messages, stream: true }))
    text += chunk.choices[0]?.delta.content ?? "";
  assert.equal(text, hostile.join(""));
});

test("a client that leaves, before the first token or in the middle of a stream, has its upstream aborted at once, and is charged", async (t) => {
  const took: Record<string, number[]> = {};
  const features: string[] = [];
  for (const [name, stream, answer] of [
    ["plain, before the answer", false, () => undefined],
    ["stream, before its headers", true, () => undefined],
    ["stream, before its first token", true, (exchange: Exchange) => exchange.head(200, SSE_HEADERS)],
    ["in the middle of a stream", true, (exchange: Exchange) => (exchange.head(200, SSE_HEADERS), exchange.write(begun))],
  ] as const) {
    script = answer;
    took[name] = [];
    for (let run = 0; run < 5; run++) {
      const feature = `leaves: ${name} ${run}`;
      features.push(feature);
      const index = upstream.exchanges.length;
      const connection = await openConnection(atrium.url);
      connection.send(postOf(key, JSON.stringify({ model: "patient", messages, stream }), { "x-atrium-feature": feature }));
      const exchange = await upstream.arrived(index);
      if (name === "in the middle of a stream") while (!connection.rest().includes("two ")) await sleep(2);
      else await sleep(30);
      const left = performance.now();
      if (run % 2 === 0) connection.socket.destroy();
      else connection.socket.resetAndDestroy();
      const aborted = await Promise.race([exchange.closed, sleep(5_000, null, { ref: false })]);
      assert.ok(aborted !== null, "the upstream was not aborted");
      took[name].push(aborted - left);
    }
  }
  const rows = await rowsOf(atrium, features);
  assert.deepEqual(rows.map((row) => row.feature).sort(), features.toSorted());
  for (const row of rows) {
    assert.equal(row.status, "aborted", row.feature);
    assert.ok(row.estimated && Number(row.charge) > 0, `${row.feature} was charged ${row.charge}`);
  }
  for (const [name, times] of Object.entries(took))
    t.diagnostic(`${name}: upstream aborted after at most ${Math.max(...times).toFixed(1)} ms (goal 100 ms)`);
  assert.equal(await callsInFlight(), 0);
});

test("a client that does not read pauses the upstream, bounded, and gets everything once it does", async (t) => {
  const frame = sse(textChunk("x".repeat(64 * 1024)));
  const frames = 1_200;
  let sent = 0;
  const flood = http.createServer(async (request, response) => {
    request.resume();
    response.writeHead(200, SSE_HEADERS).write(opening);
    for (; sent < frames && !response.destroyed; sent++) if (!response.write(frame)) await once(response, "drain");
    response.end(streamOf([]).slice(opening.length));
  });
  await new Promise<void>((resolve) => flood.listen(0, "127.0.0.1", resolve));
  t.after(() => flood.close());
  await atrium.admin("PUT", "credentials/flood", {
    provider: "openai_compatible",
    base_url: `http://127.0.0.1:${(flood.address() as AddressInfo).port}/v1`,
    api_key: SECRET,
  });
  await atrium.admin("PUT", "models/flood", {});
  await atrium.admin("PUT", "models/flood/deployments/main", {
    provider: "openai_compatible",
    credential: "flood",
    upstream_model: "upstream-model",
    price: "free",
  });
  await atrium.admin("PUT", "tenants/failing/grants/flood", {});
  const connection = http.request(`${atrium.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
  });
  connection.end(JSON.stringify({ model: "flood", messages, stream: true }));
  const response = await new Promise<http.IncomingMessage>((resolve) => connection.once("response", resolve));
  response.pause();
  let before = -1;
  while (before !== sent) {
    before = sent;
    await sleep(400);
  }
  const stalledAt = (sent * frame.length) / 2 ** 20;
  t.diagnostic(
    `the upstream was stopped after ${stalledAt.toFixed(1)} MiB of ${((frames * frame.length) / 2 ** 20).toFixed(0)}; most of it is the kernel's socket buffers`,
  );
  assert.ok(sent < frames * 0.6, "the upstream was never stopped");
  let received = 0;
  let tail = "";
  for await (const chunk of response) {
    received += (chunk as Buffer).length;
    tail = (tail + (chunk as Buffer).toString("latin1")).slice(-200);
  }
  assert.ok(received >= frames * frame.length);
  assert.match(tail, /data: \[DONE\]\n\n$/);
});

test("SIGTERM in the middle of streams: new calls are refused, one stream ends well, one is told to retry, and the process exits 0", async (t) => {
  const own = await startAtriumProcess({ environment: { ATRIUM_DRAIN_SECONDS: "1" } });
  t.after(() => removeData(own.dataDirectory));
  const tenancy = await prepare(own);
  script = async (exchange) => {
    if (exchange.body.includes("never answered")) return;
    exchange.head(200, SSE_HEADERS);
    exchange.write(begun);
    if (!exchange.body.includes("short")) return;
    await exchange.wait(400);
    exchange.end(streamOf(["end"]).slice(opening.length));
  };
  const client = sdk(own, tenancy.key);
  const streamed = async (content: string) => {
    let text = "";
    const stream = await client.chat.completions.create(
      { model: "patient", messages: [{ role: "user", content }], stream: true },
      { headers: { "x-atrium-feature": content } },
    );
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
    return text;
  };
  const index = upstream.exchanges.length;
  const short = streamed("short");
  const long = streamed("long").then(
    () => null,
    (error: unknown) => error,
  );
  const silent = client.chat.completions
    .create({ model: "patient", messages: [{ role: "user", content: "never answered" }] }, { headers: { "x-atrium-feature": "plain" } })
    .then(
      () => null,
      (error: unknown) => error,
    );
  await upstream.arrived(index + 2);
  await sleep(100);
  // Connections whose request has begun are not idle, so they outlive the listener.
  const [probe, late] = [await openConnection(own.url), await openConnection(own.url)];
  probe.send("GET /readyz HTTP/1.1\r\nhost: a\r\n");
  late.send(
    headOf("POST", "/v1/chat/completions", {
      host: "a",
      authorization: `Bearer ${tenancy.key}`,
      "content-type": "application/json",
      "content-length": "2",
    }).slice(0, -2),
  );
  await sleep(100);

  const stopped = own.stop();
  await sleep(150);
  probe.send("\r\n");
  const readiness = await probe.response();
  assert.equal(readiness.status, 503);
  assert.equal(readiness.json<{ status: string }>().status, "unready");
  late.send("\r\n{}");
  const refused = await late.response();
  assert.equal(refused.status, 503);
  assert.equal(refused.json<{ error: { type: string } }>().error.type, "overloaded_error");
  assert.equal(refused.headers["connection"], "close");
  assert.ok(refused.headers["retry-after"] !== undefined);

  assert.equal(await short, "one two end");
  for (const [error, status] of [
    [await long, undefined],
    [await silent, 503],
  ] as const) {
    assert.ok(error instanceof OpenAI.APIError, String(error));
    assert.equal(error.status, status);
    assert.equal(error.type, "overloaded_error");
  }
  assert.equal(await stopped, 0);

  const again = await startAtriumProcess({ dataDirectory: own.dataDirectory });
  const rows = await rowsOf(again, ["short", "long", "plain"]);
  assert.deepEqual(Object.fromEntries(rows.map((row) => [row.feature, row.status])), {
    short: "completed",
    long: "aborted",
    plain: "aborted",
  });
  assert.equal(await again.stop(), 0);
});

test("while PostgreSQL is out of reach calls are served, writes are refused with 503, /readyz says degraded; afterwards all is well again", async (t) => {
  const server = await startTestServer("embedded");
  const name = await server.createEmptyDatabase();
  const door = await openDoor(server, name);
  const own = await startAtriumProcess({
    environment: { DATABASE_URL: door.url, ATRIUM_MASTER_KEY: "c4".repeat(32), ATRIUM_STALENESS_SECONDS: "60" },
  });
  t.after(async () => {
    assert.equal(await own.stop(), 0);
    await removeData(own.dataDirectory);
    door.shut();
    await server.dropDatabase(name);
    await server.stop();
  });
  const tenancy = await prepare(own);
  script = fault(200, completionOf("hi"));
  const served = async (feature: string) =>
    assert.equal(
      (await sdk(own, tenancy.key).chat.completions.create({ model: "hurried", messages }, { headers: { "x-atrium-feature": feature } }))
        .choices[0]?.message.content,
      "hi",
    );
  const readiness = async () => {
    const answer = await fetch(`${own.url}/readyz`);
    return `${answer.status} ${((await answer.json()) as { status: string }).status}`;
  };
  const eventually = async (wanted: string) => {
    for (let look = 0; look < 100 && (await readiness()) !== wanted; look++) await sleep(100);
    assert.equal(await readiness(), wanted);
  };

  await served("before");
  assert.equal(await readiness(), "200 ok");
  door.shut();
  await served("at once");
  await eventually("200 degraded");
  await served("degraded");
  const write = await fetch(`${own.url}/admin/v1/tenants/other`, {
    method: "PUT",
    headers: { authorization: `Bearer ${BOOTSTRAP_KEY}`, "content-type": "application/json" },
    body: "{}",
  });
  const { error } = (await write.json()) as { error: { type: string; message: string } };
  assert.equal(write.status, 503, error.message);
  assert.equal(error.type, "overloaded_error");
  assert.doesNotMatch(error.message, /ECONN|127\.0\.0\.1|pg_|relation/);
  assert.ok(write.headers.get("retry-after") !== null);
  await assert.rejects(
    sdk(own, "atr_0123456789_nonsense").models.list(),
    OpenAI.AuthenticationError,
    "a malformed key needs no database to be refused",
  );

  await door.open();
  await eventually("200 ok");
  await own.admin("PUT", "tenants/other", {});
  const rows = await rowsOf(own, ["before", "at once", "degraded"]);
  assert.deepEqual(Object.fromEntries(rows.map((row) => [row.feature, row.status])), {
    before: "completed",
    "at once": "completed",
    degraded: "completed",
  });
  assert.equal(rows.length, 3);
});

/** A door to the test server that can be shut: established connections are cut, new ones refused. */
async function openDoor(server: TestServer, database: string) {
  const target = new URL(server.url(database));
  const socketPath = path.join(target.searchParams.get("host") as string, ".s.PGSQL.5432");
  const sockets = new Set<Socket>();
  const pass = (client: Socket): void => {
    const back = connect(socketPath);
    for (const [from, to] of [
      [client, back],
      [back, client],
    ] as const) {
      sockets.add(from);
      from
        .on("error", () => undefined)
        .on("close", () => {
          sockets.delete(from);
          to.destroy();
        });
      from.pipe(to);
    }
  };
  let listener = createServer(pass);
  const listen = (port: number) => new Promise<void>((resolve) => listener.listen(port, "127.0.0.1", resolve));
  await listen(0);
  const { port } = listener.address() as AddressInfo;
  return {
    url: `postgres://${target.username}:${target.password}@127.0.0.1:${port}/${database}`,
    shut() {
      listener.close();
      for (const socket of sockets) socket.destroy();
    },
    open() {
      listener = createServer(pass);
      return listen(port);
    },
  };
}

async function callsInFlight(): Promise<number> {
  for (let look = 0; ; look++) {
    const metrics = await fetch(`${atrium.url}/metrics`, { headers: { authorization: `Bearer ${BOOTSTRAP_KEY}` } }).then((answer) =>
      answer.text(),
    );
    const value = Number(/^atrium_calls_in_flight (\d+)/m.exec(metrics)?.[1]);
    if (value === 0 || look === 40) return value;
    await sleep(25);
  }
}
