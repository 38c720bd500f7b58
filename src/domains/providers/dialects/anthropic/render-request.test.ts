import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import type { MessageCreateParamsBase } from "@anthropic-ai/sdk/resources/messages/messages.js";
import type { CacheBreakpoint, ChatAnswerPart, ChatMessage, ChatPart, ChatRequest, ChatTool } from "../../../../kernel/chat.ts";
import { Problem } from "../../../../kernel/problem.ts";
import type { JsonObject, ModelRequest } from "../../../../kernel/request.ts";
import { chatRequests, withoutPlaces } from "../../testing/chat-requests.ts";
import { hasPath } from "../../testing/paths.ts";
import { renderChatCompletion, type Extensions } from "../openai/render-request.ts";
import { parseChatCompletion } from "../openai/request.ts";
import { renderMessages } from "./render-request.ts";
import { parseMessages } from "./request.ts";

const MINIMAL: JsonObject = { model: "demo", messages: [{ role: "user", content: "hi" }] };
const openai = (fields: JsonObject): ModelRequest => parseChatCompletion(Buffer.from(JSON.stringify({ ...MINIMAL, ...fields })));
const rendered = (fields: JsonObject): JsonObject => JSON.parse(renderMessages(openai(fields)).toString()) as JsonObject;

/** What API version 2023-06-01 takes and the SDK's newer one has no type for. */
type Body = Omit<MessageCreateParamsBase, "max_tokens"> & {
  readonly max_tokens?: number;
  readonly temperature?: number;
  readonly top_p?: number;
};

test("golden pair: an agent's conversation of the OpenAI dialect as a body of /v1/messages", () => {
  const schema = { type: "object", properties: { city: { type: "string" } } };
  const expected: Body = {
    model: "demo",
    max_tokens: 500,
    system: [
      { type: "text", text: "Be brief." },
      { type: "text", text: "Be kind." },
    ],
    messages: [
      {
        role: "user",
        content: [
          { type: "text", text: "What is here?" },
          { type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } },
          { type: "image", source: { type: "url", url: "https://example.com/a.png" } },
          { type: "document", source: { type: "base64", media_type: "application/pdf", data: "BBBB" }, title: "a.pdf" },
        ],
      },
      {
        role: "assistant",
        content: [
          { type: "text", text: "I look." },
          { type: "tool_use", id: "call_1", name: "look", input: { city: "Rome" } },
          { type: "tool_use", id: "call_2", name: "look", input: {} },
        ],
      },
      {
        role: "user",
        content: [
          { type: "tool_result", tool_use_id: "call_1", content: [{ type: "text", text: "sun" }] },
          { type: "tool_result", tool_use_id: "call_2" },
          { type: "text", text: "And now?" },
          { type: "text", text: "Tell me." },
        ],
      },
    ],
    tools: [{ name: "look", description: "Looks.", input_schema: { ...schema, type: "object" }, strict: true }],
    tool_choice: { type: "any", disable_parallel_tool_use: true },
    thinking: { type: "adaptive" },
    output_config: { effort: "high", format: { type: "json_schema", schema: { ...schema, description: "An answer." } } },
    temperature: 0.5,
    top_p: 0.9,
    stop_sequences: ["END"],
    metadata: { user_id: "alice" },
    stream: true,
  };
  const found = rendered({
    stream: true,
    max_completion_tokens: 500,
    messages: [
      { role: "developer", content: "Be brief." },
      { role: "system", content: [{ type: "text", text: "Be kind." }] },
      {
        role: "user",
        content: [
          { type: "text", text: "What is here?" },
          { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } },
          { type: "image_url", image_url: { url: "https://example.com/a.png", detail: "auto" } },
          { type: "file", file: { filename: "a.pdf", file_data: "data:application/pdf;base64,BBBB" } },
        ],
      },
      {
        role: "assistant",
        content: "I look.",
        tool_calls: [
          { id: "call_1", type: "function", function: { name: "look", arguments: '{"city": "Rome"}' } },
          { id: "call_2", type: "function", function: { name: "look", arguments: "" } },
        ],
      },
      { role: "tool", tool_call_id: "call_1", content: "sun" },
      { role: "tool", tool_call_id: "call_2", content: "" },
      { role: "user", content: "And now?" },
      { role: "user", content: "Tell me." },
    ],
    tools: [{ type: "function", function: { name: "look", description: "Looks.", parameters: schema, strict: true } }],
    tool_choice: "required",
    parallel_tool_calls: false,
    reasoning_effort: "high",
    response_format: { type: "json_schema", json_schema: { name: "answer", description: "An answer.", schema } },
    temperature: 0.5,
    top_p: 0.9,
    stop: "END",
    user: "alice",
    frequency_penalty: 0,
  });
  assert.deepEqual(found, expected);
});

