import { connect, type Socket } from "node:net";
import { type AtriumProcess, createModel, createTenancy, removeData, startAtriumProcess } from "../../test/support/atrium.ts";
import { machine, publish } from "../machine.ts";
import { isWhole, requestText } from "../overhead/load.ts";
import { cpuSeconds, machineCpuSeconds, startScript, stopScripts, treeCpuSeconds, waitedSeconds } from "../process.ts";

/**
 * What latency does Atrium add at a fixed arrival rate? Requests are due at fixed instants whether or not earlier ones were answered, and
 * latency counts from the instant a request was due, so that a stall is charged to every request it delayed.
 *
 * Generator, upstream, gateway and PostgreSQL share one machine, often with others: what a gateway waits for a processor is printed beside
 * its latency, and the rows of quiet slices leave out those in which processes that are not the bench's took more than OTHERS of a core.
 */
const RATES = [250, 1_000];
const WARM_UP_MS = 3_000;
const SLICE_MS = Number(process.env["BENCH_SECONDS"] ?? 1) * 1_000;
/** Of each slice's start that is not counted: what was idle wakes up. */
const SETTLING_MS = 250;
const SLICES = 12;
/** Cores. */
const OTHERS = 0.25;
const BODY = JSON.stringify({ model: "bench-1", messages: [{ role: "user", content: "What is a short answer?" }] });

interface Target {
  readonly name: string;
  readonly port: number;
  readonly pid: number;
  readonly headers: Readonly<Record<string, string>>;
}

interface Slice {
  /** ms, sorted. */
  readonly latencies: readonly number[];
  readonly errors: number;
  /** Cores that all its threads had, and the share of the time in which its main thread was ready to run and had none. */
  readonly ran: number;
  readonly waited: number;
  /** Cores that processes took which are none of the bench's. */
  readonly others: number;
}

const servers: AtriumProcess[] = [];
try {
  const upstream = await startScript("overhead/upstream.ts");
  const origin = `http://127.0.0.1:${upstream.port}`;
  const floor = await startScript("overhead/floor.ts", origin);
  const targets = [
    { name: "upstream directly", ...upstream, headers: {} },
    { name: "floor", ...floor, headers: {} },
    await startGateway("process", origin),
    await startGateway("power", origin),
  ];
  for (const each of targets) await arrivals(each, RATES.at(-1) as number, WARM_UP_MS);
  const sections: string[] = [];
  for (const rate of RATES) sections.push(...(await measure(targets, rate)));
  const text = [
    "# What latency a governed call adds",
    "",
    `${machine()} Requests at fixed instants, latency from the instant each was due; medians over ${SLICES} slices of ${SLICE_MS / 1000} s, the targets in turn.`,
    "`ran`: what the gateway's threads had of processors, in cores; `waited`: how long its main thread was ready to run and had none, of the time.",
    `Quiet slices are those in which processes that are not the bench's took at most ${OTHERS} of a core.`,
    "",
    ...sections,
  ].join("\n");
  publish(import.meta.dirname, text);
} finally {
  for (const server of servers) {
    await server.stop();
    await removeData(server.dataDirectory);
  }
  stopScripts();
}

async function startGateway(durability: string, upstream: string): Promise<Target> {
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
  return {
    name: `atrium, journal ${durability}`,
    port: Number(new URL(server.url).port),
    pid: server.pid,
    headers: { authorization: `Bearer ${key}` },
  };
}

async function measure(targets: readonly Target[], rate: number): Promise<string[]> {
  const slices = new Map<Target, Slice[]>(targets.map((each) => [each, []]));
  for (let slice = 0; slice < SLICES; slice++) for (const each of targets) slices.get(each)?.push(await measureSlice(each, rate));
  const quiet = new Map([...slices].map(([each, of]) => [each, of.filter(({ others }) => others <= OTHERS)]));
  return [
    `## ${rate} requests/s`,
    "",
    "| | slices | p50 ms | p99 ms | added p50 ms | added p99 ms | ran | waited | errors |",
    "|---|---|---|---|---|---|---|---|---|",
    ...rowsOf("", slices),
    ...([...quiet.values()].every((of) => of.length > 0) ? rowsOf(", quiet slices", quiet) : []),
    "",
  ];
}

