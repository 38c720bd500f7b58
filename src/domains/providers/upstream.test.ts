import { after, test, type TestContext } from "node:test";
import assert from "node:assert/strict";
import { createServer, type AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { BOUNDS } from "../../kernel/bounds.ts";
import { systemClock } from "../../kernel/clock.ts";
import type { FrameStream } from "../../kernel/frame.ts";
import type { DeploymentOptions } from "../catalog/index.ts";
import { DispatchError, type Dispatch, type DispatchFailure, type ProviderResponse } from "./contract.ts";
import { createProviders } from "./service.ts";
import { deploymentOf, dispatchOf, play, textOf, type Played } from "./testing/dispatching.ts";
import {
  DONE,
  JSON_HEADERS,
  SSE_HEADERS,
  STOP_CHUNK,
  completionOf,
  scriptedUpstream,
  sse,
  streamOf,
  textChunk,
  type Exchange,
  type ScriptedUpstream,
} from "./testing/scripted-upstream.ts";

const providers = createProviders({ clock: systemClock });
after(() => providers.close());

const SECRET = "sk-canary-1234567890";

test("a streamed answer passes byte for byte, and the upstream sees our key, our model and no proxy, compression or caller's salt", async (t) => {
  const upstream = await start(t, (exchange) => {
    exchange.head(200, { ...SSE_HEADERS, "x-request-id": "req_1" });
    exchange.end(streamOf(["hel", "lo"]));
  });
  process.env["HTTP_PROXY"] = "http://127.0.0.1:1";
  t.after(() => delete process.env["HTTP_PROXY"]);
  const { response, sent } = await dispatch(upstream, { stream: true, cache_salt: "mine", color: "blue" });
  const played = await read(response);
  assert.equal(played.bytes, streamOf(["hel", "lo"]));
  assert.equal(textOf(played.events), "hello");
  assert.deepEqual(played.ending, { kind: "complete" });
  assert.deepEqual([response.wire, response.upstreamRequestId, response.unknownFields, sent()], ["openai", "req_1", ["color"], 1]);
  const { path, headers, body } = await upstream.arrived(0);
  assert.equal(path, "/v1/chat/completions");
  assert.deepEqual(
    [headers.authorization, headers["accept-encoding"], headers.accept],
    [`Bearer ${SECRET}`, "identity", "text/event-stream"],
  );
  assert.deepEqual(JSON.parse(body.toString()), {
    model: "upstream-model",
    messages: [{ role: "user", content: "hi" }],
    stream: true,
    color: "blue",
    stream_options: { include_usage: true },
  });
});

test("a whole answer is passed as it came", async (t) => {
  const upstream = await start(t, (exchange) => {
    exchange.head(200, JSON_HEADERS);
    exchange.end(JSON.stringify(completionOf("hello")));
  });
  const { response } = await dispatch(upstream, {});
  assert.ok(response.body.kind === "whole");
  assert.equal(response.body.whole.bytes.toString(), JSON.stringify(completionOf("hello")));
  assert.equal(textOf(response.body.whole.events()), "hello");
});

test("connections are kept alive, also after a stream", async (t) => {
  const upstream = await start(t, (exchange) => {
    exchange.head(200, SSE_HEADERS);
    exchange.end(streamOf(["a"]));
  });
  for (let call = 0; call < 5; call++) {
    await read((await dispatch(upstream, { stream: true })).response);
    await sleep(5);
  }
  assert.equal(upstream.connections(), 1);
});

test("what is not an answer fails before the first frame, typed, and tells no secret", async (t) => {
  const json =
    (status: number, body: unknown, headers: Record<string, string> = {}) =>
    (exchange: Exchange): void => {
      exchange.head(status, { ...JSON_HEADERS, ...headers });
      exchange.end(typeof body === "string" ? body : JSON.stringify(body));
    };
  const stream =
    (bytes: string) =>
    (exchange: Exchange): void => {
      exchange.head(200, SSE_HEADERS);
      exchange.end(bytes);
    };
  const status = (code: number, rest: Partial<Extract<DispatchFailure, { kind: "status" }>> = {}): DispatchFailure => ({
    kind: "status",
    status: code,
    retryAfterSeconds: null,
    message: null,
    param: null,
    code: null,
    ...rest,
  });
  const malformed: DispatchFailure = { kind: "malformed" };
  const cases: [string, boolean, (exchange: Exchange) => void | Promise<void>, DispatchFailure][] = [
    [
      "400",
      true,
      json(400, { error: { message: "bad temperature", param: "temperature", code: "invalid_value", type: "x" } }),
      status(400, { message: "bad temperature", param: "temperature", code: "invalid_value" }),
    ],
    [
      "400 that repeats our key",
      false,
      json(400, { error: { message: `key ${SECRET} bad` } }),
      status(400, { message: "key [redacted] bad" }),
    ],
    ["401 speaks of our account", false, json(401, { error: { message: `Incorrect API key: ${SECRET}` } }), status(401)],
    ["422 of FastAPI", false, json(422, { detail: "field required" }), status(422, { message: "field required" })],
    [
      "429 with retry-after",
      false,
      json(429, { error: { message: "slow" } }, { "retry-after": "7" }),
      status(429, { message: "slow", retryAfterSeconds: 7 }),
    ],
    ["429 with retry-after-ms", false, json(429, {}, { "retry-after-ms": "1500" }), status(429, { retryAfterSeconds: 2 })],
    ["500 with HTML", true, json(500, "<html>oops</html>"), status(500)],
    ["an endless error body", false, (exchange) => (exchange.head(503), exchange.write(Buffer.alloc(200_000, 0x78))), status(503)],
    [
      "a cut error body",
      false,
      async (exchange) => (exchange.head(503, { "content-length": "99" }), exchange.write("x"), await exchange.wait(20), exchange.reset()),
      status(503),
    ],
    ["a redirect is not followed", true, json(307, "", { location: "/v1/elsewhere" }), status(307)],
    ["JSON where a stream was asked", true, json(200, completionOf("a")), malformed],
    ["a stream where JSON was asked", false, stream(streamOf(["a"])), malformed],
    ["HTML", false, (exchange) => (exchange.head(200, { "content-type": "text/html" }), exchange.end("<html>")), malformed],
    ["JSON that is not a completion", false, json(200, { ok: true }), malformed],
    ["half of a JSON", false, json(200, '{"choices":['), malformed],
    ["an error with status 200", false, json(200, { error: { message: "busy", code: 429 } }), status(429, { message: "busy", code: null })],
    ["compressed", false, json(200, completionOf("a"), { "content-encoding": "br" }), malformed],
    [
      "a body said to be too large",
      false,
      (exchange) => exchange.head(200, { ...JSON_HEADERS, "content-length": String(BOUNDS.responseBytes + 1) }),
      malformed,
    ],
    ["an empty stream", true, stream(""), malformed],
    ["comments only", true, stream(": hello\n\n: again\n\n"), malformed],
    ["[DONE] only", true, stream(DONE), malformed],
    ["a first event that is an error", true, stream('data: {"error":{"message":"overloaded","code":503}}\n\n'), status(503)],
    ["a first event that is garbage", true, stream("data: hello\n\n"), malformed],
    ["a first event that is not a chunk", true, stream('data: {"hello":1}\n\n'), malformed],
    ["bytes that are not HTTP", true, (exchange) => exchange.raw("SSH-2.0-OpenSSH\r\n\r\n"), malformed],
    ["a reset before the headers", true, (exchange) => exchange.reset(), { kind: "connect" }],
    [
      "a reset after the headers",
      true,
      async (exchange) => (exchange.head(200, SSE_HEADERS), await exchange.wait(20), exchange.reset()),
      malformed,
    ],
    [
      "a reset in the body, when the work was done",
      false,
      async (exchange) => (exchange.head(200, JSON_HEADERS), exchange.write("{"), await exchange.wait(20), exchange.reset()),
      malformed,
    ],
    [
      "words that only look like a key",
      false,
      json(400, { error: { message: "unknown key parameters_x" } }),
      status(400, { message: "unknown key parameters_x" }),
    ],
    [
      "a key that is not ours",
      false,
      json(400, { error: { message: "key gsk_abcdefghijkl is bad" } }),
      status(400, { message: "key [redacted] is bad" }),
    ],
  ];
  for (const [name, streams, script, expected] of cases) {
    const upstream = await start(t, script);
    const error = await failureOf(dispatch(upstream, { stream: streams }));
    assert.deepEqual(error.failure, expected, name);
    assert.ok(!JSON.stringify([error.failure, error.message, String(error.cause)]).includes(SECRET), name);
    assert.equal(upstream.exchanges.length, 1, name);
    await upstream.close();
  }
});

test("a stream that breaks off after its first frame is truncated, with every frame that was whole", async (t) => {
  const first = sse(textChunk("a"));
  const cases: [string, (exchange: Exchange) => void | Promise<void>][] = [
    ["closed cleanly without [DONE]", (exchange) => exchange.end(sse(STOP_CHUNK))],
    ["[DONE] without a finish", (exchange) => exchange.end(DONE)],
    ["closed in the middle of an event", (exchange) => exchange.end('data: {"choices":[')],
    ["reset", async (exchange) => (await exchange.wait(20), exchange.reset())],
    ["garbage", (exchange) => exchange.end("data: <html>\n\n" + DONE)],
    ["an error", (exchange) => exchange.end('data: {"error":{"message":"secret detail"}}\n\n' + DONE)],
    ["broken JSON that says it finished", (exchange) => exchange.end('data: {"finish_reason":"stop" oops}\n\n' + DONE)],
    ["bytes after the chunked body's rules", (exchange) => exchange.raw("zzz\r\n")],
  ];
  for (const [name, script] of cases) {
    const upstream = await start(t, async (exchange) => {
      exchange.head(200, SSE_HEADERS);
      exchange.write(first);
      await exchange.wait(10);
      await script(exchange);
    });
    const { bytes, ending } = await read((await dispatch(upstream, { stream: true })).response);
    assert.ok(ending.kind === "truncated", name);
    assert.equal(ending.problem.code, "upstream_error", name);
    assert.ok(!ending.problem.message.includes("secret detail"), name);
    assert.ok(bytes === first || bytes === first + sse(STOP_CHUNK), name);
    await upstream.close();
  }
});

test("after [DONE] nothing is passed on, and an upstream that goes on talking is cut", async (t) => {
  const upstream = await start(t, (exchange) => {
    exchange.head(200, SSE_HEADERS);
    exchange.write(streamOf(["a"]) + sse(textChunk("more")));
    exchange.write(Buffer.alloc(200_000, 0x78));
  });
  const before = performance.now();
  const { bytes, ending } = await read((await dispatch(upstream, { stream: true })).response);
  assert.deepEqual([bytes, ending.kind], [streamOf(["a"]), "complete"]);
  const { closed } = await upstream.arrived(0);
  assert.ok((await closed) - before < 500, "cut by what it sent, before the time is up");
});

test("an upstream that holds its connection open after [DONE], dripping, delays nobody, and is cut", async (t) => {
  const upstream = await start(t, async (exchange) => {
    exchange.head(200, SSE_HEADERS);
    exchange.write(streamOf(["a"]));
    for (let drops = 0; drops < 20; drops++) {
      await exchange.wait(300);
      exchange.write(":\n\n");
    }
  });
  const before = performance.now();
  const { ending } = await read((await dispatch(upstream, { stream: true })).response);
  assert.equal(ending.kind, "complete");
  assert.ok(performance.now() - before < 500);
  const closed = await (await upstream.arrived(0)).closed;
  assert.ok(closed - before < 3000, `${closed - before} ms`);
});

test("each timeout of a deployment ends what it bounds", async (t) => {
  const hang = (): void => undefined;
  const head = (exchange: Exchange): void => exchange.head(200, SSE_HEADERS);
  const early: [string, Partial<DeploymentOptions>, (exchange: Exchange) => void, "first_token" | "total"][] = [
    ["no headers", { firstTokenTimeoutMs: 60 }, hang, "first_token"],
    ["headers, no frame", { firstTokenTimeoutMs: 60 }, head, "first_token"],
    [
      "comments are not a first token",
      { firstTokenTimeoutMs: 60, idleTimeoutMs: 30 },
      (exchange) => (head(exchange), exchange.write(": wait\n\n")),
      "first_token",
    ],
    ["total", { firstTokenTimeoutMs: 1000, totalTimeoutMs: 60 }, hang, "total"],
  ];
  for (const [name, options, script, phase] of early) {
    const upstream = await start(t, script);
    const before = performance.now();
    assert.deepEqual((await failureOf(dispatch(upstream, { stream: true }, {}, options))).failure, { kind: "timeout", phase }, name);
    const elapsed = performance.now() - before;
    assert.ok(elapsed >= 55 && elapsed < 500, `${name}: ${elapsed} ms`);
    assert.ok((await (await upstream.arrived(0)).closed) - before < 500, name);
  }
  const late: [string, Partial<DeploymentOptions>][] = [
    ["idle", { idleTimeoutMs: 60 }],
    ["total", { totalTimeoutMs: 150 }],
  ];
  for (const [name, options] of late) {
    const upstream = await start(t, (exchange) => (head(exchange), exchange.write(sse(textChunk("a")))));
    const { ending } = await read((await dispatch(upstream, { stream: true }, {}, options)).response);
    assert.ok(ending.kind === "truncated" && ending.problem.code === "upstream_timeout", name);
  }
});

test("a connection that is never made ends at the connect timeout, and nothing was sent", async (t) => {
  // Accepts TCP but never answers the TLS handshake.
  const server = createServer((socket) => socket.on("error", () => undefined));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const one = dispatchOf(
    deploymentOf({ provider: "openai", baseUrl: `https://127.0.0.1:${port}/v1`, options: { connectTimeoutMs: 80 } }),
    body({}),
  );
  const before = performance.now();
  assert.deepEqual((await failureOf(providerDispatch(one))).failure, { kind: "timeout", phase: "connect" });
  assert.ok(performance.now() - before < 500);
  assert.equal(one.sent(), 0);
});

test("a slow but steady stream outlives its idle timeout, and a reader's own pause is not the upstream's silence", async (t) => {
  const upstream = await start(t, async (exchange) => {
    exchange.head(200, SSE_HEADERS);
    for (let token = 0; token < 8; token++) {
      exchange.write(sse(textChunk("a")));
      await exchange.wait(40);
    }
    exchange.end(sse(STOP_CHUNK) + DONE);
  });
  const steady = await read((await dispatch(upstream, { stream: true }, {}, { idleTimeoutMs: 150 })).response);
  assert.deepEqual([textOf(steady.events), steady.ending.kind], ["aaaaaaaa", "complete"]);
  const { response } = await dispatch(upstream, { stream: true }, {}, { idleTimeoutMs: 150 });
  const stream = streamOfResponse(response);
  let paused = false;
  const played = await play(stream, () => {
    if (paused) return;
    paused = true;
    stream.pause();
    setTimeout(() => stream.resume(), 500);
  });
  assert.deepEqual([textOf(played.events), played.ending.kind], ["aaaaaaaa", "complete"]);
});

test("a paused stream holds the upstream back, and loses nothing", async (t) => {
  const megabyte = sse(textChunk("x".repeat(1024 * 1024)));
  let written = 0;
  const upstream = await start(t, async (exchange) => {
    exchange.head(200, SSE_HEADERS);
    for (; written < 64; written++) {
      exchange.write(megabyte);
      await exchange.wait(1);
    }
    exchange.end(sse(STOP_CHUNK) + DONE);
  });
  const { response } = await dispatch(upstream, { stream: true });
  const stream = streamOfResponse(response);
  stream.pause();
  let received = 0;
  const played = play(stream, (frames) => (received += frames.length));
  await sleep(300);
  const whilePaused = received;
  stream.resume();
  assert.equal((await played).ending.kind, "complete");
  assert.ok(whilePaused < 8, `${whilePaused} frames of 1 MB came through a pause`);
  assert.equal(received, 66);
});

test("an abort stops the upstream within 100 ms: before the first byte, between headers and first frame, in a stream, in a body", async (t) => {
  const figures: string[] = [];
  const scripts: [string, boolean, (exchange: Exchange) => void][] = [
    ["before the first byte", true, () => undefined],
    ["after the headers", true, (exchange) => exchange.head(200, SSE_HEADERS)],
    ["in a body", false, (exchange) => (exchange.head(200, JSON_HEADERS), exchange.write("{"))],
  ];
  for (const [name, streams, script] of scripts) {
    const upstream = await start(t, script);
    const controller = new AbortController();
    const failing = failureOf(dispatch(upstream, { stream: streams }, { signal: controller.signal }));
    const exchange = await upstream.arrived(0);
    await sleep(20);
    const before = performance.now();
    controller.abort();
    assert.deepEqual((await failing).failure, { kind: "aborted" }, name);
    figures.push(`${name}: ${((await exchange.closed) - before).toFixed(1)} ms`);
    assert.ok((await exchange.closed) - before < 100, figures.at(-1));
  }
  for (const by of ["signal", "stream"] as const) {
    const upstream = await start(t, (exchange) => (exchange.head(200, SSE_HEADERS), exchange.write(sse(textChunk("a")))));
    const controller = new AbortController();
    const { response } = await dispatch(upstream, { stream: true }, { signal: controller.signal });
    const stream = streamOfResponse(response);
    const played = play(stream);
    const before = performance.now();
    if (by === "signal") controller.abort();
    else stream.abort();
    assert.deepEqual((await played).ending, { kind: "aborted" });
    figures.push(`in a stream, by ${by}: ${((await (await upstream.arrived(0)).closed) - before).toFixed(1)} ms`);
    assert.ok((await (await upstream.arrived(0)).closed) - before < 100, figures.at(-1));
  }
  t.diagnostic(figures.join("; "));
});

test("an abort before anything was sent sends nothing, and an aborted signal opens no connection", async (t) => {
  const upstream = await start(t, () => undefined);
  const controller = new AbortController();
  const started = dispatch(upstream, { stream: true }, { signal: controller.signal });
  controller.abort();
  assert.deepEqual((await failureOf(started)).failure, { kind: "aborted" });
  await sleep(50);
  assert.equal(upstream.exchanges.length, 0);
  const connections = upstream.connections();
  assert.deepEqual((await failureOf(dispatch(upstream, { stream: true }, { signal: AbortSignal.abort() }))).failure, { kind: "aborted" });
  assert.equal(upstream.connections(), connections);
});

test("an upstream that refuses connections, or does not exist, is a connect failure, and nothing was sent", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  const one = dispatchOf(deploymentOf({ provider: "openai", baseUrl: `http://127.0.0.1:${port}/v1` }), body({}));
  assert.deepEqual((await failureOf(providerDispatch(one))).failure, { kind: "connect" });
  assert.equal(one.sent(), 0);
  const nowhere = dispatchOf(deploymentOf({ provider: "vllm" }), body({}));
  assert.deepEqual((await failureOf(providerDispatch(nowhere, "vllm"))).failure, { kind: "unavailable" });
});

