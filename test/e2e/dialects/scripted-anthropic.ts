import type Anthropic from "@anthropic-ai/sdk";
import {
  blockStop,
  blockStart,
  messageEvent,
  PING,
  TEXT_BLOCK,
  THINKING_BLOCK,
} from "../../../src/domains/providers/testing/scripted-messages.ts";
import { JSON_HEADERS, type Exchange, SSE_HEADERS } from "../../../src/domains/providers/testing/scripted-upstream.ts";
import { type Answer, type AnswerPart, type AnswerUsage, pieces } from "./answers.ts";

// A scripted upstream of Anthropic's wire: shapes are those of @anthropic-ai/sdk/resources/messages/messages.d.ts
// (Message, RawMessageStreamEvent, Usage) and of resources/shared.d.ts (ErrorResponse).

/** Answers a request of `/v1/messages`. */
export function answerAsAnthropic(exchange: Exchange, answer: Answer, isStream: boolean): void {
  exchange.head(200, { ...(isStream ? SSE_HEADERS : JSON_HEADERS), "request-id": "req_anthropic_1" });
  exchange.end(isStream ? streamOf(answer) : wholeOf(answer));
}

/** An error as Anthropic's API words it. */
export function failAsAnthropic(exchange: Exchange, status: number, headers: Record<string, string> = {}): void {
  exchange.head(status, { ...JSON_HEADERS, ...headers });
  const type =
    status === 529 ? "overloaded_error" : status === 429 ? "rate_limit_error" : status === 400 ? "invalid_request_error" : "api_error";
  exchange.end(JSON.stringify({ type: "error", error: { type, message: "upstream words" }, request_id: "req_anthropic_1" }));
}

function messageOf(answer: Answer, content: Anthropic.ContentBlock[], isWhole: boolean): Anthropic.Message {
  return {
    id: "msg_up",
    type: "message",
    role: "assistant",
    model: "claude-upstream",
    content,
    container: null,
    diagnostics: null,
    ...(isWhole ? endOf(answer) : { stop_reason: null, stop_sequence: null, stop_details: null }),
    usage: usageOf(isWhole ? answer.usage : { ...answer.usage, output: 1, reasoning: 0 }),
  };
}

/** Inputs with the digits in which they were written: JSON.stringify would round them. */
function wholeOf(answer: Answer): string {
  const { parts, end } = answer;
  const calls: string[] = [];
  const content = parts.flatMap((part): Anthropic.ContentBlock[] => {
    if (part.kind === "thinking") return [{ ...THINKING_BLOCK, thinking: part.text, signature: part.signature }];
    if (part.kind === "text") return end === "refusal" ? [] : [{ ...TEXT_BLOCK, text: part.text }];
    calls.push(part.arguments);
    return [{ type: "tool_use", id: part.id, name: part.name, input: `@${calls.length - 1}`, caller: { type: "direct" } }];
  });
  return JSON.stringify(messageOf(answer, content, true)).replaceAll(/"@(\d)"/g, (_, index: string) => calls[Number(index)] ?? "");
}

function streamOf(answer: Answer): string {
  const told = answer.parts.filter((part) => answer.end !== "refusal" || part.kind !== "text");
  return [
    messageEvent({ type: "message_start", message: messageOf(answer, [], false) }),
    messageEvent(PING),
    ...told.map(blockOf),
    messageEvent({
      type: "message_delta",
      delta: { container: null, ...endOf(answer) },
      usage: deltaUsageOf(answer.usage),
    }),
    messageEvent({ type: "message_stop" }),
  ].join("");
}

function blockOf(part: AnswerPart, index: number): string {
  const delta = (said: Anthropic.RawContentBlockDelta): string => messageEvent({ type: "content_block_delta", index, delta: said });
  switch (part.kind) {
    case "text":
      return [
        blockStart(index, TEXT_BLOCK),
        ...pieces(part.text).map((text) => delta({ type: "text_delta", text })),
        blockStop(index),
      ].join("");
    case "thinking":
      return [
        blockStart(index, THINKING_BLOCK),
        ...pieces(part.text).map((thinking) =>
          delta({ type: "thinking_delta", thinking, estimated_tokens: null } as Anthropic.ThinkingDelta),
        ),
        delta({ type: "signature_delta", signature: part.signature }),
        blockStop(index),
      ].join("");
    case "call":
      return [
        blockStart(index, { type: "tool_use", id: part.id, name: part.name, input: {}, caller: { type: "direct" } }),
        ...pieces(part.arguments).map((text) => delta({ type: "input_json_delta", partial_json: text })),
        blockStop(index),
      ].join("");
  }
}

function endOf({ end, parts }: Answer): Pick<Anthropic.Message, "stop_reason" | "stop_sequence" | "stop_details"> {
  if (typeof end === "object") return { stop_reason: "stop_sequence", stop_sequence: end.stopSequence, stop_details: null };
  if (end === "refusal") {
    const explanation = parts.map((part) => (part.kind === "text" ? part.text : "")).join("");
    return {
      stop_reason: "refusal",
      stop_sequence: null,
      stop_details: { type: "refusal", category: null, explanation } as Anthropic.RefusalStopDetails,
    };
  }
  const reason = end === "stop" ? "end_turn" : end === "length" ? "max_tokens" : "tool_use";
  return { stop_reason: reason, stop_sequence: null, stop_details: null };
}

function usageOf({ input, cacheRead, cacheWrite5m, cacheWrite1h, output, reasoning }: AnswerUsage): Anthropic.Usage {
  return {
    ...deltaUsageOf({ input, cacheRead, cacheWrite5m, cacheWrite1h, output, reasoning }),
    input_tokens: input,
    cache_creation: { ephemeral_5m_input_tokens: cacheWrite5m, ephemeral_1h_input_tokens: cacheWrite1h },
    service_tier: "standard",
    inference_geo: null,
    speed: null,
  };
}

function deltaUsageOf({ input, cacheRead, cacheWrite5m, cacheWrite1h, output, reasoning }: AnswerUsage): Anthropic.MessageDeltaUsage {
  return {
    input_tokens: input,
    cache_read_input_tokens: cacheRead,
    cache_creation_input_tokens: cacheWrite5m + cacheWrite1h,
    output_tokens: output + reasoning,
    output_tokens_details: { thinking_tokens: reasoning },
    server_tool_use: null,
  };
}
