import assert from "node:assert/strict";
import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { createIdMaker } from "../../kernel/ids.ts";
import { systemClock } from "../../kernel/clock.ts";
import { systemRandom } from "../../kernel/random.ts";
import { mountProbes } from "./health.ts";
import { createHttpServer } from "./server.ts";

const silentLog = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} };

test("with a base path every route is below it and nothing is outside, but for the probes, which are at both", async () => {
  const app = createHttpServer({ newId: createIdMaker(systemClock, systemRandom), log: silentLog, basePath: "/ai" });
  mountProbes(app, { readiness: () => ({ draining: false, journal: "open", configurationAgeMs: 0 }), stalenessBoundMs: 1_000 });
  app.get("/v1/things/:thing", async (request) => ({ url: request.url, query: request.query }));
  for (const [url, status] of [
    ["/ai/v1/things/a?b=c", 200],
    ["/ai/livez", 200],
    ["/ai/readyz", 200],
    ["/livez", 200],
    ["/readyz?verbose", 200],
    ["/v1/things/a", 404],
    ["/ai", 404],
    ["/ai/", 404],
    ["/", 404],
    ["/aix/v1/things/a", 404],
    ["/ai/ai/v1/things/a", 404],
    ["/livez/x", 404],
  ] as const)
    assert.equal((await app.inject(url)).statusCode, status, url);
  assert.deepEqual((await app.inject("/ai/v1/things/a?b=c")).json(), { url: "/v1/things/a?b=c", query: { b: "c" } });
  const unknown = await app.inject("/v1/things/a");
  assert.match(unknown.body, /Unknown route: GET \/v1\/things\/a\./, "the caller reads the path that it asked for");
  const wrong = await app.inject({ method: "POST", url: "/ai/v1/things/a" });
  assert.deepEqual([wrong.statusCode, wrong.headers["allow"]], [405, "GET"]);
  assert.equal((await app.inject({ method: "POST", url: "/v1/things/a" })).statusCode, 404);
});

test("a target in absolute form is its path, under the same rules, whoever it names", async (t) => {
  for (const basePath of ["", "/ai"]) {
    const app = createHttpServer({ newId: createIdMaker(systemClock, systemRandom), log: silentLog, basePath });
    mountProbes(app, { readiness: () => ({ draining: false, journal: "open", configurationAgeMs: 0 }), stalenessBoundMs: 1_000 });
    app.get("/v1/things/:thing", async (request) => ({ url: request.url }));
    await app.listen({ port: 0, host: "127.0.0.1" });
    t.after(() => app.close());
    const { port } = app.server.address() as AddressInfo;
    const ask = async (target: string, method = "GET") => {
      const asked = request({ port, host: "127.0.0.1", method, path: target }).end();
      const [response] = (await once(asked, "response")) as [IncomingMessage];
      return { status: response.statusCode, allow: response.headers.allow, body: await text(response) };
    };
    const found = await ask(`http://elsewhere.example:8080${basePath}/v1/things/a?b=c`);
    assert.deepEqual([found.status, found.body], [200, '{"url":"/v1/things/a?b=c"}']);
    assert.equal((await ask("HTTPS://elsewhere.example/livez")).status, 200);
    const wrong = await ask(`http://elsewhere.example${basePath}/v1/things/a`, "DELETE");
    assert.deepEqual([wrong.status, wrong.allow], [405, "GET"]);
    for (const target of [
      "http://elsewhere.example",
      `http://elsewhere.example?${basePath}/v1/things/a`,
      `http://elsewhere.example/b${basePath}/v1/things/a`,
      `http://http://elsewhere.example${basePath}/v1/things/a`,
      `ftp://elsewhere.example${basePath}/v1/things/a`,
      "*",
    ])
      assert.equal((await ask(target)).status, 404, target);
  }
});
