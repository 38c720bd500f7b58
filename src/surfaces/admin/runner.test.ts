import assert from "node:assert/strict";
import { Agent, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { startToyPlatform, type ToyPlatform } from "../../../test/contracts/toy-platform.ts";
import { DatabaseUnavailable } from "../../storage/database/index.ts";
import { BOUNDS } from "../../kernel/bounds.ts";
import { Problem } from "../../kernel/problem.ts";

let toy: ToyPlatform;
before(async () => {
  toy = await startToyPlatform();
});
after(() => toy.server.close());

interface Call {
  readonly method?: "GET" | "PUT" | "POST" | "DELETE" | "PATCH";
  readonly headers?: Record<string, string>;
  readonly body?: unknown;
  readonly key?: string | null;
}

async function call(url: string, { method = "GET", headers = {}, body, key = toy.adminKey }: Call = {}) {
  const authorization: Record<string, string> = key === null ? {} : { authorization: `Bearer ${key}` };
  const payload: { payload?: string | Buffer } =
    body === undefined ? {} : { payload: typeof body === "string" || Buffer.isBuffer(body) ? body : JSON.stringify(body) };
  const type: Record<string, string> = body === undefined ? {} : { "content-type": "application/json" };
  const answer = await toy.server.inject({ method, url, headers: { ...authorization, ...type, ...headers }, ...payload });
  return {
    status: answer.statusCode,
    headers: answer.headers,
    body: answer.json(),
    error: answer.json().error as { code: string; param: string | null; message: string } | undefined,
  };
}

const port = () => (toy.server.server.address() as AddressInfo).port;
const put = (url: string, body: unknown = {}, headers: Record<string, string> = {}) => call(url, { method: "PUT", body, headers });
const tenant = (name: string) => `/admin/v1/tenants/${name}`;

test("a write answers with its etag, leaves one audit row naming who, what, before and after, and is in force before the answer", async () => {
  const versions = toy.caughtUp.length;
  const rows = toy.audit.length;
  const created = await put(tenant("written"), { display_name: "One" });
  const changed = await put(tenant("written"), { display_name: "Two" });
  assert.deepEqual([created.status, created.headers["etag"], changed.headers["etag"]], [200, '"1"', '"2"']);
  assert.equal(toy.caughtUp.length, versions + 2);
  assert.equal(toy.audit.length, rows + 2);
  const { actor, action, target, before: was, after: is, status, remoteAddress } = toy.audit.at(-1)!;
  assert.deepEqual([actor, action, target, status, remoteAddress], ["bootstrap", "tenants.put", "tenants/written", 200, "127.0.0.1"]);
  assert.deepEqual([was, is], [created.body, changed.body]);
});

test("a committed write is answered even when PostgreSQL goes away before this process has taken it in", async () => {
  toy.failCatchUp(new DatabaseUnavailable("gone"));
  assert.equal((await put(tenant("committed"))).status, 200);
  assert.equal((await call(`${tenant("committed")}/projects`)).status, 200);
});

test("a read and a refused write leave no audit row and change no configuration", async () => {
  await put(tenant("quiet"));
  await put(`${tenant("quiet")}/projects/p`);
  const [rows, versions] = [toy.audit.length, toy.caughtUp.length];
  await call(`${tenant("quiet")}/projects/p`);
  await put(`${tenant("quiet")}/projects/p`, { display_name: 7 });
  await put(`${tenant("quiet")}/projects/p`, {}, { "if-match": '"9"' });
  assert.deepEqual([toy.audit.length, toy.caughtUp.length], [rows, versions]);
});

test("If-Match with the present revision passes, with another is 412, malformed is 400", async () => {
  const { headers } = await put(tenant("matched"));
  assert.equal((await put(tenant("matched"), {}, { "if-match": String(headers["etag"]) })).status, 200);
  assert.equal((await put(tenant("matched"), {}, { "if-match": String(headers["etag"]) })).error?.code, "revision_mismatch");
  for (const malformed of ["1", "*", 'W/"1"', '"x"', ""]) {
    const { status, error } = await put(tenant("matched"), {}, { "if-match": malformed });
    assert.deepEqual([status, error?.param], [400, "if-match"], malformed);
  }
});

test("a bad body is refused as the catalogue says, naming the field", async () => {
  const url = tenant("bodies");
  const cases: readonly (readonly [unknown, number, string, string | null])[] = [
    [{ display_name: 1 }, 400, "invalid_request", "display_name"],
    [{ nonsense: 1 }, 400, "invalid_request", "nonsense"],
    ['{"__proto__":{}}', 400, "invalid_request", "__proto__"],
    ['{"display_name":{"__proto__":1}}', 400, "invalid_request", "display_name.__proto__"],
    ["{", 400, "invalid_json", null],
    ["[]", 400, "invalid_request", null],
    ["null", 400, "invalid_request", null],
    ['{"display_name":"a","display_name":"b"}', 400, "duplicate_key", "display_name"],
    [Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), 400, "invalid_json", null],
    [{ display_name: "nul \0" }, 400, "invalid_request", "display_name"],
    ['{"display_name":"\\ud800"}', 400, "invalid_request", "display_name"],
    [`{"display_name":${"[".repeat(65)}${"]".repeat(65)}}`, 400, "invalid_json", null],
    [" ".repeat(BOUNDS.adminBodyBytes + 1), 413, "request_too_large", null],
  ];
  for (const [body, status, code, param] of cases) {
    const answer = await put(url, body);
    assert.deepEqual([answer.status, answer.error?.code, answer.error?.param], [status, code, param], String(body).slice(0, 60));
  }
});

