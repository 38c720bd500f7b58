import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { silentLog, TEST_MASTER_KEY } from "../../../../test/support/postgres.ts";
import { systemClock } from "../../../kernel/clock.ts";
import { PLATFORM_TENANT } from "../../../kernel/ids.ts";
import { systemRandom } from "../../../kernel/random.ts";
import { masterKeyFrom } from "../../secrets/index.ts";
import {
  bumpConfig,
  type Database,
  type DatabaseLog,
  type DatabaseOptions,
  DatabaseRefusal,
  DatabaseUnavailable,
  openDatabase,
  type RefusalCode,
} from "../index.ts";
import { withClient } from "../connection.ts";
import { completeLinks, embeddedBinaries } from "./binaries.ts";
import { openCluster } from "./cluster.ts";
import { accountLauncher, chooseLauncher, unprivilegedAccount } from "./launcher.ts";
import { startServer } from "./server.ts";
import { socketDirectory } from "./socket-directory.ts";

const isRoot = process.getuid?.() === 0;
const temporary: string[] = [];
after(() => {
  for (const directory of temporary) rmSync(directory, { recursive: true, force: true });
});

test("the first start makes a cluster in a directory closed to others, the next start finds what was committed, and a close leaves no process", async (t) => {
  const dataDirectory = newDirectory();
  t.diagnostic(
    `as ${isRoot ? "root" : `user ${process.getuid?.()}`}, started ${chooseLauncher({ executable: "true", dataDirectory, directory: dataDirectory }).kind}`,
  );
  chmodSync(dataDirectory, 0o700);
  for (const version of [1, 2]) {
    const startedAt = performance.now();
    const { database, serverPid } = await open(dataDirectory);
    t.diagnostic(`start ${version}: ${(performance.now() - startedAt).toFixed(0)} ms`);
    assert.equal(await database.forTenant(PLATFORM_TENANT, bumpConfig), version);
    await database.close();
    assert.ok(!isRunning(serverPid()));
  }
  assert.equal(readFileSync(join(dataDirectory, "postgres", "18", "PG_VERSION"), "utf8").trim(), "18");
  assert.equal(statSync(join(dataDirectory, "postgres", "superuser.password")).mode & 0o077, 0);
});

test("fsync and synchronous_commit are on, only a unix socket listens, and the superuser has a password", async () => {
  const dataDirectory = prepared();
  const { database } = await open(dataDirectory);
  const password = readFileSync(join(dataDirectory, "postgres", "superuser.password"), "utf8");
  const host = encodeURIComponent(join(dataDirectory, "postgres", "run"));
  await withClient(`postgres://postgres:${password}@localhost/atrium?host=${host}`, "test", async (client) => {
    const { rows } = await client.query(
      "SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS commit, current_setting('listen_addresses') AS addresses",
    );
    assert.deepEqual(rows, [{ fsync: "on", commit: "on", addresses: "" }]);
  });
  await assert.rejects(
    withClient(`postgres://postgres:wrong@localhost/atrium?host=${host}`, "test", async () => {}),
    { code: "28P01" },
  );
  await database.close();
});

test("a data directory with a path longer than a socket address, or with characters that settings quote, works", async () => {
  const root = newDirectory();
  const dataDirectory = join(root, "deep ".repeat(20), 'a "quoted", comma', "d".repeat(60));
  mkdirSync(dataDirectory, { recursive: true });
  for (const version of [1, 2]) {
    const { database } = await open(dataDirectory);
    assert.equal(await database.forTenant(PLATFORM_TENANT, bumpConfig), version);
    const sockets = readFileSync(join(dataDirectory, "postgres", "socket-directory"), "utf8").trim();
    assert.equal(lstatSync(sockets).mode & 0o777, 0o700);
    await database.close();
    assert.ok(!existsSync(sockets), "nothing stays in the temporary directory");
  }
  const short = join(newDirectory(), 'a "b", c');
  mkdirSync(short);
  const { database } = await open(short);
  assert.ok(existsSync(join(short, "postgres", "run", ".s.PGSQL.5432")));
  await database.close();
});

test("the server of a SIGKILLed parent is stopped by the next start, which has every commit", async (t) => {
  const dataDirectory = prepared();
  const parent = await startParent(t, dataDirectory);
  parent.process.kill("SIGKILL");
  await once(parent.process, "exit");
  assert.ok(isRunning(parent.serverPid), "the server outlives its parent");
  const { database, serverPid } = await open(dataDirectory);
  assert.notEqual(serverPid(), parent.serverPid);
  assert.ok(!isRunning(parent.serverPid));
  assert.equal(await database.forTenant(PLATFORM_TENANT, bumpConfig), parent.version + 1);
  await database.close();
});

