import type { TenantId, Uuid } from "../../kernel/ids.ts";
import type { SystemTransaction, TenantTransaction } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import type { EventId, NewEvent } from "./model.ts";
import { type EventRow, insertDeliveries, insertEvent, webhooksFor } from "./store.ts";

/**
 * Writes a fact, and its delivery to each webhook that asks for it, in the caller's transaction. Resolves to whether it was new:
 * where the tenant has a fact of this key already, or has no keys any more, nothing is written.
 */
export type WriteEvent = (tx: SystemTransaction | TenantTransaction, event: NewEvent) => Promise<boolean>;

export interface WriteEventNeeds {
  readonly makeId: <Id extends Uuid>() => Id;
  /** Of archived tenants too; null once they are destroyed. */
  readonly keyringOf: (tenant: TenantId) => TenantKeyring | Promise<TenantKeyring | null>;
}

export function createWriteEvent(needs: WriteEventNeeds): WriteEvent {
  return async (tx, event) => {
    const keyring = await needs.keyringOf(event.tenant);
    if (keyring === null) return false;
    const row = eventRow(keyring, needs.makeId<EventId>(), event);
    if (!(await insertEvent(tx, row))) return false;
    await insertDeliveries(tx, row, await webhooksFor(tx, event.tenant, event.type), row.created_at);
    return true;
  };
}

export function eventRow(keyring: TenantKeyring, id: EventId, { tenant, type, key, data, at }: NewEvent): EventRow {
  if (key.length === 0 || key.length > MAX_KEY_LENGTH) throw new Error(`a fact's key must have 1 to ${MAX_KEY_LENGTH} characters`);
  return {
    tenant_id: tenant,
    id,
    type,
    fact_key: key,
    data_sealed: keyring.seal(JSON.stringify(data), { table: "events", column: "data_sealed", row: id }),
    created_at: new Date(at),
  };
}

/** What a tenant is shown, and what a delivery carries. */
export function payloadOf(
  keyring: TenantKeyring,
  row: { readonly id: string; readonly type: string; readonly data_sealed: Buffer; readonly at: Date },
) {
  const data = keyring.open(row.data_sealed, { table: "events", column: "data_sealed", row: row.id }).toString();
  return { type: row.type, timestamp: row.at.toISOString(), data: JSON.parse(data) as unknown };
}

const MAX_KEY_LENGTH = 200;