test("a body of another content type is 415; gzip is accepted and bounded after inflation; an empty body is an empty object", async () => {
  assert.equal((await put(tenant("typed"), "a=b", { "content-type": "application/x-www-form-urlencoded" })).status, 415);
  assert.equal((await put(tenant("typed"), {}, { "content-type": "application/json; charset=utf-8" })).status, 200);
  assert.equal((await put(tenant("typed"), {}, { "content-encoding": "br" })).status, 415);
  const zipped = await put(tenant("typed"), gzipSync('{"display_name":"zipped"}'), { "content-encoding": "gzip" });
  assert.equal(zipped.body.display_name, "zipped");
  assert.equal((await put(tenant("typed"), gzipSync(" ".repeat(BOUNDS.adminBodyBytes * 40)), { "content-encoding": "gzip" })).status, 413);
  assert.equal((await put(tenant("typed"), "not gzip", { "content-encoding": "gzip" })).status, 400);
  assert.equal((await call(tenant("typed"), { method: "PUT" })).status, 200);
});

test("a body on a route that takes none, and an unknown query field, are 400", async () => {
  await put(`${tenant("typed")}/projects/p`);
  assert.equal((await call(`${tenant("typed")}/projects/p`, { method: "DELETE", body: { a: 1 } })).error?.param, "a");
  assert.equal((await call(`${tenant("typed")}/projects?limits=1`)).error?.param, "limits");
  assert.equal((await call(`${tenant("typed")}/projects?after=a&after=b`)).error?.param, "after");
});

test("a list in the query is the same list with brackets and without", async () => {
  assert.equal((await call("/v1/organization/projects?project_ids[]=x")).status, 200);
  assert.equal((await call("/v1/organization/projects?project_ids=x&project_ids=y")).status, 200);
  assert.equal((await call("/v1/organization/projects?project_ids=x&project_ids[]=y")).error?.param, "project_ids");
});

test("what authorization refuses is noted with the route; a foreign tenant and one that never existed are noted alike, a plain miss is not", async () => {
  await put(tenant("noted"));
  await put(tenant("foreign"));
  await put(`${tenant("noted")}/projects/p`);
  const own = { name: "reader", permissions: ["projects:read"] };
  const { body: key } = await call(`${tenant("noted")}/keys`, { method: "POST", body: own });
  const noted = async (url: string, options: Call): Promise<unknown[]> => {
    const before = toy.refusals.length;
    await call(url, options);
    return toy.refusals
      .slice(before)
      .map(({ route, principal, problem, remoteAddress }) => [
        route,
        principal?.id ?? null,
        problem instanceof Problem ? problem.code : problem,
        remoteAddress,
      ]);
  };
  const asTenant = { key: key.key as string };
  const from = "127.0.0.1";
  assert.deepEqual(await noted(`${tenant("foreign")}/projects`, asTenant), [["projects.list", key.id, "not_found", from]]);
  assert.deepEqual(await noted(`${tenant("never")}/projects`, asTenant), [["projects.list", key.id, "not_found", from]]);
  assert.deepEqual(await noted(`${tenant("noted")}/projects/p`, { method: "PUT", body: {}, ...asTenant }), [
    ["projects.put", key.id, "permission_denied", from],
  ]);
  assert.deepEqual(await noted("/admin/v1/openapi.json", { key: "unknown" }), [["openapi", null, "invalid_api_key", from]]);
  assert.deepEqual(await noted(`${tenant("noted")}/projects`, { key: null }), [["projects.list", null, "invalid_api_key", from]]);
  assert.deepEqual(await noted(`${tenant("noted")}/projects/never`, asTenant), []);
  assert.deepEqual(await noted(`${tenant("never")}/projects`, {}), []);
  assert.deepEqual(await noted(`${tenant("noted")}/projects`, asTenant), []);
});

test("without a valid key every path and method below a prefix gets one and the same 401", async () => {
  const answers = [];
  for (const url of [
    tenant("a"),
    `${tenant("a")}/projects`,
    "/admin/v1/nothing",
    "/admin/v1",
    "/admin/v1/openapi.json",
    "/v1/organization/nothing",
    `/admin/v1/tenants/${"x".repeat(500)}`,
  ]) {
    for (const method of ["GET", "PUT", "POST", "DELETE", "PATCH"] as const) {
      for (const key of [null, "unknown"])
        answers.push(
          JSON.stringify(
            await call(url, { method, key, ...(method === "GET" ? {} : { body: "{" }) }).then(({ status, body }) => [status, body]),
          ),
        );
    }
  }
  assert.equal(new Set(answers).size, 1);
  assert.equal(JSON.parse(answers[0]!)[0], 401);
});

