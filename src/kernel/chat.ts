import type { JsonObject } from "./request.ts";

/**
 * A chat request in our own vocabulary: what every dialect's request parses into and is rendered from, and what a provider
 * without a wire works from. `at` is where the caller wrote a thing (`messages[0].content[1]`), so that what a provider cannot
 * honour is refused by the caller's own name for it.
 */
export interface ChatRequest {
  readonly messages: readonly ChatMessage[];
  readonly tools: readonly ChatTool[];
  readonly toolChoice: "auto" | "none" | "required" | { readonly name: string };
  /** Whether several tools may be called at once; null leaves it to the provider. */
  readonly parallelToolCalls: boolean | null;
  readonly responseFormat: ChatResponseFormat;
  /** Null leaves it to the provider. */
  readonly reasoning: ChatReasoning | null;
  /** The caller's own maximum, tokens; null where it set none. */
  readonly maxOutputTokens: number | null;
  readonly temperature: number | null;
  readonly topP: number | null;
  readonly topK: number | null;
  readonly frequencyPenalty: number | null;
  readonly presencePenalty: number | null;
  readonly seed: number | null;
  readonly stop: readonly string[];
  /** How many choices, at least 1. */
  readonly choices: number;
  /** The end user's identifier, as the caller gave it; it leaves only as an HMAC. */
  readonly user: string | null;
}

/** The settings of a request that are one field of the caller's body each: what a refusal looks its name up by. */
export type ChatSetting = Exclude<keyof ChatRequest, "messages" | "tools">;

export type ChatResponseFormat =
  | { readonly kind: "text" }
  | { readonly kind: "json" }
  | {
      readonly kind: "json_schema";
      /** Null in dialects that name no schemas. */
      readonly name: string | null;
      readonly description: string | null;
      readonly schema: JsonObject;
      /** Whether the answer must conform; null leaves it to the provider. */
      readonly strict: boolean | null;
    };

export type ChatReasoning =
  | { readonly kind: "off" }
  /** The model decides how much, guided by an effort where one is given. */
  | { readonly kind: "effort"; readonly effort: ChatEffort | null }
  /** At most so many tokens, part of the output. */
  | { readonly kind: "budget"; readonly tokens: number };

export type ChatEffort = "minimal" | "low" | "medium" | "high" | "xhigh" | "max";

export type ChatMessage =
  | { readonly role: "system"; readonly at: string; readonly content: readonly ChatText[] }
  | { readonly role: "user"; readonly at: string; readonly content: readonly ChatPart[] }
  /** In the order in which the model said it. */
  | { readonly role: "assistant"; readonly at: string; readonly content: readonly ChatAnswerPart[] }
  | {
      readonly role: "tool";
      readonly at: string;
      readonly toolCallId: string;
      readonly content: readonly ChatPart[];
      readonly isError: boolean;
      readonly cache: CacheBreakpoint | null;
    };

export type ChatPart = ChatText | ChatImage | ChatDocument;
export type ChatAnswerPart = ChatText | ChatRefusal | ChatReasoningPart | ChatHiddenReasoning | ChatToolCall;

export interface ChatText {
  readonly kind: "text";
  readonly at: string;
  readonly text: string;
  readonly cache: CacheBreakpoint | null;
}

export interface ChatImage {
  readonly kind: "image";
  readonly at: string;
  readonly source: MediaSource;
  /** Null leaves it to the provider. */
  readonly detail: "auto" | "low" | "high" | null;
  readonly cache: CacheBreakpoint | null;
}

export interface ChatDocument {
  readonly kind: "document";
  readonly at: string;
  readonly source: MediaSource;
  readonly name: string | null;
  readonly cache: CacheBreakpoint | null;
}

export type MediaSource =
  | { readonly kind: "url"; readonly url: string }
  | { readonly kind: "data"; readonly mediaType: string; readonly base64: string };

/** The end of a prompt prefix that the provider is asked to keep, and for how long at least; `default` leaves the time to it. */
export interface CacheBreakpoint {
  readonly ttl: "default" | "5m" | "30m" | "1h" | "12h";
}

export interface ChatRefusal {
  readonly kind: "refusal";
  readonly at: string;
  readonly text: string;
}

/** Reasoning that the model showed, with the provider's signature where it gave one: it may be sent back only unchanged. */
export interface ChatReasoningPart {
  readonly kind: "reasoning";
  readonly at: string;
  readonly text: string;
  readonly signature: string | null;
}

/** Reasoning that the provider shows only encrypted. */
export interface ChatHiddenReasoning {
  readonly kind: "hidden-reasoning";
  readonly at: string;
  readonly data: string;
}

export interface ChatToolCall {
  readonly kind: "tool-call";
  readonly at: string;
  readonly id: string;
  readonly name: string;
  /** JSON text, as the model wrote it. */
  readonly arguments: string;
  readonly cache: CacheBreakpoint | null;
}

export interface ChatTool {
  readonly at: string;
  readonly name: string;
  readonly description: string;
  readonly parameters: JsonObject;
  /** Whether arguments must conform to `parameters`; null leaves it to the provider. */
  readonly strict: boolean | null;
  readonly cache: CacheBreakpoint | null;
}

/** A message's text alone, its parts joined. */
export function textOf(content: readonly (ChatPart | ChatAnswerPart)[]): string {
  return content.map((part) => (part.kind === "text" || part.kind === "refusal" ? part.text : "")).join("");
}
