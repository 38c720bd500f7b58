import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import http2, { type ClientHttp2Session, type ClientHttp2Stream, type IncomingHttpHeaders, type OutgoingHttpHeaders } from "node:http2";
import https from "node:https";
import { connect as connectTcp, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { gzipSync } from "node:zlib";
import type { FastifyInstance } from "fastify";
import { systemClock } from "../../kernel/clock.ts";
import type { FrameSink } from "../../kernel/frame.ts";
import { createIdMaker, type TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { systemRandom } from "../../kernel/random.ts";
import type { ModelRequest } from "../../kernel/request.ts";
import type { CallContext, Caller, Delivery } from "../../pipeline/caller.ts";
import type { CheckedResponse } from "../../pipeline/check.ts";
import type { Dispatched } from "../../pipeline/evidence.ts";
import { chatCompletions } from "../openai/chat.ts";
import { createBodyReader } from "./body.ts";
import { mountCall } from "./calls.ts";
import { createDrain, type Drain } from "./drain.ts";
import { createSecureServer } from "./secure-server.ts";
import { createHttpServer } from "./server.ts";
import { makeCertificate, noOpenssl } from "./testing/certificates.ts";
import { openCertificate } from "./tls.ts";

// What `calls.test.ts` shows of HTTP/1.1, over TLS with HTTP/2: the real server and client; the pipeline is what each test makes of a call.

const TENANT = "11111111-1111-7111-8111-111111111111" as TenantId;
const silentLog = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} };
const CHAT = JSON.stringify({ model: "m", stream: true, messages: [{ role: "user", content: "hi" }] });
const { NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR } = http2.constants;
const skip = noOpenssl;

const directory = mkdtempSync(path.join(tmpdir(), "atrium-h2-"));
after(() => rmSync(directory, { recursive: true, force: true }));
const files = skip === false ? makeCertificate(directory, "one") : { certFile: "", keyFile: "" };

const warnings: string[] = [];
process.on("warning", (warning) => warnings.push(warning.message));
after(() => assert.deepEqual(warnings, [], "Node was asked for what HTTP/2 does not have"));

interface Stage {
  readonly app: FastifyInstance;
  readonly drain: Drain;
  readonly calls: CallContext[];
  readonly port: number;
  connect(): ClientHttp2Session;
}

async function stage(
  t: TestContext,
  serve: (caller: Caller) => Promise<unknown>,
  pace = { silenceMs: 10_000, stallMs: 10_000 },
): Promise<Stage> {
  const certificate = await openCertificate({ ...files, log: silentLog });
  const app = createHttpServer({ newId: createIdMaker(systemClock, systemRandom), log: silentLog, certificate });
  const drain = createDrain();
  const calls: CallContext[] = [];
  mountCall(app, "/chat", chatCompletions, {
    clock: systemClock,
    takeBody: createBodyReader(),
    parseLarge: () => assert.fail("no body here is large"),
    drain,
    pace,
    serve: ({ call, caller }) => {
      calls.push(call);
      return serve(caller);
    },
  });
  app.post("/echo", async ({ headers, body }) => ({ announced: headers["transfer-encoding"] ?? headers["content-length"] ?? null, body }));
  await app.listen({ port: 0, host: "127.0.0.1" });
  const { port } = app.server.address() as { port: number };
  const sessions: ClientHttp2Session[] = [];
  t.after(async () => {
    for (const session of sessions) session.destroy();
    certificate.close();
    const closing = app.close();
    app.server.closeAllConnections();
    await closing;
  });
  return {
    app,
    drain,
    calls,
    port,
    connect() {
      const session = http2.connect(`https://127.0.0.1:${port}`, { ca: readFileSync(files.certFile) });
      session.on("error", () => undefined);
      sessions.push(session);
      return session;
    },
  };
}

interface Exchanged {
  readonly stream: ClientHttp2Stream;
  headers(): IncomingHttpHeaders;
  read(): string;
  /** Resolves with the code it was closed with. */
  readonly closed: Promise<number>;
}

