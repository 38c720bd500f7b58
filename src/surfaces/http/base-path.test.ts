import assert from "node:assert/strict";
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
