/** Everything that is kept of a call beside its usage row: one flat line, metadata only. Null where the call did not get that far. */
export interface CallEvent {
  readonly call: string;
  readonly trace: string;
  readonly endpoint: string;
  readonly outcome: "answered" | "truncated" | "client_left" | "problem";
  /** How it ended as an HTTP status: 499 where the client left, the problem's where a stream broke off. */
  readonly status: number;
  readonly problem: string | null;
  /** What really happened, for the log of a failed call. */
  readonly cause: unknown;
  /** The id of the limit that refused it, and what that counts. */
  readonly limit: string | null;
  readonly limitDimension: string | null;
  readonly tenant: string | null;
  readonly project: string | null;
  readonly principal: string | null;
  readonly remoteAddress: string;
  readonly callerRequestId: string | null;
  readonly stream: boolean | null;
  readonly model: string | null;
  readonly modelServed: string | null;
  readonly provider: string | null;
  readonly deployment: string | null;
  readonly attempt: string | null;
  readonly upstreamRequestId: string | null;
  readonly unknownFields: readonly string[];
  readonly inputTokens: number | null;
  readonly outputTokens: number | null;
  /** Exact decimal strings. */
  readonly costUsd: string | null;
  readonly chargeUsd: string | null;
  readonly estimated: boolean | null;
  readonly firstTokenMs: number | null;
  /** To a tenth. */
  readonly durationMs: number;
}
