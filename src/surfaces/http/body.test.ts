import assert from "node:assert/strict";
import http from "node:http";
import { type AddressInfo, connect } from "node:net";
import { after, before, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import type { TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { type BodyBounds, type BodyReader, createBodyReader, joined, type TakenBody } from "./body.ts";

const BOUNDS = { bodyBytes: 1_000, bodiesInFlightBytes: 2_500, bodiesInFlightBytesPerTenant: 1_500, bodyArrivalMs: 200 };

let take: BodyReader;
let held: TakenBody[] = [];
let server: http.Server;
let url: string;

// The tenant is the path; a body that was taken is held until the test releases it.
before(async () => {
  server = http.createServer((request, response) => {
    take(request, request.url as TenantId).then(
      (body) => {
        held.push(body);
        const bytes = joined(body);
        assert.equal(body.size, bytes.length);
        response.end(`${bytes.length} ${bytes.toString("latin1", 0, 5)}`);
      },
      (thrown: unknown) => {
        response.statusCode = thrown instanceof Problem ? thrown.status : 500;
        response.end(thrown instanceof Problem ? thrown.code : String(thrown));
      },
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

after(() => {
  server.closeAllConnections();
  server.close();
});

/** A server that asks for a body only once it has arrived, as the pipeline does. */
async function lateServer(t: TestContext, bounds: BodyBounds): Promise<(body: string) => Promise<string>> {
  const takeLate = createBodyReader(bounds);
  const late = http.createServer((request, response) => {
    setImmediate(() =>
      takeLate(request, "late" as TenantId).then(
        (body) => {
          body.release();
          response.end(joined(body));
        },
        (thrown: Problem) => response.end(thrown.code),
      ),
    );
  });
  await new Promise<void>((resolve) => late.listen(0, "127.0.0.1", resolve));
  const socket = connect((late.address() as AddressInfo).port, "127.0.0.1");
  t.after(() => {
    socket.destroy();
    late.close();
  });
  return (body) =>
    new Promise((resolve) => {
      socket.once("data", (data) => resolve(data.toString().split("\r\n\r\n")[1] as string));
      socket.write(`POST / HTTP/1.1\r\nhost: a\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
    });
}

test("a body that has arrived before it is asked for is the same, is bounded the same, and the connection goes on", async (t) => {
  const send = await lateServer(t, { bodyBytes: 10, bodiesInFlightBytes: 8, bodiesInFlightBytesPerTenant: 8, bodyArrivalMs: 1_000 });
  assert.equal(await send("12345"), "12345");
  assert.equal(await send("12345678"), "12345678");
  assert.equal(await send("123456789"), "overloaded");
  assert.equal(await send("12345678901"), "request_too_large");
  assert.equal(await send("1234567"), "1234567");
});

function fresh(): void {
  take = createBodyReader(BOUNDS);
  held = [];
}

const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
after(() => agent.destroy());

/** Sends the parts as one body, in chunks where there is no content-length. */
function post(
  tenant: string,
  parts: readonly (string | Buffer)[],
  headers: http.OutgoingHttpHeaders = {},
): Promise<{ status: number; text: string; port: number }> {
  return new Promise((resolve, reject) => {
    const request = http.request(
      url + tenant,
      { method: "POST", headers: { "content-type": "application/json", ...headers }, agent },
      (response) => {
        let text = "";
        const port = request.socket?.localPort as number;
        response.on("data", (data) => (text += data)).on("end", () => resolve({ status: response.statusCode as number, text, port }));
      },
    );
    request.on("error", reject);
    for (const part of parts) request.write(part);
    request.end();
  });
}

const answer = async (...args: Parameters<typeof post>) => {
  const { status, text } = await post(...args);
  return `${status} ${text}`;
};

test("a body comes whole, in one piece or in many, plain or gzip", async () => {
  fresh();
  assert.equal(await answer("/a", ["hello"], { "content-length": "5" }), "200 5 hello");
  assert.equal(await answer("/a", ["he", "l", "lo"]), "200 5 hello");
  assert.equal(await answer("/a", [gzipSync("hello")], { "content-encoding": "gzip" }), "200 5 hello");
  assert.equal(await answer("/a", []), "200 0 ");
  for (const body of held) body.release();
});

test("the bound of one body counts bytes after inflation, and a body of exactly the bound is taken", async () => {
  fresh();
  assert.equal(await answer("/a", ["x".repeat(1_000)]), "200 1000 xxxxx");
  held[0]?.release();
  assert.equal(await answer("/a", ["x".repeat(1_001)]), "413 request_too_large");
  assert.equal(await answer("/a", ["x".repeat(1_001)], { "content-length": "1001" }), "413 request_too_large");
  assert.equal(await answer("/a", [gzipSync("x".repeat(1_001))], { "content-encoding": "gzip" }), "413 request_too_large");
});

test("one tenant's bodies in flight are bounded, and do not take another tenant's room", async () => {
  fresh();
  assert.equal(await answer("/a", ["x".repeat(900)]), "200 900 xxxxx");
  assert.equal(await answer("/a", ["x".repeat(900)]), "503 overloaded");
  assert.equal(await answer("/b", ["x".repeat(900)]), "200 900 xxxxx");
  held[0]?.release();
  assert.equal(await answer("/a", ["x".repeat(900)]), "200 900 xxxxx", "what was released, and what was refused, is free again");
});

test("all tenants' bodies in flight are bounded together", async () => {
  fresh();
  for (const tenant of ["/a", "/b"]) assert.equal(await answer(tenant, ["x".repeat(1_000)]), "200 1000 xxxxx");
  assert.equal(await answer("/c", ["x".repeat(600)]), "503 overloaded");
  assert.equal(await answer("/c", ["x".repeat(400)]), "200 400 xxxxx");
});

test("a place is given back once, however often it is released", async () => {
  fresh();
  assert.equal(await answer("/a", ["x".repeat(900)]), "200 900 xxxxx");
  for (let times = 0; times < 3; times++) held[0]?.release();
  assert.equal(await answer("/a", ["x".repeat(900)]), "200 900 xxxxx");
  assert.equal(await answer("/a", ["x".repeat(900)]), "503 overloaded");
});

test("refusals of every kind leave no byte counted, and the connection in use", async () => {
  fresh();
  const ports = new Set<number>();
  for (let round = 0; round < 5; round++) {
    ports.add((await post("/a", ["x".repeat(1_400)])).port);
    ports.add((await post("/a", ["x".repeat(5_000)], { "content-length": "5000" })).port);
    ports.add((await post("/a", [gzipSync("x".repeat(5_000))], { "content-encoding": "gzip" })).port);
    ports.add((await post("/a", ["not gzip"], { "content-encoding": "gzip" })).port);
    ports.add((await post("/a", ["hello"], { "content-type": "text/plain" })).port);
    ports.add((await post("/a", ["hello"], { "content-encoding": "br" })).port);
  }
  assert.equal(ports.size, 1);
  assert.equal(await answer("/a", ["x".repeat(1_000)]), "200 1000 xxxxx");
});

test("what is no gzip, or ends too soon, is the caller's fault", async () => {
  fresh();
  assert.equal(await answer("/a", ["not gzip"], { "content-encoding": "gzip" }), "400 invalid_request");
  assert.equal(await answer("/a", [gzipSync("hello").subarray(0, 12)], { "content-encoding": "gzip" }), "400 invalid_request");
});

test("a body that does not arrive in time is given up, and so is one whose client leaves; their bytes are free again", async () => {
  fresh();
  const slow = http.request(`${url}/a`, { method: "POST", headers: { "content-type": "application/json", "content-length": "1000" } });
  slow.on("error", () => undefined);
  const began = performance.now();
  slow.write("x".repeat(900));
  const [response] = (await new Promise<[http.IncomingMessage]>((resolve) => slow.once("response", (each) => resolve([each])))) as [
    http.IncomingMessage,
  ];
  assert.equal(response.statusCode, 408);
  assert.ok(performance.now() - began >= BOUNDS.bodyArrivalMs - 5);
  slow.destroy();

  const leaver = http.request(`${url}/a`, { method: "POST", headers: { "content-type": "application/json", "content-length": "1000" } });
  leaver.on("error", () => undefined);
  leaver.write("x".repeat(900));
  await sleep(50);
  leaver.destroy();
  await sleep(50);
  assert.equal(await answer("/a", ["x".repeat(1_000)]), "200 1000 xxxxx");
});