test("an upstream's bytes, cut anywhere on the network, give the same frames", async (t) => {
  const text = streamOf(["a", "é€😀", "\n\ndata: [DONE]"]).replaceAll("\n\n", "\r\n\r\n");
  let cuts: readonly number[] = [];
  const upstream = await start(t, async (exchange) => {
    exchange.head(200, SSE_HEADERS);
    const bytes = Buffer.from(text);
    let from = 0;
    for (const cut of [...cuts, bytes.length]) {
      if (cut > from) exchange.write(bytes.subarray(from, cut));
      from = Math.max(from, cut);
      await new Promise(setImmediate);
    }
    exchange.end();
  });
  const expected = await read((await dispatch(upstream, { stream: true })).response);
  assert.equal(textOf(expected.events), "aé€😀\n\ndata: [DONE]");
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat({ max: Buffer.byteLength(text) }), { maxLength: 12 }), async (at) => {
      cuts = at.toSorted((a, b) => a - b);
      assert.deepEqual(await read((await dispatch(upstream, { stream: true })).response), expected);
    }),
    { numRuns: 60 },
  );
});

test("whatever bytes an upstream sends, a dispatch ends once, typed, and the next one works", async (t) => {
  const piece = fc.oneof(
    fc
      .constantFrom(
        "data: ",
        "\n\n",
        "\r",
        "{",
        "}",
        DONE,
        sse(textChunk("a")),
        sse(STOP_CHUNK),
        ": c\n",
        "\ufeff",
        'data: {"error":1}\n\n',
        '{"choices":[]}',
      )
      .map((text) => Buffer.from(text)),
    fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes)),
  );
  interface Answer {
    readonly status: number;
    readonly type: string;
    readonly pieces: readonly Buffer[];
    readonly resets: boolean;
  }
  const answer: fc.Arbitrary<Answer> = fc.record({
    status: fc.constantFrom(200, 200, 200, 204, 302, 400, 500),
    type: fc.constantFrom("text/event-stream", "application/json", "text/plain"),
    pieces: fc.array(piece, { maxLength: 8 }),
    resets: fc.boolean(),
  });
  const script: { next: Answer | null } = { next: null };
  const upstream = await start(t, async (exchange) => {
    const current = script.next;
    if (current === null) {
      exchange.head(200, SSE_HEADERS);
      return exchange.end(streamOf(["ok"]));
    }
    exchange.head(current.status, { "content-type": current.type });
    if (current.status !== 204) for (const bytes of current.pieces) exchange.write(bytes);
    if (!current.resets) return exchange.end();
    await exchange.wait(2);
    exchange.reset();
  });
  await fc.assert(
    fc.asyncProperty(answer, fc.boolean(), async (wanted, stream) => {
      script.next = wanted;
      const outcome = await dispatch(upstream, { stream }).catch((thrown: unknown) => thrown);
      if (outcome instanceof DispatchError) return;
      assert.ok(!(outcome instanceof Error), String(outcome));
      const { response } = outcome as { response: ProviderResponse };
      if (response.body.kind === "stream") assert.match((await read(response)).ending.kind, /^(complete|truncated)$/);
    }),
    { numRuns: 200 },
  );
  script.next = null;
  assert.equal(textOf((await read((await dispatch(upstream, { stream: true })).response)).events), "ok");
});

