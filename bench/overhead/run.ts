import { type AtriumProcess, createModel, createTenancy, removeData, startAtriumProcess } from "../../test/support/atrium.ts";
import { machine, publish } from "../machine.ts";
import { cpuSeconds, residentMegabytes, startScript, stopScripts } from "../process.ts";
import { drive, type Load, type LoadResult } from "./load.ts";

/**
 * What does Atrium cost beside moving the bytes? The floor (node:http + undici `dispatch`) and Atrium take turns in
 * random order in front of the same upstream; CPU time is the gateway process's own, from /proc. The turns are short and many, so that what
 * else the machine does falls on all alike.
 */
const REPETITIONS = 15;
const CONNECTIONS = 32;
const FIRST_WARM_UP_MS = 3_000;
const WARM_UP_MS = 200;
const MEASURED_MS = Number(process.env["BENCH_SECONDS"] ?? 1) * 1_000;

interface Gateway {
  readonly name: string;
  readonly port: number;
  readonly pid: number;
  readonly headers: Readonly<Record<string, string>>;
}

interface Figure {
  readonly cpuMicros: number;
  readonly perSecond: number;
  readonly p50: number;
  readonly p99: number;
  readonly errors: number;
}

const BODIES = {
  "chat call": JSON.stringify({
    model: "bench-1",
    messages: [
      { role: "system", content: "You are brief." },
      { role: "user", content: "What is a short answer?" },
    ],
  }),
  "64-event stream": JSON.stringify({ model: "bench-1", stream: true, messages: [{ role: "user", content: "Count to sixty-four." }] }),
} as const;

const servers: AtriumProcess[] = [];
try {
  const upstream = await startScript("overhead/upstream.ts");
  const origin = `http://127.0.0.1:${upstream.port}`;
  const floor = await startScript("overhead/floor.ts", origin);
  const gateways: Gateway[] = [
    { name: "floor", port: floor.port, pid: floor.pid, headers: {} },
    await startGateway("atrium, journal process", "process", origin),
    await govern(await startGateway("atrium, journal process, 3 budgets, 4 limits", "process", origin)),
    await startGateway("atrium, journal power", "power", origin),
  ];
  const report = [
    `# What a governed call costs`,
    "",
    `${machine()} ${CONNECTIONS} connections, closed loop, medians of ${REPETITIONS} turns of ${MEASURED_MS / 1000} s in random order, and the least of them. Ratios compare across machines; times do not.`,
    "",
  ];
  for (const [scenario, body] of Object.entries(BODIES)) report.push(...(await measure(scenario, body, gateways)));
  report.push(
    ...servers.map(
      (server, index) => `Resident memory of ${gateways[index + 1]?.name}: ${residentMegabytes(server.pid)} MB after the load.`,
    ),
    "",
  );
  const text = report.join("\n");
  publish(import.meta.dirname, text);
} finally {
  for (const server of servers) {
    await server.stop();
    await removeData(server.dataDirectory);
  }
  stopScripts();
}

async function measure(scenario: string, body: string, gateways: readonly Gateway[]): Promise<string[]> {
  const figures = new Map<string, Figure[]>(gateways.map(({ name }) => [name, []]));
  for (const gateway of gateways) await drive({ ...loadOf(gateway, body), durationMs: FIRST_WARM_UP_MS });
  for (let repetition = 0; repetition < REPETITIONS; repetition++) {
    for (const gateway of shuffled(gateways)) figures.get(gateway.name)?.push(await once(gateway, body));
  }
  const middle = new Map([...figures].map(([name, each]) => [name, median(each)]));
  const least = (name: string): number => Math.min(...(figures.get(name) ?? []).map(({ cpuMicros }) => cpuMicros));
  const floor = middle.get("floor") as Figure;
  const rows = [...middle].map(
    ([name, figure]) =>
      `| ${name} | ${figure.cpuMicros.toFixed(0)} | ${least(name).toFixed(0)} | ${(figure.cpuMicros / floor.cpuMicros).toFixed(2)} | ${figure.perSecond.toFixed(0)} | ${figure.p50.toFixed(2)} | ${figure.p99.toFixed(2)} | ${figure.errors} |`,
  );
  return [
    `## ${scenario}`,
    "",
    "| gateway | CPU µs / request | least | × floor | requests/s | p50 ms | p99 ms | errors |",
    "|---|---|---|---|---|---|---|---|",
    ...rows,
    "",
  ];
}

async function once(gateway: Gateway, body: string): Promise<Figure> {
  const load = loadOf(gateway, body);
  await drive({ ...load, durationMs: WARM_UP_MS });
  const before = cpuSeconds(gateway.pid);
  const result = await drive({ ...load, durationMs: MEASURED_MS });
  return figureOf(result, cpuSeconds(gateway.pid) - before);
}

function loadOf({ port, headers }: Gateway, body: string): Omit<Load, "durationMs"> {
  return { port, path: "/v1/chat/completions", headers, body, connections: CONNECTIONS };
}

function figureOf({ requests, errors, seconds, latencies }: LoadResult, cpu: number): Figure {
  const at = (share: number) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? Number.NaN;
  return { cpuMicros: (cpu / requests) * 1e6, perSecond: requests / seconds, p50: at(0.5), p99: at(0.99), errors };
}

function median(figures: readonly Figure[]): Figure {
  return figures.toSorted((a, b) => a.cpuMicros - b.cpuMicros)[Math.floor(figures.length / 2)] as Figure;
}

async function startGateway(name: string, durability: string, upstream: string): Promise<Gateway> {
  const server = await startAtriumProcess({ environment: { ATRIUM_DURABILITY: durability } });
  servers.push(server);
  await createModel(server, {
    model: "bench-1",
    provider: "vllm",
    upstreamModel: "bench-1",
    baseUrl: `${upstream}/v1`,
    price: { input: "0.15", output: "0.60" },
  });
  const { key } = await createTenancy(server, "bench", "bench-1");
  return { name, port: Number(new URL(server.url).port), pid: server.pid, headers: { authorization: `Bearer ${key}` } };
}

/** Budgets and limits that nothing here reaches: what is measured is that they are kept. */
async function govern(gateway: Gateway): Promise<Gateway> {
  const server = servers.at(-1) as AtriumProcess;
  for (const kind of ["tenant", "project", "key"])
    await server.admin("PUT", `tenants/bench/budgets/${kind}`, { scope: { kind }, unit: "usd", window: "day", cap: "1000000" });
  for (const [kind, dimension] of [
    ["tenant", "requests"],
    ["tenant", "tokens"],
    ["key", "requests"],
    ["key", "concurrency"],
  ])
    await server.admin("PUT", `tenants/bench/limits/${kind}-${dimension}`, { scope: { kind }, dimension, limit: 500_000_000 });
  return gateway;
}

function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, order: Math.random() }))
    .toSorted((a, b) => a.order - b.order)
    .map(({ item }) => item);
}
