import { z } from "zod";
import type { TenantId } from "../../kernel/ids.ts";
import { type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { afterId, type ListQuery, type Page, toPage, toUnixSeconds } from "../../storage/snapshot/index.ts";
import type { Allowed } from "../identity/index.ts";
import type { AuditRow, AuditView } from "./model.ts";
import { insertAuditRow, listAuditRows, type StoredAuditRow } from "./store.ts";

export interface AuditVerbs {
  /** In the action's transaction. */
  write(tx: TenantTransaction, row: AuditRow): Promise<void>;
  /** Newest first. */
  list(tx: TenantTransaction, allowed: Allowed<"audit:read"> | Allowed<"platform:audit:read">, page: ListQuery): Promise<Page<AuditView>>;
}

/** In the action's transaction; `ring` is that tenant's. */
export function writeAudit(tx: TenantTransaction, ring: TenantKeyring, row: AuditRow): Promise<void> {
  return insertAuditRow(tx, {
    id: row.id,
    actor: row.actor,
    actor_kind: row.actorKind,
    action: row.action,
    target: row.target,
    before: seal(ring, row.id, "before", row.before),
    after: seal(ring, row.id, "after", row.after),
    request_id: row.requestId,
    remote_address: row.remoteAddress,
    status: row.status,
    at: new Date(row.at),
  });
}

export function createAuditVerbs(keyring: (tenant: TenantId) => TenantKeyring): AuditVerbs {
  return {
    write: (tx, row) => writeAudit(tx, keyring(tenantOf(tx)), row),

    async list(tx, _allowed, page) {
      const ring = keyring(tenantOf(tx));
      const rows = await listAuditRows(tx, afterId(page.after), page.limit + 1);
      return toPage(rows, page.limit, (row) => viewOf(ring, row));
    },
  };
}

function viewOf(ring: TenantKeyring, row: StoredAuditRow): AuditView {
  return {
    id: row.id,
    actor: row.actor,
    actor_kind: row.actor_kind,
    action: row.action,
    target: row.target,
    before: open(ring, row.id, "before", row.before),
    after: open(ring, row.id, "after", row.after),
    request_id: row.request_id,
    remote_address: row.remote_address,
    status: row.status,
    at: toUnixSeconds(row.at),
  };
}

type Side = "before" | "after";

function seal(ring: TenantKeyring, row: string, column: Side, value: unknown): { sealed: string } | null {
  if (value === null || value === undefined) return null;
  return { sealed: ring.seal(JSON.stringify(value), { table: "audit_rows", column, row }).toString("base64") };
}

function open(ring: TenantKeyring, row: string, column: Side, value: unknown): unknown {
  if (value === null) return null;
  const { sealed } = sealedValue.parse(value);
  return JSON.parse(ring.open(Buffer.from(sealed, "base64"), { table: "audit_rows", column, row }).toString()) as unknown;
}

const sealedValue = z.strictObject({ sealed: z.string() });
