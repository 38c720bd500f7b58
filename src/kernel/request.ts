import type { ChatRequest } from "./chat.ts";
import type { Dialect } from "./frame.ts";

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json | undefined;
}

/** Who the cost of a call is for, as the caller tagged it. Null where it did not say. */
export interface Attribution {
  readonly feature: string | null;
  readonly user: string | null;
  /** The caller's own session id: only ever an input to an HMAC. */
  readonly session: string | null;
  readonly tags: Readonly<Record<string, string>>;
}

/** A caller's request to a model, parsed at the door: everything behind it trusts these fields. */
export interface ModelRequest {
  /** `count` asks how many tokens the prompt is, and for no answer. */
  readonly kind: "generate" | "count";
  /** The wire format of `body`. */
  readonly dialect: Dialect;
  /** The model as the caller named it. */
  readonly model: string;
  readonly stream: boolean;
  /** Whether the caller asked for usage in the stream; if not, a usage-only frame is not sent on. */
  readonly includeUsage: boolean;
  /** The bytes as they came: forwarded with splices when dialects match, so that nothing the caller wrote is re-serialised. */
  readonly body: Buffer;
  /** `body`, parsed once; no object in it names a key twice. */
  readonly fields: JsonObject;
  readonly attribution: Attribution;
  /** The request in our own vocabulary, for providers without this wire. Parsed on first use and remembered. */
  chat(): ChatRequest;
}
