import { test, type TestContext } from "node:test";
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type AddressInfo, Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { systemClock } from "../../../kernel/clock.ts";
import { openaiWire } from "../dialects/openai/wire.ts";
import { ask } from "../testing/asking.ts";
import { rawUpstream, jsonResponse, type RawExchange, type RawUpstream } from "../testing/raw-upstream.ts";
import { completionOf, DONE, STOP_CHUNK, sse, textChunk } from "../testing/scripted-upstream.ts";
import { createUpstreamClient, type UpstreamClient } from "../upstream.ts";
import type { Connection } from "./connection.ts";
import { Deadlines } from "./deadlines.ts";
import { createLook, Pool, type PooledUser } from "./pool.ts";

const ANSWER = jsonResponse(JSON.stringify(completionOf("hello")));

async function setUp(t: TestContext, script: (exchange: RawExchange) => void): Promise<{ client: UpstreamClient; upstream: RawUpstream }> {
  const upstream = await rawUpstream(script);
  const client = createUpstreamClient({ clock: systemClock });
  t.after(async () => {
    await client.close();
    await upstream.close();
  });
  return { client, upstream };
}

test("a connection whose response was not whole, by the book and followed by nothing is never used again", async (t) => {
  const json = "content-type: application/json\r\n";
  const text = JSON.stringify(completionOf("hello"));
  const firsts: Readonly<Record<string, (socket: Socket) => void>> = {
    "bytes after the length": (socket) => socket.write(`${ANSWER}x`),
    "a second response": (socket) => socket.write(ANSWER + ANSWER),
    "a second response, a moment later": (socket) => (socket.write(ANSWER), setTimeout(() => socket.write(ANSWER), 10)),
    "connection: close, left open": (socket) =>
      socket.write(`HTTP/1.1 200 OK\r\n${json}connection: close\r\ncontent-length: ${text.length}\r\n\r\n${text}`),
    "HTTP/1.0": (socket) => socket.write(`HTTP/1.0 200 OK\r\n${json}content-length: ${text.length}\r\n\r\n${text}`),
    "the end of a close": (socket) => socket.end(`HTTP/1.1 200 OK\r\n${json}\r\n${text}`),
    "a shorter body than said": (socket) => socket.end(`HTTP/1.1 200 OK\r\n${json}content-length: 9999\r\n\r\n${text}`),
    "two lengths": (socket) => socket.write(`HTTP/1.1 200 OK\r\n${json}content-length: 2\r\ncontent-length: 3\r\n\r\n{}`),
    "a length and chunks": (socket) =>
      socket.write(`HTTP/1.1 200 OK\r\n${json}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n`),
    "a broken chunk": (socket) => socket.write(`HTTP/1.1 200 OK\r\n${json}transfer-encoding: chunked\r\n\r\n2\r\n{}X\r\n0\r\n\r\n`),
    "a body of the wrong type": (socket) => socket.write("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi"),
    "a compressed body": (socket) =>
      socket.write(`HTTP/1.1 200 OK\r\n${json}content-encoding: gzip\r\ncontent-length: ${text.length}\r\n\r\n${text}`),
    "an error body over its bound": (socket) =>
      socket.write(`HTTP/1.1 500 No\r\n${json}content-length: 100000\r\n\r\n${"x".repeat(100_000)}`),
    "204 with a body": (socket) => socket.write(`HTTP/1.1 204 No\r\n${json}content-length: 5\r\n\r\nhello`),
    "a keep-alive time that is over when it is said": (socket) =>
      socket.write(ANSWER.replace("content-length", "keep-alive: timeout=1\r\ncontent-length")),
  };
  for (const [name, first] of Object.entries(firsts)) {
    const { client, upstream } = await setUp(t, ({ connection, before, socket }) => {
      if (connection === 0 && before === 0) first(socket);
      else socket.write(ANSWER);
    });
    await ask(client, upstream.baseUrl);
    await sleep(20);
    assert.match((await ask(client, upstream.baseUrl)).body ?? "", /hello/, name);
    assert.deepEqual(
      upstream.exchanges.map(({ connection }) => connection),
      [0, 1],
      name,
    );
    await client.close();
    await upstream.close();
  }
});

