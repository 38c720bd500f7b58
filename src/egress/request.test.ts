import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type RequestListener, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { TLSSocket } from "node:tls";
import { createAuthority } from "../../test/support/certificates.ts";
import type { Network } from "./address.ts";
import { createEgress, EgressFailed, EgressRefused } from "./index.ts";
import { guardedRequest } from "./request.ts";

/** The network that stands for public space here; 127.0.0.2 stands for a private one. */
const OPEN: Network = { address: "127.0.0.1", prefixLength: 32, family: "ipv4" };
const LOOPBACK: Network = { address: "127.0.0.0", prefixLength: 8, family: "ipv4" };

interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** A real server; `answer` has the request's body read already. */
async function listen(t: TestContext, answer: RequestListener, host = "127.0.0.1", port = 0) {
  const seen: Seen[] = [];
  let connections = 0;
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const { method = "", url = "", headers } = request;
      seen.push({ method, url, headers, body: Buffer.concat(chunks).toString() });
      answer(request, response);
    });
  });
  server.on("connection", () => (connections += 1));
  await started(t, server, host, port);
  const { port: bound } = server.address() as AddressInfo;
  return { seen, port: bound, url: `http://${host}:${bound}`, connections: () => connections };
}

async function started(
  t: TestContext,
  server: Pick<Server, "listen" | "once" | "close"> & { closeAllConnections?(): void },
  host: string,
  port: number,
) {
  server.listen(port, host);
  await once(server as Server, "listening");
  t.after(() => {
    server.closeAllConnections?.();
    server.close();
  });
}

const redirectTo =
  (location: string | (() => string), status = 302): RequestListener =>
  (_, response) =>
    response.writeHead(status, { location: typeof location === "string" ? location : location() }).end();

const ok: RequestListener = (_, response) => response.end("ok");

function refused(reason: string) {
  return (error: unknown) => error instanceof EgressRefused && error.reason === reason;
}

function failed(reason: string) {
  return (error: unknown) => error instanceof EgressFailed && error.reason === reason;
}

test("a name that resolves anew to a private address is called at the address that was judged, and never at the other", async (t) => {
  const open = await listen(t, ok);
  const hidden = await listen(t, ok, "127.0.0.2", open.port);
  let lookups = 0;
  const egress = createEgress({ allow: [OPEN], lookup: async () => [lookups++ % 2 === 0 ? "127.0.0.1" : "127.0.0.2"] });
  const url = `http://rebinding.example:${open.port}/`;
  for (let round = 0; round < 20; round++) {
    assert.equal((await egress.request(url)).body.toString(), "ok");
    await assert.rejects(egress.request(url), refused("loopback"));
  }
  assert.deepEqual([lookups, open.connections(), hidden.connections()], [40, 20, 0]);
  assert.equal(open.seen[0]?.headers.host, `rebinding.example:${open.port}`);
});

test("a name one of whose addresses is private is not called at any of them", async (t) => {
  const open = await listen(t, ok);
  const egress = createEgress({ allow: [OPEN], lookup: async () => ["127.0.0.1", "127.0.0.2"] });
  await assert.rejects(egress.request(`http://both.example:${open.port}/`), refused("loopback"));
  await assert.rejects(egress.vet(`http://both.example:${open.port}/`), refused("loopback"));
  assert.equal(open.connections(), 0);
});

test("a redirect to a private address is refused by name, by literal and by odd notation, at any hop", async (t) => {
  const hidden = await listen(t, ok, "127.0.0.2");
  const targets: [string, string][] = [
    [hidden.url, "loopback"],
    [`http://private.example:${hidden.port}/`, "loopback"],
    [`http://[::ffff:127.0.0.2]:${hidden.port}/`, "loopback"],
    [`http://2130706434:${hidden.port}/`, "notation"],
    [`http://user:password@127.0.0.1:${hidden.port}/`, "user_information"],
    [`//127.0.0.2:${hidden.port}/`, "loopback"],
    ["file:///etc/passwd", "scheme"],
    ["https://169.254.169.254/latest/meta-data/", "metadata"],
  ];
  const egress = createEgress({ allow: [OPEN], lookup: async (name) => [name === "private.example" ? "127.0.0.2" : "127.0.0.1"] });
  for (const [location, reason] of targets) {
    const last = await listen(t, redirectTo(location));
    const first = await listen(t, redirectTo(`${last.url}/again`, 307));
    await assert.rejects(egress.request(first.url, { maxRedirects: 3 }), refused(reason), location);
    assert.equal(last.seen.length, 1);
  }
  assert.equal(hidden.connections(), 0);
});