function begin(session: ClientHttp2Session, headers: OutgoingHttpHeaders = {}): Exchanged {
  const stream = session.request({ ":method": "POST", ":path": "/chat", "content-type": "application/json", ...headers });
  let answered: IncomingHttpHeaders = {};
  const chunks: Buffer[] = [];
  stream.on("response", (head) => (answered = head));
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  stream.on("error", () => undefined);
  const closed = new Promise<number>((resolve) => stream.once("close", () => resolve(stream.rstCode ?? -1)));
  return { stream, headers: () => answered, read: () => Buffer.concat(chunks).toString("utf8"), closed };
}

function post(session: ClientHttp2Session, body: string | Buffer = CHAT, headers: OutgoingHttpHeaders = {}): Exchanged {
  const exchanged = begin(session, headers);
  exchanged.stream.end(body);
  return exchanged;
}

async function until(condition: () => boolean, what = "it"): Promise<void> {
  for (let look = 0; !condition(); look++) {
    if (look === 600) assert.fail(`did not happen: ${what}`);
    await sleep(5);
  }
}

async function within<Value>(promise: Promise<Value>, what: string): Promise<Value> {
  const late = sleep(3_000, undefined, { ref: false }).then(() => assert.fail(`did not happen: ${what}`));
  return Promise.race([promise, late]);
}

const EVIDENCE = {
  route: { model: { name: "model" } },
  slot: { deployment: { name: "main", provider: "openai", region: null } },
  hold: { outputBound: null },
  of: { call: { hops: [1] } },
} as unknown as Dispatched;

interface Source {
  readonly response: CheckedResponse;
  sink: FrameSink | null;
  pauses: number;
  resumes: number;
}

/** A checked stream that the test drives. */
function source(): Source {
  const made: Source = {
    sink: null,
    pauses: 0,
    resumes: 0,
    response: {
      wire: "openai",
      body: {
        kind: "stream",
        stream: {
          pipe: (sink: FrameSink) => (made.sink = sink),
          pause: () => (made.pauses += 1),
          resume: () => (made.resumes += 1),
          abort() {},
        },
      },
    } as unknown as CheckedResponse,
  };
  return made;
}

const frame = (text: string | Buffer) => ({ bytes: Buffer.from(text), notable: false, events: () => [] });

test("a stream over HTTP/2 arrives frame by frame, hears comments in silence and ends cleanly", { skip }, async (t) => {
  const stream = source();
  const delivered = Promise.withResolvers<Delivery>();
  const { connect, calls } = await stage(
    t,
    async (caller) => {
      await caller.read(TENANT);
      delivered.resolve(await caller.send(stream.response, EVIDENCE));
    },
    { silenceMs: 40, stallMs: 10_000 },
  );
  const { read, headers, closed } = post(connect());
  await until(() => stream.sink !== null);
  stream.sink?.frames([frame("data: one\n\n")]);
  await until(() => read().includes("one"), "the first frame arrives before the second exists");
  await until(() => read().includes(": waiting\n\n"), "a comment");
  stream.sink?.frames([frame("data: [DONE]\n\n")]);
  stream.sink?.end({ kind: "complete" });
  assert.equal(await closed, NGHTTP2_NO_ERROR);
  assert.deepEqual(await delivered.promise, { kind: "delivered" });
  assert.match(read(), /^data: one\n\n(: waiting\n\n)+data: \[DONE\]\n\n$/);
  assert.equal(headers()[":status"], 200);
  assert.equal(headers()["x-request-id"], calls[0]?.id);
  assert.equal(headers()["content-type"], "text/event-stream; charset=utf-8");
  assert.equal(calls[0]?.origin.address, "127.0.0.1");
});

