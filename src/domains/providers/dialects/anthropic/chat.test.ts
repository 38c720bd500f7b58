import { test } from "node:test";
import assert from "node:assert/strict";
import type { ChatRequest } from "../../../../kernel/chat.ts";
import { Problem } from "../../../../kernel/problem.ts";
import type { JsonObject } from "../../../../kernel/request.ts";
import { hasPath } from "../../testing/paths.ts";
import { parseMessages } from "./request.ts";

const MINIMAL: JsonObject = { model: "demo", max_tokens: 100, messages: [{ role: "user", content: "hi" }] };
const chatOf = (fields: JsonObject): ChatRequest => parseMessages(Buffer.from(JSON.stringify({ ...MINIMAL, ...fields }))).chat();
const user = (...content: JsonObject[]): JsonObject => ({ messages: [{ role: "user", content }] });
const assistant = (...content: JsonObject[]): JsonObject => ({ messages: [{ role: "assistant", content }] });

test("a conversation says in our vocabulary what it said, each part with the caller's path", () => {
  const image = { type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } };
  const { messages } = chatOf({
    system: [{ type: "text", text: "be brief", cache_control: { type: "ephemeral", ttl: "1h" } }],
    messages: [
      { role: "user", content: "weather?" },
      {
        role: "assistant",
        content: [
          { type: "thinking", thinking: "hm", signature: "sig" },
          { type: "redacted_thinking", data: "enc" },
          { type: "text", text: "I look." },
          { type: "tool_use", id: "t1", name: "look", input: { at: "Rome" } },
        ],
      },
      {
        role: "user",
        content: [
          { type: "text", text: "before" },
          { type: "tool_result", tool_use_id: "t1", is_error: true, content: [{ type: "text", text: "sun" }, image] },
          { type: "tool_result", tool_use_id: "t2", content: "rain", cache_control: { type: "ephemeral" } },
          { type: "document", title: "notes", source: { type: "text", media_type: "text/plain", data: "é" } },
        ],
      },
      { role: "system", content: "now in French" },
    ],
  });
  const text = (at: string, said: string, cache: unknown = null) => ({ kind: "text", at, text: said, cache });
  const picture = { kind: "image", source: { kind: "data", mediaType: "image/png", base64: "AAAA" }, detail: null, cache: null };
  const call = { kind: "tool-call", id: "t1", name: "look", arguments: '{"at":"Rome"}', cache: null };
  const notes = { kind: "data", mediaType: "text/plain", base64: Buffer.from("é").toString("base64") };
  const result = (at: string, toolCallId: string, isError: boolean, cache: unknown, content: unknown[]) => ({
    role: "tool",
    at,
    toolCallId,
    content,
    isError,
    cache,
  });
  assert.deepEqual(messages, [
    { role: "system", at: "system", content: [text("system[0]", "be brief", { ttl: "1h" })] },
    { role: "user", at: "messages[0]", content: [text("messages[0].content", "weather?")] },
    {
      role: "assistant",
      at: "messages[1]",
      content: [
        { kind: "reasoning", at: "messages[1].content[0]", text: "hm", signature: "sig" },
        { kind: "hidden-reasoning", at: "messages[1].content[1]", data: "enc" },
        text("messages[1].content[2]", "I look."),
        { ...call, at: "messages[1].content[3]" },
      ],
    },
    { role: "user", at: "messages[2]", content: [text("messages[2].content[0]", "before")] },
    result("messages[2].content[1]", "t1", true, null, [
      text("messages[2].content[1].content[0]", "sun"),
      { ...picture, at: "messages[2].content[1].content[1]" },
    ]),
    result("messages[2].content[2]", "t2", false, { ttl: "default" }, [text("messages[2].content[2].content", "rain")]),
    {
      role: "user",
      at: "messages[2]",
      content: [{ kind: "document", at: "messages[2].content[3]", source: notes, name: "notes", cache: null }],
    },
    { role: "system", at: "messages[3]", content: [text("messages[3].content", "now in French")] },
  ]);
});