test("a long body goes to the socket in pieces, arrives whole, and leaves the connection in use", async (t) => {
  const written = t.mock.method(Socket.prototype, "write");
  const { client, upstream } = await setUp(t, ({ socket }) => socket.write(ANSWER));
  const body = Buffer.from(Array.from({ length: 1_000_003 }, (_, index) => index % 251));
  for (const length of [body.length, 3 * 256 * 1024, 256 * 1024 + 1])
    assert.match((await ask(client, upstream.baseUrl, { body: body.subarray(0, length) })).body ?? "", /hello/);
  assert.deepEqual(
    upstream.exchanges.map((exchange) => [exchange.connection, exchange.body.equals(body.subarray(0, exchange.body.length))]),
    [
      [0, true],
      [0, true],
      [0, true],
    ],
  );
  assert.deepEqual(
    upstream.exchanges.map((exchange) => exchange.body.length),
    [body.length, 3 * 256 * 1024, 256 * 1024 + 1],
  );
  assert.equal(Math.max(...written.mock.calls.map(({ arguments: [bytes] }) => bytes.length)), 256 * 1024);
});

test("a connection whose call was aborted or timed out is closed, never used again", async (t) => {
  const { client, upstream } = await setUp(t, ({ connection, socket }) => {
    if (connection > 0) socket.write(ANSWER);
  });
  const controller = new AbortController();
  const asking = ask(client, upstream.baseUrl, { signal: controller.signal });
  while (upstream.exchanges.length === 0) await sleep(2);
  const closed = once(upstream.sockets[0] as Socket, "close");
  controller.abort();
  assert.deepEqual((await asking).failure, { kind: "aborted" });
  await closed;
  assert.ok((await ask(client, upstream.baseUrl)).body);
  assert.equal(upstream.sockets.length, 2);
});

test("bytes that nobody asked for end an idle connection, and are no answer to the next request", async (t) => {
  const { client, upstream } = await setUp(t, ({ socket }) => socket.write(ANSWER));
  await ask(client, upstream.baseUrl);
  const forged = jsonResponse(JSON.stringify(completionOf("forged")));
  // The bytes arrive, and the next request is made, in one turn of the event loop.
  await new Promise<void>((resolve) => upstream.sockets[0]?.write(forged, () => resolve()));
  const until = performance.now() + 20;
  while (performance.now() < until);
  assert.match((await ask(client, upstream.baseUrl)).body ?? "", /hello/);
  assert.equal(upstream.exchanges.length, 2);
});

test("a kept connection that the upstream has closed is found before anything is sent, and the request goes out once, on another", async (t) => {
  const { client, upstream } = await setUp(t, ({ socket }) => socket.write(ANSWER));
  for (let call = 0; call < 5; call++) {
    assert.deepEqual([(await ask(client, upstream.baseUrl)).sent, upstream.exchanges.length], [1, call + 1]);
    const last = upstream.sockets.at(-1) as Socket;
    // Its FIN lies unread when the next request is made.
    last.end();
    const until = performance.now() + 20;
    while (performance.now() < until);
  }
  assert.equal(upstream.sockets.length, 5);
});

test("a request that may have been read is never sent again: a connection that breaks under it is a failure", async (t) => {
  for (const close of [
    (socket: Socket) => socket.destroy(),
    (socket: Socket) => socket.resetAndDestroy(),
    (socket: Socket) => socket.end(),
  ]) {
    const { client, upstream } = await setUp(t, ({ before, socket }) => {
      if (before === 0) socket.write(ANSWER);
      else close(socket);
    });
    await ask(client, upstream.baseUrl);
    const { failure, sent } = await ask(client, upstream.baseUrl);
    assert.deepEqual([failure, sent, upstream.exchanges.length, upstream.sockets.length], [{ kind: "connect" }, 1, 2, 1]);
  }
});

