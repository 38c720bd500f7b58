import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { Problem } from "../../../../kernel/problem.ts";
import type { Json, JsonObject, ModelRequest } from "../../../../kernel/request.ts";
import { deploymentOf } from "../../testing/dispatching.ts";
import { jsonObject, oddChoices, oddJson } from "../../testing/odd-json.ts";
import { hasPath } from "../../testing/paths.ts";
import { namespaced } from "../namespaced.ts";
import { FIELDS } from "./fields.ts";
import { parseMessages } from "./request.ts";
import { upstreamBody, type BodyValues } from "./upstream-body.ts";

const MINIMAL: JsonObject = { model: "demo", max_tokens: 100, messages: [{ role: "user", content: "hi" }] };
const { model } = deploymentOf({ provider: "anthropic", model: { maxOutputTokens: 64_000, contextWindow: 200_000 } });
const VALUES: BodyValues = { upstreamModel: "up", model, outputBound: null, cacheSalt: "salt" };

const parse = (fields: JsonObject): ModelRequest => parseMessages(Buffer.from(JSON.stringify({ ...MINIMAL, ...fields })));
const user = (...content: JsonObject[]): JsonObject => ({ messages: [{ role: "user", content }] });
const sent = (fields: JsonObject, values: Partial<BodyValues> = {}): JsonObject =>
  JSON.parse(upstreamBody(parse(fields), { ...VALUES, ...values }).toString()) as JsonObject;

test("a body that is not a valid request is refused with the field at fault", () => {
  const texts: [string, string, string | null][] = [
    ["", "invalid_json", null],
    ["[]", "invalid_request", null],
    ['{"model":"m","messages":[{"role":"user","content":"a"}],"\\u006dodel":"n"}', "duplicate_key", "model"],
    [`{"model":"m","messages":[],"x":${"[".repeat(65)}${"]".repeat(65)}}`, "invalid_json", null],
    ['{"messages":[{"role":"user","content":"a"}]}', "invalid_request", "model"],
  ];
  for (const [body, code, param] of texts) assert.throws(() => parseMessages(Buffer.from(body)), { code, param }, body.slice(0, 100));
  const cases: [JsonObject, string, string][] = [
    [{ messages: [] }, "invalid_request", "messages"],
    [{ messages: [{ role: "tool", content: "" }] }, "invalid_request", "messages[0].role"],
    [{ messages: [{ role: "user", content: 5 }] }, "invalid_request", "messages[0].content"],
    [user({ type: "text", text: 5 }), "invalid_request", "messages[0].content[0].text"],
    [user({ type: "tool_result", content: [{ type: "text", text: 5 }] }), "invalid_request", "messages[0].content[0].content[0].text"],
    [{ max_tokens: -1 }, "invalid_request", "max_tokens"],
    [{ max_tokens: 2 ** 31 }, "invalid_request", "max_tokens"],
    [{ max_tokens: "5" }, "invalid_request", "max_tokens"],
    [{ stream: "yes" }, "invalid_request", "stream"],
    [{ system: [{ type: "image" }] }, "invalid_request", "system[0].type"],
    [{ metadata: { user_id: "x".repeat(257) } }, "invalid_request", "metadata.user_id"],
    [{ metadata: { feature: 5 } }, "invalid_request", "metadata.feature"],
    [{ service_tier: "priority" }, "unsupported_field", "service_tier"],
    [{ speed: "fast" }, "unsupported_field", "speed"],
    [{ inference_geo: "us" }, "unsupported_field", "inference_geo"],
    [{ container: "c" }, "unsupported_field", "container"],
    [{ mcp_servers: [{ type: "url", url: "https://example.com", name: "a" }] }, "unsupported_field", "mcp_servers"],
    [
      {
        tools: [
          { name: "f", input_schema: {} },
          { type: "web_search_20260318", name: "web_search" },
        ],
      },
      "unsupported_field",
      "tools[1].type",
    ],
    [{ tools: [{ type: "code_execution_20260521", name: "code_execution" }] }, "unsupported_field", "tools[0].type"],
    [user({ type: "image", source: { type: "file", file_id: "f" } }), "unsupported_field", "messages[0].content[0].source.file_id"],
    [user({ type: "container_upload", file_id: "f" }), "unsupported_field", "messages[0].content[0].file_id"],
    [
      user({ type: "tool_result", tool_use_id: "t", content: [{ type: "document", source: { type: "file", file_id: "f" } }] }),
      "unsupported_field",
      "messages[0].content[0].content[0].source.file_id",
    ],
  ];
  for (const [fields, code, param] of cases) {
    const name = JSON.stringify(fields).slice(0, 120);
    assert.throws(() => parse(fields), { code, param }, name);
    assert.ok(hasPath({ ...MINIMAL, ...fields }, param), name);
  }
});

