import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { renderKey } from "../../src/domains/identity/key-format.ts";
import { BOUNDS } from "../../src/kernel/bounds.ts";
import type { KeyId } from "../../src/kernel/ids.ts";
import { type AtriumProcess, BOOTSTRAP_KEY, createModel, createTenancy, removeData, startAtriumProcess } from "../support/atrium.ts";
import { headOf, openConnection, postOf, type RawConnection, type RawResponse } from "./raw-http.ts";

// The oracle is the error table of api.md: status, type, code and param, and nothing of the inside.

const UPSTREAM_SECRET = "sk-upstream-canary-0123456789";
const MODEL = "m";
const GOOD = JSON.stringify({ model: MODEL, messages: [{ role: "user", content: "hi" }], max_tokens: 3 });

let atrium: AtriumProcess;
let key: string;
let others: string[] = [];

before(async () => {
  atrium = await startAtriumProcess();
  await createModel(atrium, { model: MODEL, provider: "simulated", upstreamModel: "simulated" });
  await createModel(atrium, { model: "not-granted", provider: "simulated", upstreamModel: "simulated" });
  ({ key } = await createTenancy(atrium, "bad", MODEL));
});

after(async () => {
  assert.equal(await atrium.stop(), 0);
  await removeData(atrium.dataDirectory);
});

afterEach(async () => {
  const connection = await openConnection(atrium.url);
  connection.send(postOf(key, GOOD));
  assert.equal((await connection.response()).status, 200, "the server still serves");
  connection.socket.destroy();
  assert.doesNotMatch(atrium.output(), /uncaught|unhandled|MaxListeners|TypeError/i);
});

interface Expected {
  readonly status: number;
  readonly type: string;
  readonly code: string;
  readonly param?: string | null;
}

