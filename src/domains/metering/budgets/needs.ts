import type { Clock } from "../../../kernel/clock.ts";
import type { KeyId, ProjectId, TenantId, Uuid } from "../../../kernel/ids.ts";
import type { SystemTransaction, TenantTransaction } from "../../../storage/database/index.ts";
import type { TenantKeyring } from "../../../storage/secrets/index.ts";
import type { Tags } from "../tags.ts";
import type { InFlight } from "./holds.ts";
import type { BudgetId, Unit } from "./model.ts";

/** What every fact about a budget says. Amounts in the unit as decimal strings, money in USD; times in Unix seconds. */
export interface BudgetFacts {
  readonly budget_id: string;
  readonly budget: string;
  /** The project, key, user or feature whose balance it is; null where it is the whole tenant's or platform's, or of calls that name none. */
  readonly scope: { readonly kind: string; readonly id: string | null };
  readonly unit: Unit;
  readonly window: string;
  readonly window_start: number;
  readonly window_end: number | null;
  readonly cap: string;
  readonly spent: string;
}

interface FactOf<Type extends string, Data> {
  readonly tenant: TenantId;
  readonly type: Type;
  /** One fact, one key; at most 200 characters. */
  readonly key: string;
  readonly data: Data;
  /** ms since the epoch. */
  readonly at: number;
}

export type BudgetEvent =
  | FactOf<"budget.threshold_reached", BudgetFacts & { readonly threshold: number }>
  | FactOf<"budget.exhausted", BudgetFacts>
  | FactOf<"budget.overage", BudgetFacts & { readonly overage: string }>;

/** Writes the fact, for whoever subscribed to it, in the transaction given. Resolves to whether it was new. */
export type WriteEvent = (tx: SystemTransaction, event: BudgetEvent) => Promise<boolean>;

/** What keeping balances asks of the rest of the house. */
export interface PostingNeeds {
  readonly clock: Clock;
  readonly writeEvent: WriteEvent;
  /** The tenant's keys; null once they are destroyed. Rejects when that cannot be told now. */
  readonly keyringOf: (tenant: TenantId) => TenantKeyring | null | Promise<TenantKeyring | null>;
}

/** What keeping balances lends to the verbs that show them. */
export type BudgetMeans = Pick<BudgetVerbsNeeds, "sealing" | "open" | "flush" | "inFlightOf">;

/** What the verbs of budgets and adjustments ask of the rest of the house. */
export interface BudgetVerbsNeeds {
  readonly clock: Clock;
  readonly makeId: <Id extends Uuid>() => Id;
  readonly sealing: Tags;
  /** Of a tenant that the snapshot holds. */
  readonly keyring: (tenant: TenantId) => TenantKeyring;
  /** IANA zone; the platform's is UTC. */
  readonly timeZoneOf: (tenant: TenantId) => string;
  /** The live project of this name or id, which lives on until the transaction ends. Throws not_found. */
  readonly projectOf: (tx: TenantTransaction, nameOrId: string) => Promise<ProjectId>;
  readonly projectName: (tenant: TenantId, id: ProjectId) => string | undefined;
  /** Whether the tenant has this live key; as the database has it now. */
  readonly hasKey: (tenant: TenantId, id: KeyId) => Promise<boolean>;
  /** The live tenant of this name or id. */
  readonly findTenant: (nameOrId: string) => TenantId | null | Promise<TenantId | null>;
  /** Makes the balances of the owners' new and changed budgets. */
  readonly open: (owners: readonly TenantId[]) => Promise<void>;
  /** Posts what has ended, within a moment. */
  readonly flush: () => Promise<void>;
  /** What calls in flight here use and hold of a balance, in the window that is in force at that moment, ms since the epoch. */
  readonly inFlightOf: (owner: TenantId, budget: BudgetId, subject: string, at: number) => InFlight;
}
