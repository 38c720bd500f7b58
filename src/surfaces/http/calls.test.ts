import assert from "node:assert/strict";
import { connect, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../../kernel/clock.ts";
import type { Frame, FrameSink } from "../../kernel/frame.ts";
import { createIdMaker, type TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { systemRandom } from "../../kernel/random.ts";
import type { CallContext, Caller, Delivery } from "../../pipeline/caller.ts";
import type { CheckedResponse } from "../../pipeline/check.ts";
import type { Dispatched } from "../../pipeline/evidence.ts";
import { chatCompletions } from "../openai/chat.ts";
import { createBodyReader } from "./body.ts";
import { mountCall } from "./calls.ts";
import { createDrain, type Drain } from "./drain.ts";
import { createHttpServer } from "./server.ts";

// The endpoint with its real server; the pipeline behind it is what each test makes of a call.

const TENANT = "11111111-1111-7111-8111-111111111111" as TenantId;
const silentLog = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} };
const CHAT = JSON.stringify({ model: "m", stream: true, messages: [{ role: "user", content: "hi" }] });

interface Stage {
  readonly drain: Drain;
  readonly calls: CallContext[];
  /** Sends bytes on a connection of their own. */
  send(bytes: string, reading?: boolean): Promise<{ readonly socket: Socket; read(): string; readonly closed: Promise<void> }>;
}

async function stage(
  t: TestContext,
  serve: (caller: Caller) => Promise<unknown>,
  pace = { silenceMs: 10_000, stallMs: 10_000 },
): Promise<Stage> {
  const app = createHttpServer({ newId: createIdMaker(systemClock, systemRandom), log: silentLog });
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
  await app.listen({ port: 0, host: "127.0.0.1" });
  const { port } = app.server.address() as { port: number };
  t.after(async () => {
    app.server.closeAllConnections();
    await app.close();
  });
  return {
    drain,
    calls,
    async send(bytes, reading = true) {
      const socket = connect(port, "127.0.0.1");
      t.after(() => socket.destroy());
      let text = "";
      if (reading) socket.on("data", (data: Buffer) => (text += data.toString("utf8")));
      socket.on("error", () => undefined);
      socket.write(bytes);
      return { socket, read: () => text, closed: new Promise((resolve) => socket.once("close", () => resolve())) };
    },
  };
}

const request = (body: string, headers = "") =>
  `POST /chat HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n${headers}\r\n${body}`;

async function until(condition: () => boolean): Promise<void> {
  for (let look = 0; !condition(); look++) {
    if (look === 400) throw new Error("it did not happen");
    await sleep(5);
  }
}

const EVIDENCE = {
  route: { model: { name: "modèle" } },
  slot: { deployment: { name: "main", provider: "openai", region: null } },
  hold: { outputBound: null },
  of: { call: { hops: [1] } },
} as unknown as Dispatched;

/** A checked stream that hands its sink to the test. */
function streamed(take: (sink: FrameSink) => void): CheckedResponse {
  return {
    wire: "openai",
    body: { kind: "stream", stream: { pipe: take, pause() {}, resume() {}, abort() {} } },
  } as unknown as CheckedResponse;
}

