import { after, test } from "node:test";
import assert from "node:assert/strict";
import type { Message } from "@anthropic-ai/sdk/resources/messages/messages.js";
import { systemClock } from "../../kernel/clock.ts";
import type { JsonObject, ModelRequest } from "../../kernel/request.ts";
import { parseMessages } from "./dialects/anthropic/request.ts";
import { parseChatCompletion } from "./dialects/openai/request.ts";
import { createProviders } from "./service.ts";
import { deploymentOf, dispatchOf } from "./testing/dispatching.ts";
import { JSON_HEADERS, scriptedUpstream, type Exchange, type ScriptedUpstream } from "./testing/scripted-upstream.ts";

const providers = createProviders({ clock: systemClock });
after(() => providers.close());

const MESSAGES: JsonObject = { model: "demo", max_tokens: 50, messages: [{ role: "user", content: "hi" }] };
const COMPLETION: JsonObject = { model: "demo", messages: [{ role: "user", content: "hi" }] };

test("a native request leaves with its own bytes, the key as x-api-key and the version that takes most", async (t) => {
  const upstream = await scriptedUpstream(answer);
  t.after(() => upstream.close());
  const request = parseMessages(Buffer.from(JSON.stringify({ ...MESSAGES, color: "blue" })));
  const response = await send(upstream, request, { secret: "secret-key" });
  const [exchange] = upstream.exchanges;
  assert.equal(exchange?.path, "/v1/messages");
  assert.equal(exchange.headers["x-api-key"], "secret-key");
  assert.equal(exchange.headers.authorization, undefined);
  assert.equal(exchange.headers["anthropic-version"], "2023-06-01");
  assert.equal(exchange.headers["anthropic-beta"], undefined);
  assert.equal(exchange.headers["accept-encoding"], "identity");
  assert.deepEqual(JSON.parse(exchange.body.toString()), { ...MESSAGES, color: "blue", model: "upstream-model" });
  assert.equal(response.wire, "anthropic");
  assert.deepEqual(response.unknownFields, ["color"]);
});

test("a request of the OpenAI dialect leaves as this dialect's, with the maximum that its bound counted", async (t) => {
  const upstream = await scriptedUpstream(answer);
  t.after(() => upstream.close());
  const request = parseChatCompletion(Buffer.from(JSON.stringify({ ...COMPLETION, user: "alice" })));
  await send(upstream, request);
  const body = JSON.parse(upstream.exchanges[0]?.body.toString() ?? "") as JsonObject;
  const { user_id: user } = body["metadata"] as { user_id: string };
  assert.match(user, /^[0-9a-f]{64}$/);
  assert.deepEqual(body, {
    model: "upstream-model",
    max_tokens: provider().bound(request, deploymentOf({ provider: "anthropic" }).model).output,
    messages: [{ role: "user", content: [{ type: "text", text: "hi" }] }],
    metadata: { user_id: user },
  });
  assert.equal(upstream.exchanges[0]?.path, "/v1/messages");
});

test("what cannot be translated is refused before anything is held, by the caller's own name", () => {
  const deployment = deploymentOf({ provider: "anthropic" });
  const request = parseChatCompletion(Buffer.from(JSON.stringify({ ...COMPLETION, seed: 1 })));
  assert.throws(() => provider().accept(request, deployment), { code: "unsupported_field", param: "seed" });
  assert.throws(() => provider().bound(request, deployment.model), { code: "unsupported_field", param: "seed" });
});

test("an unknown field is forwarded, or refused where the deployment says so", () => {
  const request = parseMessages(Buffer.from(JSON.stringify({ ...MESSAGES, color: "blue" })));
  assert.doesNotThrow(() => provider().accept(request, deploymentOf({ provider: "anthropic" })));
  const strict = deploymentOf({ provider: "anthropic", options: { unknownFields: "refuse" } });
  assert.throws(() => provider().accept(request, strict), { code: "unsupported_field", param: "color" });
});

test("a credential without a valid base URL is refused as unavailable, as a rejection", async () => {
  const deployment = deploymentOf({ provider: "anthropic", baseUrl: "not a url" });
  const request = parseMessages(Buffer.from(JSON.stringify(MESSAGES)));
  await assert.rejects(provider().dispatch(dispatchOf(deployment, COMPLETION, { request })), { failure: { kind: "unavailable" } });
});

function provider() {
  const found = providers.get("anthropic");
  assert.ok(found);
  return found;
}

function send(upstream: ScriptedUpstream, request: ModelRequest, extra: { readonly secret?: string } = {}) {
  const deployment = deploymentOf({ provider: "anthropic", baseUrl: upstream.baseUrl, ...extra });
  return provider().dispatch(dispatchOf(deployment, COMPLETION, { request }));
}

/** Scripted, of the shape of the official SDK's `Message`. */
function answer(exchange: Exchange): void {
  const message = {
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "upstream-model",
    content: [{ type: "text", text: "hello", citations: null }],
    stop_reason: "end_turn",
    stop_sequence: null,
    usage: { input_tokens: 5, output_tokens: 2 },
  } satisfies Partial<Omit<Message, "usage">> & { usage: Partial<Message["usage"]> };
  exchange.head(200, JSON_HEADERS);
  exchange.end(JSON.stringify(message));
}
