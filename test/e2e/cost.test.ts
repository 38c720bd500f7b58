import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { drive } from "../../bench/overhead/load.ts";
import { startScript, stopScripts } from "../../bench/process.ts";
import { type AtriumProcess, createModel, createTenancy, removeData, startAtriumProcess } from "../support/atrium.ts";

// What a call costs, in counts that no machine's speed changes. Each bound is what was measured and a little room; it is there to be lowered.

const CONNECTIONS = 8;
const ROUND_MS = 900;
/** Made by time and not by calls: shipping ten times a second in at most 8 statements, and the look at the configuration twice. */
const PROMISES_PER_SECOND = 2_000;
const STATEMENTS_PER_SECOND = 10 * 8 + 2 * 6;

let atrium: AtriumProcess;
let credential: string;
const counts = path.join(tmpdir(), `atrium-counts-${process.pid}.json`);

before(async () => {
  const upstream = await startScript("overhead/upstream.ts");
  atrium = await startAtriumProcess({
    environment: {
      ATRIUM_DURABILITY: "process",
      ATRIUM_TEST_COUNTS: counts,
      NODE_OPTIONS: `--import=${new URL("../support/count-work.ts", import.meta.url).href}`,
    },
  });
  await createModel(atrium, {
    model: "m",
    provider: "vllm",
    upstreamModel: "upstream-m",
    baseUrl: `http://127.0.0.1:${upstream.port}/v1`,
    price: { input: "0.15", output: "0.60" },
  });
  credential = (await createTenancy(atrium, "t", "m")).key;
});

after(async () => {
  await atrium.stop();
  await removeData(atrium.dataDirectory);
  stopScripts();
  rmSync(counts, { force: true });
});

test("a call makes at most so many promises, timers, writes and journalled bytes, and no statement of its own", (t) =>
  costs(t, { model: "m", messages: [{ role: "user", content: "What is a short answer?" }] }, BOUNDS.call));

test("a stream of 64 events costs few more of each than a call: none of them is per event", (t) =>
  costs(t, { model: "m", stream: true, messages: [{ role: "user", content: "Count to sixty-four." }] }, BOUNDS.stream));

test("under three budgets and four limits a call makes few more of each, and still no statement", async (t) => {
  await atrium.admin("PUT", "tenants/t/projects/main", {});
  for (const kind of ["tenant", "project", "key"])
    await atrium.admin("PUT", `tenants/t/budgets/${kind}`, { scope: { kind }, unit: "usd", window: "day", cap: "1000000" });
  for (const [name, dimension] of [
    ["calls", "requests"],
    ["tokens", "tokens"],
    ["at-once", "concurrency"],
  ])
    await atrium.admin("PUT", `tenants/t/limits/${name}`, { scope: { kind: "tenant" }, dimension, limit: 500_000_000 });
  await atrium.admin("PUT", "tenants/t/limits/key", { scope: { kind: "key" }, dimension: "requests", limit: 500_000_000 });
  await costs(t, { model: "m", messages: [{ role: "user", content: "What is a short answer?" }] }, BOUNDS.governed);
});

/** Writes beside the upstream's and the client's: a journal's, which calls share when they come at once. */
const BOUNDS = {
  call: { promises: 49, timers: 3, writes: 5, journalBytes: 800 },
  governed: { promises: 49, timers: 3, writes: 5, journalBytes: 800 },
  stream: { promises: 44, timers: 5, writes: 14, journalBytes: 900 },
};

async function costs(t: TestContext, body: object, bounds: (typeof BOUNDS)["call"]): Promise<void> {
  const load = {
    port: Number(new URL(atrium.url).port),
    path: "/v1/chat/completions",
    headers: { authorization: `Bearer ${credential}` },
    body: JSON.stringify(body),
    connections: CONNECTIONS,
  };
  await drive({ ...load, durationMs: ROUND_MS / 3 });
  const first = await look();
  const { requests, errors, seconds } = await drive({ ...load, durationMs: ROUND_MS });
  const last = await look();
  assert.equal(errors, 0);
  const each = (name: keyof typeof first) => (last[name] - first[name]) / requests;
  const found = { promises: each("promises"), timers: each("timers"), writes: each("writes"), journalBytes: each("journalBytes") };
  const statements = last.statements - first.statements;
  t.diagnostic(
    `${requests} calls, each: ${JSON.stringify(found, (_, value) => (typeof value === "number" ? Math.round(value * 100) / 100 : value))}; ${statements} statements in ${seconds.toFixed(1)} s`,
  );
  for (const name of Object.keys(bounds) as (keyof typeof bounds)[]) {
    const made = last[name] - first[name];
    const most = bounds[name] * requests + (name === "promises" ? PROMISES_PER_SECOND * seconds : 0);
    assert.ok(made <= most, `${name}: ${made} in ${requests} calls, at most ${most}`);
  }
  assert.ok(statements <= 20 + STATEMENTS_PER_SECOND * seconds, `${statements} statements in ${seconds} s`);
}

async function look() {
  rmSync(counts, { force: true });
  process.kill(atrium.pid, "SIGUSR2");
  while (!existsSync(counts)) await sleep(5);
  await sleep(20);
  const made = JSON.parse(readFileSync(counts, "utf8")) as Record<string, number>;
  const io = readFileSync(`/proc/${atrium.pid}/io`, "utf8");
  return {
    promises: made["PROMISE"] ?? 0,
    timers: made["Timeout"] ?? 0,
    statements: made["SQL"] ?? 0,
    writes: Number(/syscw: (\d+)/.exec(io)?.[1]),
    journalBytes: journalBytes(),
  };
}

/** Far from a segment's size, so that nothing is released and what is there is what was written. */
function journalBytes(): number {
  const directory = path.join(atrium.dataDirectory, "journal");
  return readdirSync(directory).reduce((sum, name) => sum + statSync(path.join(directory, name)).size, 0);
}
