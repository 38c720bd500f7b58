import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import OpenAI from "openai";
import { type AtriumProcess, BOOTSTRAP_KEY, createModel, createTenancy, startAtriumProcess } from "../support/atrium.ts";
import { emptyDatabase, freshDatabase } from "../support/postgres.ts";

// The audit trail as its readers have it: a tenant's admin through the official SDK, an auditor with files and a public key.

const ROOT = path.join(import.meta.dirname, "..", "..");
const MASTER_KEY = "a7".repeat(32);

test("a tenant reads its own trail, refusals and all; an auditor verifies it with files alone; and finds what the database's owner did", async (t) => {
  const database = await freshDatabase(t, "embedded");
  const directory = temporaryDirectory(t);
  const environment = { DATABASE_URL: database.url, ATRIUM_MASTER_KEY: MASTER_KEY };
  const here = { ...environment, ATRIUM_DATA_DIR: directory };
  const started = async () => {
    const atrium = await startAtriumProcess({ dataDirectory: directory, environment });
    t.after(() => atrium.kill());
    return atrium;
  };
  const first = await started();
  const keys = await actions(first);
  await refusals(first, keys);
  assert.match(await metricsOf(first), /atrium_refusals_total\{code="invalid_api_key"\} 7/);
  assert.equal(await first.stop(), 0);

  const second = await started();
  await readsItsOwn(second, keys);
  const held = path.join(directory, "held.jsonl");
  appendFileSync(held, `${JSON.stringify(await get(second, `/admin/v1/tenants/acme/audit/checkpoint`, keys.admin))}\n`);
  assert.equal(await second.stop(), 0);

  const publicKey = (await audit(["public-key"], here)).output.trim();
  assert.match(publicKey, /^[A-Za-z0-9+/]{43}=$/);
  const own = await audit(["verify"], here);
  assert.deepEqual([own.code, /Every trail is whole/.test(own.output)], [0, true], own.output);
  const file = path.join(directory, "trails.jsonl");
  assert.equal((await audit(["export", "--to", file], here)).code, 0);
  const checkpoints = path.join(directory, "audit", "checkpoints.jsonl");
  const offline = ["verify", file, "--checkpoints", checkpoints, "--checkpoints", held, "--public-key", publicKey];
  const whole = await audit(offline, {});
  assert.equal(whole.code, 0, whole.output);
  assert.doesNotMatch(readFileSync(file, "utf8"), /Search, renamed|backend/, "an export holds what is sealed as it is sealed");
  assert.equal((await audit(["export", "--to", file], here)).code, 1, "nothing is overwritten");

  await restoredElsewhere(t, here, checkpoints);

  await database.asSuperuser((client) =>
    client.query(`
      DELETE FROM audit_rows a USING audit_chains c WHERE c.tenant_id = a.tenant_id AND c.sequence = a.sequence;
      UPDATE audit_chains c SET (sequence, hash) = (SELECT sequence, hash FROM audit_rows a WHERE a.tenant_id = c.tenant_id ORDER BY sequence DESC LIMIT 1)`),
  );
  const tampered = await audit(["verify"], here);
  assert.equal(tampered.code, 1);
  assert.match(
    tampered.output,
    /Trail of [0-9a-f-]{36}: the checkpoint of .* saw \d+ rows, and there are \d+: rows were taken from its end\./,
  );
  const again = path.join(directory, "again.jsonl");
  assert.equal((await audit(["export", "--to", again], here)).code, 0);
  assert.equal((await audit(["verify", again], {})).code, 0, "without a checkpoint nothing shows it");
  assert.equal((await audit(["verify", again, "--checkpoints", held, "--public-key", publicKey], {})).code, 1);
});