test("a pid file that names some other living process neither stops the start nor that process", async (t) => {
  const dataDirectory = prepared();
  const bystander = spawn("sleep", ["60"]);
  t.after(() => bystander.kill());
  writeFileSync(
    join(dataDirectory, "postgres", "18", "postmaster.pid"),
    `${bystander.pid}\n${join(dataDirectory, "postgres", "18")}\n1\n5432\n`,
  );
  const { database } = await open(dataDirectory);
  await database.ping();
  assert.ok(isRunning(bystander.pid));
  await database.close();
});

test("Ctrl-C to the process group leaves the server up until the parent, on SIGTERM, stops it", async (t) => {
  const parent = await startParent(t, prepared());
  process.kill(-(parent.process.pid as number), "SIGINT");
  await sleep(200);
  assert.ok(isRunning(parent.serverPid));
  parent.process.kill("SIGTERM");
  // The parent's ping on the way out proves that the server was there to drain on.
  assert.equal(await parent.nextLine(), "closed");
  await once(parent.process, "exit");
  assert.ok(!isRunning(parent.serverPid));
});

test("a parent that exits without closing still has its server stopped", async (t) => {
  const parent = await startParent(t, prepared(), "exit");
  for (let waitedMs = 0; isRunning(parent.serverPid) && waitedMs < 10_000; waitedMs += 20) await sleep(20);
  assert.ok(!isRunning(parent.serverPid));
});

test("a second process on the same data directory is refused while the first lives, and not after", async (t) => {
  const dataDirectory = prepared();
  const parent = await startParent(t, dataDirectory);
  await assert.rejects(open(dataDirectory), refusal("data_directory_in_use", /Another Atrium is running/));
  parent.process.kill("SIGTERM");
  await once(parent.process, "exit");
  const { database } = await open(dataDirectory);
  await assert.rejects(open(dataDirectory), refusal("data_directory_in_use", /Another Atrium is running/));
  await database.close();
});

test("kill -9 of PostgreSQL under load: work fails typed, the server comes back, and every acknowledged commit is there", async (t) => {
  const { database, serverPid } = await open(prepared());
  const acknowledged: number[] = [];
  let failed = 0;
  let running = true;
  const worker = async () => {
    while (running) {
      try {
        acknowledged.push(await database.forTenant(PLATFORM_TENANT, bumpConfig));
      } catch (error) {
        assert.ok(error instanceof DatabaseUnavailable, String(error));
        failed++;
        await sleep(20);
      }
    }
  };
  const workers = Array.from({ length: 4 }, worker);
  const kills = 3;
  for (let kill = 0; kill < kills; kill++) {
    await sleep(150);
    const [before, pid] = [acknowledged.length, serverPid() as number];
    process.kill(pid, "SIGKILL");
    for (let waitedMs = 0; (acknowledged.length <= before + 4 || serverPid() === pid) && waitedMs < 15_000; waitedMs += 20) await sleep(20);
    assert.ok(acknowledged.length > before + 4, "commits go on after the restart");
  }
  running = false;
  await Promise.all(workers);
  const stored = new Set(
    (await database.forSystem("snapshot", (tx) => tx.selectFrom("config_changes").select("version").execute())).map((row) => row.version),
  );
  assert.deepEqual(
    acknowledged.filter((version) => !stored.has(version)),
    [],
  );
  assert.equal(new Set(acknowledged).size, acknowledged.length);
  t.diagnostic(`${kills} kills: ${acknowledged.length} commits acknowledged, 0 lost, 0 doubled; ${failed} failed typed`);
  await database.close();
});

test("another master key is refused, and its server does not stay", async () => {
  const dataDirectory = prepared();
  const { database, serverPid } = await open(dataDirectory);
  await database.close();
  await assert.rejects(
    open(dataDirectory, { masterKey: masterKeyFrom("b8".repeat(32)) }),
    refusal("master_key_mismatch", /another master key/),
  );
  assert.ok(!isRunning(serverPid()));
  await (await open(dataDirectory)).database.close();
});

test("data of another major version is refused with the way to move, wherever it lies", async () => {
  const [inPlace, beside] = [newDirectory(), newDirectory()];
  for (const directory of [join(inPlace, "postgres", "18"), join(beside, "postgres", "17")]) {
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, "PG_VERSION"), "17\n");
  }
  for (const dataDirectory of [inPlace, beside]) {
    await assert.rejects(
      open(dataDirectory),
      refusal("data_of_other_major", /holds data of PostgreSQL 17, and this Atrium runs PostgreSQL 18: back it up/),
    );
  }
});