/** One answer in OpenAI's envelope, and nothing of the inside in it. */
function assertRefused(response: RawResponse, { status, type, code, param = null }: Expected): void {
  assert.equal(response.status, status, response.body);
  assert.match(response.headers["content-type"] ?? "", /^application\/json/);
  const { error } = response.json<{ error: Record<string, unknown> }>();
  assert.deepEqual({ type: error["type"], code: error["code"], param: error["param"] }, { type, code, param });
  assert.deepEqual(Object.keys(error).sort(), ["code", "message", "param", "type"]);
  assert.match(response.headers["x-request-id"] ?? "", /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  const whole = JSON.stringify(response);
  for (const inside of [
    /node_modules/,
    /\.ts:/,
    /\bat \S+ \(/,
    /select |insert |pg_/i,
    /FST_ERR/,
    /HPE_/,
    new RegExp(UPSTREAM_SECRET),
    new RegExp(key.slice(15)),
  ])
    assert.doesNotMatch(whole, inside);
}

/** Sends the request and, once it has been answered, a good one on the same connection: that one must be served. */
async function refusedAndUsable(request: string | Buffer, expected: Expected): Promise<RawResponse> {
  const connection = await openConnection(atrium.url);
  connection.send(request);
  const response = await connection.response();
  assertRefused(response, expected);
  await assertUsable(connection);
  return response;
}

async function assertUsable(connection: RawConnection): Promise<void> {
  connection.send(postOf(key, GOOD));
  assert.equal((await connection.response()).status, 200, "the connection is usable afterwards");
  connection.socket.destroy();
}

const INVALID = { status: 400, type: "invalid_request_error", code: "invalid_request" };
const chat = (body: object): string => JSON.stringify({ model: MODEL, messages: [{ role: "user", content: "hi" }], ...body });

const BODIES: readonly (readonly [name: string, body: string, expected: Expected])[] = [
  ["an empty body", "", { ...INVALID, code: "invalid_json" }],
  ["malformed JSON", '{"model": "m", "messages": [', { ...INVALID, code: "invalid_json" }],
  ["JSON with trailing garbage", `${GOOD}}`, { ...INVALID, code: "invalid_json" }],
  ["nesting without an end", "[".repeat(100_000), { ...INVALID, code: "invalid_json" }],
  [
    "nesting deeper than the bound",
    chat({ metadata: {}, x: JSON.parse(`${"[".repeat(80)}${"]".repeat(80)}`) as unknown }),
    { ...INVALID, code: "invalid_json" },
  ],
  [
    "a duplicate key",
    '{"model":"m","model":"not-granted","messages":[{"role":"user","content":"hi"}]}',
    { ...INVALID, code: "duplicate_key", param: "model" },
  ],
  [
    "a duplicate key spelt with an escape",
    '{"model":"m","mode\\u006c":"not-granted","messages":[{"role":"user","content":"hi"}]}',
    { ...INVALID, code: "duplicate_key", param: "model" },
  ],
  [
    "a duplicate key deep inside",
    '{"model":"m","messages":[{"role":"user","role":"system","content":"hi"}]}',
    { ...INVALID, code: "duplicate_key", param: "role" },
  ],
  ["an array", "[]", INVALID],
  ["null", "null", INVALID],
  ["no model", '{"messages":[{"role":"user","content":"hi"}]}', { ...INVALID, param: "model" }],
  ["a model of the wrong type", chat({ model: 7 }), { ...INVALID, param: "model" }],
  ["messages of the wrong type", chat({ messages: "hi" }), { ...INVALID, param: "messages" }],
  ["no messages", chat({ messages: [] }), { ...INVALID, param: "messages" }],
  ["a message without a role", chat({ messages: [{ content: "hi" }] }), { ...INVALID, param: "messages[0].role" }],
  ["content of the wrong type", chat({ messages: [{ role: "user", content: 5 }] }), { ...INVALID, param: "messages[0].content" }],
  ["stream of the wrong type", chat({ stream: "yes" }), { ...INVALID, param: "stream" }],
  ["a negative maximum", chat({ max_tokens: -1 }), { ...INVALID, param: "max_tokens" }],
  ["a maximum beyond integers", chat({ max_tokens: 1e300 }), { ...INVALID, param: "max_tokens" }],
  ["metadata that is no object", chat({ metadata: ["a"] }), { ...INVALID, param: "metadata" }],
  ["a model that does not exist", chat({ model: "no-such-model" }), { ...INVALID, status: 404, code: "model_not_found" }],
  ["a model that exists and is not granted", chat({ model: "not-granted" }), { ...INVALID, status: 404, code: "model_not_found" }],
  ["a model named after a property of objects", chat({ model: "__proto__" }), { ...INVALID, status: 404, code: "model_not_found" }],
];

test("a bad body gets its own problem with the field named, and the connection stays usable", async (t) => {
  for (const [name, body, expected] of BODIES) await t.test(name, async () => void (await refusedAndUsable(postOf(key, body), expected)));
});

test("bytes that are not UTF-8 are not JSON", async () => {
  const body = Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d]);
  await refusedAndUsable(Buffer.concat([Buffer.from(postOf(key, "", { "content-length": String(body.length) })), body]), {
    ...INVALID,
    code: "invalid_json",
  });
});

test("a model that is not granted and one that does not exist are refused with the same bytes", async () => {
  const answers = await Promise.all(
    ["no-such-model", "not-granted"].map((model) =>
      refusedAndUsable(postOf(key, chat({ model })), { ...INVALID, status: 404, code: "model_not_found" }),
    ),
  );
  assert.equal(answers[0]?.body, answers[1]?.body);
});

const UNAUTHORIZED = { status: 401, type: "authentication_error", code: "invalid_api_key" };

