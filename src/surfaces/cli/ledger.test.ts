import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { type TestDatabase, withDatabases } from "../../../test/support/postgres.ts";
import { openLedger, usd } from "../../domains/metering/budgets/testing/ledger.ts";
import { newId } from "../../domains/metering/testing/facts.ts";

const COMMAND = path.join(import.meta.dirname, "ledger.ts");

/** The command as an operator runs it, on the database that the test fills. */
async function ledgerCommand(t: TestContext, database: TestDatabase) {
  const directory = await mkdtemp(path.join(tmpdir(), "atrium-ledger-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const { databaseUrl, masterKey } = database.options;
  const env = {
    ...process.env,
    DATABASE_URL: databaseUrl,
    ATRIUM_DATA_DIR: directory,
    ATRIUM_MASTER_KEY: masterKey.export().toString("hex"),
  };
  return (...args: readonly string[]) =>
    new Promise<{ code: number; lines: string[] }>((resolve) => {
      const child = execFile(process.execPath, [COMMAND, ...args], { env }, (_error, stdout, stderr) =>
        resolve({ code: child.exitCode ?? -1, lines: `${stdout}${stderr}`.trim().split("\n") }),
      );
    });
}

test("`ledger verify` says in figures what is right and line by line what is not, and `--repair` puts it right, with an audit row", (t) =>
  withDatabases(t, async (database, t) => {
    const ledger = await openLedger(t, database);
    const run = await ledgerCommand(t, database);
    const acme = await ledger.tenant("acme");
    await ledger.putBudget("acme", "cap", { scope: { kind: "tenant" }, unit: "usd", window: "month", cap: "10", thresholds: [] });
    await ledger.ledger.open(null);
    await ledger.ship(acme.id, { charge: usd(1.5) });
    assert.deepEqual(await run("verify"), {
      code: 0,
      lines: ["1 usage rows, 1 ledger entries, 0 adjustments: debits 1.5, credits 1.5.", "1 budgets, 1 balances: 0 differ."],
    });
    await database.asSuperuser((client) => client.query("UPDATE budget_balances SET posted = posted * 2"));
    const found = await run("verify");
    assert.equal(found.code, 1);
    assert.match(found.lines[0] ?? "", /^tenant .*, no subject, window of .*: posted 3, by the rows 1\.5$/);
    const repaired = await run("verify", "--repair");
    assert.deepEqual([repaired.code, repaired.lines.at(-1)], [0, "1 budgets, 1 balances: 1 differ, and were put right."]);
    assert.equal((await run("verify")).code, 0);
    const { rows } = await database.asSuperuser((client) => client.query("SELECT actor FROM audit_rows WHERE action = 'ledger.repair'"));
    assert.deepEqual(rows, [{ actor: "command line" }]);
  }));

test("`ledger release` frees the budgets of the process it names, and of no other, nor of one that was alive a minute ago", (t) =>
  withDatabases(t, async (database, t) => {
    await openLedger(t, database);
    const run = await ledgerCommand(t, database);
    const [keeper, stranger] = [newId(), newId()];
    assert.match((await run("keeper")).lines.join(), /^No process keeps/);
    await database.asSuperuser((client) => client.query("INSERT INTO budget_keeper (journal_id, taken_at) VALUES ($1, now())", [keeper]));
    assert.match((await run("keeper")).lines.join(), new RegExp(`^${keeper} keeps the budgets since`));
    assert.equal((await run("release", stranger)).code, 1);
    const shipped = (ago: string) =>
      database.asSuperuser((client) =>
        client.query(
          `INSERT INTO journals (id, watermark, updated_at) VALUES ($1, 1, now() - $2::interval)
           ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at`,
          [keeper, ago],
        ),
      );
    await shipped("10 seconds");
    assert.match((await run("release", keeper)).lines.join(), /^Nothing was released\. .* was alive at/);
    await shipped("70 seconds");
    assert.equal((await run("release", keeper)).code, 0);
    assert.match((await run("keeper")).lines.join(), /^No process keeps/);
    assert.equal((await run("release", keeper)).code, 1);
    assert.equal((await run("release")).code, 2);
  }));
