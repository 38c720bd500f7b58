import assert from "node:assert/strict";
import http from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { ModelEvent } from "../../kernel/events.ts";
import type { Frame, FrameSink, FrameStream } from "../../kernel/frame.ts";
import { Problem } from "../../kernel/problem.ts";
import { NO_TOKENS } from "../../kernel/tokens.ts";
import type { Delivery } from "../../pipeline/caller.ts";
import { type FrameRendering, StreamWriter } from "./stream-writer.ts";

const SILENCE_MS = 40;

/** A stream that the test drives, and what was asked of it. */
class Source implements FrameStream {
  sink: FrameSink | null = null;
  pauses = 0;
  resumes = 0;
  pipe(sink: FrameSink): void {
    this.sink = sink;
  }
  pause(): void {
    this.pauses += 1;
  }
  resume(): void {
    this.resumes += 1;
  }
  abort(): void {}
}

const rendering: FrameRendering = {
  forward: true,
  dropUsageOnly: true,
  render: (events) => Buffer.from(events.map((event) => `rendered ${event.type}\n\n`).join("")),
  renderError: (problem) => Buffer.from(`error: ${problem.code}\n\n`),
  stopped: () => null,
};

function frame(text: string, events: readonly ModelEvent[] = [{ type: "text-delta", choice: 0, text }], notable = false): Frame {
  return { bytes: Buffer.from(`${text}\n\n`), notable, events: () => events };
}

const USAGE: ModelEvent = { type: "usage", usage: { tokens: NO_TOKENS, source: "reported" } };
const DONE = frame("done", [{ type: "response-end" }], true);

interface Stage {
  readonly writer: StreamWriter;
  readonly source: Source;
  readonly response: http.ServerResponse;
  readonly socket: Socket;
  delivery: Promise<Delivery>;
  /** What the client has read, its head included. */
  read(): string;
  /** Resolves once the connection is closed. */
  readonly closed: Promise<void>;
}

/** A real connection; the stream is piped unless the test wants to do it itself. */
async function stage(
  t: TestContext,
  options: Partial<FrameRendering> & { readonly piped?: boolean; readonly silenceMs?: number; readonly reading?: boolean } = {},
): Promise<Stage> {
  const server = http.createServer();
  const arrived = new Promise<http.ServerResponse>((resolve) => server.once("request", (_request, response) => resolve(response)));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  t.after(() => {
    socket.destroy();
    server.closeAllConnections();
    server.close();
  });
  let text = "";
  if (options.reading !== false) socket.on("data", (data: Buffer) => (text += data.toString("utf8")));
  socket.on("error", () => undefined);
  socket.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
  const response = await arrived;
  const writer = new StreamWriter(response, () => ({ "x-request-id": "id" }), options.silenceMs ?? 10_000);
  const source = new Source();
  const pipe = () => writer.pipe(source, { "x-atrium-model": "m" }, { ...rendering, ...options });
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  return {
    writer,
    source,
    response,
    socket,
    delivery: options.piped === false ? Promise.resolve({ kind: "client_left" }) : pipe(),
    read: () => text,
    closed,
  };
}

async function until(condition: () => boolean): Promise<void> {
  for (let look = 0; !condition(); look++) {
    if (look === 400) throw new Error("it did not happen");
    await sleep(5);
  }
}

test("frames arrive as they are, in order, and a complete stream ends cleanly with its connection kept", async (t) => {
  const { source, delivery, read, response } = await stage(t);
  source.sink?.frames([frame("one"), frame("two")]);
  source.sink?.frames([DONE]);
  source.sink?.end({ kind: "complete" });
  assert.deepEqual(await delivery, { kind: "delivered" });
  await until(() => read().endsWith("0\r\n\r\n"));
  assert.match(
    read(),
    /^HTTP\/1\.1 200 [^]*x-request-id: id[^]*x-atrium-model: m[^]*content-type: text\/event-stream[^]*one\n\n[^]*two\n\n[^]*done\n\n/,
  );
  assert.match(read(), /cache-control: no-cache, no-transform/);
  assert.ok(response.writableFinished);
});

test("nothing is sent before the first frame, so that a failure can still have a status", async (t) => {
  const { read, writer } = await stage(t);
  await sleep(50);
  assert.equal(read(), "");
  assert.equal(writer.begun, false);
});

test("in silence the client hears a comment, again and again, before the upstream answers and after", async (t) => {
  const { source, read } = await stage(t, { silenceMs: SILENCE_MS });
  const comments = () => read().split(": waiting\n\n").length - 1;
  await until(() => comments() >= 2);
  source.sink?.frames([frame("one")]);
  const before = comments();
  await until(() => comments() >= before + 2);
  assert.ok(read().indexOf("one") < read().lastIndexOf(": waiting"));
});