test("no, malformed, unknown and revoked keys get one answer; an expired one says that it has expired", async () => {
  const made = await atrium.admin("POST", "tenants/bad/projects/main/keys", { name: "revoked" });
  const { id, key: revoked } = made as { id: string; key: string };
  await atrium.admin("DELETE", `tenants/bad/projects/main/keys/${id}`);
  const expiring = (await atrium.admin("POST", "tenants/bad/projects/main/keys", {
    name: "expiring",
    expires_at: Math.ceil(Date.now() / 1000) + 1,
  })) as { key: string };
  others = [revoked, expiring.key];
  const credentials: readonly (readonly [string, Record<string, string>])[] = [
    ["none", {}],
    ["empty", { authorization: "" }],
    ["no scheme", { authorization: key }],
    ["Basic", { authorization: `Basic ${Buffer.from(`x:${key}`).toString("base64")}` }],
    ["an empty token", { authorization: "Bearer " }],
    ["two tokens", { authorization: `Bearer ${key} ${key}` }],
    ["malformed", { authorization: "Bearer sk-nonsense" }],
    ["one character off", { authorization: `Bearer ${key.slice(0, -1)}${key.endsWith("0") ? "1" : "0"}` }],
    ["well-formed and unknown", { authorization: `Bearer ${otherKey(key)}` }],
    ["very long", { authorization: `Bearer ${"a".repeat(20_000)}` }],
    ["revoked", { authorization: `Bearer ${revoked}` }],
    ["a malformed header beside a good x-api-key", { authorization: "Bearer", "x-api-key": key }],
  ];
  const bodies = new Set<string>();
  for (const [name, headers] of credentials) {
    const request = `${headOf("POST", "/v1/chat/completions", { host: "a", "content-type": "application/json", "content-length": String(GOOD.length), ...headers })}${GOOD}`;
    const response = await refusedAndUsable(request, UNAUTHORIZED);
    assert.equal(response.headers["www-authenticate"], "Bearer", name);
    bodies.add(response.body);
  }
  assert.equal(bodies.size, 1, "one answer for all");
  await sleep(2_100);
  await refusedAndUsable(postOf(expiring.key, GOOD), { ...UNAUTHORIZED, code: "expired_api_key" });
});

test("the same key in x-api-key and in api-key opens the same door", async () => {
  for (const name of ["x-api-key", "api-key"]) {
    const connection = await openConnection(atrium.url);
    connection.send(
      `${headOf("POST", "/v1/chat/completions", { host: "a", [name]: key, "content-type": "application/json", "content-length": String(GOOD.length) })}${GOOD}`,
    );
    assert.equal((await connection.response()).status, 200);
    connection.socket.destroy();
  }
});

test("a stranger is refused before any of the body has come, however large it says it is", async () => {
  for (const credential of [{}, { authorization: "Bearer sk-nobody" }]) {
    const connection = await openConnection(atrium.url);
    connection.send(
      headOf("POST", "/v1/chat/completions", {
        host: "a",
        "content-type": "application/json",
        "content-length": "99999999999",
        ...credential,
      }),
    );
    assertRefused(await connection.response(), UNAUTHORIZED);
    connection.socket.destroy();
  }
});

test("a stranger's body is thrown away and the connection stays usable", async () => {
  const body = "x".repeat(3_000_000);
  await refusedAndUsable(postOf("sk-nobody", body), UNAUTHORIZED);
});

const TOO_LARGE = { status: 413, type: "invalid_request_error", code: "request_too_large" };

test("a body that says it is too large is refused before it has come, and the connection is usable once it has", async () => {
  const connection = await openConnection(atrium.url);
  const size = BOUNDS.bodyBytes + 1;
  connection.send(
    headOf("POST", "/v1/chat/completions", {
      host: "a",
      authorization: `Bearer ${key}`,
      "content-type": "application/json",
      "content-length": String(size),
    }),
  );
  assertRefused(await connection.response(), TOO_LARGE);
  connection.send(Buffer.alloc(size, 0x20));
  await assertUsable(connection);
});

test("a chunked body that turns out too large is refused, and the connection is usable afterwards", async () => {
  const connection = await openConnection(atrium.url);
  connection.send(
    headOf("POST", "/v1/chat/completions", {
      host: "a",
      authorization: `Bearer ${key}`,
      "content-type": "application/json",
      "transfer-encoding": "chunked",
    }),
  );
  const chunk = Buffer.concat([Buffer.from("100000\r\n"), Buffer.alloc(0x100000, 0x20), Buffer.from("\r\n")]);
  for (let sent = 0; sent <= BOUNDS.bodyBytes; sent += 0x100000) connection.send(chunk);
  assertRefused(await connection.response(), TOO_LARGE);
  connection.send("0\r\n\r\n");
  await assertUsable(connection);
});