test("onSent comes when the connection stands and before the first byte; where it throws nothing is sent", async (t) => {
  let arrived = 0;
  const { client, upstream } = await setUp(t, ({ socket }) => (arrived++, socket.write(ANSWER)));
  const { body, sent } = await ask(client, upstream.baseUrl, {
    onSent: () => assert.deepEqual([arrived, upstream.sockets.length <= 1], [0, true]),
  });
  assert.deepEqual([body !== null, sent, arrived], [true, 1, 1]);
  const refused = await ask(client, upstream.baseUrl, {
    onSent: () => {
      throw new Error("the journal is away");
    },
  });
  assert.deepEqual(refused.failure, { kind: "connect" });
  await sleep(20);
  assert.equal(arrived, 1);
});

test("a request arrives as it was given, of any length", async (t) => {
  const { client, upstream } = await setUp(t, ({ socket }) => socket.write(ANSWER));
  for (const length of [0, 1, 16 * 1024, 16 * 1024 + 1, 5_000_000]) {
    const body = Buffer.alloc(length, "é");
    await ask(client, upstream.baseUrl, { body, secret: "sk-1" });
    const arrived = upstream.exchanges.at(-1) as RawExchange;
    assert.ok(arrived.body.equals(body), `${length} bytes`);
    assert.equal(
      arrived.head,
      `POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:${upstream.port}\r\nconnection: keep-alive\r\n` +
        `content-type: application/json\r\nauthorization: Bearer sk-1\r\ncontent-length: ${length}`,
    );
  }
});

test("an answer that comes before the request was read is taken, and its connection is not used again", async (t) => {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => (socket.pause(), socket.write("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\n{}")));
  });
  let connections = 0;
  server.on("connection", () => connections++);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const client = createUpstreamClient({ clock: systemClock });
  t.after(async () => {
    await client.close();
    server.close();
  });
  const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
  for (const expected of [1, 2]) {
    const { failure } = await ask(client, baseUrl, { body: Buffer.alloc(20_000_000) });
    assert.deepEqual([failure?.kind, connections], ["status", expected]);
  }
});

test("calls in any number and order get their own answers, one at a time on a connection", async (t) => {
  const outstanding = new Map<number, number>();
  const { client, upstream } = await setUp(t, ({ body, connection, socket }) => {
    const now = (outstanding.get(connection) ?? 0) + 1;
    outstanding.set(connection, now);
    assert.equal(now, 1, "nothing is pipelined");
    const { id, wait, cut, after } = JSON.parse(body.toString()) as { id: string; wait: number; cut: number; after: string };
    const answer = jsonResponse(JSON.stringify(completionOf(id))) + (after === "surplus" ? ANSWER : "");
    setTimeout(() => {
      outstanding.set(connection, 0);
      socket.write(answer.slice(0, cut));
      setImmediate(() => (after === "close" ? socket.end(answer.slice(cut)) : socket.write(answer.slice(cut))));
    }, wait);
  });
  let asked = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          start: fc.nat({ max: 5 }),
          wait: fc.nat({ max: 5 }),
          cut: fc.nat({ max: 400 }),
          after: fc.constantFrom("stay", "stay", "stay", "close", "surplus"),
          abort: fc.boolean(),
        }),
        { minLength: 1, maxLength: 12 },
      ),
      (calls) =>
        Promise.all(
          calls.map(async ({ start, wait, cut, after, abort }) => {
            const id = `answer-${asked++}`;
            await sleep(start);
            const controller = new AbortController();
            if (abort && asked % 4 === 0) setTimeout(() => controller.abort(), 2);
            const { body, failure } = await ask(client, upstream.baseUrl, {
              body: Buffer.from(JSON.stringify({ id, wait, cut, after })),
              signal: controller.signal,
              secret: `sk-tenant-${asked % 2}`,
            });
            if (failure !== null) assert.equal(failure.kind, "aborted");
            else assert.ok(body?.includes(`"${id}"`), `${id} got ${body}`);
          }),
        ).then(() => undefined),
    ),
    { numRuns: 150 },
  );
  const reused = upstream.exchanges.filter(({ before }) => before > 0).length;
  t.diagnostic(`${upstream.exchanges.length} requests on ${upstream.sockets.length} connections, ${reused} reused one`);
  assert.ok(reused > 100);
});

