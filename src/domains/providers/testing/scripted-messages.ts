import type Anthropic from "@anthropic-ai/sdk";

// Everything here is written from the official SDK's own types (resources/messages/messages.d.ts), not from our parser.

/** One event as Anthropic writes it. */
export function messageEvent(event: Anthropic.RawMessageStreamEvent | { readonly type: "ping" }): string {
  return `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}

export const MESSAGE_USAGE: Anthropic.Usage = {
  input_tokens: 9,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: 0,
  cache_creation: { ephemeral_1h_input_tokens: 0, ephemeral_5m_input_tokens: 0 },
  output_tokens: 1,
  output_tokens_details: null,
  server_tool_use: null,
  service_tier: "standard",
  inference_geo: null,
  speed: null,
};

export function messageOf(content: Anthropic.ContentBlock[], stopReason: Anthropic.StopReason | null): Anthropic.Message {
  return {
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "upstream-model",
    content,
    container: null,
    diagnostics: null,
    stop_reason: stopReason,
    stop_sequence: null,
    stop_details: null,
    usage: MESSAGE_USAGE,
  };
}

export const MESSAGE_START: Anthropic.RawMessageStartEvent = { type: "message_start", message: messageOf([], null) };
export const PING = { type: "ping" } as const;
export const MESSAGE_STOP: Anthropic.RawMessageStopEvent = { type: "message_stop" };

export function blockStart(index: number, block: Anthropic.RawContentBlockStartEvent["content_block"]): string {
  return messageEvent({ type: "content_block_start", index, content_block: block });
}

export function blockDelta(index: number, delta: Anthropic.RawContentBlockDelta): string {
  return messageEvent({ type: "content_block_delta", index, delta });
}

export function blockStop(index: number): string {
  return messageEvent({ type: "content_block_stop", index });
}

export function messageDelta(
  stopReason: Anthropic.StopReason,
  more: Partial<Anthropic.RawMessageDeltaEvent.Delta> = {},
  usage: Partial<Anthropic.MessageDeltaUsage> = {},
): string {
  return messageEvent({
    type: "message_delta",
    delta: { stop_reason: stopReason, stop_sequence: null, stop_details: null, container: null, ...more },
    usage: {
      input_tokens: 9,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: 0,
      output_tokens: 3,
      output_tokens_details: null,
      server_tool_use: null,
      ...usage,
    },
  });
}

export const TEXT_BLOCK: Anthropic.TextBlock = { type: "text", text: "", citations: null };
export const THINKING_BLOCK: Anthropic.ThinkingBlock = { type: "thinking", thinking: "", signature: "" };

export function toolBlock(id: string, name: string, input: unknown = {}): Anthropic.ToolUseBlock {
  return { type: "tool_use", id, name, input, caller: { type: "direct" } };
}

/** A complete stream of one text block that says the texts. */
export function messageStreamOf(texts: readonly string[], stopReason: Anthropic.StopReason = "end_turn"): string {
  return [
    messageEvent(MESSAGE_START),
    blockStart(0, TEXT_BLOCK),
    messageEvent(PING),
    ...texts.map((text) => blockDelta(0, { type: "text_delta", text })),
    blockStop(0),
    messageDelta(stopReason),
    messageEvent(MESSAGE_STOP),
  ].join("");
}
