import type { Selectable } from "kysely";
import type { Uuid } from "../../kernel/ids.ts";
import type { Tables, TenantTransaction } from "../../storage/database/index.ts";

export type StoredAuditRow = Selectable<Tables["audit_rows"]>;

export async function insertAuditRow(tx: TenantTransaction, row: Omit<StoredAuditRow, "tenant_id">): Promise<void> {
  await tx
    .insertInto("audit_rows")
    .values({
      ...row,
      before: row.before === null ? null : JSON.stringify(row.before),
      after: row.after === null ? null : JSON.stringify(row.after),
    })
    .execute();
}

/** Newest first; `after` is the last id of the page before. */
export function listAuditRows(tx: TenantTransaction, after: string | null, count: number): Promise<StoredAuditRow[]> {
  const rows = tx.selectFrom("audit_rows").selectAll();
  return (after === null ? rows : rows.where("id", "<", after as Uuid)).orderBy("id", "desc").limit(count).execute();
}
