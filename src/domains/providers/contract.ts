import type { ZodType } from "zod";
import type { Brand } from "../../kernel/brand.ts";
import type { AttemptId } from "../../kernel/ids.ts";
import type { Dialect, ResponseBody } from "../../kernel/frame.ts";
import type { ModelRequest } from "../../kernel/request.ts";
import type { RequestBound } from "../../kernel/tokens.ts";
import type { Deployment, Model } from "../catalog/index.ts";

/** One dispatch, as a provider sees it. Providers are the only code that speaks to upstreams. */
export interface Dispatch {
  readonly attempt: AttemptId;
  readonly request: ModelRequest;
  readonly deployment: Deployment;
  /** The most output tokens to ask for, when a hold bounds it; null adds nothing to what the caller asked. */
  readonly outputBound: number | null;
  /** HMAC of tenant secret and scope: the cache salt of engines that share prefix caches. */
  readonly cacheSalt: string;
  /** Aborted when the client leaves or the process drains: the upstream must be stopped within 100 ms, also before its first byte. */
  readonly signal: AbortSignal;
  /** Called at most once, when the request may have reached the upstream (the first byte of it was handed to a socket or child). */
  readonly onSent: () => void;
}

/** A dispatch whose request may have been rendered elsewhere, by the provider's own `render`; absent, the provider renders it. */
export interface DispatchOf<Rendered> extends Dispatch {
  readonly rendered?: Rendered;
}

/** What a rendering needs beside the request and the deployment; the fields are Dispatch's. */
export type RenderValues = Pick<Dispatch, "outputBound" | "cacheSalt">;

/** A rendering for an HTTP upstream. */
export interface HttpBody {
  readonly body: Buffer;
  /** Fields of the caller's body that no table names and that are forwarded. */
  readonly unknownFields: readonly string[];
}

/** What an upstream answered: its first frame, or its whole body, has come. */
export interface UpstreamResponse {
  /** The wire format of the body's bytes; null for a provider without a wire. */
  readonly wire: Dialect | null;
  /** The upstream's own request id, for the record. */
  readonly upstreamRequestId: string | null;
  readonly body: ResponseBody;
  /** Fields of the caller's body that no table names and that were forwarded, for the record. */
  readonly unknownFields: readonly string[];
}

/** An upstream's answer, accepted. Minted only by this domain's `dispatch`. */
export type ProviderResponse = Brand<UpstreamResponse, "ProviderResponse">;

/** Why a dispatch failed before its first frame. Says whether the same call may be tried elsewhere. */
export type DispatchFailure =
  /** No connection, or it broke before an answer began; whether the request was sent is what `onSent` said. */
  | { readonly kind: "connect" }
  | { readonly kind: "timeout"; readonly phase: "connect" | "first_token" | "total" }
  | {
      readonly kind: "status";
      readonly status: number;
      readonly retryAfterSeconds: number | null;
      /** The upstream's message, bounded, for the caller only where the fault is the caller's. */ readonly message: string | null;
      readonly param: string | null;
      readonly code: string | null;
    }
  /** Bytes that are no answer of this wire: wrong content type, not JSON, cut, oversized or compressed, broken HTTP. */
  | { readonly kind: "malformed" }
  /** Nothing was tried: every connection, slot or child is taken or gone. */
  | { readonly kind: "unavailable" }
  | { readonly kind: "aborted" };

/** Thrown (rejected) by a dispatch that has no response. */
export class DispatchError extends Error {
  readonly failure: DispatchFailure;
  constructor(failure: DispatchFailure, options?: { readonly cause?: unknown }) {
    super(`dispatch failed: ${failure.kind}`, options);
    this.name = "DispatchError";
    this.failure = failure;
  }
}

/**
 * A vendor or engine. One small file each, plus one line in the table. `bound`, `accept` and `render` are pure and see no
 * credential: for a large request they run on the thread where it was parsed (`large/`).
 */
export interface Provider<Rendered = unknown> {
  readonly id: string;
  readonly label: string;
  /** `engine`: runs open models and shares a prefix cache, so it gets our salt and refuses unknown fields. */
  readonly nature: "vendor" | "engine" | "inside";
  /** Base URL where the credential names none; null when one must be given (or none is needed). */
  readonly defaultBaseUrl: string | null;
  /** The name of the secret in the admin API (`api_key`); null for providers without one. */
  readonly secretField: string | null;
  /** Whether a deployment may leave its price out (`simulated`, `local`: free). */
  readonly freeByDefault: boolean;
  /** What `deployments.options` may say to this provider; absent for one that takes no options. */
  readonly options?: ZodType<Readonly<Record<string, unknown>>>;
  /** The most one dispatch of this request can use, tokens. Pure. */
  bound(request: ModelRequest, model: Model): RequestBound;
  /** Refuses what this provider cannot honour, by field name (a Problem), before anything is held. Pure. */
  accept(request: ModelRequest, deployment: Deployment): void;
  /** What is sent for the request: what structured clone can carry, with Buffers at its top level only. Pure. */
  render(request: ModelRequest, deployment: Deployment, values: RenderValues): Rendered;
  /** Resolves at the first frame (or whole body); rejects with DispatchError. */
  dispatch(dispatch: DispatchOf<Rendered>): Promise<ProviderResponse>;
  /** Ends what the provider keeps running (children, timers). Absent where it keeps nothing. */
  close?(): Promise<void>;
}
