import fc from "fast-check";
import type {
  CacheBreakpoint,
  ChatAnswerPart,
  ChatDocument,
  ChatImage,
  ChatMessage,
  ChatPart,
  ChatReasoning,
  ChatRequest,
  ChatResponseFormat,
  ChatText,
  ChatTool,
  MediaSource,
} from "../../../kernel/chat.ts";
import type { JsonObject } from "../../../kernel/request.ts";

/**
 * Chat requests of every kind that our vocabulary can say. `at` is empty: who compares a request with a parsed one takes
 * `withoutPlaces` of both. A dialect's own tests filter what that dialect cannot say.
 */
export function chatRequests(): fc.Arbitrary<ChatRequest> {
  return (
    fc
      .record({
        messages: fc.array(message, { minLength: 1, maxLength: 6 }),
        tools: fc.uniqueArray(tool, { maxLength: 3, selector: ({ name }) => name }),
        toolChoice: fc.oneof(
          fc.constantFrom<ChatRequest["toolChoice"]>("auto", "none", "required"),
          identifier.map((name) => ({ name })),
        ),
        parallelToolCalls: nullable(fc.boolean()),
        responseFormat,
        reasoning: nullable(reasoning),
        maxOutputTokens: nullable(fc.integer({ min: 1, max: 100_000 })),
        temperature: nullable(fc.constantFrom(0, 0.25, 0.7, 1, 1.5)),
        topP: nullable(fc.constantFrom(0.1, 0.9, 1)),
        topK: nullable(fc.integer({ min: 1, max: 100 })),
        // 0 is the documented default of both and reads as null.
        frequencyPenalty: nullable(fc.constantFrom(-0.5, 1)),
        presencePenalty: nullable(fc.constantFrom(-0.5, 1)),
        seed: nullable(fc.integer()),
        stop: fc.array(fc.string({ unit: "grapheme", minLength: 1, maxLength: 5 }), { maxLength: 4 }),
        choices: fc.integer({ min: 1, max: 3 }),
        user: nullable(fc.string({ minLength: 1, maxLength: 12 })),
      })
      // Records of fast-check have no prototype, which a deep comparison sees.
      .map(withoutPlaces)
  );
}

/** The request with every `at` empty. */
export function withoutPlaces(chat: ChatRequest): ChatRequest {
  return JSON.parse(JSON.stringify(chat, (key, value: unknown) => (key === "at" && typeof value === "string" ? "" : value))) as ChatRequest;
}

/** Every text part, image, document, tool call and so on of a request that can carry a cache breakpoint. */
export function breakpointsOf(chat: ChatRequest): (CacheBreakpoint | null)[] {
  const ofMessages = chat.messages.flatMap((said) => [
    ...said.content.map((part) => ("cache" in part ? part.cache : null)),
    ...(said.role === "tool" ? [said.cache] : []),
  ]);
  return [...ofMessages, ...chat.tools.map(({ cache }) => cache)];
}

function nullable<T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | null> {
  return fc.option(value, { nil: null, freq: 1 });
}

const at = fc.constant("");
const text = fc.oneof(fc.string({ unit: "grapheme", maxLength: 12 }), fc.constantFrom("", '"\\\n', "\u2028 data: [DONE]\n\n"));
/** What both dialects take as the name of a tool and as the id of a call. */
const identifier = fc.stringMatching(/^[a-zA-Z0-9_-]{1,12}$/);
const base64 = fc.uint8Array({ minLength: 1, maxLength: 8 }).map((bytes) => Buffer.from(bytes).toString("base64"));
const cache: fc.Arbitrary<CacheBreakpoint | null> = fc.option(
  fc.record({ ttl: fc.constantFrom<CacheBreakpoint["ttl"]>("default", "5m", "30m", "1h", "12h") }),
  { nil: null, freq: 4 },
);
const object: fc.Arbitrary<JsonObject> = fc
  .dictionary(fc.string({ maxLength: 5 }), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 3 })
  // JSON has no -0.
  .map((value) => JSON.parse(JSON.stringify(value)) as JsonObject);
