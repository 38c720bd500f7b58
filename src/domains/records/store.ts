import { type Selectable, type SelectQueryBuilder, sql } from "kysely";
import { PLATFORM_TENANT, type Uuid } from "../../kernel/ids.ts";
import type { SystemTransaction, Tables, TenantTransaction } from "../../storage/database/index.ts";
import { GENESIS, type Head, type Link } from "./chain.ts";
import type { ChainHead } from "./checkpoint.ts";

export type StoredAuditRow = Selectable<Tables["audit_rows"]>;
type Placed = "tenant_id" | "sequence" | "hash" | "before_digest" | "after_digest";
export type NewAuditRow = Omit<StoredAuditRow, Placed>;

/** The database links each to the row before it, in this order, and locks the tenant's chain until the commit. */
export async function insertAuditRows(tx: TenantTransaction, rows: readonly NewAuditRow[]): Promise<void> {
  await tx
    .insertInto("audit_rows")
    .values(rows.map((row) => ({ ...row, before: jsonText(row.before), after: jsonText(row.after) })))
    .execute();
}

/** Which rows of a trail. Times in ms since the epoch: from `since` to before `until`. */
export interface AuditFilter {
  readonly actor?: readonly string[] | undefined;
  readonly action?: readonly ActionFilter[] | undefined;
  readonly target?: readonly string[] | undefined;
  readonly since?: number | undefined;
  readonly until?: number | undefined;
}

/** With `made`: only those that made something new, or only those that did not. */
export interface ActionFilter {
  readonly action: string;
  readonly made?: boolean;
}

/** Newest first; `after` is the last id of the page before. */
export function listAuditRows(tx: TenantTransaction, filter: AuditFilter, after: string | null, count: number): Promise<StoredAuditRow[]> {
  let rows = tx.selectFrom("audit_rows").selectAll();
  if (after !== null) {
    const place = tx
      .selectFrom("audit_rows as last")
      .select("last.sequence")
      .where("last.id", "=", after as Uuid);
    rows = rows.where("sequence", "<", place);
  }
  return filtered(rows, filter).orderBy("sequence", "desc").limit(count).execute();
}

type Rows = SelectQueryBuilder<Tables, "audit_rows", StoredAuditRow>;

function filtered(rows: Rows, { actor, action, target, since, until }: AuditFilter): Rows {
  let found = rows;
  if (actor !== undefined) found = found.where("actor", "in", actor);
  if (action !== undefined)
    found = found.where(({ eb, or, and }) =>
      or(
        action.map((each) => {
          const made = each.made === undefined ? [] : [eb("before", each.made ? "is" : "is not", null)];
          return and([eb("action", "=", each.action), ...made]);
        }),
      ),
    );
  if (target !== undefined) found = found.where("target", "in", target);
  if (since !== undefined) found = found.where("at", ">=", new Date(since));
  if (until !== undefined) found = found.where("at", "<", new Date(until));
  return found;
}

/** Every row up to it is committed: rows and head move together. */
export async function readHead(tx: TenantTransaction): Promise<Head> {
  const row = await tx.selectFrom("audit_chains").select(["sequence", "hash"]).executeTakeFirst();
  return row === undefined ? { sequence: 0, hash: GENESIS } : { sequence: row.sequence, hash: row.hash.toString("hex") };
}

/** As they are stored, in the order of the chain. */
export async function readLinks(tx: TenantTransaction, after: number, count: number): Promise<Link[]> {
  const rows = await tx
    .selectFrom("audit_rows")
    .select(["sequence", "id", "actor", "actor_kind", "action", "target", "before_digest", "after_digest"])
    .select(["request_id", "remote_address", "status", "count", "hash"])
    .select([
      sql<string | null>`${sql.ref("before")}::text`.as("before"),
      sql<string | null>`${sql.ref("after")}::text`.as("after"),
      sql<string>`to_char(${sql.ref("at")} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`.as("at"),
    ])
    .where("sequence", ">", after)
    .orderBy("sequence")
    .limit(count)
    .execute();
  return rows.map(({ before_digest, after_digest, hash, ...row }) => ({
    ...row,
    before_digest: before_digest?.toString("hex") ?? null,
    after_digest: after_digest?.toString("hex") ?? null,
    hash: hash.toString("hex"),
  }));
}

/** Changes whenever a row is added to any trail. */
export async function sumOfSequences(tx: SystemTransaction): Promise<bigint> {
  const { sum } = await tx
    .selectFrom("audit_chains")
    .select(({ fn }) => fn.sum<bigint | null>("sequence").as("sum"))
    .executeTakeFirstOrThrow();
  return sum ?? 0n;
}

export async function readHeads(tx: SystemTransaction): Promise<ChainHead[]> {
  const rows = await tx.selectFrom("audit_chains").selectAll().orderBy("tenant_id").execute();
  return rows.map((row) => ({ tenant: row.tenant_id, sequence: row.sequence, hash: row.hash.toString("hex") }));
}

/** The platform's, and of every tenant that has or had one: a chain that is gone is missed. */
export async function tenantsWithTrails(tx: SystemTransaction): Promise<string[]> {
  const rows = await tx
    .selectFrom("audit_chains")
    .select("tenant_id as id")
    .union(tx.selectFrom("tenants").select("id"))
    .union(tx.selectFrom("tenant_keys").select("tenant_id as id"))
    .execute();
  return [...new Set([PLATFORM_TENANT, ...rows.map(({ id }) => id)])].sort();
}

function jsonText(value: unknown): string | null {
  return value === null ? null : JSON.stringify(value);
}
