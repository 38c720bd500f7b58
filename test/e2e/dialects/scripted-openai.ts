import type OpenAI from "openai";
import { DONE, JSON_HEADERS, type Exchange, SSE_HEADERS, sse } from "../../../src/domains/providers/testing/scripted-upstream.ts";
import { type Answer, type AnswerUsage, pieces } from "./answers.ts";

// A scripted upstream of OpenAI's wire: shapes are those of openai/resources/chat/completions/completions.d.ts
// (ChatCompletion, ChatCompletionChunk) and of resources/completions.d.ts (CompletionUsage).

type Finish = OpenAI.ChatCompletion.Choice["finish_reason"];

/** Answers a request of `/v1/chat/completions`. */
export function answerAsOpenAI(exchange: Exchange, answer: Answer, isStream: boolean): void {
  exchange.head(200, { ...(isStream ? SSE_HEADERS : JSON_HEADERS), "x-request-id": "req_openai_1" });
  exchange.end(isStream ? streamOf(answer) : JSON.stringify(wholeOf(answer)));
}

/** An error as OpenAI's API words it (`ErrorObject`, shared.d.ts). */
export function failAsOpenAI(exchange: Exchange, status: number, headers: Record<string, string> = {}): void {
  exchange.head(status, { ...JSON_HEADERS, ...headers });
  const type = status === 400 ? "invalid_request_error" : "server_error";
  exchange.end(JSON.stringify({ error: { message: "upstream words", type, param: null, code: null } }));
}

const HEAD = { id: "chatcmpl-up", created: 1_700_000_000, model: "gpt-upstream" };

function wholeOf({ parts, end, usage }: Answer): OpenAI.ChatCompletion {
  const text = parts.flatMap((part) => (part.kind === "text" ? [part.text] : [])).join("");
  const calls = parts.flatMap((part) => (part.kind === "call" ? [part] : []));
  const isRefusal = end === "refusal";
  return {
    ...HEAD,
    object: "chat.completion",
    choices: [
      {
        index: 0,
        logprobs: null,
        finish_reason: finishOf(end),
        message: {
          role: "assistant",
          content: isRefusal || text === "" ? null : text,
          refusal: isRefusal ? text : null,
          ...(calls.length === 0
            ? {}
            : {
                tool_calls: calls.map(({ id, name, arguments: written }) => ({
                  id,
                  type: "function" as const,
                  function: { name, arguments: written },
                })),
              }),
          ...reasoningOf(parts),
        },
      },
    ],
    usage: usageOf(usage),
  };
}

function streamOf({ parts, end, usage }: Answer): string {
  const deltas: OpenAI.ChatCompletionChunk.Choice.Delta[] = [{ role: "assistant", content: "" }];
  for (const part of parts) {
    if (part.kind === "thinking") deltas.push(reasoningOf([part]) as OpenAI.ChatCompletionChunk.Choice.Delta);
    else if (part.kind === "text")
      deltas.push(...pieces(part.text).map((text) => (end === "refusal" ? { refusal: text } : { content: text })));
  }
  const chunk = (choices: OpenAI.ChatCompletionChunk.Choice[], more: object = {}): string =>
    sse({ ...HEAD, object: "chat.completion.chunk", choices, ...more });
  return [
    ...[...deltas, ...callDeltas(parts)].map((delta) => chunk([{ index: 0, delta, finish_reason: null }])),
    chunk([{ index: 0, delta: {}, finish_reason: finishOf(end) }]),
    chunk([], { usage: usageOf(usage) }),
    DONE,
  ].join("");
}

/** Parallel calls whose arguments interleave, as the dialect allows. */
function callDeltas(parts: Answer["parts"]): OpenAI.ChatCompletionChunk.Choice.Delta[] {
  const calls = parts.flatMap((part) => (part.kind === "call" ? [part] : []));
  const written = calls.map((call) => pieces(call.arguments));
  const longest = Math.max(0, ...written.map(({ length }) => length));
  const starts = calls.map(({ id, name }, index) => ({
    tool_calls: [{ index, id, type: "function" as const, function: { name, arguments: "" } }],
  }));
  const rest = Array.from({ length: longest }, (_, at) =>
    written.flatMap((texts, index) => (texts[at] === undefined ? [] : [{ tool_calls: [{ index, function: { arguments: texts[at] } }] }])),
  );
  return [...starts, ...rest.flat()];
}

/** OpenRouter's extension (openrouter.ai/docs, "Reasoning tokens"): text to be shown, details to be sent back. */
function reasoningOf(parts: Answer["parts"]): object {
  const thinking = parts.find((part) => part.kind === "thinking");
  if (thinking?.kind !== "thinking") return {};
  const { text, signature } = thinking;
  return { reasoning_content: text, reasoning_details: [{ type: "reasoning.text", text, signature, index: 0 }] };
}

function finishOf(end: Answer["end"]): Finish {
  if (typeof end === "object" || end === "refusal") return "stop";
  return end === "tools" ? "tool_calls" : end;
}

function usageOf({ input, cacheRead, cacheWrite5m, cacheWrite1h, output, reasoning }: AnswerUsage): OpenAI.CompletionUsage {
  const prompt = input + cacheRead + cacheWrite5m + cacheWrite1h;
  return {
    prompt_tokens: prompt,
    completion_tokens: output + reasoning,
    total_tokens: prompt + output + reasoning,
    prompt_tokens_details: { cached_tokens: cacheRead, cache_write_tokens: cacheWrite5m + cacheWrite1h },
    completion_tokens_details: { reasoning_tokens: reasoning },
  };
}
