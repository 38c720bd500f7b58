import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ChatAnswerPart, ChatMessage, ChatPart, ChatRequest, ChatText } from "../../../../kernel/chat.ts";
import { Problem } from "../../../../kernel/problem.ts";
import type { JsonObject, ModelRequest } from "../../../../kernel/request.ts";
import { breakpointsOf, chatRequests, withoutPlaces } from "../../testing/chat-requests.ts";
import { NO_EXTENSIONS } from "../translate.ts";
import { renderChatCompletion, type Extensions } from "./render-request.ts";
import { parseChatCompletion } from "./request.ts";

const EVERY: Extensions = { earlierReasoning: "details", cacheBreakpoints: "prompt_cache_breakpoint", topK: true };
const AT = "messages[0].content[0]";
const ASK: ChatText = { kind: "text", at: AT, text: "hi", cache: null };
const PLAIN: ChatRequest = {
  messages: [{ role: "user", at: "messages[0]", content: [ASK] }],
  tools: [],
  toolChoice: "auto",
  parallelToolCalls: null,
  responseFormat: { kind: "text" },
  reasoning: null,
  maxOutputTokens: null,
  temperature: null,
  topP: null,
  topK: null,
  frequencyPenalty: null,
  presencePenalty: null,
  seed: null,
  stop: [],
  choices: 1,
  user: null,
};

test("parse after render is the identity on every request that this dialect can say", () => {
  let said = 0;
  fc.assert(
    fc.property(chatRequests().map(sayable), fc.boolean(), (chat, stream) => {
      said++;
      const parsed = parseChatCompletion(renderChatCompletion(requestOf(chat, stream), EVERY));
      assert.deepEqual(withoutPlaces(parsed.chat()), chat);
      assert.deepEqual([parsed.model, parsed.stream, parsed.includeUsage], ["m", stream, stream]);
    }),
    { numRuns: 600 },
  );
  assert.ok(said >= 600);
});

test("what is rendered for a lesser upstream is the same request without what it has no place for", () => {
  fc.assert(
    fc.property(chatRequests().map(sayable), (chat) => {
      const lesser = { ...chat, topK: null };
      const parsed = withoutPlaces(parseChatCompletion(renderChatCompletion(requestOf(lesser), NO_EXTENSIONS)).chat());
      const bare = (part: ChatPart | ChatAnswerPart): ChatPart | ChatAnswerPart => ("cache" in part ? { ...part, cache: null } : part);
      const expected = lesser.messages.map((message) => ({
        ...message,
        content: message.content
          .filter((part: ChatPart | ChatAnswerPart) => part.kind !== "reasoning" && part.kind !== "hidden-reasoning")
          .map(bare),
      }));
      assert.deepEqual(parsed, { ...lesser, messages: expected });
    }),
    { numRuns: 300 },
  );
});

test("what this dialect cannot say is refused by the caller's own name or path", () => {
  const url = { kind: "url", url: "https://example.com/a.pdf" } as const;
  const image = { kind: "image", at: AT, source: url, detail: null, cache: null } as const;
  const tool = { role: "tool", at: AT, toolCallId: "c", content: [], isError: false, cache: null } as const;
  const cases: [Partial<ChatRequest>, Extensions, string][] = [
    [{ topK: 5 }, NO_EXTENSIONS, "top_k"],
    [{ stop: Array.from({ length: 17 }, String) }, EVERY, "stop_sequences"],
    [{ reasoning: { kind: "budget", tokens: 2000 } }, EVERY, "thinking"],
    [{ messages: [{ role: "user", at: "", content: [{ kind: "document", at: AT, source: url, name: null, cache: null }] }] }, EVERY, AT],
    [{ messages: [{ ...tool, content: [{ ...image, at: `${AT}.content[0]` }] }] }, EVERY, `${AT}.content[0]`],
    [{ messages: [{ ...tool, isError: true }] }, EVERY, `${AT}.is_error`],
    [
      { messages: [{ role: "user", at: "", content: [{ ...ASK, cache: { ttl: "12h" } }] }] },
      { ...EVERY, cacheBreakpoints: "cache_control" },
      AT,
    ],
  ];
  for (const [chat, takes, param] of cases)
    assert.throws(
      () => renderChatCompletion(requestOf({ ...PLAIN, ...chat }), takes),
      (thrown) => thrown instanceof Problem && thrown.code === "unsupported_field" && thrown.param === param,
      param,
    );
});

