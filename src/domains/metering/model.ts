import type { Brand } from "../../kernel/brand.ts";
import type { Dialect, Ending, ResponseBody } from "../../kernel/frame.ts";
import type { AttemptId, CallId, DeploymentId, HopId, KeyId, ModelId, PriceVersion, ProjectId, TenantId } from "../../kernel/ids.ts";
import type { PicoDollars } from "../../kernel/money.ts";
import type { ModelRequest } from "../../kernel/request.ts";
import type { TokenBound, Usage } from "../../kernel/tokens.ts";

/** What the ledger must know of an attempt before an upstream sees a byte: the ADMIT record's content. */
export interface AttemptFacts {
  readonly attempt: AttemptId;
  readonly hop: HopId;
  readonly call: CallId;
  readonly tenant: TenantId;
  readonly project: ProjectId | null;
  readonly key: KeyId | null;
  readonly user: string | null;
  /** `unspecified` when the caller named none. */
  readonly feature: string;
  readonly trace: string | null;
  readonly kind: ModelRequest["kind"];
  readonly provider: string;
  readonly modelRequested: string;
  readonly model: ModelId;
  readonly upstreamModel: string;
  readonly deployment: DeploymentId;
  readonly region: string | null;
  readonly priceVersion: PriceVersion;
  readonly stream: boolean;
  readonly bound: TokenBound;
  /** ms since the epoch. */
  readonly startedAt: number;
  /** What the tenant pays of the price: 1,200,000 is ×1.2. */
  readonly markupMillionths: number;
}

/** Money reserved before dispatch. Its id is the attempt's. Minted only by this domain's `hold`. Resolves exactly once. */
export type Hold = Brand<
  {
    readonly facts: AttemptFacts;
    /** W: the most the attempt can be charged, pico-dollars. */
    readonly worstCase: PicoDollars;
    /** The most output tokens of one answer to ask the upstream for in place of the caller's maximum; null leaves that. */
    readonly outputBound: number | null;
  },
  "Hold"
>;

/** `failed`: no response came. `lost`: the process died first, and a later one settled from the journal. */
export const ATTEMPT_STATUSES = ["completed", "truncated", "aborted", "failed", "lost"] as const;
export type AttemptStatus = (typeof ATTEMPT_STATUSES)[number];

/** How an attempt was charged: the SETTLE record's content. */
export interface Settlement {
  readonly attempt: AttemptId;
  readonly status: AttemptStatus;
  readonly usage: Usage;
  readonly cost: PicoDollars;
  readonly charge: PicoDollars;
  /** Whether the usage was counted or bounded rather than reported by the provider, or a billed class had no price. */
  readonly estimated: boolean;
  readonly dispatchUnknown: boolean;
  readonly modelServed: string;
  readonly latencyMs: number;
  readonly firstTokenMs: number | null;
}

/**
 * A provider's response that cannot pass unmetered: what flows through it is marked in the journal ahead of the caller,
 * and its last frame waits until its SETTLE is durable. Minted only by this domain's `meter`.
 */
export type MeteredResponse = Brand<
  {
    readonly wire: Dialect | null;
    readonly body: ResponseBody;
    /** Settles when the response ended, however it ended; never rejects. */
    readonly settled: Promise<{ readonly settlement: Settlement; readonly ending: Ending }>;
  },
  "MeteredResponse"
>;
