import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { stringify } from "yaml";
import { routeTable } from "../../scripts/route-table.ts";
import { createReferences } from "../../src/surfaces/cli/apply/references.ts";
import { readManifest } from "../../src/surfaces/cli/apply/file.ts";
import { kindsOf } from "../../src/surfaces/cli/apply/kinds.ts";
import { perform } from "../../src/surfaces/cli/apply/perform.ts";
import { makePlan } from "../../src/surfaces/cli/apply/plan.ts";
import { createAdminApi } from "../../src/surfaces/cli/apply/server.ts";
import { ADMIN_KEY, startInstallation } from "../contracts/installation.ts";

const EXAMPLE = path.join(import.meta.dirname, "..", "..", "examples", "apply", "atrium.yaml");
const SECRET = "sk-canary-of-an-upstream-4c1d";

test("a plan changes nothing and says so with 2; applied, the server is as the file says; again, nothing is changed", async (t) => {
  const { run, admin, directory } = await start(t);
  const planned = await run("-f", EXAMPLE);
  assert.equal(planned.code, 2, planned.output);
  assert.match(planned.output, /\+ tenants\/acme\/projects\/chatbot\/keys\/backend {2}\(.*atrium\.yaml:\d+\)/);
  assert.match(planned.output, /api_key: \$\{OPENAI_API_KEY\}/);
  assert.match(planned.output, /10 to create, 0 to change/);
  assert.equal(await admin("GET", "tenants/acme"), null);

  const secrets = path.join(directory, "secrets.jsonl");
  const applied = await run("apply", "-f", EXAMPLE, "--secrets-out", secrets);
  assert.equal(applied.code, 0, applied.output);
  assert.equal((await stat(secrets)).mode & 0o777, 0o600);
  const { address, secret } = JSON.parse(await readFile(secrets, "utf8")) as { address: string; secret: string };
  assert.equal(address, "tenants/acme/projects/chatbot/keys/backend");
  assert.match(secret, /^atr_/);

  const again = await run("apply", "-f", EXAMPLE, "--secrets-out", secrets);
  assert.equal(again.code, 0, again.output);
  assert.match(again.output, /^No changes: 10 as they are\./);
  for (const each of [planned, applied, again])
    for (const word of [SECRET, ADMIN_KEY, secret]) assert.equal(each.output.includes(word), false, "no secret is printed");
  const limit = await admin("GET", "tenants/acme/limits/backend-at-once");
  assert.match(JSON.stringify(limit), /"key":"\w{10}"/, "the limit names the key that was made before it");
});

test("drift is shown field by field, with what is missing and what no file names; --prune archives only what listed collections hold beyond the file", async (t) => {
  const { run, admin } = await start(t);
  assert.equal((await run("apply", "-f", EXAMPLE)).code, 0);
  await admin("PUT", "tenants/acme", { display_name: "Other\u001b[31m" });
  await admin("PUT", "tenants/acme/projects/extra", {});
  await admin("PUT", "credentials/unlisted", { provider: "vllm", base_url: "http://127.0.0.1:1/v1" });
  await admin("PUT", "tenants/bystander", {});
  await admin("DELETE", "tenants/acme/grants/gpt-4o-mini");
  const drift = await run("drift", "-f", EXAMPLE);
  assert.equal(drift.code, 2, drift.output);
  assert.match(drift.output, /differs {2}tenants\/acme .*\n {11}display_name: the file says "Acme", the server has "Other\\u001b\[31m"/);
  assert.match(drift.output, /missing {2}tenants\/acme\/grants\/gpt-4o-mini/);
  assert.match(drift.output, /extra {4}tenants\/acme\/projects\/extra/);

  const only = await mine(t, "tenants: { acme: { projects: { chatbot: { keys: { backend: {} } } }, limits: {} } }");
  const kept = await run("apply", "-f", only);
  assert.match(kept.output, /^No changes/, "without --prune nothing is removed");
  const pruned = await run("plan", "--prune", "-f", only);
  const removed = pruned.output.split("\n").filter((line) => line.startsWith("- "));
  assert.ok(removed.includes("- tenants/acme/projects/extra") && removed.includes("- tenants/acme/limits/backend-at-once"), pruned.output);
  assert.ok(
    removed.every((line) => line.startsWith("- tenants/")),
    "credentials and models are not listed, so they are none of its business",
  );
  const scoped = await mine(t, "tenants: { acme: { projects: { chatbot: {} } }, bystander: {}, demo: {} }");
  assert.equal((await run("apply", "--prune", "-f", scoped)).code, 0);
  assert.equal(await admin("GET", "tenants/acme/projects/extra"), null);
  assert.notEqual(await admin("GET", "tenants/acme/projects/chatbot"), null);
  assert.notEqual(await admin("GET", "credentials/unlisted"), null);
});

