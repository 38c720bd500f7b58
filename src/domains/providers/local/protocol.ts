import type { ModelEvent } from "../../../kernel/events.ts";
import type { JsonObject } from "../../../kernel/request.ts";

/** What one inference process is started for: it serves one file with one set of options until it ends. */
export interface LoadOrder {
  /** Absolute path of the GGUF file. */
  readonly file: string;
  /** Tokens that one request and its answer may fill together; the child lowers it to what the model was trained for. */
  readonly contextSize: number;
  readonly threads: number;
  /** Requests computed at the same time. */
  readonly sequences: number;
}

/** A JSON schema reduced to what a grammar can enforce (`schema.ts`). */
export type GrammarSchema = JsonObject;

/** A message as chat templates take it: text, and an assistant's calls. */
export type GenerationMessage =
  | { readonly role: "system" | "user"; readonly text: string }
  | { readonly role: "assistant"; readonly text: string; readonly toolCalls: readonly GenerationCall[] }
  | { readonly role: "tool"; readonly toolCallId: string; readonly text: string };

export interface GenerationCall {
  readonly id: string;
  readonly name: string;
  /** JSON text, as the model wrote it. */
  readonly arguments: string;
}

/** A chat request as the child runs it: everything checked, every schema reduced. */
export interface Generation {
  readonly messages: readonly GenerationMessage[];
  readonly tools: readonly { readonly name: string; readonly description: string; readonly parameters: GrammarSchema }[];
  readonly toolChoice: "auto" | "none" | "required" | { readonly name: string };
  readonly parallelToolCalls: boolean;
  readonly format: { readonly kind: "text" } | { readonly kind: "json" } | { readonly kind: "json_schema"; readonly schema: GrammarSchema };
  /** Tokens; null leaves the rest of the context. */
  readonly maxOutputTokens: number | null;
  readonly temperature: number | null;
  readonly topP: number | null;
  readonly seed: number | null;
  readonly stop: readonly string[];
  /** Whether only the prompt's tokens are asked for: then `usage` is all that is reported. */
  readonly countOnly: boolean;
}

/** Parent to child, on standard input. The first is `load`; the end of the input ends the child. */
export type Order =
  | ({ readonly type: "load" } & LoadOrder)
  | { readonly type: "generate"; readonly id: number; readonly generation: Generation }
  | { readonly type: "abort"; readonly id: number };

/** Child to parent, on descriptor 3. After `generate` come any `events`, then exactly one of `done`, `refused`, `stopped`, `broken`. */
export type Report =
  | { readonly type: "ready"; readonly contextSize: number }
  /** Every second: the event loop turns. */
  | { readonly type: "beat" }
  /** The file or the plug-in cannot be used; the child ends. */
  | { readonly type: "unusable"; readonly reason: string }
  /** Empty while tokens are computed that only mean something together. */
  | { readonly type: "events"; readonly id: number; readonly events: readonly ModelEvent[] }
  | { readonly type: "done"; readonly id: number }
  /** The request is at fault; nothing was generated. */
  | {
      readonly type: "refused";
      readonly id: number;
      readonly code: "context_length_exceeded" | "invalid_request";
      readonly message: string;
    }
  /** Answers `abort`: no more computing is done for this request. */
  | { readonly type: "stopped"; readonly id: number }
  | { readonly type: "broken"; readonly id: number; readonly reason: string };
