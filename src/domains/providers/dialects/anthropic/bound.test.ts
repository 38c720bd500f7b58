import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import type { JsonObject } from "../../../../kernel/request.ts";
import type { TokenBound } from "../../../../kernel/tokens.ts";
import { chatRequests } from "../../testing/chat-requests.ts";
import { deploymentOf } from "../../testing/dispatching.ts";
import { bound } from "./bound.ts";
import { parseMessages } from "./request.ts";
import { upstreamBody } from "./upstream-body.ts";

const WINDOW = 200_000;
const BASE = 512 + 32;

test("each part has the term of accounting.md's table, and a part without one counts as the whole window, once", () => {
  const user = (...content: JsonObject[]): JsonObject => ({ messages: [{ role: "user", content }] });
  const image = { type: "image", source: { type: "url", url: "https://example.com/a.png" } };
  const pdf = { type: "document", source: { type: "base64", media_type: "application/pdf", data: "AAAA" } };
  const tools = [{ name: "f", input_schema: { type: "object" } }];
  const bash = [{ type: "bash_20250124", name: "bash" }];
  const config = { format: { type: "json_schema", schema: { type: "object" } } };
  const result = (content: string | JsonObject[]): JsonObject => user({ type: "tool_result", tool_use_id: "t1", content });
  const empty = { messages: [{ role: "user", content: "" }] };
  const cases: [string, JsonObject, number][] = [
    ["text: UTF-8 bytes", { messages: [{ role: "user", content: "é€a" }] }, BASE + 6],
    ["system text", { ...empty, system: "ab" }, BASE + 2],
    ["system blocks", { ...empty, system: [{ type: "text", text: "ab", cache_control: { type: "ephemeral" } }] }, BASE + 2],
    [
      "a member of a system block without a term",
      { ...empty, system: [{ type: "text", text: "ab", citations: [{ cited_text: "x" }] }] },
      BASE + 2 + WINDOW,
    ],
    ["per message", { messages: [...(empty.messages as JsonObject[]), { role: "system", content: "" }] }, BASE + 32],
    ["image: the dearest published", user(image), BASE + 5000],
    ["PDF", user(pdf), BASE + WINDOW],
    ["two PDFs share one window", user(pdf, pdf), BASE + WINDOW],
    ["text document", user({ type: "document", title: "ab", source: { type: "text", media_type: "text/plain", data: "abc" } }), BASE + 5],
    [
      "document of blocks",
      user({ type: "document", source: { type: "content", content: [{ type: "text", text: "abc" }, image] } }),
      BASE + 3 + 5000,
    ],
    ["thinking and its signature", user({ type: "thinking", thinking: "abc", signature: "de" }), BASE + 5],
    ["hidden reasoning", user({ type: "redacted_thinking", data: "abcd" }), BASE + 4],
    ["a call: 4 a byte of its input", user({ type: "tool_use", id: "t1", name: "f", input: { a: "bc" } }), BASE + 3 + 4 * (3 + 5 + 5)],
    ["a result's text", result("abc"), BASE + 32 + 2 + 3],
    ["a result's image", result([image]), BASE + 32 + 2 + 5000],
    ["an unknown block", user({ type: "hologram" }), BASE + WINDOW],
    ["a server tool's block", user({ type: "server_tool_use", id: "s", name: "web_search", input: {} }), BASE + WINDOW],
    ["an unknown field of a known block", user({ type: "text", text: "", appendix: "x" }), BASE + WINDOW],
    ["an unknown field of the body", { ...empty, appendix: "x" }, BASE + WINDOW],
    ["tools: 4 a byte and their preamble", { ...empty, tools }, BASE + 4 * JSON.stringify(tools).length + 1024],
    ["a typed client tool", { ...empty, tools: bash }, BASE + 4 * JSON.stringify(bash).length + 1024 + WINDOW],
    ["the answer's schema: 4 a byte", { ...empty, output_config: config }, BASE + 4 * JSON.stringify(config).length],
  ];
  for (const [name, fields, input] of cases) {
    const found = boundOf(fields);
    assert.equal(found.input, input, name);
    assert.equal(found.certainty, "rule", name);
  }
});

test("the output's bound is the maximum that is sent, thinking included", () => {
  const sizes = fc.option(fc.integer({ min: 1, max: 500_000 }), { nil: null });
  fc.assert(
    fc.property(sizes, sizes, fc.integer({ min: 1, max: WINDOW }), (asked, maxOutputTokens, contextWindow) => {
      const { model } = deploymentOf({ provider: "anthropic", model: { contextWindow, maxOutputTokens } });
      const request = parseMessages(Buffer.from(JSON.stringify({ ...MINIMAL, ...(asked === null ? {} : { max_tokens: asked }) })));
      const sent = JSON.parse(
        upstreamBody(request, { upstreamModel: "up", model, outputBound: null, cacheSalt: "salt" }).toString(),
      ) as JsonObject;
      assert.equal(bound(request, model).output, sent["max_tokens"]);
      assert.equal(sent["max_tokens"], asked ?? maxOutputTokens ?? Math.min(32_000, contextWindow));
    }),
  );
});

test("no text in a request escapes the bound: it is never less than the bytes of every text", () => {
  fc.assert(
    fc.property(chatRequests(), ({ messages }) => {
      const said = messages.map(({ content }) => ({
        role: "user",
        content: content.map((part) =>
          part.kind === "tool-call"
            ? { type: "tool_use", id: part.id, name: part.name, input: JSON.parse(part.arguments) as JsonObject }
            : { type: "text", text: "text" in part ? part.text : "" },
        ),
      }));
      let bytes = 0;
      JSON.stringify(said, (key, value: unknown) => {
        if (key !== "type" && key !== "role" && typeof value === "string") bytes += Buffer.byteLength(value);
        return value;
      });
      assert.ok(boundOf({ messages: said }).input >= bytes);
    }),
    { numRuns: 300 },
  );
});

const MINIMAL: JsonObject = { model: "demo", messages: [{ role: "user", content: "hi" }] };

function boundOf(fields: JsonObject): TokenBound {
  const { model } = deploymentOf({ provider: "anthropic", model: { contextWindow: WINDOW } });
  return bound(parseMessages(Buffer.from(JSON.stringify({ ...MINIMAL, ...fields }))), model);
}
