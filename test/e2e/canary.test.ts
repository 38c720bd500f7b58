import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { BOOTSTRAP_KEY, createTenancy, removeData, startAtriumProcess } from "../support/atrium.ts";

/** What must never be seen anywhere but by whoever it belongs to. Each is searched for as it is, and as base64 of it. */
const SECRET = "sk-canary-of-a-credential-91ce";
const PROXY_PASSWORD = "canary-of-a-proxy-password-2b7a";
const PROMPT = "canary-of-a-prompt-5f0d";
const ANSWER = "canary-of-an-answer-c3e8";
const TAG = "canary-of-a-tag-77d4";
const NAME = "canary of a name 08ab";

test("secrets and contents stay where they belong: in no log, metric, error, foreign audit row or file, through calls, admin writes and failures", async (t) => {
  const upstream = await hostileUpstream(t);
  const atrium = await startAtriumProcess({ environment: { ATRIUM_LOG_LEVEL: "debug" } });
  t.after(() => removeData(atrium.dataDirectory));
  const told: string[] = [];
  const ask = async (method: string, where: string, key: string, body?: unknown, headers: Record<string, string> = {}): Promise<string> => {
    const answer = await fetch(atrium.url + where, {
      method,
      headers: { authorization: `Bearer ${key}`, ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
      ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (answer.status >= 400) told.push(`${method} ${where} ${answer.status} ${text}`);
    return text;
  };

  await atrium.admin("PUT", "credentials/upstream", { provider: "openai_compatible", base_url: upstream, api_key: SECRET });
  await atrium.admin("PUT", "models/remote", { visibility: "all" });
  await atrium.admin("PUT", "models/remote/deployments/only", {
    provider: "openai_compatible",
    credential: "upstream",
    upstream_model: "remote",
    price: { input: "1", output: "2" },
  });
  const a = await createTenancy(atrium, "owner", "remote");
  const b = await createTenancy(atrium, "other", "remote");
  const { key: auditor } = (await atrium.admin("POST", "tenants/other/keys", { name: "admin", permissions: ["tenant_admin"] })) as {
    key: string;
  };
  await atrium.admin("PUT", "tenants/owner", { display_name: NAME });

  // Each failure of the upstream, whole and streamed, in both dialects.
  for (const kind of ["fine", "quotes", "cut", "garbage", "hangs up"]) {
    for (const stream of [false, true]) {
      const headers = { "x-atrium-feature": TAG, "x-atrium-user": TAG };
      const messages = [{ role: "user", content: `${PROMPT} ${kind}` }];
      const answers = [
        await ask("POST", "/v1/chat/completions", a.key, { model: "remote", stream, messages }, headers),
        await ask("POST", "/v1/messages", a.key, { model: "remote", max_tokens: 20, stream, messages }, headers),
      ];
      if (kind === "fine") for (const answer of answers) assert.ok(answer.includes(ANSWER), answer);
    }
  }
  await ask("POST", "/v1/chat/completions", a.key, `{"model":"remote","messages":[{"role":"user","content":"${PROMPT}"}],"broken":`);
  await ask("POST", "/v1/chat/completions", `${a.key.slice(0, -1)}0`, { model: "remote", messages: [{ role: "user", content: PROMPT }] });
  // Writes that are refused, with secrets in the place of everything.
  await ask("PUT", "/admin/v1/credentials/upstream", BOOTSTRAP_KEY, { provider: SECRET, api_key: SECRET });
  await ask("PUT", "/admin/v1/credentials/upstream", BOOTSTRAP_KEY, { api_key: [SECRET] });
  await ask("PUT", "/admin/v1/credentials/upstream", BOOTSTRAP_KEY, { proxy: `http://user:${PROXY_PASSWORD}@[`, api_key: SECRET });
  await ask("PUT", "/admin/v1/credentials/upstream", BOOTSTRAP_KEY, { client_key: SECRET, client_cert: SECRET });
  await ask("PUT", "/admin/v1/credentials/upstream", BOOTSTRAP_KEY, `{"api_key":"${SECRET}"`);
  await ask("PUT", "/admin/v1/credentials/upstream", BOOTSTRAP_KEY, { proxy: `http://user:${PROXY_PASSWORD}@127.0.0.1:1` });
  assert.ok(told.length > 10, "failures were told");

  const seenByOther = await Promise.all(
    ["/admin/v1/tenants/other/audit", "/admin/v1/tenants/owner/audit", "/v1/organization/audit_logs", "/v1/models"].map((where) =>
      ask("GET", where, auditor),
    ),
  );
  const usage = await ask("GET", "/v1/organization/usage/completions?start_time=0&group_by=feature,user,project_id", b.key);
  const metrics = await ask("GET", "/metrics", BOOTSTRAP_KEY);
  assert.match(metrics, /atrium_/);
  const credential = await ask("GET", "/admin/v1/credentials/upstream", BOOTSTRAP_KEY);
  const trail = await ask("GET", "/admin/v1/audit?limit=100", BOOTSTRAP_KEY);
  assert.match(trail, /credential\.put/);
  assert.equal(await atrium.stop(), 0);

  const keys = [a.key, b.key, auditor, BOOTSTRAP_KEY];
  const secrets = [SECRET, PROXY_PASSWORD, ...keys];
  const contents = [PROMPT, ANSWER, TAG];
  const nowhere = (what: string, text: string, canaries: readonly string[]) => {
    for (const canary of canaries.flatMap((each) => [each, Buffer.from(each).toString("base64").replace(/=+$/, "")]))
      assert.equal(text.includes(canary), false, `${canary} is in ${what}`);
  };
  nowhere("the log", atrium.output(), [...secrets, ...contents, NAME]);
  nowhere("the metrics", metrics, [...secrets, ...contents, NAME]);
  nowhere("the errors", told.join("\n"), [...secrets, TAG, NAME]);
  // What an upstream says of a request reaches whoever sent it, the request's own words with it, and no credential.
  const ownWords = told.filter((each) => !each.includes(`${PROMPT} quotes`));
  assert.ok(ownWords.length < told.length);
  nowhere("our own errors", ownWords.join("\n"), [PROMPT]);
  nowhere("what the platform is shown", credential + trail, [...secrets, ...contents]);
  nowhere("what another tenant is shown", [...seenByOther, usage].join("\n"), [...secrets, ...contents, NAME, a.key]);
  const files = (await readdir(atrium.dataDirectory, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  for (const entry of files) {
    const file = path.join(entry.parentPath, entry.name);
    const text = readFileSync(file, "latin1");
    nowhere(file, text, [...secrets, PROMPT, ANSWER, NAME]);
    // Tags wait in the journal until they are shipped and deleted.
    if (!file.includes(`${path.sep}journal${path.sep}`)) nowhere(file, text, [TAG]);
  }
  t.diagnostic(`${told.length} refusals, ${files.length} files, ${atrium.output().split("\n").length} lines of log looked through`);
});

/** An upstream that quotes what it was sent, cuts its answers, talks rubbish and hangs up, as the prompt says. */
async function hostileUpstream(t: TestContext): Promise<string> {
  const server = createServer((request, response) => void answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  t.after(() => server.closeAllConnections());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  const sent = Buffer.concat(parts).toString();
  const stream = sent.includes('"stream":true');
  if (sent.includes("quotes")) {
    response.writeHead(400, { "content-type": "application/json" });
    response.end(
      JSON.stringify({ error: { message: `${sent} ${request.headers.authorization}`, type: "x", code: SECRET, param: PROMPT } }),
    );
  } else if (sent.includes("hangs up")) {
    request.socket.destroy();
  } else if (sent.includes("garbage")) {
    response.writeHead(200, { "content-type": stream ? "text/event-stream" : "application/json" });
    response.end(stream ? `data: {"choices":"${ANSWER}"}\n\ndata: ${ANSWER}\n\n` : `<html>${ANSWER} ${sent}`);
  } else {
    const usage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 };
    const base = { id: "x", created: 1, model: "remote" };
    response.writeHead(200, { "content-type": stream ? "text/event-stream" : "application/json" });
    if (stream) {
      const chunk = {
        ...base,
        object: "chat.completion.chunk",
        choices: [{ index: 0, delta: { role: "assistant", content: ANSWER }, finish_reason: null }],
      };
      response.write(`data: ${JSON.stringify(chunk)}\n\n`);
      if (sent.includes("cut")) return void response.destroy();
      const end = { ...base, object: "chat.completion.chunk", choices: [{ index: 0, delta: {}, finish_reason: "stop" }] };
      response.end(
        `data: ${JSON.stringify(end)}\n\ndata: ${JSON.stringify({ ...base, object: "chat.completion.chunk", choices: [], usage })}\n\ndata: [DONE]\n\n`,
      );
    } else {
      const message = { role: "assistant", content: ANSWER };
      const text = JSON.stringify({ ...base, object: "chat.completion", choices: [{ index: 0, message, finish_reason: "stop" }], usage });
      response.end(sent.includes("cut") ? text.slice(0, text.length / 2) : text);
    }
  }
}
