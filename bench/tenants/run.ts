import { writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type AtriumProcess, createModel, removeData, startAtriumProcess } from "../../test/support/atrium.ts";
import { startTestServer } from "../../test/support/postgres-server.ts";
import { machine } from "../machine.ts";
import { drive } from "../overhead/load.ts";
import { cpuSeconds, residentKilobytes, startScript, stopScripts } from "../process.ts";
import { makeTenants } from "./make-tenants.ts";

/** What do many tenants cost a call, and what does one that is idle hold? Each has a project and a key, and each call is another tenant's. */
const FEW = 10;
const MANY = Number(process.env["BENCH_TENANTS"] ?? 10_000);
const REPETITIONS = 7;
const WARM_UP_CALLS = 15_000;
const MEASURED_MS = 2_000;
const FIRST_CALLS_MS = 500;
const IDLE_MS = 3_000;
const BODY = JSON.stringify({ model: "bench-1", messages: [{ role: "user", content: "What is a short answer?" }] });

interface Loaded {
  readonly atrium: AtriumProcess;
  readonly credentials: readonly { readonly authorization: string }[];
  called: number;
}

interface Side extends Loaded {
  readonly tenants: number;
  readonly idleKilobytes: number;
  /** From the start of the process until it listens. */
  readonly startMs: number;
  readonly cpuMicros: number[];
  firstCallMicros: number;
}

const directories: string[] = [];
const running: AtriumProcess[] = [];
const server = await startTestServer("embedded");
const databases: string[] = [];
try {
  const upstream = await startScript("overhead/upstream.ts");
  const sides = [await startSide(FEW, upstream.port), await startSide(MANY, upstream.port)] as const;
  for (const side of sides) await warmUp(side);
  for (let repetition = 0; repetition < REPETITIONS; repetition++) {
    for (const side of repetition % 2 === 0 ? sides : sides.toReversed()) {
      const before = cpuSeconds(side.atrium.pid);
      const calls = await load(side, MEASURED_MS);
      side.cpuMicros.push(((cpuSeconds(side.atrium.pid) - before) / calls) * 1e6);
    }
  }
  const [few, many] = sides;
  const perTenant = ((many.idleKilobytes - few.idleKilobytes) * 1024) / (MANY - FEW);
  const text = `# What many tenants cost

${machine()} One process each, 32 connections, closed loop, every call another tenant's; medians of ${REPETITIONS} repetitions in turn.

| tenants | CPU µs / call | × ${FEW} tenants | resident MB, idle | start to listening, ms |
|---|---|---|---|---|
${sides.map((side) => `| ${side.tenants} | ${median(side).toFixed(0)} | ${(median(side) / median(few)).toFixed(2)} | ${Math.round(side.idleKilobytes / 1024)} | ${side.startMs.toFixed(0)} |`).join("\n")}

A tenant's first call: ${many.firstCallMicros.toFixed(0)} µs, the mean of the first ${MANY} or a few more.
Resident per idle tenant (key, project, name and tenant key): ${(perTenant / 1024).toFixed(1)} kB, measured ${IDLE_MS / 1000} s after a start that read them all.
`;
  console.log(text);
  writeFileSync(path.join(import.meta.dirname, "results.md"), text);
} finally {
  for (const atrium of running) await atrium.stop();
  for (const directory of directories) await removeData(directory);
  for (const database of databases) await server.dropDatabase(database);
  await server.stop();
  stopScripts();
}

/** Makes the tenants while no server runs, then starts one, so that memory is what a process that read them holds. */
async function startSide(tenants: number, upstreamPort: number): Promise<Side> {
  const database = await server.createEmptyDatabase();
  databases.push(database);
  const environment = { DATABASE_URL: server.url(database), ATRIUM_MASTER_KEY: "a7".repeat(32), ATRIUM_DURABILITY: "process" };
  const making = await startAtriumProcess({ environment });
  directories.push(making.dataDirectory);
  await createModel(making, {
    model: "bench-1",
    provider: "vllm",
    upstreamModel: "bench-1",
    baseUrl: `http://127.0.0.1:${upstreamPort}/v1`,
    price: { input: "0.15", output: "0.60" },
  });
  await making.admin("PUT", "models/bench-1", { visibility: "all" });
  await making.stop();
  const keys = await makeTenants(tenants, environment.DATABASE_URL, environment.ATRIUM_MASTER_KEY);
  const began = performance.now();
  const atrium = await startAtriumProcess({ dataDirectory: making.dataDirectory, environment });
  const startMs = performance.now() - began;
  running.push(atrium);
  await sleep(IDLE_MS);
  const credentials = keys.map((key) => ({ authorization: `Bearer ${key}` }));
  return {
    tenants,
    atrium,
    credentials,
    startMs,
    idleKilobytes: residentKilobytes(atrium.pid),
    cpuMicros: [],
    called: 0,
    firstCallMicros: 0,
  };
}

/** Once some tenants have called for long enough, all do for the first time: what that costs is told apart. */
async function warmUp(side: Side): Promise<void> {
  const early: Loaded = { atrium: side.atrium, credentials: side.credentials.slice(0, FEW), called: 0 };
  while (early.called < WARM_UP_CALLS) await load(early, MEASURED_MS);
  const before = cpuSeconds(side.atrium.pid);
  while (side.called < side.tenants) await load(side, FIRST_CALLS_MS);
  side.firstCallMicros = ((cpuSeconds(side.atrium.pid) - before) / side.called) * 1e6;
}

/** Goes on with the tenant after the one that called last. Resolves to the number of calls. */
async function load(side: Loaded, durationMs: number): Promise<number> {
  const port = Number(new URL(side.atrium.url).port);
  const from = side.called % side.credentials.length;
  const { requests, errors } = await drive({
    port,
    path: "/v1/chat/completions",
    headers: [...side.credentials.slice(from), ...side.credentials.slice(0, from)],
    body: BODY,
    connections: 32,
    durationMs,
  });
  if (errors > 0) throw new Error(`${errors} calls failed`);
  side.called += requests;
  return requests;
}

function median({ cpuMicros }: Side): number {
  return cpuMicros.toSorted((a, b) => a - b)[cpuMicros.length >> 1] as number;
}
