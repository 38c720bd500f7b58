import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { meteringOn, TestKeyrings } from "../../src/domains/metering/testing/world.ts";
import { newId, silent } from "../../src/domains/metering/testing/facts.ts";
import { systemClock } from "../../src/kernel/clock.ts";
import { backUp, restore } from "../../src/storage/backup/index.ts";
import { contentsOf, fill } from "../../src/storage/backup/testing/filling.ts";
import { type Database, DatabaseUnavailable } from "../../src/storage/database/index.ts";
import { openJournal } from "../../src/storage/journal/index.ts";
import { type AtriumProcess, createModel, createTenancy, startAtriumProcess } from "../support/atrium.ts";
import { BACKENDS } from "../support/postgres-server.ts";
import { emptyDatabase, freshDatabase, TEST_MASTER_KEY, type TestDatabase, withDatabases } from "../support/postgres.ts";

// Backup, restore and migrate as an operator runs them, and the calls that PostgreSQL did not have yet.

const ROOT = path.join(import.meta.dirname, "..", "..");

test("a backup beside a busy server, restored on another machine, serves the same keys and has every call answered before it, once", async (t) => {
  const atrium = await started(t);
  await createModel(atrium, { model: "sim", provider: "simulated", upstreamModel: "simulated", price: { input: "3", output: "15" } });
  const { key } = await createTenancy(atrium, "acme", "sim");
  const load = startLoad(atrium, key);
  await load.reaches(50);
  const answered = [...load.answered];
  const backups = path.join(temporaryDirectory(t), "backups");
  mkdirSync(backups);
  const taken = await run("backup", ["--to", backups], { ATRIUM_DATA_DIR: atrium.dataDirectory });
  assert.equal(taken.code, 0, taken.output);
  assert.match(taken.output, /atrium-\d{4}-\d\d-\d\dT\d{6}Z\.tar \(.* MB\)/);
  assert.match(taken.output, /master key \([0-9a-f-]{19}\) is NOT in it/);
  await load.stop();
  await atrium.stop();
  const [name] = readdirSync(backups);
  const file = path.join(backups, name as string);

  const elsewhere = path.join(temporaryDirectory(t), "data");
  const withoutKey = await run("restore", ["--from", file], { ATRIUM_DATA_DIR: elsewhere });
  assert.equal(withoutKey.code, 1);
  assert.match(withoutKey.output, /^No master key is given: set ATRIUM_MASTER_KEY/);
  assert.ok(!existsSync(elsewhere));
  mkdirSync(elsewhere, { mode: 0o700 });
  copyFileSync(path.join(atrium.dataDirectory, "master.key"), path.join(elsewhere, "master.key"));
  const restored = await run("restore", ["--from", file], { ATRIUM_DATA_DIR: elsewhere });
  assert.equal(restored.code, 0, restored.output);

  const second = await started(t, elsewhere);
  await call(second, key, "after");
  const features = await featuresOf(second);
  assert.deepEqual(
    answered.filter((feature) => features.filter((each) => each === feature).length !== 1),
    [],
  );
  assert.ok(features.includes("after"));
  t.diagnostic(`${answered.length} calls answered before the backup, ${load.answered.length} by its end, ${features.length - 1} restored`);
});

