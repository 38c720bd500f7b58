import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { freshDatabase } from "../../../test/support/postgres.ts";
import { meteringOn, openTestJournal, temporaryDirectory, TestKeyrings } from "./testing/world.ts";

const KILLS = 20;

/** What a caller knows of an attempt: what it was told before the kill. */
interface Seen {
  tokens: number;
  inputTokens: number;
  ended: boolean;
}

/** Runs the victim for a while and kills it; adds what it said to `oracle`. */
async function killedRun(directory: string, milliseconds: number, oracle: Map<string, Seen>): Promise<void> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "testing", "victim.ts"), directory], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const output = collected(child);
  await once(child.stdout as NodeJS.ReadableStream, "data");
  await sleep(milliseconds);
  child.kill("SIGKILL");
  const [, signal] = await once(child, "close");
  assert.equal(signal, "SIGKILL", "the victim died by itself");
  // A line that the kill cut in two was not received.
  for (const line of (await output).split("\n").slice(0, -1)) {
    const [attempt, what, tokens, inputTokens] = line.split(" ") as [string, string, string, string];
    assert.ok(["held", "token", "end"].includes(what), line);
    oracle.set(attempt, { tokens: Number(tokens), inputTokens: Number(inputTokens), ended: what === "end" });
  }
}

async function collected(child: ChildProcess): Promise<string> {
  let text = "";
  child.stdout?.setEncoding("utf8").on("data", (data: string) => (text += data));
  await once(child, "close");
  return text;
}

interface Row {
  id: string;
  status: string;
  input: number;
  output: number;
  cost: bigint;
  worst_case: bigint;
  dispatch_unknown: boolean;
}

test(`after each of ${KILLS} kill -9 every attempt is charged exactly once: what completed at its price, what was cut off with delivered ≤ charged ≤ held`, async (t: TestContext) => {
  const database = await freshDatabase(t, "embedded");
  const directory = await temporaryDirectory(t);
  const opened = await database.open();
  const oracle = new Map<string, Seen>();
  const keyrings = new TestKeyrings();
  let lost = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    await killedRun(directory, 5 + ((kill * 37) % 90), oracle);
    const journal = await openTestJournal(directory);
    const metering = meteringOn(journal, opened, keyrings);
    lost += await metering.recover();
    await metering.flush();
    await metering.close();
    await journal.close();
  }
  const rows = await database.asSuperuser(
    async (client) =>
      (
        await client.query(
          "SELECT id, status, input_uncached::int AS input, output::int AS output, cost::text, worst_case::text, dispatch_unknown FROM usage_rows",
        )
      ).rows.map((row) => ({
        ...row,
        cost: BigInt(row.cost),
        worst_case: BigInt(row.worst_case),
      })) as Row[],
  );
  const entries = await database.asSuperuser(
    async (client) =>
      (await client.query("SELECT count(*)::int AS count, sum(debit_spend)::text AS total FROM ledger_entries")).rows[0] as {
        count: number;
        total: string;
      },
  );
  assert.equal(new Set(rows.map((row) => row.id)).size, rows.length, "an attempt has two rows");
  assert.deepEqual([entries.count, entries.total], [rows.length, String(rows.reduce((sum, row) => sum + row.cost, 0n))]);
  const byId = new Map(rows.map((row) => [row.id, row]));
  let completed = 0;
  let unknown = 0;
  for (const [attempt, seen] of oracle) {
    const row = byId.get(attempt);
    assert.ok(row !== undefined, `attempt ${attempt} was dispatched and is not charged`);
    assert.ok(row.cost <= row.worst_case);
    assert.equal(row.cost, BigInt(row.input) * 150_000n + BigInt(row.output) * 600_000n);
    if (seen.ended) {
      completed++;
      assert.deepEqual([row.status, row.input, row.output], ["completed", seen.inputTokens, seen.tokens]);
    } else if (row.dispatch_unknown) {
      unknown++;
      assert.equal(seen.tokens, 0, "tokens were delivered of an attempt that may never have left");
    } else {
      assert.ok(seen.tokens <= row.output, `${seen.tokens} delivered, ${row.output} charged`);
      assert.ok(seen.inputTokens <= row.input);
    }
  }
  assert.ok(lost > 0 && completed > 0, `too tame: ${lost} lost, ${completed} completed`);
  t.diagnostic(
    `${KILLS} kills: ${rows.length} attempts charged once, ${completed} known to be complete at their exact price, ${lost} lost, of them ${unknown} dispatch_unknown; 0 uncharged, 0 charged twice`,
  );
});