test("a failure after the first byte is the stream's last event and no clean end; one before it has its status", { skip }, async (t) => {
  const { connect } = await stage(
    t,
    async (caller) => {
      const { stream } = await caller.read(TENANT);
      if (stream) await sleep(80);
      caller.refuse(new Problem("upstream_timeout"));
    },
    { silenceMs: 30, stallMs: 10_000 },
  );
  const session = connect();
  const late = post(session);
  assert.equal(await late.closed, NGHTTP2_INTERNAL_ERROR);
  assert.match(late.read(), /: waiting\n\n[^]*data: \{"error":\{[^\n]*upstream_timeout[^\n]*\}\n\n$/);
  const early = post(session, CHAT.replace("true", "false"));
  assert.equal(await early.closed, NGHTTP2_NO_ERROR);
  assert.equal(early.headers()[":status"], 504);
  assert.match(early.read(), /"code":"upstream_timeout"/);
  assert.equal(session.closed, false, "one call's failure is not the connection's");
});

test("a client that takes its call back (RST_STREAM) aborts that call and no other on the connection", { skip }, async (t) => {
  const streams = [source(), source()];
  const callers: Caller[] = [];
  const deliveries: Delivery[] = [];
  const { connect } = await stage(t, async (caller) => {
    const index = callers.push(caller) - 1;
    await caller.read(TENANT);
    deliveries[index] = await caller.send((streams[index] as Source).response, EVIDENCE);
  });
  const session = connect();
  const [first, second] = [post(session), post(session)];
  await until(() => streams.every(({ sink }) => sink !== null));
  for (const { sink } of streams) sink?.frames([frame("data: x\n\n")]);
  await until(() => first.read() !== "" && second.read() !== "");
  first.stream.close(NGHTTP2_CANCEL);
  await until(() => callers[0]?.signal.aborted === true, "the abort");
  await until(() => deliveries[0] !== undefined);
  assert.deepEqual(deliveries[0], { kind: "client_left" });
  assert.equal(callers[1]?.signal.aborted, false);
  streams[1]?.sink?.end({ kind: "complete" });
  assert.equal(await second.closed, NGHTTP2_NO_ERROR);
  await until(() => deliveries[1] !== undefined);
  assert.deepEqual(deliveries[1], { kind: "delivered" });
  assert.equal(callers[1]?.signal.aborted, false, "a call that ended well was not aborted");
});

test("a client that leaves with the end of its answer unread has not been answered", { skip }, async (t) => {
  for (const leave of ["stream", "connection"] as const) {
    const stream = source();
    const delivered = Promise.withResolvers<Delivery>();
    const { connect } = await stage(t, async (caller) => {
      await caller.read(TENANT);
      delivered.resolve(await caller.send(stream.response, EVIDENCE));
    });
    const session = connect();
    const exchanged = post(session);
    exchanged.stream.pause();
    await until(() => stream.sink !== null);
    stream.sink?.frames([frame(Buffer.alloc(8 * 1024 * 1024, 0x20))]);
    stream.sink?.end({ kind: "complete" });
    await sleep(100);
    if (leave === "stream") exchanged.stream.close(NGHTTP2_CANCEL);
    else session.destroy();
    assert.deepEqual(await delivered.promise, { kind: "client_left" }, leave);
  }
});

test("a client that does not read pauses its upstream and nobody else's, and resumes it by reading", { skip }, async (t) => {
  const streams = [source(), source()];
  let served = 0;
  const { connect } = await stage(
    t,
    async (caller) => {
      const stream = streams[served++] as Source;
      await caller.read(TENANT);
      await caller.send(stream.response, EVIDENCE);
    },
    { silenceMs: 20, stallMs: 10_000 },
  );
  const session = connect();
  const slow = post(session);
  await until(() => streams[0]?.sink !== null);
  slow.stream.pause();
  const [first, second] = streams as [Source, Source];
  first.sink?.frames([frame(Buffer.alloc(12 * 1024 * 1024, 0x20))]);
  for (let sent = 0; first.pauses === first.resumes; sent++) {
    assert.ok(sent < 1_000, "the upstream was never paused for good");
    first.sink?.frames([frame(Buffer.alloc(100_000, 0x20))]);
    await sleep(first.pauses > first.resumes ? 30 : 0);
  }
  const quick = post(session);
  await until(() => second.sink !== null);
  second.sink?.frames([frame("data: quick\n\n")]);
  second.sink?.end({ kind: "complete" });
  await quick.closed;
  assert.match(quick.read(), /quick/);
  const { resumes } = first;
  slow.stream.resume();
  await until(() => first.resumes > resumes, "the upstream is resumed");
  first.sink?.end({ kind: "complete" });
  assert.equal(await slow.closed, NGHTTP2_NO_ERROR);
});

test("a client that takes nothing of its answer is treated as gone", { skip }, async (t) => {
  const stream = source();
  const delivered = Promise.withResolvers<Delivery>();
  const { connect } = await stage(
    t,
    async (caller) => {
      await caller.read(TENANT);
      delivered.resolve(await caller.send(stream.response, EVIDENCE));
    },
    { silenceMs: 20, stallMs: 150 },
  );
  const { stream: asked } = post(connect());
  asked.pause();
  await until(() => stream.sink !== null);
  stream.sink?.frames([frame(Buffer.alloc(8 * 1024 * 1024, 0x20))]);
  stream.sink?.end({ kind: "complete" });
  assert.deepEqual(await delivered.promise, { kind: "client_left" });
});

/** Frames of stream 1 by hand: Node's own client ends a stream before it takes it back. */
const [DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY] = [0, 1, 3, 4, 7] as const;
const END_HEADERS = 4;
const END_STREAM = 1;
const SETTINGS_INITIAL_WINDOW_SIZE = 4;

function h2Frame(type: number, payload: Buffer, flags = 0, stream = type === SETTINGS ? 0 : 1): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

const PREFACE = Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), h2Frame(SETTINGS, Buffer.alloc(0))]);

