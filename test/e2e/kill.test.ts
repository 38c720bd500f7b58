import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { createModel, createTenancy, removeData, startAtriumProcess } from "../support/atrium.ts";
import { judge, postgresPid, PRICE, settledRows, startLoad, startOracle, type Truth } from "../support/killing.ts";

/** `npm run soak` asks for 200. */
const KILLS = Number(process.env["ATRIUM_TEST_KILLS"] ?? 20);
/** Every third kill is PostgreSQL's; the server lives on and recovers. */
const KILL_POSTGRES_EVERY = 3;

test(`kill -9 of the server and of PostgreSQL during load, ${KILLS} times: every dispatched attempt is charged exactly once`, async (t) => {
  const truths = new Map<string, Truth>();
  const upstream = await startOracle(truths);
  let atrium = await startAtriumProcess();
  t.after(() => upstream.close());
  t.after(async () => {
    await atrium.stop();
    await removeData(atrium.dataDirectory);
  });
  await createModel(atrium, { model: "oracle", provider: "vllm", upstreamModel: "oracle-1", baseUrl: upstream.baseUrl, price: PRICE });
  const { key } = await createTenancy(atrium, "kills", "oracle");

  for (let kill = 1; kill <= KILLS; kill++) {
    const load = startLoad(atrium, key, truths);
    await sleep(80 + Math.random() * 250);
    if (kill % KILL_POSTGRES_EVERY === 0) {
      process.kill(postgresPid(atrium.dataDirectory), "SIGKILL");
      await sleep(50 + Math.random() * 100);
      await load.stop();
    } else {
      await atrium.kill();
      await load.stop();
      atrium = await startAtriumProcess({ dataDirectory: atrium.dataDirectory });
    }
  }

  const rows = await settledRows(atrium, truths);
  const verdict = judge(truths, rows);
  t.diagnostic(JSON.stringify({ kills: KILLS, ...verdict.figures }));
  assert.deepEqual(verdict.violations, []);
  assert.ok(verdict.figures.lost > 0, "no kill met a call in flight: the load is too light to prove anything");
});
