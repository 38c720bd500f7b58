import type { JsonObject } from "./request.ts";

/** A chat request in our own vocabulary: what a provider without the caller's wire works from. */
export interface ChatRequest {
  readonly messages: readonly ChatMessage[];
  readonly tools: readonly ChatTool[];
  readonly toolChoice: "auto" | "none" | "required" | { readonly name: string };
  readonly responseFormat:
    | { readonly kind: "text" }
    | { readonly kind: "json" }
    | { readonly kind: "json_schema"; readonly schema: JsonObject };
  /** The caller's own maximum, tokens; null where it set none. */
  readonly maxOutputTokens: number | null;
  readonly temperature: number | null;
  readonly topP: number | null;
  readonly seed: number | null;
  readonly stop: readonly string[];
  /** How many choices, at least 1. */
  readonly choices: number;
}

export type ChatMessage =
  | { readonly role: "system" | "user"; readonly text: string }
  | { readonly role: "assistant"; readonly text: string; readonly toolCalls: readonly ChatToolCall[] }
  | { readonly role: "tool"; readonly toolCallId: string; readonly text: string };

export interface ChatTool {
  readonly name: string;
  readonly description: string;
  readonly parameters: JsonObject;
}

export interface ChatToolCall {
  readonly id: string;
  readonly name: string;
  /** JSON text, as the model wrote it. */
  readonly arguments: string;
}