test("a connection carries one credential's requests only", async (t) => {
  const { client, upstream } = await setUp(t, ({ socket }) => socket.write(ANSWER));
  for (const secret of ["sk-a", "sk-b", "sk-a", "sk-b"]) await ask(client, upstream.baseUrl, { secret });
  const byConnection = upstream.exchanges.map(({ connection, head }) => [connection, /Bearer (\S+)/.exec(head)?.[1]]);
  assert.deepEqual(byConnection, [
    [0, "sk-a"],
    [1, "sk-b"],
    [0, "sk-a"],
    [1, "sk-b"],
  ]);
});

test("a stream ends whole by its own end, whatever the connection does after it; one that a close ends is truncated", async (t) => {
  const whole = sse(textChunk("a")) + sse(STOP_CHUNK) + DONE;
  const head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
  for (const [text, ending] of [
    [whole, "complete"],
    [sse(textChunk("a")) + sse(STOP_CHUNK), "truncated"],
  ] as const) {
    const { client, upstream } = await setUp(t, ({ socket }) => socket.end(head + text));
    assert.equal((await ask(client, upstream.baseUrl, { stream: true })).ending, ending);
  }
});

test("an idle connection is kept as long as the upstream says, less a margin, then closed; none outlives the client", async (t) => {
  const { client, upstream } = await setUp(t, ({ socket }) =>
    socket.write(ANSWER.replace("content-length", "keep-alive: timeout=3, max=5\r\ncontent-length")),
  );
  await ask(client, upstream.baseUrl);
  await sleep(300);
  await ask(client, upstream.baseUrl);
  const idleSince = performance.now();
  assert.equal(upstream.sockets.length, 1);
  await once(upstream.sockets[0] as Socket, "close");
  const idleMs = performance.now() - idleSince;
  assert.ok(idleMs > 900 && idleMs < 2500, `${idleMs} ms`);
  await ask(client, upstream.baseUrl);
  const closed = once(upstream.sockets[1] as Socket, "close");
  await client.close();
  await closed;
  assert.deepEqual((await ask(client, upstream.baseUrl)).failure, { kind: "unavailable" });
});

test("a reader's pause ends with its stream: the connection carries the next one", async (t) => {
  const chunkOf = (text: string): string => `${text.length.toString(16)}\r\n${text}\r\n`;
  const { client, upstream } = await setUp(t, ({ before, socket }) =>
    socket.write(
      before > 0
        ? ANSWER
        : `HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n${chunkOf(sse(textChunk("a")))}`,
    ),
  );
  const streamed = await client.request({ ...requestTo(upstream), stream: true });
  assert.ok(streamed.body.kind === "stream");
  const { stream } = streamed.body;
  let frames = 0;
  const ended = new Promise((resolve) =>
    stream.pipe({ frames: () => (++frames === 2 ? stream.pause() : undefined), end: ({ kind }) => resolve(kind) }),
  );
  // The frame that its reader pauses at, and the end of the message, come in one read.
  upstream.sockets[0]?.write(`${chunkOf(sse(textChunk("b")))}0\r\n\r\n`);
  assert.equal(await ended, "truncated");
  const whole = await client.request(requestTo(upstream));
  assert.equal(whole.body.kind, "whole");
  assert.deepEqual([upstream.exchanges.length, upstream.sockets.length], [2, 1]);
});