test("after the end no comment is written, though the client is still reading: it would be an error that nobody handles", async (t) => {
  const { source, delivery, response, socket } = await stage(t, { silenceMs: SILENCE_MS, reading: false });
  const errors: unknown[] = [];
  response.on("error", (error) => errors.push(error));
  source.sink?.frames([frame("x".repeat(16 * 1024 * 1024))]);
  source.sink?.end({ kind: "complete" });
  await sleep(4 * SILENCE_MS);
  assert.equal(response.writableFinished, false, "the client has read everything: the test shows nothing");
  socket.resume();
  assert.deepEqual(await delivery, { kind: "delivered" });
  assert.deepEqual(errors, []);
});

test("a refusal written while the writer waits is followed by no comment", async (t) => {
  const { writer, response, read } = await stage(t, { silenceMs: SILENCE_MS, piped: false });
  const errors: unknown[] = [];
  response.on("error", (error) => errors.push(error));
  writer.hush();
  response.writeHead(404, { "content-length": 2 });
  await sleep(3 * SILENCE_MS);
  response.end("no");
  await until(() => read().endsWith("no"));
  assert.doesNotMatch(read(), /waiting/);
  assert.deepEqual(errors, []);
});

test("a client that does not read pauses the upstream, hears no comments, and resumes it by reading", async (t) => {
  const { source, socket, response, delivery } = await stage(t, { silenceMs: SILENCE_MS, reading: false });
  let sent = 0;
  // What the kernel takes is drained again; the client counts as slow once its buffers are full.
  for (let resumed = -1; resumed !== source.resumes;) {
    assert.ok(sent++ < 1_000, "the upstream was never paused for good");
    resumed = source.resumes;
    source.sink?.frames([frame("x".repeat(100_000))]);
    await sleep(source.pauses > resumed ? 20 : 0);
    if (source.pauses === resumed) resumed = -1;
  }
  const [waiting, resumes] = [response.writableLength, source.resumes];
  await sleep(4 * SILENCE_MS);
  assert.equal(response.writableLength, waiting, "comments pile up");
  assert.equal(source.resumes, resumes);
  let received = 0;
  socket.on("data", (data: Buffer) => (received += data.length));
  await until(() => source.resumes > resumes);
  source.sink?.end({ kind: "complete" });
  assert.deepEqual(await delivery, { kind: "delivered" });
  await until(() => received >= sent * 100_000);
});

test("a truncated stream gets the error event and then a closed connection, never a clean end", async (t) => {
  const { source, delivery, read, closed } = await stage(t);
  const problem = new Problem("upstream_error");
  source.sink?.frames([frame("one")]);
  source.sink?.end({ kind: "truncated", problem });
  assert.deepEqual(await delivery, { kind: "truncated", problem });
  await closed;
  assert.match(read(), /one\n\n[^]*error: upstream_error\n\n/);
  assert.doesNotMatch(read(), /\r\n0\r\n\r\n$/);
});

test("a stream that we stopped ourselves tells the client to send the request again", async (t) => {
  const { source, delivery, read, closed } = await stage(t);
  source.sink?.frames([frame("one")]);
  source.sink?.end({ kind: "aborted" });
  const delivered = await delivery;
  assert.ok(delivered.kind === "truncated" && delivered.problem.code === "overloaded");
  await closed;
  assert.match(read(), /error: overloaded/);
  assert.doesNotMatch(read(), /\r\n0\r\n\r\n$/);
});

test("a client that leaves has left, also when it did before the stream was piped", async (t) => {
  const during = await stage(t);
  during.source.sink?.frames([frame("one")]);
  during.socket.destroy();
  assert.deepEqual(await during.delivery, { kind: "client_left" });
  during.source.sink?.frames([frame("two")]);
  during.source.sink?.end({ kind: "aborted" });

  const before = await stage(t, { piped: false });
  before.socket.destroy();
  await until(() => before.response.destroyed);
  const delivery = before.writer.pipe(before.source, {}, rendering);
  before.source.sink?.end({ kind: "aborted" });
  assert.deepEqual(await delivery, { kind: "client_left" });
});

test("a frame of usage alone is dropped unless it was asked for; with anything beside it, it stays", async (t) => {
  const frames = [
    frame("one"),
    frame("usage", [{ type: "response-start", id: "i", model: "m", createdSeconds: 1 }, USAGE], true),
    frame("both", [{ type: "choice-end", choice: 0, reason: "stop", stopSequence: null }, USAGE], true),
    DONE,
  ];
  for (const dropUsageOnly of [true, false]) {
    const { source, delivery, read } = await stage(t, { dropUsageOnly });
    source.sink?.frames(frames);
    source.sink?.end({ kind: "complete" });
    await delivery;
    await until(() => read().endsWith("0\r\n\r\n"));
    assert.equal(/usage\n\n/.test(read()), !dropUsageOnly);
    assert.match(read(), /one\n\n[^]*both\n\n[^]*done\n\n/);
  }
});

test("frames without the caller's wire are rendered from their events", async (t) => {
  const { source, delivery, read } = await stage(t, { forward: false });
  source.sink?.frames([frame("one"), DONE]);
  source.sink?.end({ kind: "complete" });
  await delivery;
  await until(() => read().endsWith("0\r\n\r\n"));
  assert.match(read(), /rendered text-delta\n\n[^]*rendered response-end\n\n/);
});
