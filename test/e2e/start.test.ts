import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  globSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
} from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { readConfig } from "../../src/config.ts";
import { completionOf, JSON_HEADERS, scriptedUpstream } from "../../src/domains/providers/testing/scripted-upstream.ts";
import { startAtrium } from "../../src/main.ts";
import { emptyDatabase } from "../support/postgres.ts";

// What the README promises about starting and stopping, on real processes, through its own commands.

const ROOT = path.join(import.meta.dirname, "..", "..");
const MODELS = process.env["ATRIUM_TEST_MODELS"];
const GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf";
const PLUGIN = path.join(ROOT, "plugins", "local", "node_modules");
const SECRET = /atr_[A-Za-z0-9]/;
const NOBODY = 65_534;
const isRoot = process.getuid?.() === 0;
const noScript = spawnSync("script", ["--version"]).status === 0 ? false : "there is no `script` (util-linux) to make a terminal with";

const temporary: string[] = [];
after(() => {
  for (const directory of temporary) rmSync(directory, { recursive: true, force: true });
});

test(`without a terminal, ${isRoot ? "as root, " : ""}in a directory closed to others: keys go to files that only this user reads and only their paths are printed`, async (t) => {
  const dataDirectory = path.join(newDirectory(), "data");
  const first = start(t, { dataDirectory });
  const url = await first.listens();
  await first.says(/demo\.json/);
  const adminKey = readFileSync(path.join(dataDirectory, "admin.key"), "utf8").trim();
  const demo = JSON.parse(readFileSync(path.join(dataDirectory, "demo.json"), "utf8")) as { key: string; model: string };
  for (const file of ["admin.key", "demo.json", "master.key"])
    assert.equal(statSync(path.join(dataDirectory, file)).mode & 0o777, 0o600, file);
  assert.equal(statSync(dataDirectory).mode & 0o777, 0o700);
  assert.match(first.output(), /admin key is in .*admin\.key/);
  assert.match(first.output(), /demo tenant's key is in .*demo\.json \(answered by `simulated`/);
  assert.equal(await adminStatus(url, adminKey), 200);
  assert.match(await chat(url, demo.key, demo.model), /simulated/i);

  await t.test("a second server on the same data directory is refused with a sentence", async () => {
    const second = start(t, { dataDirectory });
    assert.equal(await second.exited, 1);
    assert.match(second.output(), /^Another Atrium is running on .*ATRIUM_DATA_DIR\.$/m);
    assert.doesNotMatch(second.output(), STACK);
  });
  const besides = mintAdminKey(dataDirectory);
  await t.test("`npm run admin-key` beside the running server mints a key that works at once", async () => {
    assert.equal(await adminStatus(url, besides), 200);
  });
  await t.test("SIGTERM through `npm start` exits 0 and leaves no process", async () => {
    first.signal("SIGTERM");
    assert.equal(await first.exited, 0);
    assert.deepEqual(processesOn(dataDirectory), []);
  });
  assert.doesNotMatch(first.output(), SECRET, "no key is in the output of a server without a terminal");

  await t.test("`npm run admin-key` without a server mints a key that the next start knows, and leaves no process", async () => {
    const alone = mintAdminKey(dataDirectory);
    assert.deepEqual(processesOn(dataDirectory), []);
    const again = start(t, { dataDirectory });
    const secondUrl = await again.listens();
    for (const key of [alone, besides, adminKey]) assert.equal(await adminStatus(secondUrl, key), 200);
    assert.doesNotMatch(again.output(), /key/, "nothing was minted, so there is nothing to say of keys");
    await again.stop();
  });
});

test(
  "on a terminal the first start prints the address, an admin key and a curl that is answered and says simulated; the next one prints the curl alone",
  { skip: noScript },
  async (t) => {
    const dataDirectory = path.join(newDirectory(), "data");
    const first = start(t, { dataDirectory, terminal: true });
    const url = await first.listens();
    await first.says(CURL);
    const adminKey = /Platform-admin key .*:\s+(atr_\S+)/.exec(first.output())?.[1];
    assert.equal(await adminStatus(url, String(adminKey)), 200);
    assert.ok(!existsSync(path.join(dataDirectory, "admin.key")), "what was shown is not written down as well");
    assert.match(await runPrintedCurl(t, first.output()), /simulated/i);
    // What a person does: Ctrl-C, which the terminal sends to the whole process group.
    first.type("\u0003");
    assert.equal(await first.exited, 0, first.output());
    assert.deepEqual(processesOn(dataDirectory), []);

    const second = start(t, { dataDirectory, terminal: true });
    await second.says(CURL);
    assert.doesNotMatch(second.output(), /admin key/i);
    assert.match(await runPrintedCurl(t, second.output()), /simulated/i);
    assert.equal(await adminStatus(await second.listens(), String(adminKey)), 200);
    await second.stop();
  },
);

test("ATRIUM_BOOTSTRAP_KEY is the admin key and none is minted; ATRIUM_DEMO_MODEL with an upstream id gives the demo tenant that model, with OPENAI_API_KEY sealed", async (t) => {
  const upstream = await scriptedUpstream((exchange) => {
    exchange.head(200, JSON_HEADERS);
    exchange.end(JSON.stringify(completionOf("From upstream.")));
  });
  t.after(() => upstream.close());
  const dataDirectory = path.join(newDirectory(), "data");
  const bootstrap = "a-bootstrap-key-of-more-than-32-characters";
  const account = "sk-canary-of-the-demo-account";
  const atrium = start(t, {
    dataDirectory,
    environment: {
      ATRIUM_BOOTSTRAP_KEY: bootstrap,
      ATRIUM_DEMO_MODEL: "gpt-demo",
      OPENAI_API_KEY: account,
      OPENAI_BASE_URL: upstream.baseUrl,
    },
  });
  const url = await atrium.listens();
  await atrium.says(/demo\.json/);
  assert.equal(await adminStatus(url, bootstrap), 200);
  assert.ok(!existsSync(path.join(dataDirectory, "admin.key")));
  const demo = JSON.parse(readFileSync(path.join(dataDirectory, "demo.json"), "utf8")) as { key: string; model: string };
  assert.equal(demo.model, "gpt-demo");
  assert.match(await chat(url, demo.key, "gpt-demo"), /From upstream\./);
  assert.equal(upstream.exchanges[0]?.headers.authorization, `Bearer ${account}`);
  assert.match(await chat(url, demo.key, "simulated"), /simulated/i);
  await atrium.stop();
  for (const secret of [bootstrap, account, demo.key]) assert.ok(!atrium.output().includes(secret));
  for (const secret of [bootstrap, account]) assert.deepEqual(filesHolding(dataDirectory, secret), [], "on disk it is sealed or absent");
});

test("an ATRIUM_DEMO_MODEL that cannot be added does not stop the first start: it says why, and simulated answers", async (t) => {
  const dataDirectory = path.join(newDirectory(), "data");
  const atrium = start(t, { dataDirectory, environment: { ATRIUM_DEMO_MODEL: "gpt-demo" } });
  const url = await atrium.listens();
  await atrium.says(/could not be added: .*OPENAI_API_KEY/);
  const demo = JSON.parse(readFileSync(path.join(dataDirectory, "demo.json"), "utf8")) as { key: string; model: string };
  assert.match(await chat(url, demo.key, demo.model), /simulated/i);
  await atrium.stop();
});

test("a first start whose port is taken stops with a sentence, and the next one still hands over its keys", async (t) => {
  const taken = createServer().listen(0, "127.0.0.1");
  t.after(() => taken.close());
  await once(taken, "listening");
  const dataDirectory = path.join(newDirectory(), "data");
  const refused = start(t, { dataDirectory, environment: { PORT: String((taken.address() as AddressInfo).port) } });
  assert.equal(await refused.exited, 1);
  assert.match(refused.output(), /^Something else listens on 127\.0\.0\.1:\d+: .*PORT/m);
  assert.doesNotMatch(refused.output(), STACK);
  assert.deepEqual(processesOn(dataDirectory), [], "the database of a server that could not start ended before it");

  const next = start(t, { dataDirectory });
  const url = await next.listens();
  await next.says(/demo\.json/);
  assert.equal(await adminStatus(url, readFileSync(path.join(dataDirectory, "admin.key"), "utf8").trim()), 200);
  await next.stop();
});

test("a start that fails, even once it listens, ends all that it had begun: the same process can start there again", async (t) => {
  const [taken, free] = [createServer().listen(0, "127.0.0.1"), createServer().listen(0, "127.0.0.1")];
  t.after(() => taken.close());
  await Promise.all([once(taken, "listening"), once(free, "listening")]);
  const [takenPort, freePort] = [taken, free].map((server) => (server.address() as AddressInfo).port);
  await new Promise((resolve) => free.close(resolve));
  const dataDirectory = path.join(newDirectory(), "data");
  const config = readConfig({
    PORT: String(freePort),
    ATRIUM_MANAGEMENT_ADDRESS: `127.0.0.1:${takenPort}`,
    ATRIUM_DATA_DIR: dataDirectory,
    ATRIUM_LOG_LEVEL: "silent",
  });
  await assert.rejects(startAtrium(config), { name: "ConfigError", message: /^Something else listens on .* ATRIUM_MANAGEMENT_ADDRESS\.$/ });
  assert.deepEqual(processesOn(dataDirectory), []);
  await assert.rejects(fetch(`http://127.0.0.1:${freePort}/livez`), "nothing listens");

  taken.close();
  const atrium = await startAtrium(config);
  assert.ok(atrium.adminKey !== null && atrium.demo !== null, "it is still the first start");
  assert.equal(await adminStatus(String(atrium.managementUrl), atrium.adminKey), 200);

  await t.test("and its end answers the administration that has begun", async () => {
    const body = "{}";
    const headers = { authorization: `Bearer ${atrium.adminKey}`, "content-type": "application/json", "content-length": body.length };
    const begun = request(`${atrium.managementUrl}/admin/v1/tenants/late`, { method: "PUT", headers });
    const answered = once(begun, "response") as Promise<[IncomingMessage]>;
    begun.flushHeaders();
    await sleep(50);
    const closed = atrium.close();
    await sleep(100);
    begun.end(body);
    const [response] = await answered;
    assert.equal(response.resume().statusCode, 201);
    await closed;
    assert.deepEqual(processesOn(dataDirectory), []);
  });
});

const noModel =
  MODELS === undefined
    ? "ATRIUM_TEST_MODELS does not name a folder of models"
    : !existsSync(path.join(MODELS, GGUF))
      ? `${GGUF} is not in ATRIUM_TEST_MODELS`
      : !existsSync(PLUGIN)
        ? "the local plug-in is not installed (npm run setup:local)"
        : false;

test("ATRIUM_DEMO_MODEL with a GGUF file gives the demo tenant that model", { skip: noModel }, async (t) => {
  const dataDirectory = path.join(newDirectory(), "data");
  const atrium = start(t, { dataDirectory, environment: { ATRIUM_DEMO_MODEL: path.join(MODELS as string, GGUF) } });
  const url = await atrium.listens();
  await atrium.says(/demo\.json \(answered by SmolLM2/);
  const demo = JSON.parse(readFileSync(path.join(dataDirectory, "demo.json"), "utf8")) as { key: string; model: string };
  const answer = JSON.parse(await chat(url, demo.key, demo.model)) as { usage: { prompt_tokens: number; completion_tokens: number } };
  assert.ok(answer.usage.prompt_tokens > 5 && answer.usage.completion_tokens > 0, JSON.stringify(answer));
  await atrium.stop();
});

test("with DATABASE_URL there is no demo tenant and no embedded database", async (t) => {
  const { url: databaseUrl } = await emptyDatabase(t, "embedded");
  const dataDirectory = path.join(newDirectory(), "data");
  const atrium = start(t, { dataDirectory, environment: { DATABASE_URL: databaseUrl, ATRIUM_MASTER_KEY: "a7".repeat(32) } });
  const url = await atrium.listens();
  await atrium.says(/admin\.key/);
  const answer = await fetch(`${url}/admin/v1/tenants`, {
    headers: { authorization: `Bearer ${readFileSync(path.join(dataDirectory, "admin.key"), "utf8").trim()}` },
  });
  assert.equal(answer.status, 200);
  assert.deepEqual(
    ((await answer.json()) as { data: { name: string }[] }).data.filter(({ name }) => name === "demo"),
    [],
  );
  for (const file of ["demo.json", "postgres", "master.key"]) assert.ok(!existsSync(path.join(dataDirectory, file)), file);
  await atrium.stop();
});

test("what cannot start stops with one sentence that says what to write, quotes no value, and makes nothing", async (t) => {
  const refusals: readonly [Record<string, string>, RegExp][] = [
    [
      { DATABASE_URL: "postgres://canary:canary@127.0.0.1:1/atrium" },
      /^DATABASE_URL is set and no master key is given: set ATRIUM_MASTER_KEY/m,
    ],
    [
      { DATABASE_URL: "postgres://canary:canary@127.0.0.1:1/atrium", ATRIUM_MASTER_KEY: "a7".repeat(32) },
      /^The database is not available: .*127\.0\.0\.1:1/m,
    ],
    [{ ATRIUM_DEMO_MODLE: "canary" }, /^ATRIUM_DEMO_MODLE is not a setting; did you mean ATRIUM_DEMO_MODEL\?$/m],
    [{ PORT: "canary" }, /^PORT must be a whole number from 0 to 65535/m],
  ];
  for (const [environment, sentence] of refusals) {
    const dataDirectory = path.join(newDirectory(), "data");
    const atrium = start(t, { dataDirectory, environment });
    assert.equal(await atrium.exited, 1);
    assert.match(atrium.output(), sentence);
    assert.doesNotMatch(atrium.output(), /canary/);
    assert.doesNotMatch(atrium.output(), STACK);
    assert.ok(!existsSync(dataDirectory));
  }
});

test("SIGTERM at any moment of a first start leaves no process, and the next start is whole", async (t) => {
  const dataDirectory = path.join(newDirectory(), "data");
  const moments = {
    "the data directory is there": "atrium.lock",
    "initdb is at work": "postgres/18.new-*/base",
    "PostgreSQL is starting": "postgres/18/postmaster.pid",
    "the journal is open": "journal",
  };
  for (const [moment, file] of Object.entries(moments)) {
    rmSync(dataDirectory, { recursive: true, force: true });
    const interrupted = start(t, { dataDirectory });
    while (globSync(file, { cwd: dataDirectory }).length === 0 && !interrupted.hasExited()) await sleep(2);
    interrupted.signal("SIGTERM");
    const code = await interrupted.exited;
    t.diagnostic(`when ${moment}: exit ${code}`);
    // Before anything is running there is nothing to end, and the signal's own way out will do.
    if (file !== "atrium.lock") assert.equal(code, 0, moment);
    assert.deepEqual(processesOn(dataDirectory), [], moment);
  }
  const whole = start(t, { dataDirectory });
  const url = await whole.listens();
  assert.equal((await fetch(`${url}/readyz`)).status, 200);
  await whole.stop();
});

test(
  "a plain user starts it as well, from a checkout of its own",
  { skip: isRoot ? false : "this run is a plain user's: every other test here shows it" },
  async (t) => {
    const home = newDirectory();
    const checkout = path.join(home, "atrium");
    const obstacle = copyFor(NOBODY, home, checkout);
    if (obstacle !== null) {
      t.diagnostic(obstacle);
      t.skip(obstacle);
      return;
    }
    const dataDirectory = path.join(checkout, "data");
    const atrium = start(t, {
      dataDirectory,
      directory: checkout,
      user: NOBODY,
      environment: {
        HOME: home,
        npm_config_cache: path.join(home, ".npm"),
        npm_config_userconfig: path.join(home, ".npmrc"),
        npm_config_update_notifier: "false",
      },
    });
    const url = await atrium.listens();
    await atrium.says(/demo\.json/);
    const demo = JSON.parse(readFileSync(path.join(dataDirectory, "demo.json"), "utf8")) as { key: string; model: string };
    assert.match(await chat(url, demo.key, demo.model), /simulated/i);
    const owners = new Set(processesOn(dataDirectory).map((pid) => statSync(`/proc/${pid}`).uid));
    assert.deepEqual([...owners], [NOBODY], "server and database run as the plain user");
    assert.equal(statSync(path.join(dataDirectory, "master.key")).uid, NOBODY);
    await atrium.stop();
  },
);

interface Start {
  readonly dataDirectory: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly directory?: string;
  /** Runs as this user and group. */
  readonly user?: number;
  readonly terminal?: boolean;
}

interface Started {
  /** Standard output and standard error, so far. */
  output(): string;
  /** Resolves with the address once it is printed. */
  listens(): Promise<string>;
  says(text: RegExp): Promise<void>;
  hasExited(): boolean;
  readonly exited: Promise<number | null>;
  /** To npm, as a supervisor does. */
  signal(name: NodeJS.Signals): void;
  type(keys: string): void;
  /** SIGTERM; asserts the clean end. */
  stop(): Promise<void>;
}

const START_DEADLINE_MS = 60_000;
const CURL = /curl http[\s\S]*?Hello!"}\]}'/;
const STACK = /^\s+at .*:\d+/m;

function start(t: TestContext, options: Start): Started {
  const [file, args] = options.terminal === true ? ["script", ["-qfec", "echo pid=$$; exec npm start", "/dev/null"]] : ["npm", ["start"]];
  const child = spawn(file, args, {
    cwd: options.directory ?? ROOT,
    env: { ...cleanEnvironment(), PORT: "0", ATRIUM_DATA_DIR: options.dataDirectory, ...options.environment },
    stdio: ["pipe", "pipe", "pipe"],
    ...(options.user === undefined ? {} : { uid: options.user, gid: options.user }),
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += String(data).replaceAll("\r", "")));
  const exited = new Promise<number | null>((resolve) => child.once("close", resolve));
  t.after(() => endAll(child, options.dataDirectory));
  const says = async (text: RegExp) => {
    for (const deadline = Date.now() + START_DEADLINE_MS; !text.test(output); await sleep(10)) {
      if (child.exitCode !== null || Date.now() > deadline) throw new Error(`never said ${text}; exit code ${child.exitCode}:\n${output}`);
    }
  };
  const signal = (name: NodeJS.Signals) =>
    process.kill(options.terminal === true ? Number(/pid=(\d+)/.exec(output)?.[1]) : (child.pid as number), name);
  return {
    output: () => output,
    says,
    async listens() {
      await says(LISTENS);
      return LISTENS.exec(output)?.[1] as string;
    },
    hasExited: () => child.exitCode !== null,
    exited,
    signal,
    type: (keys) => child.stdin.write(keys),
    async stop() {
      signal("SIGTERM");
      assert.equal(await exited, 0, output);
      assert.deepEqual(processesOn(options.dataDirectory), []);
    },
  };
}

const LISTENS = /Atrium listens on (http:\/\/127\.0\.0\.1:\d+)\n/;

/** After a failed assertion nothing stays behind. */
function endAll(child: ChildProcess, dataDirectory: string): void {
  if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
  for (const pid of processesOn(dataDirectory)) process.kill(pid, "SIGKILL");
}

/** Processes that were told of the directory or work in it: server, npm, PostgreSQL and its children. */
function processesOn(dataDirectory: string): number[] {
  const holds = (file: string) => attempt(() => readFileSync(file, "latin1").includes(dataDirectory));
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => pid > 0 && pid !== process.pid)
    .filter(
      (pid) =>
        holds(`/proc/${pid}/environ`) ||
        holds(`/proc/${pid}/cmdline`) ||
        attempt(() => readlinkSync(`/proc/${pid}/cwd`).startsWith(dataDirectory)),
    )
    .filter((pid) => !attempt(() => /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))));
}