test("without a maximum of the caller's the body names none, and what says nothing is left out", () => {
  assert.deepEqual(rendered({ presence_penalty: 0, n: 1, tools: [], stop: null }), {
    model: "demo",
    messages: [{ role: "user", content: [{ type: "text", text: "hi" }] }],
  });
});

test("a system message after a user's keeps its place; after an assistant's it is refused", () => {
  const conversation = (...roles: string[]): JsonObject => ({ messages: roles.map((role) => ({ role, content: role })) });
  const roles = (rendered(conversation("system", "user", "system", "assistant"))["messages"] as unknown as { role: string }[]).map(
    ({ role }) => role,
  );
  assert.deepEqual(roles, ["user", "system", "assistant"]);
  assert.throws(() => rendered(conversation("user", "assistant", "system", "user")), { code: "unsupported_field", param: "messages[2]" });
});

test("arguments of calls keep the spelling of numbers that a double cannot hold", () => {
  const input = '{"id":12345678901234567890,"ratio":1.10,"__proto__":[1e999]}';
  const calls = [{ id: "c", type: "function", function: { name: "f", arguments: input } }];
  const body = renderMessages(openai({ messages: [{ role: "assistant", content: null, tool_calls: calls }] })).toString();
  assert.ok(body.includes(`"input":${input}`), body);
});

test("ids that this dialect refuses are mapped, no two to one, and a result still names its call", () => {
  const conversation = (id: string): JsonObject => ({
    messages: [
      { role: "assistant", content: null, tool_calls: [{ id, type: "function", function: { name: "f", arguments: "{}" } }] },
      { role: "tool", tool_call_id: id, content: "a" },
    ],
  });
  const idsOf = (id: string): string[] => {
    const [call, result] = rendered(conversation(id))["messages"] as unknown as { content: { id?: string; tool_use_id?: string }[] }[];
    return [call?.content[0]?.id ?? "", result?.content[0]?.tool_use_id ?? ""];
  };
  assert.deepEqual(idsOf("call_1-A"), ["call_1-A", "call_1-A"]);
  const ids = fc.oneof(
    fc.string({ minLength: 1, maxLength: 6 }),
    fc.string({ minLength: 1, maxLength: 6 }).map((id) => `atrium_${id}`),
  );
  fc.assert(
    fc.property(ids, ids, (left, right) => {
      const [call = "", result = ""] = idsOf(left);
      assert.match(call, /^[a-zA-Z0-9_-]+$/);
      assert.equal(result, call);
      assert.equal(call === idsOf(right)[0], left === right);
    }),
    { numRuns: 200 },
  );
});