test("settings say in our vocabulary what they said", () => {
  const schema = { type: "object", properties: {} };
  const cases: [JsonObject, Partial<ChatRequest>][] = [
    [
      {},
      { toolChoice: "auto", parallelToolCalls: null, reasoning: null, responseFormat: { kind: "text" }, maxOutputTokens: 100, choices: 1 },
    ],
    [{ tool_choice: { type: "any", disable_parallel_tool_use: true } }, { toolChoice: "required", parallelToolCalls: false }],
    [{ tool_choice: { type: "auto", disable_parallel_tool_use: false } }, { toolChoice: "auto", parallelToolCalls: true }],
    [{ tool_choice: { type: "tool", name: "f" } }, { toolChoice: { name: "f" }, parallelToolCalls: null }],
    [{ tool_choice: { type: "none" } }, { toolChoice: "none" }],
    [{ thinking: { type: "disabled" } }, { reasoning: { kind: "off" } }],
    [{ thinking: { type: "adaptive" } }, { reasoning: { kind: "effort", effort: null } }],
    [{ thinking: { type: "enabled", budget_tokens: 2000 } }, { reasoning: { kind: "budget", tokens: 2000 } }],
    [{ output_config: { effort: "xhigh" } }, { reasoning: { kind: "effort", effort: "xhigh" } }],
    [
      { output_config: { format: { type: "json_schema", schema } } },
      { responseFormat: { kind: "json_schema", name: null, description: null, schema, strict: true } },
    ],
    [
      { temperature: 0.5, top_p: 0.9, top_k: 5, stop_sequences: ["x"] },
      { temperature: 0.5, topP: 0.9, topK: 5, stop: ["x"] },
    ],
    [{ metadata: { user_id: "u" } }, { user: "u" }],
    [
      { tools: [{ name: "f", description: "d", input_schema: schema, strict: true, eager_input_streaming: true }] },
      { tools: [{ at: "tools[0]", name: "f", description: "d", parameters: schema, strict: true, cache: null }] },
    ],
  ];
  for (const [fields, expected] of cases) {
    const chat = chatOf(fields);
    const found = Object.fromEntries(Object.keys(expected).map((key) => [key, chat[key as keyof ChatRequest]]));
    assert.deepEqual(found, expected, JSON.stringify(fields));
  }
});

test("the top-level cache_control is a breakpoint at the last block that can carry one", () => {
  const control = { cache_control: { type: "ephemeral", ttl: "1h" } };
  const last = (fields: JsonObject): unknown => chatOf({ ...control, ...fields }).messages.at(-1);
  const cacheOf = (message: unknown): unknown => JSON.parse(JSON.stringify(message)).content?.at?.(0)?.cache;
  assert.deepEqual(cacheOf(last({})), { ttl: "1h" });
  assert.deepEqual(cacheOf(last(user({ type: "text", text: "a", cache_control: { type: "ephemeral", ttl: "5m" } }))), { ttl: "5m" });
  assert.deepEqual(cacheOf(last(user({ type: "text", text: "a" }, { type: "text", text: "" }))), { ttl: "1h" });
  const result = last(user({ type: "tool_result", tool_use_id: "t", content: "a" }));
  assert.deepEqual((result as { cache: unknown }).cache, { ttl: "1h" });
});

test("the inputs of tools keep the spelling of numbers that a double cannot hold", () => {
  const input = '{"id":12345678901234567890,"big":1e999,"some":[0.1,{"deep":9007199254740993}],"__proto__":{"x":1}}';
  const body = `{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"text","text":"b"},{"type":"tool_use","id":"t","name":"f","input":${input}}]}]}`;
  const part = parseMessages(Buffer.from(body)).chat().messages[1]?.content[1];
  assert.equal(part?.kind === "tool-call" ? part.arguments : null, input);
});