test("a start that was interrupted while making the cluster is made good by the next", async () => {
  const dataDirectory = newDirectory();
  mkdirSync(join(dataDirectory, "postgres", "18.new", "base"), { recursive: true });
  writeFileSync(join(dataDirectory, "postgres", "18.new", "PG_VERSION"), "18\n");
  const { database } = await open(dataDirectory);
  await database.ping();
  await database.close();
  assert.ok(!existsSync(join(dataDirectory, "postgres", "18.new")));
});

test("a cluster that does not start says why, in the server's words", async () => {
  const dataDirectory = newDirectory();
  const directory = join(dataDirectory, "postgres", "18");
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  writeFileSync(join(directory, "PG_VERSION"), "18\n");
  writeFileSync(join(dataDirectory, "postgres", "superuser.password"), "x");
  await assert.rejects(open(dataDirectory), refusal("server_did_not_start", /did not start .*postgresql\.conf/s));
});

test("library links that npm left out are made in the package's folder", () => {
  const native = packageWithoutLinks();
  assert.equal(completeLinks(native, join(native, "spare")), null);
  assert.equal(readFileSync(join(native, "lib", "libx.so.1"), "utf8"), "library");
  assert.equal(completeLinks(native, join(native, "spare")), null, "a second time there is nothing to do");
  assert.ok(!existsSync(join(native, "spare")));
});

test("where the package's folder may not be written, the links go to the data directory and the loader is told", (t) => {
  const native = packageWithoutLinks();
  const spare = join(newDirectory(), "lib");
  for (const directory of [dirname(native), native, join(native, "lib")]) chmodSync(directory, 0o555);
  chmodSync(dirname(spare), 0o777);
  const program = `console.log((await import(${JSON.stringify(join(import.meta.dirname, "binaries.ts"))})).completeLinks(${JSON.stringify(native)}, ${JSON.stringify(spare)}))`;
  const account = isRoot ? unprivilegedAccount() : null;
  const child = spawnSync(process.execPath, ["--input-type=module", "-e", program], { encoding: "utf8", cwd: "/", ...account });
  if (child.status === null || /EACCES/.test(child.stderr))
    return skip(t, `an unprivileged account cannot reach this checkout: ${child.error?.message ?? child.stderr.slice(0, 200)}`);
  assert.equal(child.stdout.trim(), spare, child.stderr);
  assert.equal(readFileSync(join(spare, "libx.so.1"), "utf8"), "library");
  for (const directory of [dirname(native), native, join(native, "lib")]) chmodSync(directory, 0o755);
});

test("the server runs on nothing but the spare links", (t) => {
  const real = embeddedBinaries(newDirectory());
  const native = join(newDirectory(), "native");
  const links = join(dirname(dirname(real.postgres)), "pg-symlinks.json");
  if (!existsSync(links)) return skip(t, "this platform's package needs no links");
  cpSync(join(dirname(dirname(real.postgres))), native, {
    recursive: true,
    filter: (path) => !lstatSync(path).isSymbolicLink() && !path.includes("/share/"),
  });
  const postgres = join(native, "bin", "postgres");
  const run = (environment: NodeJS.ProcessEnv) => spawnSync(postgres, ["--version"], { encoding: "utf8", env: environment });
  assert.notEqual(run({}).status, 0, "without links it cannot load");
  const spare = newDirectory();
  for (const { source, target } of JSON.parse(readFileSync(links, "utf8")) as { source: string; target: string }[]) {
    symlinkSync(join(native, "..", source), join(spare, target.slice(target.lastIndexOf("/") + 1)));
  }
  assert.match(run({ LD_LIBRARY_PATH: spare }).stdout, /PostgreSQL\) 18/);
});

test("as root without user namespaces, an unprivileged account is chosen, and let through the data directory but not into it", (t) => {
  if (!isRoot) return skip(t, "not root");
  const [dataDirectory, path] = [newDirectory(), process.env["PATH"]];
  const root = join(dataDirectory, "postgres");
  mkdirSync(root);
  const programs = newDirectory();
  chmodSync(programs, 0o755);
  symlinkSync("/usr/bin/test", join(programs, "test"));
  try {
    process.env["PATH"] = programs;
    assert.equal(chooseLauncher({ executable: "/bin/true", dataDirectory, directory: root }).kind, "account");
  } finally {
    process.env["PATH"] = path;
  }
  assert.equal(statSync(dataDirectory).mode & 0o777, 0o711);
});