function requestTo(upstream: RawUpstream): Parameters<UpstreamClient["request"]>[0] {
  return {
    origin: new URL(upstream.baseUrl).origin,
    path: "/v1/chat/completions",
    headers: [],
    body: Buffer.from("{}"),
    stream: false,
    wire: openaiWire,
    secret: null,
    transport: null,
    timeouts: { connectTimeoutMs: 1000, firstTokenTimeoutMs: 1000, idleTimeoutMs: 1000, totalTimeoutMs: 1000 },
    signal: new AbortController().signal,
    onSent: () => undefined,
  };
}

test("a reader that throws ends its own call, and no other", async (t) => {
  const { client, upstream } = await setUp(t, ({ socket }) =>
    socket.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + sse(textChunk("a"))),
  );
  const streamed = await client.request({ ...requestTo(upstream), stream: true });
  assert.ok(streamed.body.kind === "stream");
  const { stream } = streamed.body;
  let frames = 0;
  const ended = new Promise((resolve) =>
    stream.pipe({
      frames: () => {
        if (++frames === 2) throw new Error("a bug");
      },
      end: ({ kind }) => resolve(kind),
    }),
  );
  upstream.sockets[0]?.write(sse(textChunk("b")));
  assert.equal(await ended, "truncated");
});

test("an upstream has 1024 connections at most; one more request is told at once, and a place that is left is taken", () => {
  const deadlines = new Deadlines(systemClock);
  const pool = new Pool({ open: () => () => undefined }, { clock: systemClock, deadlines, afterLook: createLook() });
  const message = { head: Buffer.from(""), body: Buffer.from("") };
  const connections: Connection[] = [];
  const user: PooledUser = {
    onConnection: (connection) => void connections.push(connection),
    onSent: () => undefined,
    onHead: () => undefined,
    onBody: () => undefined,
    onRead: () => undefined,
    onEnd: () => undefined,
    onLost: () => undefined,
    deadline: () => Infinity,
    expire: () => undefined,
  };
  for (let taken = 0; taken < 1024; taken++) assert.ok(pool.request(user, message));
  assert.equal(pool.request(user, message), false);
  connections[0]?.destroy();
  assert.ok(pool.request(user, message));
  pool.close();
  assert.ok(pool.isIdle);
});

test("of more credentials than there are pools, those used longest ago lose their idle connections", async (t) => {
  const { client, upstream } = await setUp(t, ({ socket }) => socket.write(ANSWER));
  for (let credential = 0; credential < 300; credential++)
    assert.ok((await ask(client, upstream.baseUrl, { secret: `sk-${credential}` })).body);
  await sleep(50);
  const open = upstream.sockets.map((socket) => !socket.destroyed);
  assert.deepEqual([open.filter(Boolean).length, open.indexOf(true)], [256, 44]);
});

test("requests that share their headers go each to its own path, over the same connection", async (t) => {
  const { client, upstream } = await setUp(t, ({ socket }) => socket.write(ANSWER));
  const shared = requestTo(upstream);
  const paths = Array.from({ length: 20 }, (_, index) => `/v1/${index % 10}`);
  for (const path of paths) await client.request({ ...shared, path });
  assert.deepEqual(
    upstream.exchanges.map(({ head, connection }) => [head.split(" ")[1], connection]),
    paths.map((path) => [path, 0]),
  );
});

test("what HTTP cannot carry in one line is never written", async (t) => {
  const { client, upstream } = await setUp(t, ({ socket }) => socket.write(ANSWER));
  for (const secret of ["a\r\nx: y", "a\0", "€"])
    assert.deepEqual((await ask(client, upstream.baseUrl, { secret })).failure, { kind: "unavailable" });
  assert.equal(upstream.sockets.length, 0);
});
