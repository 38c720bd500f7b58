import { writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import path from "node:path";
import { type AtriumProcess, createModel, createTenancy, removeData, startAtriumProcess } from "../../test/support/atrium.ts";
import { machine } from "../machine.ts";
import { isWhole, requestText } from "../overhead/load.ts";
import { startScript, stopScripts } from "../process.ts";

/**
 * What latency does Atrium add at a fixed arrival rate? Requests are due at fixed instants whether or not earlier ones were answered, and
 * latency counts from the instant a request was due, so that a stall is charged to every request it delayed.
 */
const PER_SECOND = 1_000;
const WARM_UP_MS = 3_000;
const MEASURED_MS = Number(process.env["BENCH_SECONDS"] ?? 5) * 1_000;
const REPETITIONS = 3;
const BODY = JSON.stringify({ model: "bench-1", messages: [{ role: "user", content: "What is a short answer?" }] });

interface Target {
  readonly name: string;
  readonly port: number;
  readonly headers: Readonly<Record<string, string>>;
  /** ms of each repetition. */
  readonly p50: number[];
  readonly p99: number[];
  errors: number;
}

let atrium: AtriumProcess | null = null;
try {
  const upstream = await startScript("overhead/upstream.ts");
  const floor = await startScript("overhead/floor.ts", `http://127.0.0.1:${upstream.port}`);
  atrium = await startAtriumProcess();
  await createModel(atrium, {
    model: "bench-1",
    provider: "vllm",
    upstreamModel: "bench-1",
    baseUrl: `http://127.0.0.1:${upstream.port}/v1`,
    price: { input: "0.15", output: "0.60" },
  });
  const { key } = await createTenancy(atrium, "bench", "bench-1");
  const direct = target("upstream directly", upstream.port);
  const targets = [
    direct,
    target("floor", floor.port),
    target("atrium, journal power", Number(new URL(atrium.url).port), { authorization: `Bearer ${key}` }),
  ];
  for (const each of targets) await arrivals(each, WARM_UP_MS);
  for (let repetition = 0; repetition < REPETITIONS; repetition++) for (const each of targets) await measure(each);
  const rows = targets.map((each) => {
    const [p50, p99] = [median(each.p50), median(each.p99)];
    return `| ${each.name} | ${p50.toFixed(2)} | ${p99.toFixed(2)} | ${(p50 - median(direct.p50)).toFixed(2)} | ${(p99 - median(direct.p99)).toFixed(2)} | ${each.errors} |`;
  });
  const text = `# What latency a governed call adds

${machine()} ${PER_SECOND} requests/s at fixed instants, latency from the instant each was due, medians of ${REPETITIONS} repetitions of ${MEASURED_MS / 1000} s.

| | p50 ms | p99 ms | added p50 ms | added p99 ms | errors |
|---|---|---|---|---|---|
${rows.join("\n")}
`;
  console.log(text);
  writeFileSync(path.join(import.meta.dirname, "results.md"), text);
} finally {
  if (atrium !== null) {
    await atrium.stop();
    await removeData(atrium.dataDirectory);
  }
  stopScripts();
}

function target(name: string, port: number, headers: Target["headers"] = {}): Target {
  return { name, port, headers, p50: [], p99: [], errors: 0 };
}

async function measure(each: Target): Promise<void> {
  const latencies = (await arrivals(each, MEASURED_MS)).toSorted((a, b) => a - b);
  each.p50.push(latencies[Math.floor(latencies.length * 0.5)] as number);
  each.p99.push(latencies[Math.floor(latencies.length * 0.99)] as number);
}

/** Sends each request when it is due on an idle connection, a new one where none is. Resolves to all latencies, ms. */
function arrivals(each: Target, durationMs: number): Promise<number[]> {
  const request = requestText("/v1/chat/completions", each.headers, BODY);
  const count = (durationMs * PER_SECOND) / 1000;
  const latencies: number[] = [];
  const idle: Connection[] = [];
  const all: Connection[] = [];
  const { promise, resolve } = Promise.withResolvers<number[]>();
  let ended = 0;
  const onAnswer = (connection: Connection, ok: boolean): void => {
    if (ok) latencies.push(performance.now() - connection.dueAt);
    else each.errors += 1;
    idle.push(connection);
    if (++ended < count) return;
    for (const { socket } of all) socket.destroy();
    resolve(latencies);
  };
  const began = performance.now();
  let sent = 0;
  const timer = setInterval(() => {
    for (let dueAt = began + (sent * 1000) / PER_SECOND; sent < count && dueAt <= performance.now(); dueAt += 1000 / PER_SECOND) {
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
  return values.toSorted((a, b) => a - b)[values.length >> 1] as number;
}