/** A POST of JSON, in the indexes of HPACK's static table (RFC 7541, appendix A). */
function headersOf(target: string, stream = 1): Buffer {
  const literal = (index: readonly number[], value: string) => Buffer.from([...index, value.length, ...Buffer.from(value)]);
  const [method, scheme] = [0x83, 0x87];
  const block = [Buffer.from([method, scheme]), literal([0x04], target), literal([0x01], "a"), literal([0x0f, 0x10], "application/json")];
  return h2Frame(HEADERS, Buffer.concat(block), END_HEADERS, stream);
}

test("bodies: large ones whole, gzip, without a length; one that is taken back is never read as if it were whole", { skip }, async (t) => {
  const read: (ModelRequest | Problem)[] = [];
  const { connect, app, calls, port } = await stage(t, async (caller) => {
    const outcome = await caller.read(TENANT).catch((problem: Problem) => problem);
    read.push(outcome);
    caller.refuse(outcome instanceof Problem ? outcome : new Problem("not_found"));
  });
  const session = connect();
  const large = JSON.stringify({ model: "m", messages: [{ role: "user", content: "x".repeat(20 * 1024 * 1024) }] });
  for (const [body, headers] of [
    [large, { "content-length": String(large.length) }],
    [large, {}],
    [gzipSync(CHAT), { "content-encoding": "gzip" }],
    [CHAT, { expect: "100-continue" }],
  ] as const) {
    const { closed, headers: answered } = post(session, body, headers);
    await closed;
    assert.equal(answered()[":status"], 404, JSON.stringify(headers));
  }
  const tooLarge = post(session, "x".repeat(33 * 1024 * 1024));
  await until(() => Number(tooLarge.headers()[":status"]) === 413, "413");
  tooLarge.stream.close();
  for (const how of ["taken back", "connection cut"]) {
    // All of a JSON object came, but not the end of the body.
    const before = read.length;
    const socket = connectTls({ host: "127.0.0.1", port, ca: readFileSync(files.certFile), ALPNProtocols: ["h2"] });
    socket.on("error", () => undefined);
    socket.write(Buffer.concat([PREFACE, headersOf("/chat"), h2Frame(DATA, Buffer.from(CHAT))]));
    await until(() => calls.length === before + 1, "the call arrives");
    await sleep(50);
    assert.equal(read.length, before, "the body is waited for");
    if (how === "taken back") socket.write(h2Frame(RST_STREAM, Buffer.from([0, 0, 0, NGHTTP2_CANCEL])));
    else socket.destroy();
    await until(() => read.length > before, "the reader is told");
    const last = read.at(-1);
    assert.ok(last instanceof Problem && last.code === "request_timeout", `${how}: ${JSON.stringify(last)}`);
    socket.destroy();
  }
  // Those who read the head first, as administration does, see that a body follows.
  for (const [body, headers, expected] of [
    ['{"a":1}', {}, { announced: "chunked", body: { a: 1 } }],
    ['{"a":1}', { "content-length": "7" }, { announced: "7", body: { a: 1 } }],
  ] as const) {
    const echo = post(session, body, { ":path": "/echo", ...headers });
    await echo.closed;
    assert.deepEqual(JSON.parse(echo.read()), expected);
  }
  assert.ok(app.server.listening);
});