test("what this dialect cannot say is refused by a field or path that the caller wrote", () => {
  const user = (...content: JsonObject[]): JsonObject => ({ messages: [{ role: "user", content }] });
  const call = (text: string): JsonObject => ({
    messages: [{ role: "assistant", content: null, tool_calls: [{ id: "c", type: "function", function: { name: "f", arguments: text } }] }],
  });
  const schema = { type: "object", description: "mine" };
  const cases: [JsonObject, string][] = [
    [{ n: 2 }, "n"],
    [{ seed: 5 }, "seed"],
    [{ frequency_penalty: 0.5 }, "frequency_penalty"],
    [{ presence_penalty: -1 }, "presence_penalty"],
    [{ temperature: 1.5 }, "temperature"],
    [{ reasoning_effort: "minimal" }, "reasoning_effort"],
    [{ response_format: { type: "json_object" } }, "response_format"],
    [{ response_format: { type: "json_schema", json_schema: { name: "a", description: "other", schema } } }, "response_format"],
    [user({ type: "image_url", image_url: { url: "https://example.com/a", detail: "low" } }), "messages[0].content[0]"],
    [user({ type: "image_url", image_url: { url: "data:image/bmp;base64,AAAA" } }), "messages[0].content[0]"],
    [user({ type: "file", file: { filename: "a", file_data: "data:text/csv;base64,AAAA" } }), "messages[0].content[0]"],
    [user({ type: "file", file: { filename: "a", file_data: "data:text/plain;base64,/w==" } }), "messages[0].content[0]"],
    [user(), "messages[0]"],
    [{ messages: [{ role: "system", content: "alone" }] }, "messages[0]"],
    ...["5", "[]", "null", "{", '{"a":1,"a":2}', "[".repeat(60), `{"a":${"[".repeat(59)}${"]".repeat(59)}}`].map(
      (text): [JsonObject, string] => [call(text), "messages[0].tool_calls[0]"],
    ),
  ];
  for (const [fields, param] of cases) {
    const name = JSON.stringify(fields).slice(0, 150);
    assert.throws(
      () => rendered(fields),
      (thrown) => thrown instanceof Problem && thrown.code === "unsupported_field" && thrown.param === param,
      name,
    );
    assert.ok(hasPath({ ...MINIMAL, ...fields }, param), name);
  }
});

test("parse after render is the identity on what this dialect can say, turns of one role merged", () => {
  fc.assert(
    fc.property(chatRequests().map(sayable), fc.boolean(), (chat, stream) => {
      const parsed = parseMessages(renderMessages(requestOf(chat, stream)));
      assert.deepEqual(withoutPlaces(parsed.chat()), merged(chat));
      assert.equal(parsed.stream, stream);
    }),
    { numRuns: 1500 },
  );
});

test("a refusal of an OpenAI caller's request names what that caller wrote", () => {
  const outcomes = { said: 0, refused: 0 };
  const takes: Extensions = { earlierReasoning: "details", cacheBreakpoints: "cache_control", topK: true };
  fc.assert(
    fc.property(chatRequests(), (chat) => {
      const body = attempt(() => renderChatCompletion(requestOf(chat, false, "anthropic"), takes));
      const request = body instanceof Buffer ? parseChatCompletion(body) : null;
      if (request === null || attempt(() => request.chat()) instanceof Problem) return;
      const outcome = attempt(() => renderMessages(request));
      outcomes[outcome instanceof Problem ? "refused" : "said"]++;
      if (outcome instanceof Problem) assert.ok(outcome.param !== null && hasPath(request.fields, outcome.param), String(outcome.param));
    }),
    { numRuns: 1000 },
  );
  assert.ok(outcomes.said > 0 && outcomes.refused > 0, JSON.stringify(outcomes));
});

test("any request is rendered or refused by a setting or a place of it, nothing else", () => {
  let said = 0;
  fc.assert(
    fc.property(chatRequests(), (chat) => {
      try {
        parseMessages(renderMessages(requestOf(chat, false)));
        said++;
      } catch (thrown) {
        assert.ok(thrown instanceof Problem && thrown.code === "unsupported_field" && thrown.param !== null, String(thrown));
      }
    }),
    { numRuns: 500 },
  );
  assert.ok(said > 0);
});

function attempt<T>(work: () => T): T | Problem {
  try {
    return work();
  } catch (thrown) {
    if (thrown instanceof Problem) return thrown;
    throw thrown;
  }
}

function requestOf(chat: ChatRequest, stream: boolean, dialect: ModelRequest["dialect"] = "openai"): ModelRequest {
  const attribution = { feature: null, user: null, session: null, tags: {} };
  const body = Buffer.alloc(0);
  return {
    kind: "generate",
    dialect,
    model: "demo",
    stream,
    includeUsage: false,
    body,
    fields: {},
    attribution,
    chat: () => chat,
  };
}

