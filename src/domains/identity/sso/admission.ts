import type { Clock } from "../../../kernel/clock.ts";
import type { MemberId, TenantId, Uuid } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";
import { type Database, DatabaseUnavailable, type TenantTransaction } from "../../../storage/database/index.ts";
import type { AuditRow } from "../../records/index.ts";
import type { Assertion } from "./decide.ts";
import type { ProviderRecord } from "./model.ts";

/** What is asserted of somebody, to whoever keeps the members. */
export interface SignInFacts extends Assertion {
  readonly issuer: string;
  /** ms since the epoch. */
  readonly assertedAt: number;
  /** The token of an invitation link. */
  readonly invitation: string | null;
}

export interface AdmissionNeeds {
  readonly database: Pick<Database, "forTenant">;
  readonly clock: Clock;
  readonly makeId: <Id extends Uuid>() => Id;
  /** Who this is among the tenant's members; null: nobody. */
  readonly signIn: (
    tx: TenantTransaction,
    facts: SignInFacts,
  ) => Promise<{
    readonly member: MemberId;
    readonly changed: boolean;
    readonly change: { readonly action: string; readonly before: unknown; readonly after: unknown } | null;
  } | null>;
  /** Of the snapshot. */
  readonly memberCount: (tenant: TenantId) => number;
  readonly writeAudit: (tx: TenantTransaction, row: AuditRow) => Promise<void>;
  readonly bumpConfig: (tx: TenantTransaction) => Promise<number>;
  /** Resolves when this process serves from a snapshot of at least this version. */
  readonly catchUp: (version: number) => Promise<void>;
}

/** From where somebody is admitted, for the audit trail. */
export interface AdmissionOrigin {
  readonly requestId: string | null;
  readonly remoteAddress: string | null;
}

/**
 * The member that a provider's assertion is about, made or changed as it says; null where the tenant has none for it and may have none.
 * In force here when it resolves. `alongside` runs in the same transaction. Rejects with Problem overloaded while the database is away.
 */
export type AdmitMember = (
  provider: ProviderRecord,
  assertion: Assertion,
  assertedAt: number,
  options?: {
    readonly invitation?: string | null;
    readonly origin?: AdmissionOrigin;
    readonly alongside?: (tx: TenantTransaction, member: MemberId) => Promise<void>;
  },
) => Promise<MemberId | null>;

export function createAdmitMember(needs: AdmissionNeeds): AdmitMember {
  return async (provider, assertion, assertedAt, { invitation = null, origin = NOWHERE, alongside } = {}) => {
    const done = await unlessAway(() =>
      needs.database.forTenant(provider.tenant, async (tx) => {
        const mayProvision = assertion.mayProvision && needs.memberCount(provider.tenant) < MAX_PROVISIONED;
        const signedIn = await needs.signIn(tx, { ...assertion, mayProvision, issuer: provider.issuer, assertedAt, invitation });
        if (signedIn === null) return null;
        const { member, changed, change } = signedIn;
        await alongside?.(tx, member);
        if (change !== null) await needs.writeAudit(tx, memberRow(needs, member, change, origin));
        return { member, version: changed ? await needs.bumpConfig(tx) : null };
      }),
    );
    if (done !== null && done.version !== null) await unlessAway(() => needs.catchUp(done.version as number));
    return done?.member ?? null;
  };
}

/** The row of somebody's own deed. */
export function memberRow(
  needs: Pick<AdmissionNeeds, "clock" | "makeId">,
  member: MemberId,
  { action, before, after }: { readonly action: string; readonly before: unknown; readonly after: unknown },
  origin: AdmissionOrigin,
): AuditRow {
  return {
    id: needs.makeId(),
    actor: member,
    actorKind: "user",
    action,
    target: member,
    before,
    after,
    ...origin,
    status: 200,
    at: needs.clock.now(),
  };
}

/** Throws Problem overloaded in place of the database's absence. */
export async function unlessAway<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof DatabaseUnavailable) throw new Problem("overloaded", { retryAfterSeconds: 1, cause });
    throw cause;
  }
}

/** All of a tenant's members are read anew with each that comes, so a provider that invents people would keep every process busy. */
const MAX_PROVISIONED = 10_000;
const NOWHERE: AdmissionOrigin = { requestId: null, remoteAddress: null };
