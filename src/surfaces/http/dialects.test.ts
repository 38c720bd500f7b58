import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import Anthropic, { APIError } from "@anthropic-ai/sdk";
import { systemClock } from "../../kernel/clock.ts";
import type { ModelEvent } from "../../kernel/events.ts";
import type { Dialect, Ending, Frame, FrameSink } from "../../kernel/frame.ts";
import { createIdMaker, type TenantId } from "../../kernel/ids.ts";
import { systemRandom } from "../../kernel/random.ts";
import { NO_TOKENS } from "../../kernel/tokens.ts";
import type { Delivery } from "../../pipeline/caller.ts";
import type { CheckedResponse } from "../../pipeline/check.ts";
import type { Dispatched } from "../../pipeline/evidence.ts";
import { messages } from "../anthropic/messages.ts";
import { chatCompletions } from "../openai/chat.ts";
import { createBodyReader } from "./body.ts";
import { mountCall } from "./calls.ts";
import { createDrain } from "./drain.ts";
import { createHttpServer } from "./server.ts";

// Both endpoints with their real server; the pipeline behind them answers what each test says.

const TENANT = "11111111-1111-7111-8111-111111111111" as TenantId;
const silentLog = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} };
const ENDPOINTS = [
  { path: "/v1/chat/completions", wire: chatCompletions },
  { path: "/v1/messages", wire: messages },
];
const EVIDENCE = {
  route: { model: { name: "m" } },
  slot: { deployment: { name: "main", provider: "anthropic", region: null } },
  hold: { outputBound: null },
  of: { call: { hops: [1] } },
} as unknown as Dispatched;
const USAGE: ModelEvent = { type: "usage", usage: { source: "reported", tokens: { ...NO_TOKENS, input_uncached: 3, output: 2 } } };
const HEAD: readonly ModelEvent[] = [{ type: "response-start", id: "msg_1", model: "claude", createdSeconds: 0 }, USAGE];
const TEXT: readonly ModelEvent[] = [{ type: "text-delta", choice: 0, text: "hello" }];
const STOP: readonly ModelEvent[] = [{ type: "choice-end", choice: 0, reason: "stop", stopSequence: null }, USAGE];
const END: readonly ModelEvent[] = [{ type: "response-end" }];
const ERROR: readonly ModelEvent[] = [{ type: "error", message: "inside words" }];

