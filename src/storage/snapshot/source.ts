import { sql } from "kysely";
import type { TenantId } from "../../kernel/ids.ts";
import type { SystemTransaction } from "../database/index.ts";
import type { TenantKeyring } from "../secrets/index.ts";

/** One domain's share of the configuration snapshot. */
export interface Source<Rows, Part> {
  /** The rows of the tenants named (at most `READ_CHUNK`), in a fixed number of queries; a tenant without any may be absent. */
  read(tx: SystemTransaction, tenants: readonly TenantId[]): Promise<ReadonlyMap<TenantId, Rows>>;
  /** Pure but for `present.onFault`. Throws where the rows do not make a part: the tenant then keeps what it had. */
  build(tenant: TenantId, rows: Rows | undefined, keyring: TenantKeyring, present: Present<Part>): Part;
}

/** What a part is built beside. */
export interface Present<Part> {
  /** The part in force; undefined where there is none yet. */
  readonly part: Part | undefined;
  /** Says which piece of the part could not be built, where the rest can do without it. */
  onFault(piece: string, error: unknown): void;
}

export type Sources = Readonly<Record<string, Source<unknown, unknown>>>;

/** What the snapshot holds of one tenant: a part from each source, and its keyring. */
export type TenantParts<S extends Sources> = {
  readonly [Name in keyof S]: S[Name] extends Source<infer _Rows, infer Part> ? Part : never;
} & { readonly keyring: TenantKeyring };

/** Rows by their tenant, keeping the order they came in. */
export function groupByTenant<Row extends { readonly tenant_id: TenantId }>(rows: readonly Row[]): Map<TenantId, Row[]> {
  const groups = new Map<TenantId, Row[]>();
  for (const row of rows) {
    const group = groups.get(row.tenant_id);
    if (group === undefined) groups.set(row.tenant_id, [row]);
    else group.push(row);
  }
  return groups;
}

/** The predicate of a set-based read: one array parameter, however many tenants. */
export function ofTenants(tenants: readonly TenantId[], column: "tenant_id" | "id" = "tenant_id") {
  return sql<boolean>`${sql.ref(column)} = any(${[...tenants]}::uuid[])`;
}