test("to another origin go neither credentials nor a body; to the same origin both go on", async (t) => {
  const other = await listen(t, ok);
  let location = "/second";
  const first = await listen(t, (request, response) =>
    request.url === "/second" ? response.end("second") : response.writeHead(307, { location }).end(),
  );
  const egress = createEgress({ allow: [OPEN] });
  const headers = { Authorization: "Bearer secret", cookie: "a=b", "X-Api-Key": "secret", accept: "text/plain", Host: "forged.example" };
  const options = { headers, maxRedirects: 2 };

  assert.equal((await egress.request(first.url, { ...options, method: "POST", body: "payload" })).body.toString(), "second");
  const again = first.seen[1];
  assert.deepEqual([again?.headers.authorization, again?.headers["x-api-key"], again?.body], ["Bearer secret", "secret", "payload"]);
  assert.equal(again?.headers.host, `127.0.0.1:${first.port}`);

  location = `${other.url}/elsewhere`;
  await egress.request(first.url, options);
  const elsewhere = other.seen[0]?.headers ?? {};
  assert.equal(elsewhere.accept, "text/plain");
  assert.deepEqual(Object.keys(elsewhere).sort(), ["accept", "accept-encoding", "connection", "host"]);

  await assert.rejects(egress.request(first.url, { ...options, method: "POST", body: "payload" }), refused("body_to_another_origin"));
  assert.equal(other.seen.length, 1);
});

test("redirects are followed as often as asked for and no more; unasked for, the answer is handed over", async (t) => {
  let left = 0;
  const loop = await listen(t, (_, response) =>
    left-- > 0 ? response.writeHead(303, { location: "/next" }).end() : response.end("arrived"),
  );
  const egress = createEgress({ allow: [OPEN] });
  left = 1;
  assert.equal((await egress.request(loop.url)).status, 303);
  left = 3;
  const arrived = await egress.request(loop.url, { method: "POST", body: "x", maxRedirects: 3 });
  assert.deepEqual([arrived.body.toString(), arrived.url], ["arrived", `${loop.url}/next`]);
  assert.deepEqual([loop.seen.at(-1)?.method, loop.seen.at(-1)?.body], ["GET", ""]);
  left = 100;
  const before = loop.seen.length;
  await assert.rejects(egress.request(loop.url, { maxRedirects: 3 }), refused("too_many_redirects"));
  assert.equal(loop.seen.length - before, 4);
});

test("each request has a connection of its own, to the next judged address where one does not answer", async (t) => {
  const open = await listen(t, ok);
  const egress = createEgress({ allow: [LOOPBACK], lookup: async () => ["127.0.0.3", "127.0.0.1"] });
  for (let round = 0; round < 3; round++) await egress.request(`http://two.example:${open.port}/`);
  assert.equal(open.connections(), 3);
  assert.equal(open.seen[2]?.headers.connection, "close");
  const nowhere = createEgress({ allow: [LOOPBACK], lookup: async () => ["127.0.0.3"] });
  await assert.rejects(nowhere.request(`http://two.example:${open.port}/`), failed("unreachable"));
});

test("with TLS the server name, the certificate's check and the host are the URL's, though the connection goes to an address", async (t) => {
  const authority = createAuthority(t, "egress");
  if (authority === null) return;
  const names: unknown[] = [];
  const server = createTlsServer(authority.issue("hooks", { names: "DNS:hooks.example.com" }), (request, response) => {
    names.push((request.socket as TLSSocket).servername, request.headers.host);
    response.end("secure");
  });
  await started(t, server, "127.0.0.1", 0);
  const { port } = server.address() as AddressInfo;
  const options = { allow: [OPEN], lookup: async () => ["127.0.0.1"] };
  const egress = createEgress({ ...options, ca: authority.ca });
  assert.equal((await egress.request(`https://hooks.example.com:${port}/`)).body.toString(), "secure");
  assert.deepEqual(names, ["hooks.example.com", `hooks.example.com:${port}`]);
  await assert.rejects(egress.request(`https://other.example.com:${port}/`), failed("tls"));
  await assert.rejects(egress.request(`https://127.0.0.1:${port}/`), failed("tls"));
  await assert.rejects(createEgress(options).request(`https://hooks.example.com:${port}/`), failed("tls"));
  const plain = await listen(t, ok);
  await assert.rejects(egress.request(`https://hooks.example.com:${plain.port}/`), failed("tls"));
});