/** The nearest request that this dialect can say. */
function sayable(chat: ChatRequest): ChatRequest {
  const kept: ChatMessage[] = [];
  for (const message of chat.messages.flatMap(sayableMessage))
    if (message.role !== "system" || kept.at(-1)?.role !== "assistant") kept.push(message);
  const format = chat.responseFormat;
  const callsTools = chat.tools.length > 0;
  const toolChoice = chat.toolChoice === "none" && !callsTools ? "auto" : chat.toolChoice;
  const saysParallel = toolChoice !== "none" && (callsTools || toolChoice !== "auto");
  return {
    ...chat,
    messages: kept.some(({ role }) => role !== "system") ? kept : [...kept, { role: "user", at: "", content: [text("a")] }],
    tools: chat.tools.map((tool): ChatTool => ({ ...tool, cache: keepable(tool.cache) })),
    toolChoice,
    parallelToolCalls: saysParallel ? chat.parallelToolCalls : null,
    responseFormat:
      format.kind === "json_schema" ? { ...format, name: null, description: null, strict: true } : ({ kind: "text" } as const),
    reasoning: chat.reasoning?.kind === "effort" && chat.reasoning.effort === "minimal" ? { kind: "off" } : chat.reasoning,
    temperature: chat.temperature === null ? null : Math.min(1, chat.temperature),
    frequencyPenalty: null,
    presencePenalty: null,
    seed: null,
    choices: 1,
  };
}

function sayableMessage(message: ChatMessage): ChatMessage[] {
  switch (message.role) {
    case "tool":
      return [{ ...message, content: message.content.flatMap(sayablePart), cache: keepable(message.cache) }];
    case "assistant": {
      const content = message.content.flatMap(sayableAnswerPart);
      return content.length > 0 ? [{ ...message, content }] : [];
    }
    case "system": {
      const content = message.content.flatMap((part) => (part.text === "" ? [] : [{ ...part, cache: keepable(part.cache) }]));
      return content.length > 0 ? [{ ...message, content }] : [];
    }
    case "user": {
      const content = message.content.flatMap(sayablePart);
      return content.length > 0 ? [{ ...message, content }] : [];
    }
  }
}

function sayablePart(part: ChatPart): ChatPart[] {
  const cache = keepable(part.cache);
  if (part.kind === "text") return part.text === "" ? [] : [{ ...part, cache }];
  if (part.kind === "image") return [{ ...part, detail: null, cache }];
  const { source } = part;
  const isText = source.kind === "data" && source.mediaType === "text/plain";
  return [{ ...part, cache, source: isText ? { ...source, base64: Buffer.from("\ufefftext é").toString("base64") } : source }];
}

function sayableAnswerPart(part: ChatAnswerPart): ChatAnswerPart[] {
  switch (part.kind) {
    case "text":
      return part.text === "" ? [] : [{ ...part, cache: keepable(part.cache) }];
    case "refusal":
      return [];
    case "reasoning":
      return part.signature === null ? [] : [part];
    case "hidden-reasoning":
      return [part];
    case "tool-call":
      return [{ ...part, cache: keepable(part.cache) }];
  }
}

function keepable(cache: CacheBreakpoint | null): CacheBreakpoint | null {
  return cache?.ttl === "12h" || cache?.ttl === "30m" ? { ttl: "1h" } : cache;
}

function text(said: string): ChatPart {
  return { kind: "text", at: "", text: said, cache: null };
}

/** Neighbours of one role, tools' results aside, become one. */
function merged(chat: ChatRequest): ChatRequest {
  const messages: ChatMessage[] = [];
  for (const message of withoutPlaces(chat).messages) {
    const last = messages.at(-1);
    if (last?.role !== message.role || message.role === "tool") messages.push(message);
    else messages.splice(-1, 1, { ...last, content: [...last.content, ...message.content] } as ChatMessage);
  }
  return { ...withoutPlaces(chat), messages };
}
