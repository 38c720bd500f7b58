import type { LimitFigures } from "../domains/capacity/index.ts";
import type { Origin, Principal } from "../domains/identity/index.ts";
import type { CallId, TenantId } from "../kernel/ids.ts";
import type { Problem } from "../kernel/problem.ts";
import type { ModelRequest } from "../kernel/request.ts";
import type { CheckedResponse } from "./check.ts";
import type { Dispatched, Hop } from "./evidence.ts";

/** What is known of a call before anything else is. */
export interface CallContext {
  /** Also the `x-request-id`. */
  readonly id: CallId;
  /** The endpoint, for records and metrics: `openai.chat.completions`. */
  readonly endpoint: string;
  /** ms since the epoch, and on the monotonic clock. */
  readonly startedAt: number;
  readonly startedMonotonic: number;
  /** W3C trace id, 32 hex digits: the caller's, or the call's own. */
  readonly trace: string;
  /** Which family of endpoints it is of, and the address it came from. */
  readonly origin: Origin;
  /** The caller's own request id, for the record only. */
  readonly callerRequestId: string | null;
  /** The hops the call has begun, each with the evidence it got to. */
  readonly hops: Hop[];
}

/** How the response reached the caller's socket. */
export type Delivery =
  | { readonly kind: "delivered" }
  | { readonly kind: "truncated"; readonly problem: Problem }
  | { readonly kind: "client_left" };

/** The port a surface implements, one per call: where the request comes from and where the answer goes. */
export interface Caller {
  readonly credential: string | null;
  /** Aborted when the client leaves, or when the platform stops the call. */
  readonly signal: AbortSignal;
  /** Why the platform stopped the call; null where it did not, and so where the client left. */
  readonly stopped: () => Problem | null;
  /** Takes whose call it is, once that is known: when that principal's right to it ends, the call is stopped. */
  belongsTo(principal: Principal): void;
  /** Reads and parses the body, within the bounds of api.md and of the tenant. @throws Problem */
  read(tenant: TenantId): Promise<ModelRequest>;
  /** Takes what says how much is left under the call's limits: the head of the answer tells it, whatever the answer is. */
  tellLimits(figures: () => LimitFigures): void;
  /** Writes head and body. Resolves when the last byte was handed to the socket or the client is gone; never rejects. */
  send(response: CheckedResponse, evidence: Dispatched): Promise<Delivery>;
  /** Answers with a problem, as status or, once the stream has begun, as the dialect's terminal error event. */
  refuse(problem: Problem): void;
}