test("a concurrent change is a clear error and is not overwritten; what was done stays, what was not is named, and the next run goes on", async (t) => {
  const { url, admin } = await start(t);
  await admin("PUT", "tenants/one", { display_name: "before" });
  await admin("PUT", "tenants/two", { display_name: "before" });
  const { api, plan, references } = await planFor(
    t,
    url,
    "tenants: { one: { display_name: mine }, two: { display_name: mine }, three: {} }",
  );
  await admin("PUT", "tenants/two", { display_name: "theirs" });
  const done: string[] = [];
  await assert.rejects(
    perform(api, plan, references, { done: ({ address }) => void done.push(address), reveal: () => {} }),
    /Somebody changed 'display_name' since the plan was made/,
  );
  assert.deepEqual(done, ["tenants/one"]);
  assert.equal((await admin("GET", "tenants/two"))?.["display_name"], "theirs");

  const made = await planFor(t, url, "tenants: { four: { display_name: mine } }");
  await admin("PUT", "tenants/four", { display_name: "theirs" });
  await assert.rejects(perform(made.api, made.plan, references, { done: () => {}, reveal: () => {} }), /Somebody changed it meanwhile/);
  assert.equal((await admin("GET", "tenants/four"))?.["display_name"], "theirs", "what somebody else made is not overwritten");

  const next = await planFor(t, url, "tenants: { one: { display_name: mine }, two: { display_name: mine }, three: {} }");
  await perform(next.api, next.plan, references, { done: () => {}, reveal: () => {} });
  assert.equal((await admin("GET", "tenants/two"))?.["display_name"], "mine");
});

test("a refusal of the server stops the work: what was done and what was not are printed with their lines, and the next run goes on", async (t) => {
  const { run, admin } = await start(t);
  const text = (model: string) =>
    `tenants:\n  acme:\n    grants: [${model}]\n    limits:\n      a: { scope: { kind: tenant }, dimension: requests, limit: 5 }\n`;
  const broken = await mine(t, text("nothing"));
  const stopped = await run("apply", "-f", broken);
  assert.equal(stopped.code, 1);
  assert.match(
    stopped.output,
    /Done: 1 of 3\.\nfailed: {3}\+ tenants\/acme\/grants\/nothing .*:3\)\nnot done: \+ tenants\/acme\/limits\/a .*:5\)/,
  );
  assert.notEqual(await admin("GET", "tenants/acme"), null);
  await writeFile(broken, text(""));
  const next = await run("apply", "-f", broken);
  assert.equal(next.code, 0, next.output);
  assert.match(next.output, /1 to create.*1 as they are/);
});

