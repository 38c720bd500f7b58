import { test, type TestContext } from "node:test";
import assert from "node:assert/strict";
import { createServer as createHttpServer } from "node:http";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { createServer as createTlsServer, type TlsOptions } from "node:tls";
import { setTimeout as sleep } from "node:timers/promises";
import { createAuthority } from "../../../../test/support/certificates.ts";
import { systemClock } from "../../../kernel/clock.ts";
import type { Transport } from "../../catalog/index.ts";
import { ask } from "../testing/asking.ts";
import { jsonResponse, rawUpstream } from "../testing/raw-upstream.ts";
import { completionOf } from "../testing/scripted-upstream.ts";
import { createUpstreamClient, type UpstreamClient } from "../upstream.ts";

const ANSWER = jsonResponse(JSON.stringify(completionOf("hello")));
/** Ends its connection, so that the next request makes another. */
const LAST_ANSWER = ANSWER.replace("content-length", "connection: close\r\ncontent-length");
const PLAIN: Transport = { proxy: null, ca: null, clientCertificate: null };
const CONNECT_FAILED = { kind: "connect" } as const;

function newClient(t: TestContext): UpstreamClient {
  const client = createUpstreamClient({ clock: systemClock });
  t.after(() => client.close());
  return client;
}

interface Handshake {
  readonly protocol: string | false | null;
  readonly serverName: string | false | null | undefined;
  readonly resumed: boolean;
  readonly clientName: string | string[] | undefined;
}

/** A TLS server that answers every request, and the handshakes it made. */
async function tlsUpstream(
  t: TestContext,
  options: TlsOptions,
  answer = ANSWER,
): Promise<{ port: number; handshakes: Handshake[]; requests: () => number }> {
  const handshakes: Handshake[] = [];
  let requests = 0;
  const server = createTlsServer(options, (socket) => {
    handshakes.push({
      protocol: socket.alpnProtocol,
      serverName: socket.servername,
      resumed: socket.isSessionReused(),
      clientName: socket.getPeerCertificate().subject?.CN,
    });
    socket.on("error", () => undefined);
    socket.on("data", () => (requests++, socket.write(answer)));
  });
  server.on("tlsClientError", () => undefined);
  return { port: await listening(t, server), handshakes, requests: () => requests };
}

async function listening(t: TestContext, server: Server): Promise<number> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

test("a provider's own authority is trusted, and nothing else then is; a name that is not the certificate's is refused whatever the environment says, and nothing is sent", async (t) => {
  const authority = createAuthority(t, "Ours");
  const other = createAuthority(t, "Other");
  if (authority === null || other === null) return;
  const upstream = await tlsUpstream(t, authority.issue("localhost"));
  const elsewhere = await tlsUpstream(t, authority.issue("elsewhere.example", { names: "DNS:elsewhere.example" }));
  const client = newClient(t);
  const ours: Transport = { ...PLAIN, ca: authority.ca };
  for (const host of ["localhost", "127.0.0.1"])
    assert.match((await ask(client, `https://${host}:${upstream.port}/v1`, { transport: ours })).body ?? "", /hello/, host);
  const refused: readonly [string, string, Transport | undefined, RegExp][] = [
    ["the system's authorities", `https://localhost:${upstream.port}/v1`, undefined, /UNABLE_TO_VERIFY_LEAF_SIGNATURE|SELF_SIGNED/],
    ["another authority", `https://localhost:${upstream.port}/v1`, { ...PLAIN, ca: other.ca }, /UNABLE_TO_VERIFY_LEAF_SIGNATURE/],
    ["another name", `https://localhost:${elsewhere.port}/v1`, ours, /ERR_TLS_CERT_ALTNAME_INVALID/],
  ];
  const before = upstream.requests();
  process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = "0";
  t.after(() => delete process.env["NODE_TLS_REJECT_UNAUTHORIZED"]);
  for (const [name, baseUrl, transport, cause] of refused) {
    const {
      failure,
      sent,
      cause: said,
    } = await ask(client, baseUrl, { ...(transport === undefined ? {} : { transport }), secret: "sk-secret" });
    assert.deepEqual([failure, sent], [CONNECT_FAILED, 0], name);
    assert.match(said, cause);
  }
  assert.deepEqual([upstream.requests(), elsewhere.requests()], [before, 0]);
});

test("TLS speaks HTTP/1.1 by ALPN, names the server, and resumes a verified session on the next connection, of the same credential only", async (t) => {
  const authority = createAuthority(t, "Ours");
  if (authority === null) return;
  const upstream = await tlsUpstream(t, { ...authority.issue("localhost"), ALPNProtocols: ["h2", "http/1.1"] }, LAST_ANSWER);
  const client = newClient(t);
  const transport: Transport = { ...PLAIN, ca: authority.ca };
  const call = async (secret: string): Promise<void> => {
    assert.ok((await ask(client, `https://localhost:${upstream.port}/v1`, { transport, secret })).body);
    await sleep(20);
  };
  for (const secret of ["sk-a", "sk-a", "sk-b"]) await call(secret);
  const plain = { protocol: "http/1.1", serverName: "localhost", clientName: undefined };
  assert.deepEqual(
    upstream.handshakes,
    [false, true, false].map((resumed) => ({ ...plain, resumed })),
  );
});

