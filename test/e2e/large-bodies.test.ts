import assert from "node:assert/strict";
import http from "node:http";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import {
  completionOf,
  JSON_HEADERS,
  type ScriptedUpstream,
  scriptedUpstream,
} from "../../src/domains/providers/testing/scripted-upstream.ts";
import { type AtriumProcess, createTenancy, removeData, startAtriumProcess } from "../support/atrium.ts";
import { IS_SOAK } from "../support/scale.ts";

// Bodies that are parsed on a thread of their own, through a real server process to a scripted upstream.

let upstream: ScriptedUpstream;
let atrium: AtriumProcess;
let key: string;

before(async () => {
  upstream = await scriptedUpstream((exchange) => {
    exchange.head(200, JSON_HEADERS);
    exchange.end(JSON.stringify(completionOf("done")));
  });
  atrium = await startAtriumProcess();
  await atrium.admin("PUT", "credentials/account", { provider: "openai_compatible", base_url: upstream.baseUrl, api_key: "sk-1" });
  await atrium.admin("PUT", "models/demo", { context_window: 50_000_000 });
  await atrium.admin("PUT", "models/demo/deployments/main", {
    provider: "openai_compatible",
    credential: "account",
    upstream_model: "upstream-model",
    price: { input: "1", output: "2" },
  });
  ({ key } = await createTenancy(atrium, "large", "demo"));
});

after(async () => {
  const code = await atrium.stop();
  await upstream.close();
  await removeData(atrium.dataDirectory);
  assert.equal(code, 0);
  assert.doesNotMatch(atrium.output(), /uncaught|unhandled|MaxListeners|TypeError/i);
});

test("small calls that come while large bodies are parsed are answered before them", async (t) => {
  const before = upstream.exchanges.length;
  const large = Buffer.from(
    chat({ messages: Array.from({ length: 200_000 }, (_, index) => said(`message ${index} ${"word ".repeat(12)}`)) }),
  );
  const largeHaveArrived = (): number => upstream.exchanges.slice(before).filter(({ body }) => body.length > 1_000_000).length;
  const calls = [post(large), post(large)];
  await Promise.all(calls.map(({ sent }) => sent));
  const latencies: number[] = [];
  let answeredBefore = 0;
  while (largeHaveArrived() < 2) {
    const startedAt = performance.now();
    assert.equal((await post(SMALL).answer).status, 200);
    latencies.push(performance.now() - startedAt);
    if (largeHaveArrived() < 2) answeredBefore++;
  }
  assert.deepEqual(await Promise.all(calls.map(async ({ answer }) => (await answer).status)), [200, 200]);
  const worst = Math.max(...latencies);
  t.diagnostic(
    `two bodies of ${(large.length / 1e6).toFixed(0)} MB, 200,000 messages each: ${answeredBefore} small calls answered before the second reached its upstream, the slowest in ${worst.toFixed(0)} ms`,
  );
  assert.ok(answeredBefore >= 1);
  if (IS_SOAK) assert.ok(worst < 250, `${worst} ms`);
});

test("a large body reaches its upstream in its own bytes, plain or gzip, with our values in place", async () => {
  const text = chat({ messages: [said("é\\n\u2028".repeat(400_000))], temperature: 0.5 });
  for (const [body, headers] of [
    [Buffer.from(text), {}],
    [gzipSync(text), { "content-encoding": "gzip" }],
  ] as const) {
    const index = upstream.exchanges.length;
    assert.equal((await post(body, headers).answer).status, 200);
    const received = upstream.exchanges[index]?.body.toString() ?? "";
    assert.ok(received.length > 1_000_000);
    assert.equal(received.replace('"model":"upstream-model"', '"model":"demo"').slice(0, text.length - 1), text.slice(0, -1));
    assert.equal((JSON.parse(received) as { model: string }).model, "upstream-model");
  }
});

test("a large body is refused as a small one is: by the field, in the dialect of its caller", async () => {
  const filler = "x".repeat(1_500_000);
  const refusals: [string, object, string, string | null][] = [
    ["/v1/chat/completions", { messages: [said(filler)], store: true }, "unsupported_field", "store"],
    ["/v1/chat/completions", { messages: [said(filler), { role: "nobody" }] }, "invalid_request", "messages[1].role"],
    ["/v1/chat/completions", { messages: [said(filler)], model: "unknown" }, "model_not_found", null],
    ["/v1/messages", { messages: [said(filler)], max_tokens: 5, top_k: 3 }, "unsupported_field", "top_k"],
  ];
  for (const [path, fields, code, param] of refusals) {
    const { status, text } = await post(Buffer.from(chat(fields)), {}, path).answer;
    const { error } = JSON.parse(text) as { error: { code?: string; param?: string; details?: { error_code: string; param?: string } } };
    assert.deepEqual([error.code ?? error.details?.error_code, error.param ?? error.details?.param ?? null], [code, param], text);
    assert.ok(status >= 400 && status < 500);
  }
  const twice = `{"model":"demo","model":"demo","messages":[{"role":"user","content":"${filler}"}]}`;
  assert.match((await post(Buffer.from(twice)).answer).text, /duplicate_key/);
});

const SMALL = Buffer.from(chat({ messages: [said("hi")] }));

function chat(fields: object): string {
  return JSON.stringify({ model: "demo", ...fields });
}

function said(content: string): object {
  return { role: "user", content };
}

/** `sent` resolves when the last byte was handed to the socket. */
function post(body: Buffer, headers: http.OutgoingHttpHeaders = {}, path = "/v1/chat/completions") {
  const answer = Promise.withResolvers<{ status: number; text: string }>();
  const request = http.request(
    atrium.url + path,
    { method: "POST", headers: { authorization: `Bearer ${key}`, "content-type": "application/json", ...headers } },
    (response) => {
      let text = "";
      response.on("data", (data) => (text += data)).on("end", () => answer.resolve({ status: response.statusCode ?? 0, text }));
    },
  );
  request.on("error", answer.reject);
  const sent = new Promise<void>((resolve) => request.end(body, resolve));
  return { sent, answer: answer.promise };
}