test("a gzip body is read, one that inflates beyond the bound is 413, one that is not gzip is 400", async () => {
  const zipped = (bytes: Buffer, encoding = "gzip") =>
    Buffer.concat([Buffer.from(postOf(key, "", { "content-length": String(bytes.length), "content-encoding": encoding })), bytes]);
  const connection = await openConnection(atrium.url);
  connection.send(zipped(gzipSync(GOOD)));
  assert.equal((await connection.response()).status, 200);
  connection.socket.destroy();
  await refusedAndUsable(zipped(gzipSync(Buffer.alloc(BOUNDS.bodyBytes + 1, 0x20))), TOO_LARGE);
  await refusedAndUsable(zipped(Buffer.from("this is not gzip at all")), INVALID);
  await refusedAndUsable(zipped(gzipSync(GOOD).subarray(0, 40)), INVALID);
  await refusedAndUsable(zipped(Buffer.from(GOOD), "br"), { ...INVALID, status: 415, code: "unsupported_media_type" });
});

test("a body of another type is 415", async () => {
  for (const type of ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "application/jsonx"]) {
    await refusedAndUsable(postOf(key, GOOD, { "content-type": type }), { ...INVALID, status: 415, code: "unsupported_media_type" });
  }
  for (const type of ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"]) {
    const connection = await openConnection(atrium.url);
    connection.send(postOf(key, GOOD, { "content-type": type }));
    assert.equal((await connection.response()).status, 200, type);
    connection.socket.destroy();
  }
});

test("an unknown route is 404 and a wrong method 405 with those that are allowed", async () => {
  for (const path of [
    "/",
    "/v1",
    "/v1/chat/completion",
    "/v1/responses",
    "/V1/chat/completions",
    "/v1/chat/completions/",
    "/admin",
    "/consoles",
    "/../etc/passwd",
    "/v1//chat/completions",
  ]) {
    await refusedAndUsable(headOf("GET", path, { host: "a", authorization: `Bearer ${key}` }), {
      ...INVALID,
      status: 404,
      code: "unknown_route",
    });
  }
  const cases: readonly (readonly [string, string, string])[] = [
    ["GET", "/v1/chat/completions", "POST"],
    ["PUT", "/v1/chat/completions", "POST"],
    ["DELETE", "/v1/chat/completions", "POST"],
    ["OPTIONS", "/v1/chat/completions", "POST"],
    ["POST", "/v1/models", "GET"],
    ["DELETE", "/v1/models/some/model", "GET"],
    ["POST", "/livez", "GET, HEAD"],
    ["PATCH", "/metrics", "GET"],
  ];
  for (const [method, path, allow] of cases) {
    const response = await refusedAndUsable(headOf(method, path, { host: "a", authorization: `Bearer ${key}`, "content-length": "0" }), {
      ...INVALID,
      status: 405,
      code: "method_not_allowed",
    });
    assert.equal(response.headers["allow"], allow, `${method} ${path}`);
  }
});

test("HEAD is answered without a body, on health and where it is refused", async () => {
  for (const [path, status] of [
    ["/livez", 200],
    ["/readyz", 200],
    ["/v1/chat/completions", 405],
  ] as const) {
    const answer = await fetch(atrium.url + path, { method: "HEAD" });
    assert.equal(answer.status, status, path);
    assert.equal(await answer.text(), "");
  }
});

test("a path that cannot be decoded or is too long is refused in the envelope", async () => {
  await refusedAndUsable(headOf("GET", "/v1/models/%zz", { host: "a", authorization: `Bearer ${key}` }), INVALID);
  await refusedAndUsable(headOf("GET", `/admin/v1/tenants/${"a".repeat(600)}`, { host: "a", authorization: `Bearer ${key}` }), INVALID);
});

