import type { CredentialId, DeploymentId, ModelId, PriceVersion, TenantId } from "../../kernel/ids.ts";
import type { PicoDollars } from "../../kernel/money.ts";
import type { TokenClass } from "../../kernel/tokens.ts";

/** A provider's account. The secret is opened from its envelope only when the snapshot is built, and lives in memory only. */
export interface Credential {
  readonly id: CredentialId;
  readonly name: string;
  readonly provider: string;
  /** Includes `/v1`; null where the provider has a fixed one or none. */
  readonly baseUrl: string | null;
  readonly secret: string | null;
  /** Null: straight to the provider, trusting the system's authorities. */
  readonly transport: Transport | null;
}

/** How connections to a provider are made, where something other than the plain way is asked for. Its secrets live in memory only. */
export interface Transport {
  /** `http://[user:password@]host[:port]`; null for none. */
  readonly proxy: string | null;
  /** PEM certificates, trusted instead of the system's authorities; null for those. */
  readonly ca: string | null;
  /** PEM: what this side shows when asked for a certificate. */
  readonly clientCertificate: { readonly cert: string; readonly key: string } | null;
}

/** What one unit of each class costs, pico-dollars. A class that is absent has no price. */
export type Rates = Readonly<Partial<Record<TokenClass, PicoDollars>>>;

/** A price version. Immutable. */
export interface Price {
  readonly version: PriceVersion;
  readonly source: "stated" | "free" | "dataset";
  readonly rates: Rates;
  /** Long-context rates, shortest first. Absent: `rates` hold for every length. */
  readonly tiers?: readonly PriceTier[];
}

/** Every token of an attempt whose input is more than `above` tokens, whatever their classes, costs these. */
export interface PriceTier {
  readonly above: number;
  readonly rates: Rates;
}

/** A price and when it begins to be in force, ms since the epoch; it ends where the next one begins. */
export interface PricePeriod {
  readonly from: number;
  readonly price: Price;
}

/** Where a price of the dataset comes from. */
export interface DatasetOrigin {
  /** Of the dataset: its package's. */
  readonly version: string;
  /** When that version was published, YYYY-MM-DD. */
  readonly published: string;
  /** The dataset's names. */
  readonly provider: string;
  readonly model: string;
  /** Since when the provider asks this price, YYYY-MM-DD, where the dataset says it. */
  readonly since: string | null;
  /** Whether the provider's price depends on the hour: this is then the dearest of the day. */
  readonly dearest_of_day: boolean;
}

/** One concrete endpoint that serves a model. */
export interface Deployment {
  readonly id: DeploymentId;
  readonly name: string;
  readonly model: Model;
  readonly provider: string;
  readonly credential: Credential | null;
  readonly upstreamModel: string;
  readonly region: string | null;
  /** In force since `from`, earliest first, then those to come; never empty. The one to charge: `priceAt`. */
  readonly prices: readonly PricePeriod[];
  readonly options: DeploymentOptions;
}

/** Stored as `deployments.options`; every field has the default that capacity.md gives. */
export interface DeploymentOptions {
  readonly connectTimeoutMs: number;
  /** From dispatch to the first frame (or the whole response), ms. */
  readonly firstTokenTimeoutMs: number;
  /** Between two chunks of a stream, ms. */
  readonly idleTimeoutMs: number;
  readonly totalTimeoutMs: number;
  /** A field that no table of the dialect names: forwarded and recorded, or refused. Null leaves it to the provider (vendors forward, engines refuse). */
  readonly unknownFields: "forward" | "refuse" | null;
  /** What the provider's own options schema accepted (`simulated`: delays and faults; `local`: context size, threads …). */
  readonly provider: Readonly<Record<string, unknown>>;
}

export interface Model {
  readonly id: ModelId;
  /** The tenant that owns the row; PLATFORM_TENANT for the platform's. */
  readonly owner: TenantId;
  readonly name: string;
  readonly visibility: "granted" | "all";
  readonly capabilities: readonly string[];
  /** Tokens; unset counts as BOUNDS.contextWindowTokens. */
  readonly contextWindow: number;
  /** Tokens; null where the catalog does not state it. */
  readonly maxOutputTokens: number | null;
  readonly createdAt: number;
  /** In priority order; never mutated after the snapshot is built. */
  readonly deployments: readonly Deployment[];
}

/** The catalog domain's part of one tenant's snapshot: the rows it owns, and what it was granted. */
export interface CatalogPart {
  readonly models: ReadonlyMap<string, Model>;
  /** Platform models granted to this tenant. */
  readonly grants: ReadonlySet<ModelId>;
}