test("a redirect from https to http is refused, also where http may be called", async (t) => {
  const authority = createAuthority(t, "egress");
  if (authority === null) return;
  const plain = await listen(t, ok);
  const server = createTlsServer(authority.issue("hooks"), redirectTo(plain.url));
  await started(t, server, "127.0.0.1", 0);
  const egress = createEgress({ allow: [OPEN], ca: authority.ca });
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  await assert.rejects(egress.request(url, { maxRedirects: 1 }), refused("downgrade"));
  assert.equal(plain.connections(), 0);
});

test("time, header bytes and body bytes are bounded, whoever is slow", async (t) => {
  const egress = createEgress({ allow: [OPEN] });
  const silent = await listen(t, () => {});
  await assert.rejects(egress.request(silent.url, { timeoutMs: 100 }), failed("timeout"));
  const drip = await listen(t, (_, response) => {
    const timer = setInterval(() => response.write("x"), 10);
    response.on("close", () => clearInterval(timer));
  });
  await assert.rejects(egress.request(drip.url, { timeoutMs: 200 }), failed("timeout"));
  const endless = await listen(t, (_, response) => {
    const pump = () => {
      while (!response.destroyed && response.write(Buffer.alloc(64 * 1024)));
      response.once("drain", pump);
    };
    pump();
  });
  await assert.rejects(egress.request(endless.url, { maxBodyBytes: 100_000 }), failed("response_too_large"));
  const headers = await listen(t, (_, response) => response.writeHead(200, { "x-long": "x".repeat(20_000) }).end());
  await assert.rejects(egress.request(headers.url), failed("bad_response"));
  const cut = await listen(t, (_, response) => {
    response.writeHead(200, { "content-length": "10" }).write("half");
    setTimeout(() => response.destroy(), 20);
  });
  await assert.rejects(egress.request(cut.url), failed("bad_response"));
  const mute = createTcpServer(() => {});
  await started(t, mute as unknown as Server, "127.0.0.1", 0);
  const tls = egress.request(`https://127.0.0.1:${(mute.address() as AddressInfo).port}/`, { timeoutMs: 100 });
  await assert.rejects(tls, failed("timeout"));
  const asking = createEgress({ allow: [OPEN], lookup: () => new Promise(() => {}) });
  await assert.rejects(asking.request("http://slow.example/", { timeoutMs: 50 }), failed("timeout"));
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 50);
  await assert.rejects(egress.request(silent.url, { signal: controller.signal }), failed("aborted"));
  await assert.rejects(egress.request(silent.url, { headers: { "x-bad": "a\r\nb: c" } }), failed("bad_request"));
});

test("an answer that changes the protocol is a failure at once, and not a request without an end", async (t) => {
  const server = createTcpServer((socket) => {
    socket.once("data", () => socket.write("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"));
  });
  await started(t, server as unknown as Server, "127.0.0.1", 0);
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const late = sleep(2_000).then(() => assert.fail("still waits"));
  await assert.rejects(Promise.race([createEgress({ allow: [OPEN] }).request(url, { timeoutMs: 500 }), late]), failed("bad_response"));
});

test("whoever asks for the status alone does not wait for the body, however long it is or slow", async (t) => {
  const slow = await listen(t, (_, response) => void response.writeHead(200, { "content-length": 1e12 }).write("x"));
  const { status, body } = await createEgress({ allow: [OPEN] }).request(slow.url, { statusOnly: true, timeoutMs: 500 });
  assert.deepEqual([status, body.length], [200, 0]);
});