test("a problem after a comment is the stream's last event, and the connection is closed: the status has been sent", async (t) => {
  const { send } = await stage(
    t,
    async (caller) => {
      await caller.read(TENANT);
      await sleep(80);
      caller.refuse(new Problem("upstream_timeout"));
    },
    { silenceMs: 30, stallMs: 10_000 },
  );
  const { read, closed } = await send(request(CHAT));
  await closed;
  assert.match(read(), /^HTTP\/1\.1 200 [^]*: waiting\n\n[^]*data: \{"error":\{[^\n]*"type":"upstream_timeout"[^\n]*\}\n\n/);
  assert.doesNotMatch(read(), /\r\n0\r\n\r\n$/);
});

test("a problem before anything was sent has its status, its length and ours ids, and the connection is kept", async (t) => {
  const { send, calls } = await stage(t, async (caller) => {
    await caller.read(TENANT);
    caller.refuse(new Problem("capacity_exceeded", { retryAfterSeconds: 1.2 }));
  });
  const { socket, read } = await send(request(CHAT, "x-request-id: theirs\r\n"));
  await until(() => read().includes('"code":"capacity_exceeded"'));
  assert.match(
    read(),
    new RegExp(
      `^HTTP/1.1 429 [^]*x-request-id: ${calls[0]?.id}[^]*retry-after: 2\r\nretry-after-ms: 1200\r\n[^]*content-length: \\d+`,
      "i",
    ),
  );
  assert.equal(calls[0]?.callerRequestId, "theirs");
  socket.write(request(CHAT));
  await until(() => read().split("HTTP/1.1 429").length === 3);
});

test("a call in flight when the drain begins ends well and is asked to close; a new one is refused at once; one beyond the grace is told to retry", async (t) => {
  const sinks: FrameSink[] = [];
  const deliveries: Delivery[] = [];
  const { send, drain, calls } = await stage(t, async (caller) => {
    await caller.read(TENANT);
    const stream = streamed((sink) => {
      sinks.push(sink);
      caller.signal.addEventListener("abort", () => sink.end({ kind: "aborted" }));
    });
    deliveries.push(await caller.send(stream, EVIDENCE));
  });
  const [first, second] = [await send(request(CHAT)), await send(request(CHAT))];
  await until(() => sinks.length === 2);
  const draining = drain.drain(150);
  const late = await send(request(CHAT));
  await until(() => late.read().includes("overloaded_error"));
  assert.match(late.read(), /^HTTP\/1\.1 503 /);
  assert.equal(calls.length, 2, "the pipeline saw a call that came too late");
  sinks[0]?.frames([{ bytes: Buffer.from("data: [DONE]\n\n"), notable: true, events: () => [{ type: "response-end" }] } satisfies Frame]);
  sinks[0]?.end({ kind: "complete" });
  await Promise.all([draining, first.closed, second.closed]);
  assert.match(first.read(), /x-atrium-model: mod%C3%A8le[^]*data: \[DONE\]\n\n\r\n0\r\n\r\n$/);
  assert.match(second.read(), /data: \{"error":[^\n]*overloaded/);
  assert.deepEqual(deliveries.map((delivery) => delivery.kind).sort(), ["delivered", "truncated"]);
  assert.equal(drain.inFlight, 0);
});

test("a call that began before the drain and is answered in it says `connection: close`", async (t) => {
  let answer = (): void => {};
  const { send, drain } = await stage(t, async (caller) => {
    await caller.read(TENANT);
    await new Promise<void>((resolve) => (answer = resolve));
    caller.refuse(new Problem("not_found"));
  });
  const { read, closed } = await send(request(CHAT));
  await sleep(50);
  const draining = drain.drain(10_000);
  answer();
  await Promise.all([draining, closed]);
  assert.match(read(), /connection: close/i);
});

test("a client that takes nothing of its answer is treated as gone, and its call ends", async (t) => {
  const delivered = Promise.withResolvers<Delivery>();
  const { send } = await stage(
    t,
    async (caller) => {
      await caller.read(TENANT);
      const stream = streamed((sink) => {
        sink.frames([{ bytes: Buffer.alloc(32 * 1024 * 1024, 0x20), notable: false, events: () => [] }]);
        sink.end({ kind: "complete" });
      });
      delivered.resolve(await caller.send(stream, EVIDENCE));
    },
    { silenceMs: 20, stallMs: 150 },
  );
  await send(request(CHAT), false);
  assert.deepEqual(await delivered.promise, { kind: "client_left" });
});

test("the client's leaving aborts the call, the drain's does not look like it", async (t) => {
  const callers: Caller[] = [];
  const { send } = await stage(t, async (caller) => {
    callers.push(caller);
    await caller.read(TENANT);
    await new Promise((resolve) => caller.signal.addEventListener("abort", resolve));
  });
  const { socket } = await send(request(CHAT));
  await until(() => callers.length === 1);
  assert.equal(callers[0]?.signal.aborted, false);
  socket.destroy();
  await until(() => callers[0]?.signal.aborted === true);
  assert.equal(callers[0]?.stopped(), null);
});
