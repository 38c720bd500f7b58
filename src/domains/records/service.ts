import { z } from "zod";
import type { TenantId } from "../../kernel/ids.ts";
import { type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { afterId, type Page, toPage, toUnixSeconds } from "../../storage/snapshot/index.ts";
import type { Allowed } from "../identity/index.ts";
import type { Checkpoint, CheckpointSigner } from "./checkpoint.ts";
import type { AuditRow, AuditView } from "./model.ts";
import { type AuditFilter, insertAuditRows, listAuditRows, readHead, type StoredAuditRow } from "./store.ts";

export type ReadAudit = Allowed<"audit:read"> | Allowed<"platform:audit:read">;

export interface AuditPage extends AuditFilter {
  readonly limit: number;
  /** The last id of the page before. */
  readonly after?: string | undefined;
}

export interface AuditVerbs {
  /**
   * In the action's transaction, after its own rows and before `bumpConfig`: the tenant's chain is locked from here to the
   * commit, and the configuration's version is always locked after it. A transaction writes to one trail.
   */
  write(tx: TenantTransaction, row: AuditRow): Promise<void>;
  /** Newest first. */
  list(tx: TenantTransaction, allowed: ReadAudit, page: AuditPage): Promise<Page<AuditView>>;
  /** The trail's head as it is now, signed: for whoever reads it to keep. */
  checkpoint(tx: TenantTransaction, allowed: ReadAudit): Promise<Checkpoint>;
}

/** As {@link AuditVerbs.write}; `ring` is that tenant's. */
export function writeAudit(tx: TenantTransaction, ring: TenantKeyring, row: AuditRow): Promise<void> {
  return insertAuditRows(tx, [
    {
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
      count: 1,
      at: new Date(row.at),
    },
  ]);
}

export function createAuditVerbs(keyring: (tenant: TenantId) => TenantKeyring, signer: CheckpointSigner): AuditVerbs {
  return {
    write: (tx, row) => writeAudit(tx, keyring(tenantOf(tx)), row),

    async list(tx, _allowed, { limit, after, ...filter }) {
      const ring = keyring(tenantOf(tx));
      const rows = await listAuditRows(tx, filter, afterId(after), limit + 1);
      return toPage(rows, limit, (row) => viewOf(ring, row));
    },

    async checkpoint(tx) {
      return signer.sign([{ tenant: tenantOf(tx), ...(await readHead(tx)) }]);
    },
  };
}

function viewOf(ring: TenantKeyring, row: StoredAuditRow): AuditView {
  return {
    id: row.id,
    sequence: row.sequence,
    actor: row.actor,
    actor_kind: row.actor_kind,
    action: row.action,
    target: row.target,
    before: open(ring, row.id, "before", row.before),
    after: open(ring, row.id, "after", row.after),
    request_id: row.request_id,
    remote_address: row.remote_address,
    status: row.status,
    count: row.count,
    at: toUnixSeconds(row.at),
    hash: row.hash.toString("hex"),
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
