import assert from "node:assert/strict";
import { test } from "node:test";
import { BOUNDS } from "../../../kernel/bounds.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { JsonObject } from "../../../kernel/request.ts";
import { parseMessages } from "./anthropic/request.ts";
import { parseChatCompletion } from "./openai/request.ts";
import { NO_EXTENSIONS, requestIn } from "./translate.ts";

const ATTRIBUTION = { feature: "search", user: "u", session: null, tags: { team: "blue" } };
const OPENAI: JsonObject = { model: "demo", max_tokens: 5, messages: [{ role: "user", content: "hi" }] };
const ANTHROPIC: JsonObject = { ...OPENAI, metadata: { user_id: "alice" } };

test("a request in its own dialect is itself", () => {
  const request = parseChatCompletion(bytes(OPENAI));
  assert.equal(requestIn("openai", request), request);
});

test("a translated request is made once per kind of upstream, with the caller's model, stream and attribution", () => {
  const request = parseMessages(bytes({ ...ANTHROPIC, stream: true }), ATTRIBUTION);
  const translated = requestIn("openai", request);
  assert.equal(requestIn("openai", request), translated);
  assert.equal(requestIn("openai", request, NO_EXTENSIONS), translated);
  assert.notEqual(requestIn("openai", request, { ...NO_EXTENSIONS, topK: true }), translated);
  assert.deepEqual([translated.dialect, translated.model, translated.stream, translated.includeUsage], ["openai", "demo", true, true]);
  assert.deepEqual(translated.attribution, ATTRIBUTION);
  assert.equal(translated.chat().user, "alice");
});

test("there and back again is the same conversation", () => {
  const there = requestIn("anthropic", parseChatCompletion(bytes({ ...OPENAI, stop: "x", user: "alice" })));
  assert.equal(there.dialect, "anthropic");
  const back = requestIn("openai", there);
  assert.deepEqual(
    [back.chat().messages.map(({ role }) => role), back.chat().stop, back.chat().user, back.chat().maxOutputTokens],
    [["user"], ["x"], "alice", 5],
  );
});

test("a bound that is met only in the other dialect is told without naming a field that the caller did not write", () => {
  // The body, its tools and the tool take three levels; this dialect's `function` takes one more.
  let schema: JsonObject = { type: "object" };
  for (let depth = 4; depth < BOUNDS.jsonDepth; depth++) schema = { type: "object", not: schema };
  const request = parseMessages(bytes({ ...ANTHROPIC, tools: [{ name: "f", input_schema: schema }] }));
  assert.throws(
    () => requestIn("openai", request),
    (thrown) => thrown instanceof Problem && thrown.code === "invalid_request" && thrown.param === null,
  );
});

function bytes(body: JsonObject): Buffer {
  return Buffer.from(JSON.stringify(body));
}

test("a message of more parts than a call can have arguments is translated", () => {
  const parts = Array.from({ length: 200_000 }, () => ({ type: "text", text: "a" }));
  const said = parseChatCompletion(
    bytes({
      ...OPENAI,
      messages: [
        { role: "user", content: "hi" },
        { role: "user", content: parts },
      ],
    }),
  );
  const [message] = requestIn("anthropic", said).chat().messages;
  assert.equal(message?.content.length, 200_001);
});

test("numbers in schemas cross dialects digit for digit", () => {
  const written = '{"type":"object","properties":{"id":{"type":"integer","maximum":9223372036854775807,"minimum":-1e400}}}';
  const openai = `{"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f","parameters":${written}}}],"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":${written}}}}`;
  const anthropic = `{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}],"tools":[{"name":"f","input_schema":${written}}],"output_config":{"format":{"type":"json_schema","schema":${written}}}}`;
  for (const { body } of [
    requestIn("anthropic", parseChatCompletion(Buffer.from(openai))),
    requestIn("openai", parseMessages(Buffer.from(anthropic))),
  ])
    assert.equal(body.toString().split(written).length, 3);
});