test("storing a URL waits a second at most for a name server, and says no only where it knows", async () => {
  let looking = 0;
  const egress = createEgress({
    allow: [],
    lookup: (name) => {
      if (name === "private.example.com") return Promise.resolve(["10.0.0.1"]);
      if (name === "unknown.example.com") return Promise.reject(new Error("ENOTFOUND"));
      looking += 1;
      return new Promise(() => {});
    },
  });
  await assert.rejects(egress.vet("https://private.example.com/"), refused("private"));
  await egress.vet("https://unknown.example.com/");
  await assert.rejects(egress.vet("https://127.0.0.1/"), refused("loopback"));
  const began = performance.now();
  await Promise.all(Array.from({ length: 12 }, () => egress.vet("https://slow.example.com/")));
  assert.ok(performance.now() - began < 5_000);
  assert.equal(looking, 4);
});

test("what a tenant is told of an address is the same for every kind of private network", () => {
  const told = new Set(
    (["loopback", "private", "metadata", "special_name", "unreadable_address"] as const).map(
      (reason) => new EgressRefused(reason).publicReason,
    ),
  );
  assert.equal(told.size, 1);
});

test("the shape of fetch: status, headers and body as it came, at most three redirects, a form's content type", async (t) => {
  const server = await listen(t, (request, response) => {
    if (request.url === "/loop") return void response.writeHead(302, { location: "/loop" }).end();
    if (request.url === "/empty") return void response.writeHead(204).end();
    response.writeHead(201, { "content-type": "application/json", "set-cookie": "a=b" }).end('{"a":1}');
  });
  const { fetch } = createEgress({ allow: [OPEN] });
  const response = await fetch(new URL(`${server.url}/token`), {
    method: "POST",
    body: new URLSearchParams({ a: "b c" }),
    headers: new Headers({ accept: "*/*" }),
  });
  assert.deepEqual([response.status, response.headers.get("content-type"), response.url], [201, "application/json", `${server.url}/token`]);
  assert.equal(response.headers.get("set-cookie"), null);
  assert.deepEqual(await response.json(), { a: 1 });
  assert.deepEqual(
    [server.seen[0]?.body, server.seen[0]?.headers["content-type"]],
    ["a=b+c", "application/x-www-form-urlencoded;charset=UTF-8"],
  );
  assert.equal((await fetch(`${server.url}/empty`)).body, null);
  assert.equal((await fetch(`${server.url}/loop`, { redirect: "manual" })).status, 302);
  await assert.rejects(fetch(`${server.url}/loop`), refused("too_many_redirects"));
  await assert.rejects(fetch(`${server.url}/loop`, { redirect: "error" }), failed("bad_response"));
});

test("proxy variables and NODE_TLS_REJECT_UNAUTHORIZED change nothing", async (t) => {
  const authority = createAuthority(t, "egress");
  if (authority === null) return;
  const open = await listen(t, ok);
  const proxy = await listen(t, (_, response) => response.end("proxied"));
  const secure = createTlsServer(authority.issue("hooks"), ok);
  await started(t, secure, "127.0.0.1", 0);
  const script = `
    import { createEgress } from ${JSON.stringify(new URL("index.ts", import.meta.url).href)};
    const egress = createEgress({ allow: [${JSON.stringify(OPEN)}] });
    const plain = await egress.request(process.argv[1]);
    const secure = await egress.request(process.argv[2]).catch((error) => ({ body: error.reason }));
    process.stdout.write(plain.body + " " + secure.body);`;
  const variables = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"].map((name) => [name, proxy.url]);
  const env = { ...process.env, ...Object.fromEntries(variables), NODE_USE_ENV_PROXY: "1", NODE_TLS_REJECT_UNAUTHORIZED: "0" };
  const url = `https://127.0.0.1:${(secure.address() as AddressInfo).port}/`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script, open.url, url], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  child.stdout.on("data", (chunk: Buffer) => (said += chunk.toString()));
  await once(child, "close");
  assert.equal(said, "ok tls");
  assert.equal(proxy.connections(), 0);
});

test("a look-up that is asked for tells nothing when the URL alone is refused", async () => {
  const needs = { policy: { allow: [] }, lookup: () => assert.fail("looked up"), ca: undefined };
  for (const url of ["http://example.com/", "https://localhost/", "https://user@example.com/", "https://0x7f.1/"])
    await assert.rejects(guardedRequest(needs, url, {}), EgressRefused);
});