function attempt(look: () => boolean): boolean {
  try {
    return look();
  } catch {
    return false;
  }
}

/** Nothing of Atrium's, so that the machine's own settings do not decide. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(ATRIUM_|DATABASE_|OPENAI_|NODE_TEST_|HOST$|PORT$)/.test(name)),
  );
}

function newDirectory(): string {
  const directory = mkdtempSync(path.join(realpathSync(tmpdir()), "atrium-"));
  temporary.push(directory);
  return directory;
}

function mintAdminKey(dataDirectory: string): string {
  const output = execFileSync("npm", ["run", "--silent", "admin-key"], {
    cwd: ROOT,
    env: { ...cleanEnvironment(), ATRIUM_DATA_DIR: dataDirectory },
    encoding: "utf8",
  });
  assert.match(output, /^atr_\S+\n$/, "the key alone, for a script to take");
  return output.trim();
}

async function adminStatus(url: string, key: string): Promise<number> {
  const response = await fetch(`${url}/admin/v1/tenants`, { headers: { authorization: `Bearer ${key}` } });
  await response.text();
  return response.status;
}

async function chat(url: string, key: string, model: string): Promise<string> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({ model, max_tokens: 20, messages: [{ role: "user", content: "Hello!" }] }),
  });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  return text;
}

async function runPrintedCurl(t: TestContext, output: string): Promise<string> {
  const command = CURL.exec(output)?.[0] as string;
  if (spawnSync("curl", ["--version"]).status === 0)
    return execFileSync("sh", ["-c", command], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  t.diagnostic("skipped: there is no curl to run the printed command with; fetch does what it says");
  return chat(/http:\S+:\d+/.exec(command)?.[0] as string, /Bearer (\S+)'/.exec(command)?.[1] as string, "simulated");
}

function filesHolding(directory: string, secret: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name))
    .filter((file) => readFileSync(file).includes(secret));
}

/** A checkout that the user owns, with these dependencies. Returns why there can be none, or null. */
function copyFor(user: number, home: string, checkout: string): string | null {
  const sources = ["package.json", "src"];
  for (const name of sources) cpSync(path.join(ROOT, name), path.join(checkout, name), { recursive: true });
  for (const directory of [home, checkout]) {
    chownSync(directory, user, user);
    chmodSync(directory, 0o700);
  }
  const modules = path.join(ROOT, "node_modules");
  const target = path.join(checkout, "node_modules");
  const isReachable = spawnSync("ls", [path.join(modules, ".bin")], { uid: user, gid: user, stdio: "ignore" }).status === 0;
  if (isReachable) {
    symlinkSync(modules, target);
    return null;
  }
  const linked = spawnSync("cp", ["-al", modules, target], { encoding: "utf8" });
  return linked.status === 0
    ? null
    : `skipped: user ${user} reaches neither ${modules} nor hard links to it (${linked.stderr.trim().split("\n")[0]})`;
}