test("everything wrong with a file is said at once, with file, document, line and path, and nothing is sent", async (t) => {
  const { run, admin } = await start(t);
  const file = await mine(
    t,
    [
      "tenants:",
      "  acme:",
      "    display_nam: Acme",
      "    markup: 1.2",
      "    projects:",
      "      app:",
      "        require: [feature, colour]",
      "---",
      "credentials:",
      "  a: { provider: openai, api_key: '${ATRIUM_NO_SUCH_VARIABLE}' }",
      "  b: { provider: openai, api_key: '${file:no-such-file}' }",
      "tenant: {}",
      "tenants: { acme: { display_name: x, limits: { l: { scope: { kind: tenant }, limit: many } } } }",
    ].join("\n"),
  );
  const { code, output } = await run("apply", "-f", file);
  assert.equal(code, 1);
  const name = file.replaceAll(".", "\\.");
  for (const expected of [
    `${name}:3 \\(document 1\\): tenants/acme: 'display_nam' is neither a field nor a collection`,
    `${name}:4 \\(document 1\\): tenants/acme: markup: `,
    `${name}:7 \\(document 1\\): tenants/acme/projects/app: require\\.1: `,
    `${name}:10 \\(document 2\\): credentials/a: api_key: the environment variable ATRIUM_NO_SUCH_VARIABLE is not set`,
    `${name}:11 \\(document 2\\): credentials/b: api_key: .*no-such-file cannot be read \\(ENOENT\\)`,
    `${name}:12 \\(document 2\\): 'tenant' is neither`,
    `${name}:13 \\(document 2\\): tenants/acme/limits/l: limit: `,
  ])
    assert.match(output, new RegExp(expected));
  assert.equal(output.trim().split("\n").length, 7, output);
  assert.equal(await admin("GET", "tenants/acme"), null);

  const doubled = await run("plan", "-f", await mine(t, "models: { a: {}, a: {} }"));
  assert.match(doubled.output, /:1: Map keys must be unique/);
  const json = await run("plan", "-f", await mine(t, '{"models": {"a/b": {"visibility": "all", "context_window": "big"}}}'));
  assert.match(json.output, /:1: models\/a%2Fb: context_window: /);
});

test("what is immutable is replaced only when told to: the old key ends, and the new secret is told", async (t) => {
  const { run, admin, url } = await start(t);
  const file = (role: string) => `tenants: { acme: { projects: { app: { keys: { backend: { permissions: [${role}] } } } } } }`;
  const first = await run("apply", "-f", await mine(t, file("developer")));
  const old = /shown this once: (atr_\w+)/.exec(first.output)?.[1];
  const changed = await mine(t, file("'models:call'"));
  const refused = await run("apply", "-f", changed);
  assert.equal(refused.code, 1);
  assert.match(refused.output, /cannot be changed in place/);
  const replaced = await run("apply", "--replace", "-f", changed);
  assert.equal(replaced.code, 0, replaced.output);
  const statusOf = async (key: string | undefined) =>
    (await fetch(`${url}/v1/models`, { headers: { authorization: `Bearer ${key}` } })).status;
  assert.equal(await statusOf(old), 401);
  assert.equal(await statusOf(/shown this once: (atr_\w+)/.exec(replaced.output)?.[1]), 200);
  const keys = (await admin("GET", "tenants/acme/projects/app/keys")) as { data: unknown[] } | null;
  assert.equal(keys?.data.length, 1);
});

test("every kind of the route table goes round: made from its example, planned again without a change", async (t) => {
  const { url } = await start(t);
  const kinds = kindsOf((await createAdminApi(url, ADMIN_KEY).get("openapi.json"))?.body);
  const tree: Record<string, unknown> = {};
  const routes = routeTable().filter(
    ({ method, path: at }) => (method === "PUT" || method === "POST") && kinds.has(stepsOf(at, method).join("/")),
  );
  for (const route of routes) {
    const names = Object.values(route.example.params);
    const { name = names.at(-1), ...fields } = (route.example.body ?? {}) as Record<string, unknown>;
    const steps = stepsOf(route.path, route.method);
    if (steps.length > 0) plant(tree, steps, route.method === "PUT" ? names : [...names, String(name)], fields);
  }
  const file = stringify(tree);
  const first = await planFor(t, url, file);
  await perform(first.api, first.plan, first.references, { done: () => {}, reveal: () => {} });
  const { plan } = await planFor(t, url, file);
  assert.deepEqual(
    plan.actions.map(({ act, address }) => `${act} ${address}`),
    [],
  );
  const missed = [...kinds.keys()].filter((steps) => !routes.some((route) => stepsOf(route.path, route.method).join("/") === steps));
  assert.deepEqual(missed, []);
  t.diagnostic(`${kinds.size} kinds: ${[...kinds.keys()].join(", ")}`);
});