async function stage(t: TestContext, answer: CheckedResponse) {
  const app = createHttpServer({ newId: createIdMaker(systemClock, systemRandom), log: silentLog, dialects: ENDPOINTS });
  const deliveries: Delivery[] = [];
  for (const { path, wire } of ENDPOINTS)
    mountCall(app, path, wire, {
      clock: systemClock,
      takeBody: createBodyReader(),
      parseLarge: () => assert.fail("no body here is large"),
      drain: createDrain(),
      serve: async ({ caller }) => {
        await caller.read(TENANT);
        deliveries.push(await caller.send(answer, EVIDENCE));
      },
    });
  await app.listen({ port: 0, host: "127.0.0.1" });
  t.after(async () => {
    app.server.closeAllConnections();
    await app.close();
  });
  const url = `http://127.0.0.1:${(app.server.address() as { port: number }).port}`;
  const post = (path: string, body: object) =>
    fetch(url + path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  return { url, deliveries, post, client: new Anthropic({ apiKey: "k", baseURL: url, maxRetries: 0, logLevel: "off" }) };
}

/** A stream of another dialect's upstream; it ends as aborted when it is told to stop. */
function streamed(wire: Dialect, groups: readonly (readonly ModelEvent[])[]): CheckedResponse {
  let sink: FrameSink | null = null;
  let ending: Ending = { kind: "complete" };
  const stream = {
    pipe(taken: FrameSink) {
      sink = taken;
      const frames = groups.map((events): Frame => ({ bytes: Buffer.from("upstream's"), notable: true, events: () => events }));
      for (const frame of frames) if (ending.kind === "complete") sink.frames([frame]);
      sink.end(ending);
    },
    pause() {},
    resume() {},
    abort() {
      ending = { kind: "aborted" };
    },
  };
  return { wire, body: { kind: "stream", stream } } as unknown as CheckedResponse;
}

function whole(wire: Dialect, events: readonly ModelEvent[]): CheckedResponse {
  return {
    wire,
    body: { kind: "whole", whole: { bytes: Buffer.from("upstream's"), events: () => events } },
    settled: Promise.resolve({ settlement: { charge: 0n, latencyMs: 0 } }),
  } as unknown as CheckedResponse;
}

const CHAT = { model: "m", messages: [{ role: "user", content: "hi" }] };
const MESSAGE = { model: "m", max_tokens: 9, messages: [{ role: "user" as const, content: "hi" }] };

test("what goes wrong before a route has it is told in the path's dialect, with the id where its clients look", async (t) => {
  const { url } = await stage(t, whole("anthropic", []));
  for (const [path, method, status, type] of [
    ["/v1/messages/nothing", "POST", 404, "not_found_error"],
    ["/v1/messages?beta=true", "GET", 405, "invalid_request_error"],
  ] as const) {
    const answer = await fetch(url + path, { method });
    const body = (await answer.json()) as { type: string; error: { type: string }; request_id: string };
    assert.deepEqual([answer.status, body.type, body.error.type], [status, "error", type]);
    assert.ok(
      body.request_id !== "" &&
        body.request_id === answer.headers.get("request-id") &&
        body.request_id === answer.headers.get("x-request-id"),
    );
  }
  for (const path of ["/v1/messagesx", "/v1/nothing"]) {
    const answer = await fetch(url + path);
    const body = (await answer.json()) as { error: { code: string } };
    assert.deepEqual([body.error.code, answer.headers.get("request-id")], ["unknown_route", null]);
  }
});

test("a caller of another dialect is told the answer's beginning even if it asked for no usage, and an upstream that dates nothing gets the call's time", async (t) => {
  const { post } = await stage(t, streamed("anthropic", [HEAD, TEXT, STOP, END]));
  const before = Math.floor(Date.now() / 1000);
  const text = await (await post("/v1/chat/completions", { ...CHAT, stream: true })).text();
  const [first] = text.split("\n\n");
  const chunk = JSON.parse(first?.slice("data: ".length) ?? "") as { id: string; model: string; created: number };
  assert.deepEqual([chunk.id, chunk.model], ["msg_1", "claude"]);
  assert.ok(chunk.created >= before && chunk.created <= before + 60);
  assert.doesNotMatch(text, /"usage":\{/);
  assert.match(text, /data: \[DONE\]\n\n$/);
});

test("the official Anthropic SDK reads a stream and a whole answer of another dialect's upstream, and finds the request's id", async (t) => {
  const { client } = await stage(t, streamed("openai", [HEAD, TEXT, STOP, END]));
  const stream = client.messages.stream(MESSAGE);
  const message = await stream.finalMessage();
  assert.deepEqual(
    [message.content, message.usage.input_tokens, message.usage.output_tokens],
    [[{ type: "text", text: "hello", citations: null }], 3, 2],
  );
  assert.match(stream.request_id ?? "", /^[0-9a-f-]{36}$/);
  const { client: other } = await stage(t, whole("openai", [...HEAD, ...TEXT, ...STOP, ...END]));
  const answer = await other.messages.create(MESSAGE);
  assert.deepEqual([answer.content, answer.stop_reason, answer._request_id?.length], [message.content, "end_turn", 36]);
});

test("what cannot be told in the caller's dialect is no clean end: a stream is cut with an error, a whole answer is a 502, and neither tells the upstream's words", async (t) => {
  const stream = await stage(t, streamed("openai", [HEAD, TEXT, ERROR, STOP, END]));
  await assert.rejects(stream.client.messages.stream(MESSAGE).finalMessage(), (thrown) => {
    assert.ok(thrown instanceof APIError);
    assert.equal(thrown.type, "api_error");
    assert.doesNotMatch(JSON.stringify(thrown.error), /inside words/);
    return true;
  });
  assert.deepEqual(
    stream.deliveries.map(({ kind }) => kind),
    ["truncated"],
  );
  const answer = await stage(t, whole("openai", [...HEAD, ...ERROR, ...STOP, ...END]));
  await assert.rejects(answer.client.messages.create(MESSAGE), (thrown) => thrown instanceof APIError && thrown.status === 502);
  assert.deepEqual(
    answer.deliveries.map(({ kind }) => kind),
    ["truncated"],
  );
});