test("a command that cannot be carried out says how to write it, or what is missing", async (t) => {
  const nothing = { ATRIUM_DATA_DIR: temporaryDirectory(t) };
  const cases: readonly (readonly [readonly string[], number, RegExp])[] = [
    [[], 2, /^Say what: npm run audit/],
    [["export"], 2, /^Say where to/],
    [["export", "--to", "x", "--tenant", "acme"], 2, /takes a tenant's id/],
    [["verify", "x", "--checkpoints", "y"], 2, /--public-key/],
    [["verify", "x"], 1, /^There is no x/],
    [["verify", path.join(ROOT, "package.json")], 1, /line 1: not a line of an export/],
    [["verify"], 1, /^There is no Atrium in/],
  ];
  const check = async ([args, code, output]: (typeof cases)[number]) => {
    const ended = await audit(args, nothing);
    assert.equal(ended.code, code, ended.output);
    assert.match(ended.output, output);
  };
  await Promise.all(cases.map(check));
});

interface Keys {
  readonly tenant: string;
  readonly admin: string;
  readonly adminId: string;
  readonly developer: string;
  readonly revoked: string;
  readonly revokedId: string;
}

async function actions(atrium: AtriumProcess): Promise<Keys> {
  await createModel(atrium, { model: "sim", provider: "simulated", upstreamModel: "simulated" });
  const { key: developer } = await createTenancy(atrium, "acme", "sim");
  await createTenancy(atrium, "other", "sim");
  const create = async (body: object) => (await atrium.admin("POST", "tenants/acme/keys", body)) as { id: string; key: string };
  const admin = await create({ name: "admin", permissions: ["tenant_admin"] });
  const revoked = await create({ name: "backend" });
  await atrium.admin("DELETE", `tenants/acme/keys/${revoked.id}`);
  await send(atrium, "PUT", "/admin/v1/tenants/acme/projects/main", admin.key, { display_name: "Search, renamed" });
  const { id: tenant } = (await atrium.admin("GET", "tenants/acme")) as { id: string };
  return { tenant, admin: admin.key, adminId: admin.id, developer, revoked: revoked.key, revokedId: revoked.id };
}

async function refusals(atrium: AtriumProcess, keys: Keys): Promise<void> {
  const chat = (key: string, model: string) =>
    send(atrium, "POST", "/v1/chat/completions", key, { model, messages: [{ role: "user", content: "hi" }] });
  for (let n = 0; n < 5; n++) assert.equal(await chat(keys.revoked, "sim"), 401);
  assert.equal(await send(atrium, "GET", "/v1/models", keys.revoked), 401);
  assert.equal(await chat("atr_nobody", "sim"), 401);
  for (let n = 0; n < 3; n++) assert.equal(await chat(keys.developer, "another"), 404);
  assert.equal(await send(atrium, "GET", "/admin/v1/tenants/acme/projects", keys.developer), 403);
  for (const tenant of ["other", "never"]) assert.equal(await send(atrium, "GET", `/admin/v1/tenants/${tenant}/projects`, keys.admin), 404);
}

async function readsItsOwn(atrium: AtriumProcess, keys: Keys): Promise<void> {
  const rows = await trail(atrium, keys, "limit=100");
  assert.deepEqual(
    rows.map((row) => row["sequence"]),
    rows.map((_, index) => rows.length - index),
  );
  const refused = await trail(atrium, keys, "action=refused.invalid_api_key");
  // A route may have two rows: where the minute changed between its calls.
  assert.deepEqual([...new Set(refused.map(({ actor, target, status }) => [actor, target, status].join(" ")))].sort(), [
    `${keys.revokedId} openai.chat.completions 401`,
    `${keys.revokedId} openai.models 401`,
  ]);
  const counts = async (query: string) => (await trail(atrium, keys, query)).reduce((sum, row) => sum + Number(row["count"]), 0);
  assert.equal(await counts("action=refused.invalid_api_key&target=openai.chat.completions"), 5);
  assert.equal(await counts("action=refused.model_not_found"), 3);
  assert.equal(await counts("action=refused.permission_denied&target=projects.list"), 1);
  assert.equal(await counts(`action=refused.not_found&actor=${keys.adminId}`), 2);
  assert.equal(await counts(`end_time=${Math.floor(Date.now() / 1000) - 3_600}`), 0);
  assert.equal(await counts(`start_time=${Math.floor(Date.now() / 1000) - 3_600}&limit=100`), await counts("limit=100"));

  const client = new OpenAI({ apiKey: keys.admin, adminAPIKey: keys.admin, baseURL: `${atrium.url}/v1` });
  const logs = [];
  for await (const log of client.admin.organization.auditLogs.list({ limit: 2 })) logs.push(log);
  assert.deepEqual(
    logs.map(({ id }) => id),
    rows.map((row) => row["id"]),
  );
  const renamed = logs.find(({ type }) => type === "project.updated");
  assert.equal(renamed?.["project.updated"]?.changes_requested?.title, "Search, renamed");
  assert.equal(renamed?.actor?.api_key?.id, keys.adminId);
  const deleted = await client.admin.organization.auditLogs.list({ resource_ids: [keys.revokedId] });
  assert.deepEqual(deleted.data.map(({ type }) => type).sort(), ["api_key.created", "api_key.deleted"]);
  const ofType = async (type: "project.created" | "project.updated") =>
    (await client.admin.organization.auditLogs.list({ event_types: [type, "project.archived"] })).data.map((log) => log.type);
  assert.deepEqual([await ofType("project.created"), await ofType("project.updated")], [["project.created"], ["project.updated"]]);
  const none = await client.admin.organization.auditLogs.list({ effective_at: { lt: 1_000 } });
  assert.deepEqual([none.data, none.has_more], [[], false]);
}

/** The backup's rows are the same links, so the checkpoints that saw them still hold. */
async function restoredElsewhere(t: TestContext, here: Record<string, string>, checkpoints: string): Promise<void> {
  const file = path.join(temporaryDirectory(t), "backup.tar");
  const target = await emptyDatabase(t, "embedded");
  assert.equal((await command("backup", ["--to", file], here)).code, 0);
  const there = { ...here, DATABASE_URL: target.url, ATRIUM_DATA_DIR: path.join(temporaryDirectory(t), "data") };
  const restored = await command("restore", ["--from", file], there);
  assert.equal(restored.code, 0, restored.output);
  const verified = await audit(["verify", "--checkpoints", checkpoints], there);
  assert.equal(verified.code, 0, verified.output);
}

async function trail(atrium: AtriumProcess, keys: Keys, query: string): Promise<Record<string, unknown>[]> {
  return ((await get(atrium, `/admin/v1/tenants/${keys.tenant}/audit?${query}`, keys.admin)) as { data: Record<string, unknown>[] }).data;
}

async function get(atrium: AtriumProcess, url: string, key: string): Promise<unknown> {
  const response = await fetch(`${atrium.url}${url}`, { headers: { authorization: `Bearer ${key}` } });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  return JSON.parse(text) as unknown;
}

async function send(atrium: AtriumProcess, method: string, url: string, key: string, body?: unknown): Promise<number> {
  const json = body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const response = await fetch(`${atrium.url}${url}`, { ...json, method, headers: { ...json.headers, authorization: `Bearer ${key}` } });
  await response.text();
  return response.status;
}

async function metricsOf(atrium: AtriumProcess): Promise<string> {
  return (await fetch(`${atrium.url}/metrics`, { headers: { authorization: `Bearer ${BOOTSTRAP_KEY}` } })).text();
}

function audit(args: readonly string[], environment: Readonly<Record<string, string>>) {
  return command("audit", args, environment);
}

/** Runs a command as its npm script does; without the environment of this machine's Atrium, if there is one. */
function command(
  name: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
): Promise<{ code: number | null; output: string }> {
  const file = path.join(ROOT, "src", "surfaces", "cli", `${name}.ts`);
  return new Promise((resolve) => {
    const { PATH, TMPDIR } = process.env;
    const env = { ...(PATH === undefined ? {} : { PATH }), ...(TMPDIR === undefined ? {} : { TMPDIR }), ...environment };
    const child = spawn(process.execPath, [file, ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += data));
    child.once("close", (code) => resolve({ code, output }));
  });
}

function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(path.join(tmpdir(), "atrium-audit-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
