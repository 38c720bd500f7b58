import assert from "node:assert/strict";
import { test } from "node:test";
import type { Allow, Principal } from "../../domains/identity/index.ts";
import { systemClock } from "../../kernel/clock.ts";
import { createIdMaker } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { systemRandom } from "../../kernel/random.ts";
import { createMetrics } from "../../telemetry/index.ts";
import { mountMetrics, mountProbes, type Readiness } from "./health.ts";
import { createHttpServer } from "./server.ts";

const BOUND_MS = 60_000;
const silentLog = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} };

/** A server whose only keys are `platform` and `developer`. */
function health(readiness: Readiness) {
  const app = createHttpServer({ newId: createIdMaker(systemClock, systemRandom), log: silentLog });
  mountProbes(app, { readiness: () => readiness, stalenessBoundMs: BOUND_MS });
  mountMetrics(app, {
    authenticate: (credential) => {
      if (credential !== "platform" && credential !== "developer") throw new Problem("invalid_api_key");
      return { id: credential } as unknown as Principal;
    },
    allow: ((principal: Principal) => {
      if (principal.id !== "platform") throw new Problem("permission_denied");
    }) as unknown as Allow,
    metrics: createMetrics(),
  });
  return app;
}

const FINE: Readiness = { draining: false, journal: "open", configurationAgeMs: 400 };

test("readiness is ok, degraded while the database is away within the bound, and 503 when calls would be refused", async () => {
  const cases: readonly (readonly [Partial<Readiness>, number, string, RegExp])[] = [
    [{}, 200, "ok", /^$/],
    [{ configurationAgeMs: 3_001 }, 200, "degraded", /database is away/],
    [{ configurationAgeMs: BOUND_MS }, 200, "degraded", /database is away/],
    [{ configurationAgeMs: BOUND_MS + 1 }, 503, "unready", /longer than known keys may be served/],
    [{ draining: true }, 503, "unready", /stopping/],
    [{ journal: "failed" }, 503, "unready", /journal cannot be written/],
    [{ draining: true, journal: "failed", configurationAgeMs: BOUND_MS + 1 }, 503, "unready", /stopping.*journal.*longer/],
  ];
  for (const [facts, status, word, reason] of cases) {
    const answer = await health({ ...FINE, ...facts }).inject("/readyz");
    const body = answer.json<{ status: string; reasons: string[] }>();
    assert.deepEqual([answer.statusCode, body.status], [status, word], JSON.stringify(facts));
    assert.match(body.reasons.join("; "), reason);
    assert.equal(answer.headers["retry-after"], status === 503 ? "1" : undefined);
  }
});

test("the process is alive whatever its readiness", async () => {
  assert.equal((await health({ draining: true, journal: "failed", configurationAgeMs: 1e9 }).inject("/livez")).statusCode, 200);
});

test("metrics are for the platform's keys only", async () => {
  for (const [key, status] of [
    ["platform", 200],
    ["developer", 403],
    ["nobody", 401],
  ] as const) {
    const answer = await health(FINE).inject({ url: "/metrics", headers: { authorization: `Bearer ${key}` } });
    assert.equal(answer.statusCode, status, key);
  }
});
