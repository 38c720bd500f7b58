import { writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createModel, createTenancy, removeData, startAtriumProcess, type StartOptions } from "../../test/support/atrium.ts";
import { startTestServer } from "../../test/support/postgres-server.ts";
import { machine } from "../machine.ts";
import { residentMegabytes } from "../process.ts";

/** How long from the start of the process to the first answered chat call, on a database that exists, and what it holds when idle? */
const REPETITIONS = 7;
const IDLE_MS = 3_000;

const server = await startTestServer("embedded");
const name = await server.createEmptyDatabase();
const rows = [
  await measure("embedded (its own processes not counted)", {}),
  await measure("DATABASE_URL", { DATABASE_URL: server.url(name), ATRIUM_MASTER_KEY: "a7".repeat(32) }),
];
await server.dropDatabase(name);
await server.stop();

const text = `# Cold start

${machine()}

From the start of the process to the first answered chat call, the database exists, ${REPETITIONS} starts; resident memory ${IDLE_MS / 1000} s after that call.

| database | least ms | median ms | most ms | resident MB |
|---|---|---|---|---|
${rows.join("\n")}
`;
console.log(text);
writeFileSync(path.join(import.meta.dirname, "results.md"), text);

async function measure(title: string, environment: NonNullable<StartOptions["environment"]>): Promise<string> {
  const first = await startAtriumProcess({ environment });
  await createModel(first, {
    model: "start",
    provider: "simulated",
    upstreamModel: "simulated",
    options: { first_token_ms: 0, per_token_ms: 0 },
  });
  const { key } = await createTenancy(first, "start", "start");
  await first.stop();
  const times: number[] = [];
  let idleMegabytes = 0;
  for (let repetition = 0; repetition < REPETITIONS; repetition++) {
    const began = performance.now();
    const atrium = await startAtriumProcess({ dataDirectory: first.dataDirectory, environment });
    await call(atrium.url, key);
    times.push(performance.now() - began);
    if (repetition === REPETITIONS - 1) {
      await sleep(IDLE_MS);
      idleMegabytes = residentMegabytes(atrium.pid);
    }
    await atrium.stop();
  }
  await removeData(first.dataDirectory);
  times.sort((a, b) => a - b);
  const at = (index: number) => Math.round(times[index] as number);
  return `| ${title} | ${at(0)} | ${at(REPETITIONS >> 1)} | ${at(REPETITIONS - 1)} | ${idleMegabytes} |`;
}

async function call(url: string, key: string): Promise<void> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({ model: "start", max_tokens: 8, messages: [{ role: "user", content: "Ready?" }] }),
  });
  if (!response.ok) throw new Error(await response.text());
  await response.text();
}