test("what runs at the client, what newer API versions add and harmless values of ours are accepted", () => {
  const accepted: JsonObject[] = [
    {
      tools: [
        { type: "bash_20250124", name: "bash" },
        { type: "custom", name: "f", input_schema: { type: "object" } },
      ],
    },
    { temperature: 0.5, top_p: 1, top_k: 3 },
    { service_tier: "auto", speed: "standard", container: null },
    { max_tokens: 0 },
    {
      messages: [
        { role: "user", content: "a" },
        { role: "system", content: [{ type: "text", text: "b" }] },
      ],
    },
    user({
      type: "web_search_tool_result",
      tool_use_id: "t",
      content: { type: "web_search_tool_result_error", error_code: "unavailable" },
    }),
    user({ type: "search_result", source: "https://example.com", title: "t", content: [{ type: "text", text: "a" }] }),
  ];
  for (const fields of accepted) assert.doesNotThrow(() => parse(fields), JSON.stringify(fields));
  assert.equal(parse({}).includeUsage, true);
  assert.equal(parse({}).stream, false);
});

test("metadata is attribution, beaten by a header; of it only the end user leaves, as an HMAC of the tenant's", () => {
  const metadata = { user_id: "alice", feature: "search", team: "blue" };
  const request = parseMessages(Buffer.from(JSON.stringify({ ...MINIMAL, metadata })), {
    feature: "chat",
    user: null,
    session: null,
    tags: { team: "red" },
  });
  assert.deepEqual(request.attribution, { feature: "chat", user: "alice", session: null, tags: { team: "red" } });
  assert.deepEqual(sent({ metadata })["metadata"], { user_id: namespaced("metadata.user_id", "alice", "salt") });
  assert.notDeepEqual(sent({ metadata }, { cacheSalt: "other" })["metadata"], sent({ metadata })["metadata"]);
  assert.equal(sent({ metadata: { feature: "search" } })["metadata"], undefined);
  assert.equal(sent({ metadata: { user_id: null } })["metadata"], undefined);
});

test("a body that needs no edit is forwarded as the very same buffer", () => {
  const body = Buffer.from(JSON.stringify(MINIMAL));
  assert.equal(upstreamBody(parseMessages(body), { ...VALUES, upstreamModel: "demo", outputBound: 100 }), body);
});

