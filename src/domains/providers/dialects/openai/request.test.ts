import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { textOf } from "../../../../kernel/chat.ts";
import { Problem } from "../../../../kernel/problem.ts";
import type { Json, JsonObject, ModelRequest } from "../../../../kernel/request.ts";
import { jsonObject, oddChoices, oddJson } from "../../testing/odd-json.ts";
import { namespaced } from "../namespaced.ts";
import { FIELDS } from "./fields.ts";
import { parseChatCompletion } from "./request.ts";
import { upstreamBody, type BodyShape } from "./upstream-body.ts";

const MINIMAL = { model: "demo", messages: [{ role: "user", content: "hi" }] };
const VENDOR: BodyShape = { outputField: "either", streamUsage: "asked", saltField: null, takesIdentifiers: true };
const ENGINE: BodyShape = { outputField: "either", streamUsage: "asked", saltField: "cache_salt", takesIdentifiers: false };
const VALUES = { upstreamModel: "up", outputBound: null, cacheSalt: "salt" };

test("a body that is not a valid request is refused with the field at fault", () => {
  const cases: [string, string, string | null][] = [
    ["", "invalid_json", null],
    ["[]", "invalid_request", null],
    ['{"model":"m","messages":[{"role":"user","content":"a"}],"model":"n"}', "duplicate_key", "model"],
    ['{"model":"m","messages":[{"role":"user","content":"a"}],"\\u006dodel":"n"}', "duplicate_key", "model"],
    ['{"model":"m","messages":[{"role":"user","content":"a","\\u0063ontent":"b"}]}', "duplicate_key", "content"],
    [`{"model":"m","messages":[],"x":${"[".repeat(65)}${"]".repeat(65)}}`, "invalid_json", null],
    [JSON.stringify({ messages: MINIMAL.messages }), "invalid_request", "model"],
    [JSON.stringify({ ...MINIMAL, messages: [] }), "invalid_request", "messages"],
    [JSON.stringify({ ...MINIMAL, messages: [{ role: "king", content: "" }] }), "invalid_request", "messages[0].role"],
    [JSON.stringify({ ...MINIMAL, messages: [{ role: "user", content: 5 }] }), "invalid_request", "messages[0].content"],
    [JSON.stringify({ ...MINIMAL, max_tokens: 0 }), "invalid_request", "max_tokens"],
    [JSON.stringify({ ...MINIMAL, max_tokens: Number.MAX_SAFE_INTEGER }), "invalid_request", "max_tokens"],
    [JSON.stringify({ ...MINIMAL, max_completion_tokens: 2 ** 31 }), "invalid_request", "max_completion_tokens"],
    [JSON.stringify({ ...MINIMAL, max_completion_tokens: 1.5 }), "invalid_request", "max_completion_tokens"],
    [JSON.stringify({ ...MINIMAL, n: 129 }), "invalid_request", "n"],
    [JSON.stringify({ ...MINIMAL, stream: "yes" }), "invalid_request", "stream"],
    [JSON.stringify({ ...MINIMAL, stream_options: { include_usage: 1 } }), "invalid_request", "stream_options.include_usage"],
    [JSON.stringify({ ...MINIMAL, metadata: { feature: "x".repeat(257) } }), "invalid_request", "metadata.feature"],
    [JSON.stringify({ ...MINIMAL, store: true }), "unsupported_field", "store"],
    [JSON.stringify({ ...MINIMAL, service_tier: "priority" }), "unsupported_field", "service_tier"],
    [JSON.stringify({ ...MINIMAL, kv_transfer_params: {} }), "unsupported_field", "kv_transfer_params"],
    [JSON.stringify({ ...MINIMAL, tools: [{ type: "web_search" }] }), "unsupported_field", "tools[0].type"],
    [
      JSON.stringify({ ...MINIMAL, messages: [{ role: "user", content: [{ type: "file", file: { file_id: "f" } }] }] }),
      "unsupported_field",
      "messages[0].content[0].file.file_id",
    ],
  ];
  for (const [body, code, param] of cases) {
    assert.throws(
      () => parseChatCompletion(Buffer.from(body)),
      (thrown) => thrown instanceof Problem && thrown.code === code && thrown.param === param,
      body.slice(0, 120),
    );
  }
  assert.throws(() => parseChatCompletion(Buffer.from([...Buffer.from('{"model":"'), 0xff, ...Buffer.from('"}')])), {
    code: "invalid_json",
  });
});