test("a client certificate is shown where it is asked for; without one the upstream refuses; two certificates share no connection", async (t) => {
  const authority = createAuthority(t, "Ours");
  if (authority === null) return;
  const upstream = await tlsUpstream(t, { ...authority.issue("localhost"), ca: authority.ca, requestCert: true, rejectUnauthorized: true });
  const client = newClient(t);
  const baseUrl = `https://localhost:${upstream.port}/v1`;
  for (const name of ["gateway-a", "gateway-b"]) {
    const transport: Transport = { ...PLAIN, ca: authority.ca, clientCertificate: authority.issue(name) };
    assert.ok((await ask(client, baseUrl, { transport })).body);
  }
  assert.deepEqual(
    upstream.handshakes.map(({ clientName }) => clientName),
    ["gateway-a", "gateway-b"],
  );
  const without = await ask(client, baseUrl, { transport: { ...PLAIN, ca: authority.ca } });
  assert.deepEqual([without.body, upstream.requests()], [null, 2]);
});

test("an abort during a TLS handshake closes the socket at once, and nothing was sent", async (t) => {
  let accepted: Socket | null = null;
  const server = createServer((socket) => void (accepted = socket.on("error", () => undefined)));
  const port = await listening(t, server);
  const controller = new AbortController();
  const asking = ask(newClient(t), `https://127.0.0.1:${port}/v1`, { signal: controller.signal });
  while (accepted === null) await sleep(2);
  const closed = new Promise<void>((resolve) => (accepted as unknown as Socket).on("close", () => resolve()).resume());
  const before = performance.now();
  controller.abort();
  assert.deepEqual([(await asking).failure, (await asking).sent], [{ kind: "aborted" }, 0]);
  await closed;
  assert.ok(performance.now() - before < 100);
});

interface ScriptedProxy {
  readonly url: string;
  readonly port: number;
  /** First lines of the requests, with their proxy-authorization. */
  readonly asked: readonly (readonly [string, string | undefined])[];
  readonly tunnels: Set<Socket>;
}

/** Scripted, for tests: a forwarding proxy over node:http, by absolute-form and CONNECT, that wants `user:p@ss`. */
async function scriptedProxy(t: TestContext): Promise<ScriptedProxy> {
  const asked: [string, string | undefined][] = [];
  const tunnels = new Set<Socket>();
  const isKnown = (header: string | undefined): boolean => header === `Basic ${Buffer.from("user:p@ss").toString("base64")}`;
  const server = createHttpServer((request, response) => {
    const authorization = request.headers["proxy-authorization"];
    asked.push([`${request.method} ${request.url}`, authorization]);
    if (!isKnown(authorization)) return void response.writeHead(407, { "content-type": "application/json" }).end("{}");
    const { hostname, port, pathname } = new URL(request.url ?? "");
    const onward = connect({ host: hostname, port: Number(port) });
    request.on("data", (chunk: Buffer) => {
      onward.write(`POST ${pathname} HTTP/1.1\r\nhost: ${hostname}\r\ncontent-length: ${chunk.length}\r\n\r\n${chunk.toString()}`);
      onward.once("data", (answer) => response.socket?.write(answer));
    });
  });
  server.on("connect", (request, socket: Socket) => {
    const authorization = request.headers["proxy-authorization"];
    asked.push([`CONNECT ${request.url}`, authorization]);
    tunnels.add(socket.on("error", () => undefined).on("close", () => tunnels.delete(socket)));
    if (!isKnown(authorization)) return void socket.end("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n");
    const [host, port] = (request.url ?? "").split(":");
    const onward = connect({ host: host as string, port: Number(port) }, () => {
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
      socket.pipe(onward).pipe(socket);
    });
    onward.on("error", () => socket.destroy());
    socket.on("close", () => onward.destroy());
  });
  const port = await listening(t, server);
  return { url: `http://user:p%40ss@127.0.0.1:${port}`, port, asked, tunnels };
}

test("a proxy is asked to CONNECT for https, with its own password, and never sees the request; connections through it are kept", async (t) => {
  const authority = createAuthority(t, "Ours");
  if (authority === null) return;
  const upstream = await tlsUpstream(t, authority.issue("localhost"));
  const proxy = await scriptedProxy(t);
  const client = newClient(t);
  const transport: Transport = { ...PLAIN, ca: authority.ca, proxy: proxy.url };
  for (let call = 0; call < 3; call++)
    assert.match((await ask(client, `https://localhost:${upstream.port}/v1`, { transport, secret: "sk-secret" })).body ?? "", /hello/);
  assert.deepEqual(proxy.asked, [[`CONNECT localhost:${upstream.port}`, `Basic ${Buffer.from("user:p@ss").toString("base64")}`]]);
  assert.equal(upstream.requests(), 3);
  await client.close();
  await sleep(20);
  assert.equal(proxy.tunnels.size, 0, "the tunnel ends with the client");
});