test("earlier reasoning goes back in the form that the upstream takes", () => {
  const content: ChatAnswerPart[] = [
    { kind: "reasoning", at: "", text: "hm", signature: "s" },
    { kind: "hidden-reasoning", at: "", data: "x" },
    { ...ASK, text: "ho" },
  ];
  const said = (earlierReasoning: Extensions["earlierReasoning"]): JsonObject =>
    messagesOf([{ role: "assistant", at: "", content }], { ...EVERY, earlierReasoning })[0] as JsonObject;
  assert.deepEqual(said(null), { role: "assistant", content: "ho" });
  assert.deepEqual(said("content"), { role: "assistant", reasoning_content: "hm", content: "ho" });
  assert.deepEqual(said("details"), {
    role: "assistant",
    reasoning_details: [
      { type: "reasoning.text", text: "hm", signature: "s", index: 0 },
      { type: "reasoning.encrypted", data: "x", index: 1 },
    ],
    content: "ho",
  });
});

test("a breakpoint lasts at least as long as was asked, and one of a tool's result lies at the end of its text", () => {
  const lasting = (ttl: "default" | "5m" | "30m" | "1h", cacheBreakpoints: Extensions["cacheBreakpoints"]): unknown =>
    messagesOf([{ role: "tool", at: "", toolCallId: "c", content: [ASK], isError: false, cache: { ttl } }], {
      ...EVERY,
      cacheBreakpoints,
    })[0]?.["content"];
  const text = { type: "text", text: "hi" };
  const openai = (ttl?: string): unknown => [
    { ...text, prompt_cache_breakpoint: { mode: "explicit", ...(ttl === undefined ? {} : { ttl }) } },
  ];
  const openrouter = (ttl?: string): unknown => [{ ...text, cache_control: { type: "ephemeral", ...(ttl === undefined ? {} : { ttl }) } }];
  assert.deepEqual(
    (["default", "5m", "30m", "1h"] as const).map((ttl) => lasting(ttl, "prompt_cache_breakpoint")),
    [openai(), openai("30m"), openai("30m"), openai("12h")],
  );
  assert.deepEqual(
    (["default", "5m", "30m", "1h"] as const).map((ttl) => lasting(ttl, "cache_control")),
    [openrouter(), openrouter("5m"), openrouter("1h"), openrouter("1h")],
  );
  assert.equal(lasting("1h", null), "hi");
});

test("a failed tool is told from its text", () => {
  assert.deepEqual(
    messagesOf([{ role: "tool", at: "", toolCallId: "c", content: [{ ...ASK, text: "no such city" }], isError: true, cache: null }], EVERY),
    [{ role: "tool", tool_call_id: "c", content: "no such city" }],
  );
});

function messagesOf(messages: readonly ChatMessage[], takes: Extensions): JsonObject[] {
  const body = JSON.parse(renderChatCompletion(requestOf({ ...PLAIN, messages }), takes).toString()) as { messages: JsonObject[] };
  return body.messages;
}

function requestOf(chat: ChatRequest, stream = false): ModelRequest {
  return {
    kind: "generate",
    dialect: "anthropic",
    model: "m",
    stream,
    includeUsage: true,
    body: Buffer.alloc(0),
    fields: {},
    attribution: { feature: null, user: null, session: null, tags: {} },
    chat: () => chat,
  };
}

/** The request with all that this dialect has no words for taken out. */
function sayable(chat: ChatRequest): ChatRequest {
  const cacheOf = <Part extends { readonly cache: unknown }>(part: Part): Part =>
    part.cache !== null && ["5m", "1h"].includes((part.cache as { ttl: string }).ttl) ? { ...part, cache: { ttl: "30m" } } : part;
  const part = (given: ChatPart): ChatPart =>
    given.kind !== "document"
      ? cacheOf(given)
      : cacheOf({ ...given, name: given.name ?? "a.pdf", source: { kind: "data", mediaType: "application/pdf", base64: "AAAA" } });
  const message = (given: ChatMessage): ChatMessage => {
    switch (given.role) {
      case "system":
        return { ...given, content: given.content.map(cacheOf) };
      case "user":
        return { ...given, content: given.content.map(part) };
      case "tool":
        return { ...given, content: given.content.filter((inner) => inner.kind === "text").map(cacheOf), isError: false, cache: null };
      case "assistant":
        return {
          ...given,
          content: given.content.map((inner) =>
            inner.kind === "tool-call" ? { ...inner, cache: null } : inner.kind === "text" ? cacheOf(inner) : inner,
          ),
        };
    }
  };
  const { reasoning, responseFormat } = chat;
  const made: ChatRequest = {
    ...chat,
    messages: chat.messages.map(message),
    tools: chat.tools.map((tool) => ({ ...tool, cache: null })),
    toolChoice: chat.toolChoice === "none" && chat.tools.length === 0 ? "auto" : chat.toolChoice,
    reasoning: reasoning?.kind === "budget" || (reasoning?.kind === "effort" && reasoning.effort === null) ? null : reasoning,
    responseFormat: responseFormat.kind === "json_schema" ? { ...responseFormat, name: responseFormat.name ?? "x" } : responseFormat,
  };
  assert.ok(breakpointsOf(made).every((cache) => cache === null || ["default", "30m", "12h"].includes(cache.ttl)));
  return made;
}