test("with the server stopped, an embedded database moves to the operator's own PostgreSQL and goes on there", async (t) => {
  const debian = BACKENDS.find(({ kind }) => kind === "debian");
  if (debian === undefined || debian.unavailable !== null) {
    t.diagnostic(debian?.unavailable ?? "");
    t.skip(debian?.unavailable ?? "");
    return;
  }
  const atrium = await started(t);
  await createModel(atrium, { model: "sim", provider: "simulated", upstreamModel: "simulated", price: { input: "3", output: "15" } });
  const { key } = await createTenancy(atrium, "acme", "sim");
  for (let calls = 0; calls < 5; calls++) await call(atrium, key, `call-${calls}`);
  const before = await featuresOf(atrium);
  await atrium.stop();
  const here = { ATRIUM_DATA_DIR: atrium.dataDirectory };
  const file = path.join(temporaryDirectory(t), "b.tar");
  assert.equal((await run("migrate", ["--check"], here)).code, 0);
  assert.equal((await run("backup", ["--to", file], here)).code, 0);
  assert.match((await run("restore", ["--verify", file], {})).output, /Every checksum is right/);

  const target = await emptyDatabase(t, "debian");
  const there = {
    ATRIUM_DATA_DIR: path.join(temporaryDirectory(t), "data"),
    DATABASE_URL: target.url,
    ATRIUM_MASTER_KEY: readFileSync(path.join(atrium.dataDirectory, "master.key"), "utf8").trim(),
  };
  const empty = await run("migrate", ["--check"], there);
  assert.equal(empty.code, 1);
  assert.match(empty.output, /The database is empty\. Pending[^]*0001_ground/);
  const restored = await run("restore", ["--from", file], there);
  assert.equal(restored.code, 0, restored.output);
  assert.match((await run("migrate", ["--check"], there)).output, /which is this release's/);
  const second = await started(t, there.ATRIUM_DATA_DIR, { DATABASE_URL: there.DATABASE_URL, ATRIUM_MASTER_KEY: there.ATRIUM_MASTER_KEY });
  await call(second, key, "after");
  assert.deepEqual((await featuresOf(second)).sort(), [...before, "after"].sort());
});

test("what was typed wrong is exit code 2 and a sentence; a machine without Atrium is one and makes nothing", async (t) => {
  const nowhere = path.join(temporaryDirectory(t), "data");
  for (const [command, args, code, sentence] of [
    ["backup", [], 2, /^Say where to: npm run backup -- --to FILE/],
    ["backup", ["--into", "x"], 2, /^Unknown option '--into'/],
    ["restore", [], 2, /^Say which: npm run restore -- --from FILE/],
    ["backup", ["--to", "x"], 1, /^There is no Atrium in /],
    ["migrate", ["--check"], 1, /^There is no Atrium in /],
    ["restore", ["--verify", path.join(ROOT, "package.json")], 1, /is not a backup of Atrium/],
    ["restore", ["--verify", "/missing.tar"], 1, /no such file/],
  ] as const) {
    const { code: exit, output } = await run(command, args, { ATRIUM_DATA_DIR: nowhere });
    assert.equal(exit, code, output);
    assert.match(output, sentence);
  }
  assert.ok(!existsSync(nowhere));
});

test("a backup that is interrupted, or whose disk is full, ends at once and leaves no file", async (t) => {
  const source = await freshDatabase(t, "embedded");
  await source.asSuperuser((client) => fill(client, 20_000));
  const directory = temporaryDirectory(t);
  const environment = {
    ATRIUM_DATA_DIR: path.join(directory, "data"),
    DATABASE_URL: source.url,
    ATRIUM_MASTER_KEY: TEST_MASTER_KEY.export().toString("hex"),
  };
  const backups = path.join(directory, "backups");
  mkdirSync(backups);
  const full = await run("backup", ["--to", backups], environment, MAX_FILE_BLOCKS);
  assert.equal(full.code, 1);
  assert.match(full.output, /^EFBIG: file too large/);
  assert.deepEqual(readdirSync(backups), []);
  for (const [signal, code] of [
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const) {
    const interrupted = run("backup", ["--to", backups], environment, null, (child) => {
      const watcher = setInterval(() => {
        if (readdirSync(backups).length === 0) return;
        clearInterval(watcher);
        child.kill(signal);
      }, 2);
    });
    assert.equal((await interrupted).code, code);
    assert.deepEqual(readdirSync(backups), [], signal);
  }
});

test("calls that PostgreSQL had not had yet come back from the journal: none lost, none twice, under load and with segments removed meanwhile", async (t) => {
  await withDatabases(t, async (source, t) => {
    const keyrings = new TestKeyrings();
    const directory = temporaryDirectory(t);
    const journal = await openTestJournal(directory);
    const database = await source.open();
    let away = false;
    const metering = meteringOn(
      journal,
      withAbsences(database, () => away),
      keyrings,
    );
    await metering.recover();
    const answered: string[] = [];
    let busy = true;
    const load = Array.from({ length: 4 }, async () => {
      while (busy) {
        answered.push((await metering.call()).attempt);
        await sleep(4);
      }
    });
    const backups: { file: string; before: string[] }[] = [];
    for (const absent of [false, true, false]) {
      await sleep(150);
      away = absent;
      await sleep(50);
      const before = [...answered];
      const file = path.join(directory, `${backups.length}.tar`);
      const taking = backUp({ ...source.options, dataDirectory: directory, to: file, release: "0.0.0" });
      const back = setTimeout(() => (away = false), 30);
      await taking;
      clearTimeout(back);
      away = false;
      backups.push({ file, before });
    }
    busy = false;
    await Promise.all(load);
    await metering.close();
    await journal.close();
    for (const { file, before } of backups) await assertRestoresAll(t, source, keyrings, file, before);
  });
});

async function assertRestoresAll(t: TestContext, source: TestDatabase, keyrings: TestKeyrings, file: string, before: readonly string[]) {
  const target = await emptyDatabase(t, source.backend);
  const directory = temporaryDirectory(t);
  await restore({ ...target.options, dataDirectory: directory, from: file });
  const inSnapshot = await attemptsOf(target);
  assert.equal((await target.asSuperuser(contentsOf)).money.wrong, 0, "the snapshot alone is consistent");
  const journal = await openTestJournal(directory);
  const metering = meteringOn(journal, await target.open(), keyrings);
  await metering.recover();
  await metering.flush();
  await metering.close();
  await journal.close();
  const restored = new Set(await attemptsOf(target));
  assert.deepEqual(
    before.filter((attempt) => !restored.has(attempt)),
    [],
  );
  const { money } = await target.asSuperuser(contentsOf);
  assert.deepEqual([money.wrong, money.usage], [0, money.debits]);
  t.diagnostic(`${before.length} answered before; ${inSnapshot.length} in the snapshot, ${restored.size} with the journal`);
  assert.ok(restored.size > inSnapshot.length, "the journal had nothing to add: this proves nothing");
}

async function attemptsOf(database: TestDatabase): Promise<string[]> {
  const { rows } = await database.asSuperuser((client) => client.query<{ id: string }>("SELECT id FROM usage_rows"));
  return rows.map(({ id }) => id);
}

/** Small segments, so that they are filled, shipped and removed while a backup looks. */
async function openTestJournal(dataDirectory: string) {
  const { journal } = await openJournal({
    directory: path.join(dataDirectory, "journal"),
    durability: "process",
    clock: systemClock,
    makeId: newId,
    log: silent,
    limits: { segmentBytes: 16 * 1024 },
  });
  return journal;
}

function withAbsences(database: Database, away: () => boolean): Pick<Database, "forSystem"> {
  return {
    forSystem: async (job, work) => {
      if (away()) throw new DatabaseUnavailable("away");
      return database.forSystem(job, work);
    },
  };
}

function startLoad(atrium: AtriumProcess, key: string) {
  const answered: string[] = [];
  let running = true;
  const clients = Array.from({ length: 4 }, async (_, client) => {
    for (let calls = 0; running; calls++) {
      const feature = `call-${client}-${calls}`;
      await call(atrium, key, feature);
      answered.push(feature);
    }
  });
  return {
    answered,
    async reaches(count: number) {
      while (answered.length < count) await sleep(10);
    },
    async stop() {
      running = false;
      await Promise.all(clients);
    },
  };
}

async function call(atrium: AtriumProcess, key: string, feature: string): Promise<void> {
  const response = await fetch(`${atrium.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json", "x-atrium-feature": feature },
    body: JSON.stringify({ model: "sim", max_tokens: 5, messages: [{ role: "user", content: "Hi" }] }),
  });
  assert.equal(response.status, 200, await response.text());
}

async function featuresOf(atrium: AtriumProcess): Promise<string[]> {
  const features: string[] = [];
  for (let after = ""; ;) {
    const page = (await atrium.admin("GET", `usage/hops?limit=100${after === "" ? "" : `&after=${encodeURIComponent(after)}`}`)) as {
      data: { feature: string }[];
      has_more: boolean;
      last_id: string;
    };
    features.push(...page.data.map(({ feature }) => feature));
    if (!page.has_more) return features;
    after = page.last_id;
  }
}

async function started(t: TestContext, dataDirectory = path.join(temporaryDirectory(t), "data"), environment = {}): Promise<AtriumProcess> {
  const atrium = await startAtriumProcess({ dataDirectory, environment });
  t.after(() => atrium.stop());
  return atrium;
}

/** Of 512 bytes: less than the backup takes. */
const MAX_FILE_BLOCKS = 100;

/** A command of src/surfaces/cli, as `npm run` starts it; its output is both streams'. */
async function run(
  command: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
  fileBlocks: number | null = null,
  onStart: (child: ChildProcess) => void = () => {},
): Promise<{ code: number | null; output: string }> {
  const file = path.join(ROOT, "src", "surfaces", "cli", `${command}.ts`);
  const limit = fileBlocks === null ? "" : `ulimit -f ${fileBlocks}; `;
  const child = spawn("sh", ["-c", `${limit}exec "$@"`, "sh", process.execPath, file, ...args], {
    env: { ...process.env, ...environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += data));
  onStart(child);
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, output };
}

function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(path.join(tmpdir(), "atrium-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
