import type pg from "pg";
import { readMonths } from "../database/partitions.ts";

/** A table as a backup copies it. */
export interface BackupTable {
  readonly name: string;
  /** Those that are stored: what is generated is generated again. */
  readonly columns: readonly string[];
  /** Who sees all its rows; `tenant` sees one tenant's at a time. */
  readonly reader: "owner" | "system" | "tenant";
  /** Months with a partition of their own; none where it is not partitioned. */
  readonly months: readonly string[];
}

/** The tables of the schema, each after those that it refers to. `system` is the role atrium_system. */
export async function readTables(client: pg.Client, system: string): Promise<BackupTable[]> {
  const { rows } = await client.query<{ name: string; columns: string[]; reader: BackupTable["reader"]; refers_to: string[] }>(TABLES, [
    system,
  ]);
  const months = await readMonths(client);
  return inReferenceOrder(rows.map(({ refers_to, ...table }) => ({ ...table, refersTo: refers_to, months: months.get(table.name) ?? [] })));
}

/**
 * Partitions are read and written through their parent. Row security is forced, so the owner sees only tables without it;
 * atrium_system sees all rows where a policy says so plainly.
 */
const TABLES = `
SELECT c.relname AS name,
  (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS columns,
  CASE WHEN NOT c.relrowsecurity THEN 'owner'
    WHEN has_table_privilege($1, c.oid, 'SELECT') AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polpermissive
      AND p.polcmd IN ('r', '*') AND $1::regrole::oid = ANY (p.polroles) AND pg_get_expr(p.polqual, p.polrelid) = 'true') THEN 'system'
    ELSE 'tenant' END AS reader,
  coalesce((SELECT array_agg(DISTINCT r.relname::text) FROM pg_constraint k JOIN pg_class r ON r.oid = k.confrelid
    WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.confrelid <> c.oid), '{}') AS refers_to
FROM pg_class c WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND pg_get_userbyid(c.relowner) = (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'installation'::regclass)
ORDER BY c.relname COLLATE "C"`;

function inReferenceOrder(tables: readonly (BackupTable & { readonly refersTo: readonly string[] })[]): BackupTable[] {
  const ordered = new Map<string, BackupTable>();
  const waiting = new Map(tables.map((table) => [table.name, table]));
  while (waiting.size > 0) {
    const ready = [...waiting.values()].filter((table) => table.refersTo.every((name) => !waiting.has(name)));
    if (ready.length === 0) throw new Error(`tables refer to each other in a circle: ${[...waiting.keys()].join(", ")}`);
    for (const { refersTo: _, ...table } of ready) {
      ordered.set(table.name, table);
      waiting.delete(table.name);
    }
  }
  return [...ordered.values()];
}