test(
  "a body that stops arriving, a connection without calls and one that never becomes TLS are ended after their time; a call that takes longer is not",
  { skip },
  async (t) => {
    const certificate = await openCertificate({ ...files, log: silentLog });
    const secure = createSecureServer({
      certificate,
      log: silentLog,
      handler: (request, response) => {
        if (request.url === "/slow") setTimeout(() => response.end("late"), 400);
        request.resume();
      },
      http1: {},
      handshakeMs: 150,
      maxHeaderBytes: 1_024,
      keepAliveMs: 150,
      requestArrivalMs: 150,
      stallMs: 150,
    });
    const { server } = secure;
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    t.after(async () => {
      certificate.close();
      server.close();
      await secure.close();
    });
    const connect = () =>
      http2.connect(`https://127.0.0.1:${(server.address() as { port: number }).port}`, { ca: readFileSync(files.certFile) });
    server.on("clientError", () => undefined);
    const silent = connectTcp((server.address() as { port: number }).port, "127.0.0.1");
    t.after(() => silent.destroy());
    const silentEnded = new Promise<void>((resolve) => silent.once("close", () => resolve()).on("error", () => undefined));
    const [unused, slow, trickling] = [connect(), connect(), connect()];
    const ended = (session: ClientHttp2Session) => new Promise<void>((resolve) => session.once("close", resolve));
    const [unusedEnded, slowEnded] = [ended(unused), ended(slow)];
    const call = begin(slow, { ":path": "/slow" });
    call.stream.end();
    const body = begin(trickling, { ":path": "/trickle" });
    body.stream.write("{");
    const writing = setInterval(() => body.stream.write("x"), 20);
    body.stream.once("close", () => clearInterval(writing));
    await within(silentEnded, "the connection that says nothing ends");
    await within(unusedEnded, "the unused connection ends");
    assert.equal(await call.closed, NGHTTP2_NO_ERROR);
    assert.equal(call.read(), "late", "its call took longer than a connection is kept without one");
    await within(slowEnded, "so does the used one");
    assert.equal(await body.closed, NGHTTP2_CANCEL);
  },
);