const BAD_HTTP: readonly (readonly [name: string, bytes: string, status: number])[] = [
  ["no HTTP at all", "hello there\r\n\r\n", 400],
  ["a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400],
  ["content-length beside chunked", postOf("k", "0\r\n\r\n", { "transfer-encoding": "chunked" }), 400],
  ["two content-lengths", `POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello`, 400],
  [
    "two equal content-lengths",
    `POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello`,
    400,
  ],
  ["a content-length with a sign", `POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello`, 400],
  [
    "an unknown transfer-encoding",
    `POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\nhello`,
    400,
  ],
  ["a space before the colon", "GET /livez HTTP/1.1\r\nhost : a\r\n\r\n", 400],
  ["a folded header", "GET /livez HTTP/1.1\r\nhost: a\r\nx-a: b\r\n c\r\n\r\n", 400],
  ["NUL in a header", "GET /livez HTTP/1.1\r\nhost: a\r\nx-a: b\0c\r\n\r\n", 400],
  ["headers without an end", `GET /livez HTTP/1.1\r\nhost: a\r\n${"x-filler: 0123456789abcdef\r\n".repeat(2_000)}`, 431],
  ["one huge header", `GET /livez HTTP/1.1\r\nhost: a\r\nx-huge: ${"a".repeat(40_000)}\r\n\r\n`, 431],
  ["a huge path", `GET /${"a".repeat(40_000)} HTTP/1.1\r\nhost: a\r\n\r\n`, 431],
];

test("what is not HTTP, or may be read in two ways, is refused and its connection closed", async (t) => {
  for (const [name, bytes, status] of BAD_HTTP) {
    await t.test(name, async () => {
      const connection = await openConnection(atrium.url);
      connection.send(bytes);
      const response = await connection.response();
      assertRefused(response, { ...INVALID, status, code: status === 431 ? "headers_too_large" : "invalid_request" });
      assert.equal(response.headers["connection"], "close");
      await connection.closed;
    });
  }
});

test("garbage behind a request whose answer has begun never becomes part of that answer", async () => {
  const connection = await openConnection(atrium.url);
  connection.send(postOf(key, chat({ stream: true, messages: [{ role: "user", content: "[[simulate: per_token_ms=30 tokens=100]]" }] })));
  while (!connection.rest().includes("data: ")) await sleep(5);
  connection.send("\x00\x01 this is no HTTP\r\n\r\n");
  await connection.closed;
  assert.doesNotMatch(connection.rest(), /HTTP\/1\.1 400|not valid HTTP|\[DONE\]/);
});

test("the caller's request id and a broken traceparent are harmless: ours are always sent", async () => {
  for (const [hostile, traceparent] of [
    ["<script>alert(1)</script>", "00-00000000000000000000000000000000-0000000000000000-00"],
    ["x".repeat(10_000), "hello"],
    ["' or 1=1 --", "00-ABCDEF0123456789ABCDEF0123456789-0123456789abcdef-01"],
  ] as const) {
    const connection = await openConnection(atrium.url);
    connection.send(postOf(key, GOOD, { "x-request-id": hostile, traceparent }));
    const { status, headers } = await connection.response();
    assert.equal(status, 200);
    assert.match(headers["x-request-id"] as string, /^[0-9a-f-]{36}$/);
    assert.match(headers["traceparent"] as string, /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01$/);
    connection.socket.destroy();
  }
  const connection = await openConnection(atrium.url);
  connection.send(postOf(key, GOOD, { traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" }));
  assert.match(
    (await connection.response()).headers["traceparent"] as string,
    /^00-0af7651916cd43dd8448eb211c80319c-/,
    "a good one is continued",
  );
  connection.socket.destroy();
});

const TAG_HEADERS: readonly (readonly [header: string, value: string, param: string])[] = [
  ["x-atrium-tags", "no-value", "x-atrium-tags"],
  ["x-atrium-tags", "=nameless", "x-atrium-tags"],
  ["x-atrium-tags", `${"n".repeat(65)}=v`, "x-atrium-tags"],
  ["x-atrium-tags", Array.from({ length: 17 }, (_, index) => `t${index}=v`).join(","), "x-atrium-tags"],
  ["x-atrium-feature", "f".repeat(257), "x-atrium-feature"],
  ["x-atrium-user", "u".repeat(257), "x-atrium-user"],
  ["x-portkey-metadata", "{not json", "x-portkey-metadata"],
  ["x-portkey-metadata", "[1]", "x-portkey-metadata"],
  ["cf-aig-metadata", '{"team":{"deep":1}}', "cf-aig-metadata"],
  ["cf-aig-metadata", "null", "cf-aig-metadata"],
];

test("bad attribution headers are refused by name", async (t) => {
  for (const [header, value, param] of TAG_HEADERS) {
    await t.test(
      `${header}: ${value.slice(0, 40)}`,
      async () => void (await refusedAndUsable(postOf(key, GOOD, { [header]: value }), { ...INVALID, param })),
    );
  }
});

test("attribution that PostgreSQL's text could not hold does not hold up the usage of anybody", async () => {
  const requests = [
    postOf(key, chat({ user: "a\0b" })),
    postOf(key, chat({ metadata: { feature: "\ud800", team: "\0" } })),
    postOf(key, GOOD, { "x-portkey-metadata": '{"_user":"\\u0000\\udc00"}' }),
    postOf(key, GOOD),
  ];
  const calls: string[] = [];
  for (const request of requests) {
    const connection = await openConnection(atrium.url);
    connection.send(request);
    const { status, headers } = await connection.response();
    assert.equal(status, 200);
    calls.push(headers["x-request-id"] as string);
    connection.socket.destroy();
  }
  for (let look = 0; look < 50; look++) {
    const { data } = (await atrium.admin("GET", "usage/hops?limit=100")) as { data: { call: string }[] };
    const shipped = new Set(data.map((row) => row.call));
    if (calls.every((call) => shipped.has(call))) return;
    await sleep(100);
  }
  assert.fail("the usage rows did not arrive");
});

test("requests that arrive together on one connection are answered in their order", async () => {
  const connection = await openConnection(atrium.url);
  connection.send(postOf(key, "{") + postOf(key, GOOD) + postOf("sk-nobody", GOOD) + postOf(key, GOOD));
  const statuses: number[] = [];
  for (let index = 0; index < 4; index++) statuses.push((await connection.response()).status);
  assert.deepEqual(statuses, [400, 200, 401, 200]);
  connection.socket.destroy();
});

test("clients that vanish in the middle of a request leave nothing behind", async () => {
  for (const bytes of [
    "POST /v1/chat/comp",
    headOf("POST", "/v1/chat/completions", {
      host: "a",
      authorization: `Bearer ${key}`,
      "content-type": "application/json",
      "content-length": "1000",
    }) + GOOD.slice(0, 20),
  ]) {
    const connection = await openConnection(atrium.url);
    connection.send(bytes);
    await sleep(50);
    connection.socket.resetAndDestroy();
  }
  assert.equal(await callsInFlight(), 0);
});

test("no key of the tests appears in anything that the server printed", () => {
  for (const secret of [key, ...others]) assert.ok(!atrium.output().includes(secret));
});

async function callsInFlight(): Promise<number> {
  for (let look = 0; ; look++) {
    const metrics = await fetch(`${atrium.url}/metrics`, { headers: { authorization: `Bearer ${BOOTSTRAP_KEY}` } }).then((answer) =>
      answer.text(),
    );
    const value = Number(/^atrium_calls_in_flight (\d+)/m.exec(metrics)?.[1]);
    if (value === 0 || look === 40) return value;
    await sleep(25);
  }
}

/** Well-formed, with a right checksum, and never issued. */
function otherKey(issued: string): string {
  return renderKey(issued.slice(4, 14).split("").toReversed().join("") as KeyId, issued.slice(15, -6));
}
