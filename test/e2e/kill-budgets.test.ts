import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { formatUsd, parseUsd } from "../../src/kernel/money.ts";
import { type AtriumProcess, createModel, createTenancy, removeData, startAtriumProcess } from "../support/atrium.ts";
import { judge, postgresPid, PRICE, settledRows, startLoad, startOracle, type Truth } from "../support/killing.ts";

/** `npm run soak` asks for 50. */
const KILLS = Math.ceil(Number(process.env["ATRIUM_TEST_KILLS"] ?? 20) / 4);
/** Every fourth kill is PostgreSQL's. */
const KILL_POSTGRES_EVERY = 4;
/** What the tenant's cap leaves at each start of the load: some calls at once, not all that come. */
const LEFT = parseUsd("0.015") as bigint;
/** Of each user, one call at once; the others wait. */
const TOKENS_OF_EACH = 1_200n;
const LEDGER = path.join(import.meta.dirname, "..", "..", "src", "surfaces", "cli", "ledger.ts");

interface BudgetView {
  readonly cap: string;
  readonly spent: string;
  readonly held: string;
}

test(`kill -9 of the server and of PostgreSQL under hard budgets, ${KILLS} times: spent ≤ cap, the ledger verifies, nothing is lost, charged twice or held for ever`, async (t) => {
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
  const all = "tenants/kills/budgets/all";
  const each = "tenants/kills/budgets/each";
  await atrium.admin("PUT", all, { scope: { kind: "tenant" }, unit: "usd", window: "total", cap: "0" });
  await atrium.admin("PUT", each, {
    scope: { kind: "user" },
    unit: "tokens",
    window: "rolling_1h",
    mode: "wait",
    cap: String(TOKENS_OF_EACH),
  });
  await atrium.admin("PUT", "budgets/platform", { scope: { kind: "platform" }, unit: "usd", window: "total", cap: "1000", mode: "clamp" });

  let refusedRounds = 0;
  for (let kill = 1; kill <= KILLS; kill++) {
    const { spent } = await read<BudgetView>(atrium, all);
    await atrium.admin("PUT", all, { cap: formatUsd((parseUsd(spent) as bigint) + LEFT) });
    const before = truths.size;
    const load = startLoad(atrium, key, truths, (call) => ({ "x-atrium-user": `user-${kill}-${call % 3}` }));
    await sleep(150 + Math.random() * 300);
    if (kill % KILL_POSTGRES_EVERY === 0) {
      process.kill(postgresPid(atrium.dataDirectory), "SIGKILL");
      await sleep(50 + Math.random() * 100);
      await load.stop();
    } else {
      await atrium.kill();
      await load.stop();
      atrium = await startAtriumProcess({ dataDirectory: atrium.dataDirectory });
    }
    if ([...truths.values()].slice(before).some((truth) => truth.dispatched === 0)) refusedRounds += 1;
    await mustBeWithinCaps(atrium, all, each);
  }

  const rows = await settledRows(atrium, truths);
  const verdict = judge(truths, rows);
  t.diagnostic(JSON.stringify({ kills: KILLS, refusedRounds, ...verdict.figures }));
  assert.deepEqual(verdict.violations, []);
  assert.ok(verdict.figures.lost > 0, "no kill met a call in flight: the load is too light to prove anything");
  assert.ok(refusedRounds > 0, "no call was refused or waited: the budgets are too wide to prove anything");
  const charged = rows.reduce((sum, row) => sum + (parseUsd(row.charge) as bigint), 0n);
  for (const budget of [all, "budgets/platform"]) {
    const view = await read<BudgetView>(atrium, budget);
    assert.deepEqual([parseUsd(view.spent), view.held], [charged, "0"], budget);
  }
  const verified = await verify(atrium.dataDirectory);
  assert.equal(verified.code, 0, verified.text);
  assert.match(
    verified.text,
    new RegExp(`^${rows.length} usage rows, ${rows.length} ledger entries.*\n3 budgets, \\d+ balances: 0 differ\\.$`, "m"),
  );
});

async function mustBeWithinCaps(atrium: AtriumProcess, all: string, each: string): Promise<void> {
  const { cap, spent } = await read<BudgetView>(atrium, all);
  assert.ok((parseUsd(spent) as bigint) <= (parseUsd(cap) as bigint), `spent ${spent} under a cap of ${cap}`);
  const { data } = await read<{ data: { subject: string; spent: string }[] }>(atrium, `${each}/balances?limit=100`);
  for (const { subject, spent: tokens } of data) assert.ok(BigInt(tokens) <= TOKENS_OF_EACH, `${subject} used ${tokens} tokens`);
}

/** PostgreSQL may be starting. */
async function read<View>(atrium: AtriumProcess, route: string): Promise<View> {
  for (let look = 0; ; look++) {
    try {
      return (await atrium.admin("GET", route)) as View;
    } catch (error) {
      if (look === 40) throw error;
      await sleep(250);
    }
  }
}

/** As an operator runs it, beside the server. */
function verify(dataDirectory: string): Promise<{ readonly code: number; readonly text: string }> {
  return new Promise((resolve) => {
    const env = { ...process.env, ATRIUM_DATA_DIR: dataDirectory };
    const child = execFile(process.execPath, [LEDGER, "verify"], { env }, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, text: `${stdout}${stderr}`.trim() }),
    );
  });
}