test(
  "a call in flight when the drain begins ends well on a connection that takes no new ones; new connections hear 503",
  { skip },
  async (t) => {
    const stream = source();
    const { connect, drain, app } = await stage(t, async (caller) => {
      await caller.read(TENANT);
      await caller.send(stream.response, EVIDENCE);
    });
    const session = connect();
    const goneAway = new Promise<number>((resolve) => session.once("goaway", resolve));
    const inFlight = post(session);
    await until(() => stream.sink !== null);
    const draining = drain.drain(5_000);
    const late = post(connect());
    await late.closed;
    assert.equal(late.headers()[":status"], 503);
    stream.sink?.frames([frame("data: [DONE]\n\n")]);
    stream.sink?.end({ kind: "complete" });
    assert.equal(await inFlight.closed, NGHTTP2_NO_ERROR);
    assert.equal(inFlight.read(), "data: [DONE]\n\n");
    assert.equal(await goneAway, NGHTTP2_NO_ERROR);
    await draining;
    const idle = connect();
    await new Promise((resolve) => idle.once("connect", resolve));
    const idleClosed = new Promise<void>((resolve) => idle.once("close", resolve));
    const startedMs = Date.now();
    await app.close();
    await idleClosed;
    assert.ok(Date.now() - startedMs < 1_500, "idle connections do not hold up the end");
  },
);

/** A client that has begun HTTP/2 and, whatever the server does, never closes its side of the connection. */
async function stubborn(t: TestContext, port: number): Promise<Socket> {
  const tcp = connectTcp({ port, host: "127.0.0.1", allowHalfOpen: true });
  t.after(() => tcp.destroy());
  // The option reaches the socket, though its type does not name it.
  const halfOpen = { socket: tcp, ca: readFileSync(files.certFile), ALPNProtocols: ["h2"], allowHalfOpen: true };
  const socket = connectTls(halfOpen);
  socket.on("error", () => undefined).resume();
  await new Promise((resolve) => socket.once("secureConnect", resolve));
  return socket;
}

const connections = (server: Server): Promise<number> =>
  new Promise((resolve, reject) => server.getConnections((error, count) => (error === null ? resolve(count) : reject(error))));

test("clients that never close their side, or read nothing of their answers, are cut after their time", { skip }, async (t) => {
  const certificate = await openCertificate({ ...files, log: silentLog });
  const secure = createSecureServer({
    certificate,
    log: silentLog,
    handler: (_request, response) => void response.writeHead(200, {}).end("an answer that nobody reads"),
    http1: {},
    handshakeMs: 5_000,
    maxHeaderBytes: 1_024,
    keepAliveMs: 150,
    requestArrivalMs: 5_000,
    stallMs: 150,
  });
  await new Promise<void>((resolve) => secure.server.listen(0, "127.0.0.1", resolve));
  t.after(async () => {
    certificate.close();
    secure.server.close();
    await secure.close();
  });
  const { port } = secure.server.address() as { port: number };
  const noWindow = h2Frame(SETTINGS, Buffer.from([0, SETTINGS_INITIAL_WINDOW_SIZE, 0, 0, 0, 0]));
  const get = h2Frame(HEADERS, headersOf("/x").subarray(9), END_HEADERS | END_STREAM);
  for (const [what, bytes] of [
    ["says nothing", Buffer.alloc(0)],
    ["asks nothing", PREFACE],
    ["goes away and stays", Buffer.concat([PREFACE, h2Frame(GOAWAY, Buffer.alloc(8), 0, 0)])],
    ["opens no window for its answer", Buffer.concat([PREFACE, noWindow, get])],
  ] as const) {
    const socket = await stubborn(t, port);
    socket.write(bytes);
    await sleep(20);
    assert.equal(await connections(secure.server), 1, what);
    for (let look = 0; (await connections(secure.server)) > 0; look++) {
      if (look === 300) assert.fail(`one that ${what} is still connected`);
      await sleep(10);
    }
  }
});

