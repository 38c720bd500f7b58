import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createModel, createTenancy, removeData, startAtriumProcess } from "../../test/support/atrium.ts";
import { machine } from "../machine.ts";

/** How long from the start of the process to the first answered chat call, on a database that exists, and what it holds when idle? */
const REPETITIONS = 7;
const IDLE_MS = 3_000;

const first = await startAtriumProcess();
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
  const atrium = await startAtriumProcess({ dataDirectory: first.dataDirectory });
  const response = await fetch(`${atrium.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({ model: "start", max_tokens: 8, messages: [{ role: "user", content: "Ready?" }] }),
  });
  if (!response.ok) throw new Error(await response.text());
  await response.text();
  times.push(performance.now() - began);
  if (repetition === REPETITIONS - 1) {
    await sleep(IDLE_MS);
    idleMegabytes = Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${atrium.pid}/status`, "utf8"))?.[1]) / 1024);
  }
  await atrium.stop();
}
await removeData(first.dataDirectory);

times.sort((a, b) => a - b);
const at = (index: number) => `${Math.round(times[index] as number)} ms`;
const text = `# Cold start

${machine()}

From the start of the process to the first answered chat call, embedded database exists, ${REPETITIONS} starts: least ${at(0)}, median ${at(REPETITIONS >> 1)}, most ${at(REPETITIONS - 1)}.
Resident memory ${IDLE_MS / 1000} s after that call: ${idleMegabytes} MB, without the embedded database's own processes.
`;
console.log(text);
writeFileSync(path.join(import.meta.dirname, "results.md"), text);