test("as root without user namespaces, an unprivileged account runs the server where it can reach", async (t) => {
  const account = unprivilegedAccount();
  if (!isRoot || account === null) return skip(t, "not root");
  const root = newDirectory();
  chmodSync(root, 0o755);
  const binaries = embeddedBinaries(join(root, "lib"));
  const launcher = accountLauncher(account);
  launcher.own(root);
  const reach = launcher.command("/usr/bin/test", ["-x", binaries.postgres]);
  if (spawnSync(reach.file, reach.args, { uid: account.uid, gid: account.gid }).status !== 0)
    return skip(t, "the account cannot reach the binaries of this checkout");
  const cluster = await openCluster(root, binaries, launcher, systemRandom);
  const sockets = socketDirectory(root, launcher);
  const server = await startServer({
    binaries,
    launcher,
    directory: cluster.directory,
    socketDirectory: sockets.path,
    logFile: join(root, "server.log"),
    settings: {},
    log: silentLog,
  });
  assert.equal(statSync(cluster.directory).uid, account.uid);
  assert.equal(statSync(`/proc/${server.pid}`).uid, account.uid);
  await withClient(
    `postgres://postgres:${cluster.superuserPassword}@localhost/postgres?host=${encodeURIComponent(sockets.path)}`,
    "test",
    (client) => client.query("SELECT 1"),
  );
  await server.stop();
});

test("where nothing can run the server, the start stops with a sentence that names DATABASE_URL", (t) => {
  if (!isRoot) return skip(t, "not root");
  const path = process.env["PATH"];
  const closed = newDirectory();
  const inside = join(closed, "data");
  mkdirSync(inside);
  try {
    // No `unshare` to be found, and a parent directory that no other account may enter.
    process.env["PATH"] = "/nonexistent";
    assert.throws(
      () => chooseLauncher({ executable: "/bin/true", dataDirectory: inside, directory: inside }),
      refusal("no_embedded_server", /set DATABASE_URL/),
    );
  } finally {
    process.env["PATH"] = path;
  }
});

/** A cluster made once for the tests that leave it whole. */
function prepared(): string {
  if (shared === null) shared = newDirectory();
  return shared;
}
let shared: string | null = null;

function newDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "atrium-embedded-"));
  temporary.push(directory);
  return directory;
}

async function open(
  dataDirectory: string,
  overrides: Partial<DatabaseOptions> = {},
): Promise<{ database: Database; serverPid: () => number | null }> {
  let pid: number | null = null;
  const note = (fields: object) => {
    if ("pid" in fields && typeof fields.pid === "number") pid = fields.pid;
  };
  const log: DatabaseLog = { ...silentLog, info: note };
  const database = await openDatabase({
    dataDirectory,
    masterKey: TEST_MASTER_KEY,
    clock: systemClock,
    random: systemRandom,
    log,
    ...overrides,
  });
  return { database, serverPid: () => pid };
}

interface Parent {
  readonly process: ChildProcess;
  readonly serverPid: number;
  readonly version: number;
  nextLine(): Promise<string>;
}

/** In a process group of its own, as under a shell. */
async function startParent(t: TestContext, dataDirectory: string, ...args: string[]): Promise<Parent> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "parent.fixture.ts"), dataDirectory, ...args], {
    detached: true,
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => child.kill("SIGKILL"));
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const nextLine = async () => String((await lines.next()).value);
  const { serverPid, version } = JSON.parse(await nextLine()) as { serverPid: number; version: number };
  return { process: child, serverPid, version, nextLine };
}

/** A zombie whose parent never asks is not running. */
function isRunning(pid: number | null | undefined): boolean {
  if (typeof pid !== "number") return false;
  try {
    process.kill(pid, 0);
    return !existsSync("/proc/self/stat") || !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

function packageWithoutLinks(): string {
  const root = newDirectory();
  chmodSync(root, 0o755);
  const native = join(root, "native");
  mkdirSync(join(native, "lib"), { recursive: true });
  writeFileSync(join(native, "lib", "libx.so.1.0"), "library");
  writeFileSync(join(native, "pg-symlinks.json"), JSON.stringify([{ source: "native/lib/libx.so.1.0", target: "native/lib/libx.so.1" }]));
  assert.deepEqual(readdirSync(join(native, "lib")), ["libx.so.1.0"]);
  return native;
}

function skip(t: TestContext, reason: string): void {
  t.diagnostic(`skipped: ${reason}`);
  t.skip(reason);
}

function refusal(code: RefusalCode, message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof DatabaseRefusal, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  };
}