test("metadata is attribution: read, beaten by a header, and not sent on", () => {
  const body = { ...MINIMAL, metadata: { feature: "search", user: "u1", team: "blue" }, user: "u0" };
  const request = parseChatCompletion(Buffer.from(JSON.stringify(body)), {
    feature: "chat",
    user: null,
    session: null,
    tags: { team: "red" },
  });
  assert.deepEqual(request.attribution, { feature: "chat", user: "u1", session: null, tags: { team: "red" } });
  assert.equal(sent(request, VENDOR)["metadata"], undefined);
  assert.equal(parseChatCompletion(Buffer.from(JSON.stringify({ ...MINIMAL, user: "u0" }))).attribution.user, "u0");
});

test("what reaches an upstream equals the caller's object with our values in place, whatever its spelling", () => {
  const extra = fc.record(
    {
      stream: fc.boolean(),
      stream_options: fc.oneof(
        fc.constant(null),
        fc.record({ include_usage: fc.boolean(), include_obfuscation: fc.boolean() }, { requiredKeys: [] }),
      ),
      max_tokens: fc.oneof(fc.constant(null), fc.integer({ min: 1, max: 100 })),
      max_completion_tokens: fc.integer({ min: 1, max: 100 }),
      user: fc.oneof(fc.constant(null), fc.string({ maxLength: 9 })),
      cache_salt: fc.string({ maxLength: 9 }),
      store: fc.constant(false),
      service_tier: fc.constantFrom("auto", null),
      temperature: fc.constantFrom(0.5, 1e-7),
      metadata: fc.constant({ feature: "f" }),
    },
    { requiredKeys: [] },
  );
  const bodies = fc.tuple(jsonObject, extra, fc.string()).map(([odd, known, content]): JsonObject => {
    const plain = Object.fromEntries(Object.entries(odd).filter(([key]) => !FIELDS.has(key)));
    return { ...plain, ...known, model: "demo", messages: [{ role: "user", content }] };
  });
  fc.assert(
    fc.property(bodies, oddChoices, fc.constantFrom(VENDOR, ENGINE), fc.constantFrom(null, 1, 50), (body, choices, shape, outputBound) => {
      const request = parseChatCompletion(Buffer.from(oddJson(body, choices)));
      const upstream = JSON.parse(upstreamBody(request, shape, { ...VALUES, outputBound }).toString()) as JsonObject;
      assert.deepEqual(
        new Map(Object.entries(upstream)),
        new Map(Object.entries(expected(body, shape, outputBound)).filter(([, value]) => value !== undefined)),
      );
    }),
    { numRuns: 1500 },
  );
});

test("two tenants' equal identifiers differ upstream, and equal ones of one tenant do not", () => {
  assert.equal(namespaced("user", "alice", "a"), namespaced("user", "alice", "a"));
  const all = [
    namespaced("user", "alice", "a"),
    namespaced("user", "alice", "b"),
    namespaced("prompt_cache_key", "alice", "a"),
    namespaced("user", "bob", "a"),
  ];
  assert.equal(new Set(all).size, 4);
  assert.match(all[0] ?? "", /^[0-9a-f]{64}$/);
});

test("an upstream that knows only max_tokens gets the caller's maximum under that name", () => {
  const legacy: BodyShape = { ...VENDOR, outputField: "max_tokens" };
  const upstream = (fields: JsonObject, outputBound: number | null): Json[] => {
    const body = JSON.parse(
      upstreamBody(parseChatCompletion(Buffer.from(JSON.stringify({ ...MINIMAL, ...fields }))), legacy, {
        ...VALUES,
        outputBound,
      }).toString(),
    ) as JsonObject;
    return [body["max_tokens"] ?? null, body["max_completion_tokens"] ?? null];
  };
  assert.deepEqual(upstream({ max_completion_tokens: 7 }, null), [7, null]);
  assert.deepEqual(upstream({ max_completion_tokens: 7 }, 5), [5, null]);
  assert.deepEqual(upstream({ max_tokens: 9, max_completion_tokens: 7 }, null), [7, null]);
  assert.deepEqual(upstream({}, 5), [5, null]);
  assert.deepEqual(upstream({}, null), [null, null]);
});