test("a proxy is told the whole URL for http", async (t) => {
  const upstream = await rawUpstream(({ socket }) => socket.write(ANSWER));
  t.after(() => upstream.close());
  const proxy = await scriptedProxy(t);
  const { body } = await ask(newClient(t), upstream.baseUrl, { transport: { ...PLAIN, proxy: proxy.url } });
  assert.match(body ?? "", /hello/);
  assert.deepEqual(
    proxy.asked.map(([line]) => line),
    [`POST ${upstream.baseUrl}/chat/completions`],
  );
});

test("a proxy that refuses, is absent, hangs, or speaks before the tunnel's TLS is a failure that names no password, and nothing was sent", async (t) => {
  const proxy = await scriptedProxy(t);
  const wrong = `http://user:canary-password@127.0.0.1:${proxy.port}`;
  const answering = async (answer: string): Promise<string> => {
    const server = createServer((socket) => void socket.on("error", () => undefined).once("data", () => socket.write(answer)));
    return `http://user:canary-password@127.0.0.1:${await listening(t, server)}`;
  };
  const cases: readonly [string, string, object][] = [
    ["a wrong password", wrong, CONNECT_FAILED],
    ["nobody there", "http://user:canary-password@127.0.0.1:1", CONNECT_FAILED],
    ["bytes behind the answer", await answering("HTTP/1.1 200 OK\r\n\r\nsurplus"), CONNECT_FAILED],
    ["not HTTP", await answering("SSH-2.0\r\n\r\n"), CONNECT_FAILED],
    ["a redirect", await answering("HTTP/1.1 302 Found\r\nlocation: http://a/\r\n\r\n"), CONNECT_FAILED],
    ["no answer", await answering(""), { kind: "timeout", phase: "connect" }],
  ];
  const client = newClient(t);
  for (const [name, url, expected] of cases) {
    const { failure, sent, cause } = await ask(client, "https://127.0.0.1:9/v1", {
      transport: { ...PLAIN, proxy: url },
      connectTimeoutMs: 150,
    });
    assert.deepEqual([failure, sent], [expected, 0], name);
    assert.ok(!cause.includes("canary"), cause);
  }
});

test("a proxy that repeats what it was told, in a fault that can be the caller's, tells no password", async (t) => {
  const proxy = createHttpServer((request, response) => {
    const told = `${request.headers["proxy-authorization"]}, which is user:p@ssword or user:p%40ssword`;
    response.writeHead(400, { "content-type": "application/json" }).end(JSON.stringify({ error: { message: told } }));
  });
  const url = `http://user:p%40ssword@127.0.0.1:${await listening(t, proxy)}`;
  const { failure } = await ask(newClient(t), "http://127.0.0.1:9/v1", { transport: { ...PLAIN, proxy: url } });
  assert.deepEqual(failure?.kind === "status" && [failure.status, failure.message], [
    400,
    "Basic [redacted], which is user:[redacted] or user:[redacted]",
  ]);
});

test("an abort while a proxy is asked closes its connection at once", async (t) => {
  const proxy = await rawUpstream(() => undefined);
  t.after(() => proxy.close());
  const controller = new AbortController();
  const asking = ask(newClient(t), "https://127.0.0.1:9/v1", {
    transport: { ...PLAIN, proxy: `http://127.0.0.1:${proxy.port}` },
    signal: controller.signal,
  });
  while (proxy.exchanges.length === 0) await sleep(2);
  const closed = new Promise((resolve) => proxy.sockets[0]?.on("close", resolve));
  const before = performance.now();
  controller.abort();
  assert.deepEqual((await asking).failure, { kind: "aborted" });
  await closed;
  assert.ok(performance.now() - before < 100);
});

test("no proxy of the environment is used, and each provider's own only for itself", async (t) => {
  const upstream = await rawUpstream(({ socket }) => socket.write(ANSWER));
  t.after(() => upstream.close());
  const proxy = await scriptedProxy(t);
  for (const name of ["HTTP_PROXY", "http_proxy", "ALL_PROXY"]) process.env[name] = proxy.url;
  t.after(() => {
    for (const name of ["HTTP_PROXY", "http_proxy", "ALL_PROXY"]) delete process.env[name];
  });
  const client = newClient(t);
  await ask(client, upstream.baseUrl);
  assert.equal(proxy.asked.length, 0);
  await ask(client, upstream.baseUrl, { transport: { ...PLAIN, proxy: proxy.url } });
  await ask(client, upstream.baseUrl);
  assert.deepEqual([proxy.asked.length, upstream.exchanges.length], [1, 3]);
});