/** A schema of an object: Anthropic's dialect demands `type`. */
const schema: fc.Arbitrary<JsonObject> = object.map((properties) => ({
  type: "object",
  properties: Object.fromEntries(Object.keys(properties).map((key) => [key, { type: "string" }])),
}));

function source(mediaTypes: readonly string[]): fc.Arbitrary<MediaSource> {
  return fc.oneof(
    fc.constantFrom<MediaSource>({ kind: "url", url: "https://example.com/a?b=c" }, { kind: "url", url: "http://example.com/é" }),
    fc.record({ kind: fc.constant("data" as const), mediaType: fc.constantFrom(...mediaTypes), base64 }),
  );
}

const textPart: fc.Arbitrary<ChatText> = fc.record({ kind: fc.constant("text" as const), at, text, cache });
const image: fc.Arbitrary<ChatImage> = fc.record({
  kind: fc.constant("image" as const),
  at,
  source: source(["image/png", "image/jpeg", "image/webp", "image/gif"]),
  detail: nullable(fc.constantFrom("auto" as const, "low" as const, "high" as const)),
  cache,
});
const document: fc.Arbitrary<ChatDocument> = fc.record({
  kind: fc.constant("document" as const),
  at,
  source: source(["application/pdf", "text/plain"]),
  name: nullable(fc.string({ minLength: 1, maxLength: 8 })),
  cache,
});
const part: fc.Arbitrary<ChatPart> = fc.oneof({ weight: 4, arbitrary: textPart }, image, document);

const answerPart: fc.Arbitrary<ChatAnswerPart> = fc.oneof(
  { weight: 3, arbitrary: textPart },
  fc.record({ kind: fc.constant("refusal" as const), at, text }),
  fc.record({ kind: fc.constant("reasoning" as const), at, text, signature: nullable(base64) }),
  fc.record({ kind: fc.constant("hidden-reasoning" as const), at, data: base64 }),
  fc.record({
    kind: fc.constant("tool-call" as const),
    at,
    id: identifier,
    name: identifier,
    arguments: object.map((value) => JSON.stringify(value)),
    cache,
  }),
);

/** The order in which both dialects can say it: reasoning, text, calls. */
const RANK: Readonly<Record<ChatAnswerPart["kind"], number>> = {
  reasoning: 0,
  "hidden-reasoning": 0,
  text: 1,
  refusal: 1,
  "tool-call": 2,
};
const answer = fc.array(answerPart, { maxLength: 5 }).map((parts) => parts.toSorted((left, right) => RANK[left.kind] - RANK[right.kind]));

const message: fc.Arbitrary<ChatMessage> = fc.oneof(
  fc.record({ role: fc.constant("system" as const), at, content: fc.array(textPart, { maxLength: 2 }) }),
  fc.record({ role: fc.constant("user" as const), at, content: fc.array(part, { maxLength: 3 }) }),
  fc.record({ role: fc.constant("assistant" as const), at, content: answer }),
  fc.record({
    role: fc.constant("tool" as const),
    at,
    toolCallId: identifier,
    content: fc.array(part, { maxLength: 2 }),
    isError: fc.boolean(),
    cache,
  }),
);

const tool: fc.Arbitrary<ChatTool> = fc.record({
  at,
  name: identifier,
  description: text,
  parameters: schema,
  strict: nullable(fc.boolean()),
  cache,
});

const responseFormat: fc.Arbitrary<ChatResponseFormat> = fc.oneof(
  fc.constantFrom<ChatResponseFormat>({ kind: "text" }, { kind: "json" }),
  fc.record({
    kind: fc.constant("json_schema" as const),
    name: nullable(identifier),
    description: nullable(text),
    schema,
    strict: nullable(fc.boolean()),
  }),
);

const reasoning: fc.Arbitrary<ChatReasoning> = fc.oneof(
  fc.constant<ChatReasoning>({ kind: "off" }),
  fc.record({
    kind: fc.constant("effort" as const),
    effort: nullable(
      fc.constantFrom("minimal" as const, "low" as const, "medium" as const, "high" as const, "xhigh" as const, "max" as const),
    ),
  }),
  fc.record({ kind: fc.constant("budget" as const), tokens: fc.integer({ min: 1024, max: 32_000 }) }),
);