test("what our vocabulary has no word for is refused by a path that the caller wrote, never dropped", () => {
  const source = { type: "base64", media_type: "application/pdf", data: "AAAA" };
  const tool = { name: "f", input_schema: { type: "object" } };
  const cases: [JsonObject, string][] = [
    [{ color: "blue" }, "color"],
    [{ max_tokens: 0 }, "max_tokens"],
    [{ cache_control: { type: "forever" } }, "cache_control.type"],
    [user({ type: "text", text: "a", cache_control: { type: "ephemeral", ttl: "2h" } }), "messages[0].content[0].cache_control.ttl"],
    [user({ type: "text", text: "a", citations: [{ type: "char_location" }] }), "messages[0].content[0].citations"],
    [user({ type: "search_result", source: "s", title: "t", content: [] }), "messages[0].content[0].type"],
    [user({ type: "document", source, citations: { enabled: true } }), "messages[0].content[0].citations.enabled"],
    [user({ type: "document", source, context: "c" }), "messages[0].content[0].context"],
    [user({ type: "document", source: { type: "content", content: "c" } }), "messages[0].content[0].source.type"],
    [user({ type: "document", source: { type: "text", media_type: "text/plain", data: "\ud800" } }), "messages[0].content[0].source.data"],
    [
      user({ type: "image", source: { type: "url", url: "https://example.com" }, transformations: { oversized_image: "error" } }),
      "messages[0].content[0].transformations",
    ],
    [
      user({ type: "tool_result", tool_use_id: "t", content: [{ type: "tool_reference", tool_name: "f" }] }),
      "messages[0].content[0].content[0].type",
    ],
    [user({ type: "tool_result", tool_use_id: "t", toolset_name: "browser" }), "messages[0].content[0].toolset_name"],
    [assistant({ type: "image", source }), "messages[0].content[0].type"],
    [assistant({ type: "server_tool_use", id: "s", name: "web_search", input: {} }), "messages[0].content[0].type"],
    [
      assistant({ type: "tool_use", id: "t", name: "f", input: {}, caller: { type: "code_execution_20260120", tool_id: "c" } }),
      "messages[0].content[0].caller",
    ],
    [{ messages: [{ role: "user", content: "a", clear_at: "never" }] }, "messages[0].clear_at"],
    [{ tools: [{ type: "bash_20250124", name: "bash" }] }, "tools[0].type"],
    [{ tools: [{ ...tool, defer_loading: true }] }, "tools[0].defer_loading"],
    [{ tools: [{ ...tool, input_examples: [{ a: 1 }] }] }, "tools[0].input_examples"],
    [{ tools: [{ ...tool, eager_input_streaming: false }] }, "tools[0].eager_input_streaming"],
    [{ tool_choice: { type: "some" } }, "tool_choice.type"],
    [{ thinking: { type: "between_tools" } }, "thinking.type"],
    [{ thinking: { type: "adaptive", display: "omitted" } }, "thinking.display"],
    [{ thinking: { type: "disabled" }, output_config: { effort: "low" } }, "output_config.effort"],
    [{ output_config: { effort: "most" } }, "output_config.effort"],
    [{ output_config: { task_budget: { type: "tokens", total: 5 } } }, "output_config.task_budget"],
    [{ output_config: { format: { type: "grammar", schema: {} } } }, "output_config.format.type"],
  ];
  for (const [fields, param] of cases) {
    const name = JSON.stringify(fields);
    assert.throws(
      () => chatOf(fields),
      (thrown) => thrown instanceof Problem && thrown.code === "unsupported_field" && thrown.param === param,
      name,
    );
    assert.ok(hasPath({ ...MINIMAL, ...fields }, param), name);
  }
});

test("values that say nothing are no reason to refuse", () => {
  const harmless: JsonObject[] = [
    { service_tier: "auto", speed: "standard", container: null, thinking: null, output_config: { format: null, effort: null } },
    user({ type: "text", text: "a", citations: [], cache_control: null }),
    user({ type: "document", source: { type: "url", url: "https://example.com/a.pdf" }, citations: { enabled: false } }),
    assistant({ type: "tool_use", id: "t", name: "f", input: {}, caller: { type: "direct" } }),
    { tools: [{ type: "custom", name: "f", input_schema: {}, defer_loading: false, input_examples: [], allowed_callers: ["direct"] }] },
  ];
  for (const fields of harmless) assert.doesNotThrow(() => chatOf(fields), JSON.stringify(fields));
});