function rowsOf(note: string, slices: ReadonlyMap<Target, readonly Slice[]>): string[] {
  const figures = [...slices].map(([{ name }, of]) => ({ name, of, p50: median(of.map(at(0.5))), p99: median(of.map(at(0.99))) }));
  const direct = figures[0] as (typeof figures)[number];
  return figures.map(({ name, of, p50, p99 }) => {
    const times = [p50, p99, p50 - direct.p50, p99 - direct.p99, median(of.map(({ ran }) => ran)), median(of.map(({ waited }) => waited))];
    const errors = of.reduce((sum, slice) => sum + slice.errors, 0);
    return `| ${name}${note} | ${of.length} | ${times.map((time) => time.toFixed(2)).join(" | ")} | ${errors} |`;
  });
}

function at(share: number): (slice: Slice) => number {
  return ({ latencies }) => latencies[Math.floor(latencies.length * share)] ?? Number.NaN;
}

async function measureSlice(each: Target, rate: number): Promise<Slice> {
  const own = () => treeCpuSeconds(process.pid);
  const [ranBefore, waitedBefore, ownBefore, allBefore] = [cpuSeconds(each.pid), waitedSeconds(each.pid), own(), machineCpuSeconds()];
  const { latencies, errors, seconds } = await arrivals(each, rate, SLICE_MS);
  const all = machineCpuSeconds() - allBefore;
  return {
    latencies: latencies.toSorted((a, b) => a - b),
    errors,
    ran: (cpuSeconds(each.pid) - ranBefore) / seconds,
    waited: (waitedSeconds(each.pid) - waitedBefore) / seconds,
    others: Math.max(0, all - (own() - ownBefore)) / seconds,
  };
}

interface Arrived {
  /** ms of those due after SETTLING_MS, in the order of their answers. */
  readonly latencies: readonly number[];
  readonly errors: number;
  readonly seconds: number;
}

/** Sends each request when it is due on an idle connection, a new one where none is. */
function arrivals(each: Target, perSecond: number, durationMs: number): Promise<Arrived> {
  const request = requestText("/v1/chat/completions", each.headers, BODY);
  const count = (durationMs * perSecond) / 1000;
  const latencies: number[] = [];
  const idle: Connection[] = [];
  const all: Connection[] = [];
  const { promise, resolve } = Promise.withResolvers<Arrived>();
  let ended = 0;
  let errors = 0;
  const began = performance.now();
  const onAnswer = (connection: Connection, ok: boolean): void => {
    if (!ok) errors += 1;
    else if (connection.dueAt - began >= SETTLING_MS) latencies.push(performance.now() - connection.dueAt);
    idle.push(connection);
    if (++ended < count) return;
    for (const { socket } of all) socket.destroy();
    resolve({ latencies, errors, seconds: (performance.now() - began) / 1000 });
  };
  let sent = 0;
  const timer = setInterval(() => {
    for (let dueAt = began + (sent * 1000) / perSecond; sent < count && dueAt <= performance.now(); dueAt += 1000 / perSecond) {
      const connection = idle.pop() ?? open(each.port, onAnswer, all);
      connection.dueAt = dueAt;
      connection.socket.write(request);
      sent++;
    }
    if (sent === count) clearInterval(timer);
  }, 1);
  return promise;
}

interface Connection {
  readonly socket: Socket;
  dueAt: number;
}

function open(port: number, onAnswer: (connection: Connection, ok: boolean) => void, all: Connection[]): Connection {
  const connection = { socket: connect({ port, host: "127.0.0.1", noDelay: true }), dueAt: 0 };
  all.push(connection);
  let received = "";
  connection.socket.on("data", (data) => {
    received += data.toString("latin1");
    if (!isWhole(received)) return;
    const ok = received.startsWith("HTTP/1.1 200");
    received = "";
    onAnswer(connection, ok);
  });
  connection.socket.on("error", () => onAnswer(connection, false));
  return connection;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}