test("no client holds up the end: not one that never closes its side, nor one whose TLS handshake never ends", { skip }, async (t) => {
  const { app, port } = await stage(t, async () => {});
  const settled = await stubborn(t, port);
  settled.write(PREFACE);
  const goner = await stubborn(t, port);
  goner.write(Buffer.concat([PREFACE, h2Frame(GOAWAY, Buffer.alloc(8), 0, 0)]));
  const silent = connectTcp(port, "127.0.0.1").on("error", () => undefined);
  t.after(() => silent.destroy());
  await until(() => !silent.connecting, "the silent one is connected");
  await sleep(50);
  assert.equal(await connections(app.server), 3);
  await within(app.close(), "the server is closed");
  assert.equal(await connections(app.server), 0);
});

test("HTTP/1.1 on the same port, with and without ALPN, and TLS 1.2 at the least", { skip }, async (t) => {
  const { port } = await stage(t, async (caller) => {
    await caller.read(TENANT);
    caller.refuse(new Problem("not_found"));
  });
  const ca = readFileSync(files.certFile);
  const status = await new Promise((resolve, reject) => {
    const request = https.request({
      host: "127.0.0.1",
      port,
      ca,
      path: "/chat",
      method: "POST",
      headers: { "content-type": "application/json" },
    });
    request.on("response", (response) => resolve(`${response.httpVersion} ${response.statusCode}`)).on("error", reject);
    request.end(CHAT);
  });
  assert.equal(status, "1.1 404");
  const spoken = (options: object) =>
    new Promise<string>((resolve) => {
      const socket = connectTls({ host: "127.0.0.1", port, ca, ...options }, () => {
        resolve(`${socket.getProtocol()} ${String(socket.alpnProtocol)}`);
        socket.destroy();
      });
      socket.on("error", (error: NodeJS.ErrnoException) => resolve(String(error.code)));
    });
  assert.equal(await spoken({ ALPNProtocols: ["h2", "http/1.1"] }), "TLSv1.3 h2");
  assert.equal(await spoken({ ALPNProtocols: ["http/1.1"], maxVersion: "TLSv1.2" }), "TLSv1.2 http/1.1");
  assert.match(await spoken({ minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" }), /ALERT|PROTOCOL/);
  assert.match(await spoken({ ALPNProtocols: ["spdy/3"] }), /ALPN|ALERT/);
});

test("what one connection may ask for is bounded: streams at once, headers, and requests taken back", { skip }, async (t) => {
  const { connect, port, calls } = await stage(t, async (caller) => {
    await caller.read(TENANT).catch(() => undefined);
    await new Promise<void>((resolve) => caller.signal.addEventListener("abort", () => resolve()));
  });
  const session = connect();
  await new Promise((resolve) => session.once("remoteSettings", resolve));
  assert.equal(session.remoteSettings.maxConcurrentStreams, 128);
  assert.equal(session.remoteSettings.maxHeaderListSize, 32 * 1024);

  const wide = post(session, CHAT, { "x-wide": "x".repeat(40 * 1024) });
  assert.notEqual(await wide.closed, NGHTTP2_NO_ERROR);
  assert.equal(wide.headers()[":status"], undefined);
  const many = post(session, CHAT, Object.fromEntries(Array.from({ length: 200 }, (_, index) => [`x-${index}`, "1"])));
  assert.notEqual(await many.closed, NGHTTP2_NO_ERROR);

  const attacker = connectTls({ host: "127.0.0.1", port, ca: readFileSync(files.certFile), ALPNProtocols: ["h2"] });
  t.after(() => attacker.destroy());
  const ended = new Promise<void>((resolve) => attacker.on("error", () => undefined).once("close", () => resolve()));
  attacker.resume();
  attacker.write(PREFACE);
  const cancelled = Buffer.from([0, 0, 0, NGHTTP2_CANCEL]);
  for (let request = 0; request < 600; request++) {
    const id = 2 * request + 1;
    attacker.write(Buffer.concat([headersOf("/chat", id), h2Frame(RST_STREAM, cancelled, 0, id)]));
  }
  await within(ended, "the connection of a rapid reset ends");
  assert.ok(calls.length < 400, `${calls.length} of 600 reached the pipeline`);
  assert.equal(session.destroyed, false, "other connections stay");
});
