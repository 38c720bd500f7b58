import type { Usage } from "./tokens.ts";

export type FinishReason = "stop" | "length" | "tool_calls" | "content_filter";

/**
 * What a model's answer consists of, in order: the one vocabulary that every dialect's bytes parse into and render from.
 * `choice` counts from 0 (more than one with `n` > 1); `index` counts a choice's tool calls from 0.
 */
export type ModelEvent =
  | { readonly type: "response-start"; readonly id: string; readonly model: string; readonly createdSeconds: number }
  | { readonly type: "text-delta"; readonly choice: number; readonly text: string }
  | { readonly type: "reasoning-delta"; readonly choice: number; readonly text: string }
  /** The provider's signature of the reasoning that came before it, whole; without it that reasoning cannot be sent back. */
  | { readonly type: "reasoning-signature"; readonly choice: number; readonly signature: string }
  /** Reasoning that the provider shows only encrypted, whole. */
  | { readonly type: "reasoning-hidden"; readonly choice: number; readonly data: string }
  | { readonly type: "refusal-delta"; readonly choice: number; readonly text: string }
  | { readonly type: "tool-call-start"; readonly choice: number; readonly index: number; readonly id: string; readonly name: string }
  | { readonly type: "tool-call-delta"; readonly choice: number; readonly index: number; readonly arguments: string }
  /** `stopSequence` is the caller's sequence that ended it, where the provider says which. */
  | { readonly type: "choice-end"; readonly choice: number; readonly reason: FinishReason; readonly stopSequence: string | null }
  /** What has been used so far; a later one replaces it. */
  | { readonly type: "usage"; readonly usage: Usage }
  /** The upstream said, inside a stream it had begun, that it failed. Terminal. */
  | { readonly type: "error"; readonly message: string }
  /** The upstream said that the response is whole (`data: [DONE]`). Terminal. */
  | { readonly type: "response-end" };