test("the maximum is the caller's or the hold's, whichever is less; else the model's, else 32,000; a thinking budget stays below it", () => {
  const stated = (maxOutputTokens: number | null): Partial<BodyValues> => ({ model: { ...model, maxOutputTokens } });
  assert.equal(sent({ max_tokens: 10 })["max_tokens"], 10);
  assert.equal(sent({ max_tokens: 10 }, { outputBound: 5 })["max_tokens"], 5);
  assert.equal(sent({ max_tokens: 0 }, { outputBound: 5 })["max_tokens"], 0);
  assert.equal(sent({ max_tokens: undefined }, { outputBound: 5 })["max_tokens"], 5);
  assert.equal(sent({ max_tokens: null })["max_tokens"], 64_000);
  assert.equal(sent({ max_tokens: undefined }, stated(null))["max_tokens"], 32_000);
  const thinking = { type: "enabled", budget_tokens: 4000 };
  assert.deepEqual(sent({ max_tokens: 8000, thinking }, { outputBound: 5000 })["thinking"], thinking);
  assert.deepEqual(sent({ max_tokens: 8000, thinking }, { outputBound: 3000 })["thinking"], { ...thinking, budget_tokens: 2999 });
  assert.deepEqual(sent({ max_tokens: 8000, thinking }, { outputBound: 500 })["thinking"], { ...thinking, budget_tokens: 1024 });
  // A budget above the caller's own maximum is the caller's fault and stays for the provider to say so.
  assert.deepEqual(sent({ max_tokens: 3000, thinking }, { outputBound: 2000 })["thinking"], thinking);
});

test("what reaches an upstream equals the caller's object with our values in place, whatever its spelling", () => {
  const extra = fc.record(
    {
      stream: fc.boolean(),
      max_tokens: fc.oneof(fc.constant(null), fc.integer({ min: 0, max: 100 })),
      metadata: fc.oneof(fc.constant(null), fc.record({ user_id: fc.oneof(fc.constant(null), fc.string({ maxLength: 9 })) })),
      service_tier: fc.constantFrom("auto", "standard_only", null),
      speed: fc.constantFrom("standard", null),
      temperature: fc.constantFrom(0.5, 1e-7),
    },
    { requiredKeys: [] },
  );
  const bodies = fc.tuple(jsonObject, extra, fc.string()).map(([odd, known, content]): JsonObject => {
    const unknown = Object.fromEntries(Object.entries(odd).filter(([key]) => !FIELDS.has(key)));
    return { ...unknown, ...known, model: "demo", messages: [{ role: "user", content }] };
  });
  fc.assert(
    fc.property(bodies, oddChoices, fc.constantFrom(null, 1, 50), (body, choices, outputBound) => {
      const request = parseMessages(Buffer.from(oddJson(body, choices)));
      const upstream = JSON.parse(upstreamBody(request, { ...VALUES, outputBound }).toString()) as JsonObject;
      assert.deepEqual(
        new Map(Object.entries(upstream)),
        new Map(Object.entries(expected(body, outputBound)).filter(([, value]) => value !== undefined)),
      );
    }),
    { numRuns: 1000 },
  );
});

test("no body, however odd, is refused otherwise than by a problem", () => {
  fc.assert(
    fc.property(jsonObject, fc.array(jsonObject, { maxLength: 3 }), (odd, blocks) => {
      try {
        parseMessages(Buffer.from(JSON.stringify({ ...MINIMAL, ...user(...blocks), ...odd }))).chat();
      } catch (thrown) {
        assert.ok(thrown instanceof Problem, String(thrown));
      }
    }),
    { numRuns: 500 },
  );
});

/** The same edit, made the plain way on the object. */
function expected(body: JsonObject, outputBound: number | null): JsonObject {
  const { metadata, service_tier: _tier, speed: _speed, ...rest } = body;
  const id = (metadata as JsonObject | null | undefined)?.["user_id"];
  const asked = typeof body["max_tokens"] === "number" ? body["max_tokens"] : 64_000;
  const named: Json | undefined = typeof id === "string" ? { user_id: namespaced("metadata.user_id", id, "salt") } : undefined;
  return { ...rest, model: "up", max_tokens: Math.min(asked, outputBound ?? asked), metadata: named };
}

test("an element of any kind below the levels of blocks that are read is forwarded, not stumbled over", () => {
  const nested = (content: Json): JsonObject => ({ type: "x", content: [content] });
  const body = user(nested(nested(nested(null))));
  assert.deepEqual(sent(body)["messages"], body["messages"]);
});