test("closing the client cuts what is in flight", async (t) => {
  const own = createProviders({ clock: systemClock });
  const upstream = await start(t, (exchange) => (exchange.head(200, SSE_HEADERS), exchange.write(sse(textChunk("a")))));
  const provider = own.get("openai");
  assert.ok(provider);
  const response = await own.dispatch(
    provider,
    dispatchOf(deploymentOf({ provider: "openai", baseUrl: upstream.baseUrl }), body({ stream: true })),
  );
  const played = read(response);
  await own.close();
  assert.equal((await played).ending.kind, "truncated");
});

function body(fields: Readonly<Record<string, string | boolean>>): Record<string, string | boolean | { role: string; content: string }[]> {
  return { model: "demo", messages: [{ role: "user", content: "hi" }], ...fields };
}

async function start(t: TestContext, script: (exchange: Exchange) => void | Promise<void>): Promise<ScriptedUpstream> {
  const upstream = await scriptedUpstream(script);
  t.after(() => upstream.close());
  return upstream;
}

function providerDispatch(one: Dispatch, id = "openai"): Promise<ProviderResponse> {
  const provider = providers.get(id);
  assert.ok(provider);
  return providers.dispatch(provider, one);
}

async function dispatch(
  upstream: ScriptedUpstream,
  fields: Readonly<Record<string, string | boolean>>,
  extra: Partial<Dispatch> = {},
  options: Partial<DeploymentOptions> = {},
): Promise<{ response: ProviderResponse; sent: () => number }> {
  const one = dispatchOf(deploymentOf({ provider: "openai", baseUrl: upstream.baseUrl, secret: SECRET, options }), body(fields), extra);
  return { response: await providerDispatch(one), sent: one.sent };
}

async function failureOf(dispatching: Promise<unknown>): Promise<DispatchError> {
  const thrown: unknown = await dispatching.then(
    () => null,
    (error: unknown) => error,
  );
  assert.ok(thrown instanceof DispatchError, `expected a DispatchError, got ${String(thrown)}`);
  return thrown;
}

function streamOfResponse(response: ProviderResponse): FrameStream {
  assert.ok(response.body.kind === "stream");
  return response.body.stream;
}

function read(response: ProviderResponse): Promise<Played> {
  return play(streamOfResponse(response));
}
