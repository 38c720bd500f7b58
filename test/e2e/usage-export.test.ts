import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { get, type IncomingMessage } from "node:http";
import path from "node:path";
import { after, before, test } from "node:test";
import { readCsv } from "../../src/domains/metering/testing/csv.ts";
import { parseUsd } from "../../src/kernel/money.ts";
import { type AtriumProcess, BOOTSTRAP_KEY, createModel, createTenancy, removeData, startAtriumProcess } from "../support/atrium.ts";

// Usage as its readers take it away: the platform's operator by the command line and over HTTP, a tenant with its own key.

const ROOT = path.join(import.meta.dirname, "..", "..");
let atrium: AtriumProcess;
let key: string;

before(async () => {
  atrium = await startAtriumProcess();
  await createModel(atrium, { model: "m", provider: "simulated", upstreamModel: "simulated", price: { input: "0.15", output: "0.60" } });
  key = (await createTenancy(atrium, "acme", "m")).key;
  for (let call = 0; call < 5; call++) await chat(`=cmd ${call}`);
});

after(async () => {
  await atrium.stop();
  await removeData(atrium.dataDirectory);
});

test("the command line, the platform's download and the tenant's own hold the same rows, and add up to the same amount", async () => {
  const day = (offset: number) => new Date(Date.now() + offset * 86_400_000).toISOString().slice(0, 10);
  const span = ["--from", day(-1), "--to", day(2)];
  const byHttp = readCsv(await download("/admin/v1/usage/export?format=csv", BOOTSTRAP_KEY));
  const own = readCsv(await download("/admin/v1/tenants/acme/usage/export?format=csv", key));
  const here = { ATRIUM_DATA_DIR: atrium.dataDirectory };
  const printed = await usage(["export", "--format", "csv", ...span], here);
  assert.equal(printed.code, 0, printed.errors);
  assert.deepEqual(readCsv(printed.output), byHttp);
  assert.deepEqual(own, byHttp);
  assert.equal(byHttp.length, 5);
  assert.ok(byHttp.every((row) => row["tenant"] === "acme" && row["feature"]?.startsWith("'=cmd ")));
  const charged = byHttp.reduce((sum, row) => sum + (parseUsd(row["charge"] ?? "") ?? 0n), 0n);
  assert.ok(charged > 0n);
  const focus = await usage(["export", "--format", "focus", ...span, "--tenant", "acme"], here);
  assert.equal(
    readCsv(focus.output).reduce((sum, row) => sum + (parseUsd(row["BilledCost"] ?? "") ?? 0n), 0n),
    charged,
  );
});

test("what is typed wrong is told, with exit code 2 and nothing on standard output", async () => {
  for (const wrong of [
    ["export", "--format", "xml", "--from", "2026-11-01", "--to", "2026-12-01"],
    ["export", "--format", "csv", "--from", "yesterday", "--to", "2026-12-01"],
    ["export", "--format", "csv", "--from", "2026-11-01", "--to", "2026-12-01", "--project", "p"],
  ]) {
    const { code, output, errors } = await usage(wrong, { ATRIUM_DATA_DIR: atrium.dataDirectory });
    assert.deepEqual([code, output], [2, ""], errors);
    assert.match(errors, /^\S.*\n$/);
  }
});

test("a download that its reader leaves gives back what it held: the next ones are served", async () => {
  for (let turn = 0; turn < 4; turn++) {
    const { response } = await begin("/admin/v1/usage/export?format=jsonl", BOOTSTRAP_KEY);
    response.destroy();
  }
  for (let tries = 0; ; tries++) {
    const { status } = await fetch(`${atrium.url}/admin/v1/usage/export?format=csv`, {
      headers: { authorization: `Bearer ${BOOTSTRAP_KEY}` },
    });
    if (status === 200) break;
    assert.ok(status === 503 && tries < 50, `answered ${status}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
});

test("a download has a type and a file's name, and a refusal is an ordinary answer", async () => {
  const { response } = await begin("/admin/v1/tenants/acme/usage/export?format=focus", key);
  assert.deepEqual(
    [response.statusCode, response.headers["content-type"], response.headers["content-disposition"]],
    [200, "text/csv; charset=utf-8", 'attachment; filename="usage.focus.csv"'],
  );
  response.resume();
  const refused = await fetch(`${atrium.url}/admin/v1/tenants/other/usage/export?format=csv`, {
    headers: { authorization: `Bearer ${key}` },
  });
  assert.equal(refused.status, 404);
  const malformed = await fetch(`${atrium.url}/admin/v1/tenants/acme/usage/export`, { headers: { authorization: `Bearer ${key}` } });
  assert.equal(malformed.status, 400);
});

async function chat(feature: string): Promise<void> {
  const answer = await fetch(`${atrium.url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json", "x-atrium-feature": feature },
    body: JSON.stringify({ model: "m", messages: [{ role: "user", content: "Hello" }] }),
  });
  assert.equal(answer.status, 200, await answer.text());
}

async function begin(url: string, credential: string): Promise<{ response: IncomingMessage }> {
  const request = get(`${atrium.url}${url}`, { headers: { authorization: `Bearer ${credential}` } });
  const [response] = (await once(request, "response")) as [IncomingMessage];
  return { response };
}

async function download(url: string, credential: string): Promise<string> {
  const { response } = await begin(url, credential);
  let text = "";
  for await (const piece of response.setEncoding("utf8")) text += piece;
  assert.equal(response.statusCode, 200, text);
  return text;
}

async function usage(args: readonly string[], environment: Readonly<Record<string, string>>) {
  const child = spawn(process.execPath, ["src/surfaces/cli/usage.ts", ...args], { cwd: ROOT, env: { ...process.env, ...environment } });
  let output = "";
  let errors = "";
  child.stdout.on("data", (data) => (output += data));
  child.stderr.on("data", (data) => (errors += data));
  const [code] = (await once(child, "close")) as [number | null];
  return { code, output, errors };
}