test("a wrong method on a known path is 405 with 'allow'; an unknown path is 404 unknown_route", async () => {
  const wrong = await call(tenant("a"), { method: "PATCH", body: {} });
  assert.deepEqual([wrong.status, wrong.headers["allow"]], [405, "DELETE, PUT"]);
  assert.equal((await call("/admin/v1/openapi.json", { method: "PUT", body: {} })).headers["allow"], "GET");
  for (const url of ["/admin/v1/nothing", "/admin/v1", "/admin/v1/tenants", "/v1/organization/x", `/admin/v1/tenants/a/b/c/d`]) {
    assert.deepEqual((await call(url)).error?.code, "unknown_route", url);
  }
});

test("the document is for anybody with a valid key", async () => {
  const { status, body } = await call("/admin/v1/openapi.json", { key: null, headers: { "x-api-key": toy.adminKey } });
  assert.deepEqual([status, body.openapi], [200, "3.1.0"]);
});

test("a tenant's key waits for no look-up of a tenant that is not its own, so that time tells it nothing", async (t) => {
  const hanging = await startToyPlatform(new Set(["lookup-hangs"]));
  t.after(() => hanging.server.close());
  const ask = async (method: "GET" | "PUT" | "POST", url: string, key: string, payload: object | null) => {
    const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
    return (await hanging.server.inject({ method, url, headers, ...(payload === null ? {} : { payload }) })).json() as {
      key: string;
      error: { code: string };
    };
  };
  for (const name of ["own", "foreign"]) await ask("PUT", tenant(name), hanging.adminKey, {});
  const { key } = await ask("POST", `${tenant("own")}/keys`, hanging.adminKey, { name: "a", permissions: ["tenant_admin"] });
  const [foreign, unknown] = [
    await ask("GET", `${tenant("foreign")}/projects`, key, null),
    await ask("GET", `${tenant("unknown")}/projects`, key, null),
  ];
  assert.deepEqual([foreign.error.code, unknown], ["not_found", foreign]);
});

test("who may not is refused before a byte of the body is read", async () => {
  await toy.server.listen({ host: "127.0.0.1", port: 0 });
  const status = await new Promise((resolve, reject) => {
    const sent = httpRequest({
      host: "127.0.0.1",
      port: port(),
      method: "PUT",
      path: tenant("a"),
      headers: { "content-type": "application/json", "content-length": "1000" },
    });
    sent.on("response", (response) => {
      resolve(response.statusCode);
      sent.destroy();
    });
    sent.on("error", reject);
    sent.flushHeaders();
  });
  assert.equal(status, 401);
});

test("on one connection, a gzip body, a body refused half-way and a body refused by its length are answered, and it stays usable", async (t) => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  const connections = new Set<string>();
  const send = (headers: Record<string, string>, body: Buffer) =>
    new Promise<number | undefined>((resolve, reject) => {
      const type = { "content-type": "application/json", authorization: `Bearer ${toy.adminKey}` };
      const sent = httpRequest({
        agent,
        host: "127.0.0.1",
        port: port(),
        method: "PUT",
        path: tenant("kept"),
        headers: { ...type, ...headers },
      });
      sent.on("socket", (socket) => socket.once("connect", () => connections.add(`${socket.localPort}`)));
      sent.on("error", reject);
      sent.on("response", (response) => response.resume().on("end", () => resolve(response.statusCode)));
      sent.end(body);
    });
  const large = Buffer.alloc(3 * BOUNDS.adminBodyBytes, " ");
  const statuses = [
    await send(
      { "content-encoding": "gzip", "transfer-encoding": "chunked" },
      gzipSync(`{"display_name":"${"z".repeat(150)}"}${" ".repeat(500_000)}`),
    ),
    await send({ "transfer-encoding": "chunked" }, large),
    await send({ "content-length": String(large.length) }, large),
    await send({ "content-encoding": "gzip", "transfer-encoding": "chunked" }, gzipSync("{}").subarray(0, 10)),
    await send({}, Buffer.from("{}")),
  ];
  assert.deepEqual(statuses, [200, 413, 413, 400, 200]);
  assert.equal(connections.size, 1);
});

test("a client that leaves in the middle of its body leaves nothing behind", async () => {
  const rows = toy.audit.length;
  await new Promise<void>((resolve) => {
    const sent = httpRequest({
      host: "127.0.0.1",
      port: port(),
      method: "PUT",
      path: tenant("left"),
      headers: { "content-type": "application/json", "content-length": "20", authorization: `Bearer ${toy.adminKey}` },
    });
    sent.on("error", () => resolve());
    sent.on("close", () => resolve());
    sent.write('{"display_name"');
    setTimeout(() => sent.destroy(), 30);
  });
  assert.equal(toy.audit.length, rows);
  assert.equal((await call(`${tenant("left")}/projects`)).status, 404);
});