test("a file of 1,000 objects costs one request each to make, and a page of a hundred each to compare", async (t) => {
  const { url } = await start(t);
  const projects = Object.fromEntries(Array.from({ length: 99 }, (_, index) => [`p${index}`, { default_max_output_tokens: index + 1 }]));
  const file = stringify(
    { tenants: Object.fromEntries(Array.from({ length: 10 }, (_, index) => [`t${index}`, { projects }])) },
    { aliasDuplicateObjects: false },
  );
  const first = await planFor(t, url, file);
  assert.equal(first.plan.actions.length, 1_000);
  const before = first.api.requests;
  await perform(first.api, first.plan, first.references, { done: () => {}, reveal: () => {} });
  assert.equal(first.api.requests - before, 1_000);
  const second = await planFor(t, url, file);
  assert.deepEqual(second.plan.actions, []);
  assert.equal(second.api.requests, 12, "the document, one page of tenants, one of the projects of each");
  t.diagnostic(`made with ${first.api.requests} requests, compared with ${second.api.requests}`);
});

async function start(t: TestContext) {
  const { url } = await startInstallation(t);
  const directory = await mkdtemp(path.join(tmpdir(), "atrium-apply-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const environment = { ...process.env, ATRIUM_URL: url, ATRIUM_ADMIN_KEY: ADMIN_KEY, OPENAI_API_KEY: SECRET };
  return {
    url,
    directory,
    run: (...args: string[]) => command(args, environment),
    async admin(method: string, at: string, body?: unknown): Promise<Record<string, unknown> | null> {
      const answer = await fetch(`${url}/admin/v1/${at}`, {
        method,
        headers: { authorization: `Bearer ${ADMIN_KEY}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      assert.ok(answer.status < 300 || answer.status === 404, `${method} ${at} answered ${answer.status}`);
      return answer.status === 404 ? null : ((await answer.json()) as Record<string, unknown>);
    },
  };
}

function command(args: readonly string[], environment: NodeJS.ProcessEnv): Promise<{ code: number | null; output: string }> {
  const file = path.join(import.meta.dirname, "..", "..", "src", "surfaces", "cli", "apply.ts");
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [file, ...args], { env: environment, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += data));
    child.once("close", (code) => resolve({ code, output }));
  });
}

/** A file of its own with this content. */
async function mine(t: TestContext, content: string): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), "atrium-apply-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const file = path.join(directory, "atrium.yaml");
  await writeFile(file, content);
  return file;
}

async function planFor(t: TestContext, url: string, content: string) {
  const api = createAdminApi(url, ADMIN_KEY);
  const kinds = kindsOf((await api.get("openapi.json"))?.body);
  const references = createReferences({}, () => null);
  const manifest = readManifest([await mine(t, content)], kinds, references);
  return { api, references, plan: await makePlan(api, kinds, manifest, references, { prune: false, sendSecrets: false }) };
}

function stepsOf(at: string, method: string): string[] {
  return `${at}${method === "POST" ? "/{name}" : ""}`
    .split("/")
    .slice(3)
    .filter((_, index) => index % 2 === 0);
}

function plant(tree: Record<string, unknown>, steps: readonly string[], names: readonly string[], fields: object): void {
  let node = tree;
  for (const [index, step] of steps.entries()) {
    const collection = (node[step] ??= {}) as Record<string, unknown>;
    node = (collection[names[index] as string] ??= {}) as Record<string, unknown>;
  }
  Object.assign(node, fields);
}