test("a body that needs no edit is forwarded as the very same buffer", () => {
  const body = Buffer.from(JSON.stringify(MINIMAL));
  assert.equal(upstreamBody(parseChatCompletion(body), VENDOR, { ...VALUES, upstreamModel: "demo" }), body);
});

test("our vocabulary takes text and tools, and refuses by name what it has no word for", () => {
  const chat = parseChatCompletion(
    Buffer.from(
      JSON.stringify({
        model: "demo",
        messages: [
          { role: "developer", content: "be brief" },
          {
            role: "user",
            content: [
              { type: "text", text: "a" },
              { type: "text", text: "b" },
            ],
          },
          { role: "assistant", content: null, tool_calls: [{ id: "c1", type: "function", function: { name: "f", arguments: "{}" } }] },
          { role: "tool", tool_call_id: "c1", content: "done" },
        ],
        tools: [{ type: "function", function: { name: "f", parameters: { type: "object" } } }],
        tool_choice: { type: "function", function: { name: "f" } },
        response_format: { type: "json_schema", json_schema: { name: "x", schema: { type: "object" } } },
        stop: "x",
        max_tokens: 5,
      }),
    ),
  ).chat();
  assert.deepEqual(
    chat.messages.map((message) => textOf(message.content)),
    ["be brief", "ab", "", "done"],
  );
  assert.deepEqual(chat.toolChoice, { name: "f" });
  assert.deepEqual([chat.stop, chat.maxOutputTokens, chat.responseFormat.kind], [["x"], 5, "json_schema"]);
  const refused = (fields: JsonObject): string | null => {
    try {
      parseChatCompletion(Buffer.from(JSON.stringify({ ...MINIMAL, ...fields }))).chat();
      return null;
    } catch (thrown) {
      return thrown instanceof Problem && thrown.code === "unsupported_field" ? thrown.param : "another error";
    }
  };
  assert.equal(
    refused({ messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "data:," } }] }] }),
    "messages[0].content[0].image_url.url",
  );
  assert.equal(refused({ logprobs: true }), "logprobs");
  assert.equal(refused({ modalities: ["text", "audio"] }), "modalities");
  assert.equal(refused({ logprobs: false, logit_bias: null, tools: [] }), null);
});

function sent(request: ModelRequest, shape: BodyShape): JsonObject {
  return JSON.parse(upstreamBody(request, shape, VALUES).toString()) as JsonObject;
}

/** The same edit, made the plain way on the object. */
function expected(body: JsonObject, shape: BodyShape, outputBound: number | null): JsonObject {
  const { metadata: _metadata, store: _store, service_tier: _tier, cache_salt: salt, user, stream_options: options, ...rest } = body;
  const isText = (value: Json | undefined): value is string => typeof value === "string";
  const lowered = (value: Json | undefined): Json | undefined =>
    typeof value === "number" && outputBound !== null ? Math.min(value, outputBound) : value;
  const isBounded = typeof body["max_tokens"] === "number" || typeof body["max_completion_tokens"] === "number";
  return {
    ...rest,
    model: "up",
    max_tokens: lowered(body["max_tokens"]),
    max_completion_tokens: isBounded || outputBound === null ? lowered(body["max_completion_tokens"]) : outputBound,
    stream_options: body["stream"] === true ? { ...(options as JsonObject | null | undefined), include_usage: true } : undefined,
    user: shape.takesIdentifiers && isText(user) ? namespaced("user", user, "salt") : undefined,
    cache_salt: shape.saltField === null ? undefined : isText(salt) && salt !== "" ? namespaced("cache_salt", salt, "salt") : "salt",
  };
}
