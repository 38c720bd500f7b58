import { sql } from "kysely";
import { z } from "zod";
import { BOUNDS } from "../../kernel/bounds.ts";
import { isUuid, type Uuid } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import type { Answer } from "../../kernel/route.ts";
import type { TenantTransaction } from "../database/index.ts";
import type { TenantKeyring } from "../secrets/index.ts";

/** What every configuration resource shares: how it is addressed, upserted, versioned and listed. */

/** How a path names a resource: by its id, or by the name that is unique in its parent. */
export type Address<Id extends Uuid> =
  | { readonly kind: "id"; readonly id: Id }
  | { readonly kind: "name"; readonly name: string; readonly index: Buffer };

/** `keyring` is that of the tenant whose rows the names are unique among. */
export function addressOf<Id extends Uuid>(keyring: TenantKeyring, table: string, text: string): Address<Id> {
  if (isUuid(text)) return { kind: "id", id: text as Uuid as Id };
  return { kind: "name", name: text, index: keyring.blindIndex(`${table}.name`, text) };
}

/** The name a new resource gets. An id that nothing has is refused: `{…}` in a path is never ambiguous. Throws Problem. */
function newName<Id extends Uuid>(
  address: Address<Id>,
  param: string,
  pattern: RegExp = NAME,
): { readonly name: string; readonly index: Buffer } {
  if (address.kind === "id" || isUuid(address.name.toLowerCase())) {
    throw new Problem("invalid_request", {
      param,
      message: `'${param}' looks like an id, and nothing has this id. Choose a name that does not.`,
    });
  }
  if (address.name.length > BOUNDS.nameLength || !pattern.test(address.name)) {
    throw new Problem("invalid_request", {
      param,
      message: `'${param}' must be 1 to ${BOUNDS.nameLength} characters: ${describe(pattern)}`,
    });
  }
  return address;
}

function describe(pattern: RegExp): string {
  return `${pattern === MODEL_NAME ? "letters, digits and . _ : @ / + -" : "letters, digits and . _ -"}, beginning with a letter or digit.`;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
/** Callers write model names as vendors do: `meta-llama/Llama-3.1-8B`, `qwen2:0.5b`. */
export const MODEL_NAME = /^[A-Za-z0-9][A-Za-z0-9._:@/+-]*$/;

/**
 * Changes the resource at the address, or makes it: once, however many ask for a new name at the same time. `make` gets the
 * name and its blind index. Throws Problem revision_mismatch where `If-Match` names another revision (none exists: 0).
 */
export async function upsert<Id extends Uuid, Row extends { readonly revision: number }, Result>(
  tx: TenantTransaction,
  address: Address<Id>,
  ifMatch: number | null,
  resource: {
    readonly what: string;
    readonly pattern?: RegExp;
    readonly find: () => Promise<Row | undefined>;
    readonly change: (row: Row) => Promise<Result>;
    readonly make: (name: string, index: Buffer) => Promise<Result>;
  },
): Promise<Result> {
  const change = (row: Row): Promise<Result> => {
    requireRevision(ifMatch, row.revision);
    return resource.change(row);
  };
  const row = await resource.find();
  if (row !== undefined) return change(row);
  const { name, index } = newName(address, resource.what, resource.pattern);
  await lockName(tx, index);
  const sooner = await resource.find();
  if (sooner !== undefined) return change(sooner);
  requireRevision(ifMatch, 0);
  return resource.make(name, index);
}

/** Until the commit, no other transaction creates a resource of this name: two upserts of a new name make one row. */
async function lockName(tx: TenantTransaction, index: Buffer): Promise<void> {
  const key = index.readBigInt64BE(0).toString();
  await tx.selectNoFrom(sql`pg_advisory_xact_lock(${key}::bigint)`.as("locked")).execute();
}

/** Throws Problem revision_mismatch where `If-Match` names another revision; a resource that is not there has revision 0. */
export function requireRevision(ifMatch: number | null, revision: number): void {
  if (ifMatch !== null && ifMatch !== revision) throw new Problem("revision_mismatch");
}

/** An upsert's field: omitted keeps. */
export function kept<T>(given: T | undefined, present: T): T {
  return given === undefined ? present : given;
}

export function notFound(): Problem {
  return new Problem("not_found");
}

/** The row, which must be there. Throws Problem not_found. */
export function existing<Row>(row: Row | undefined): Row {
  if (row === undefined) throw notFound();
  return row;
}

/** What a handler needs of a write for its answer. */
export interface Written<View> {
  readonly before: View | null;
  readonly after: View;
  readonly revision: number;
}

/** The answer of an upsert: 201 where it made the resource. */
export function writtenAnswer<View extends { readonly id: string }>(written: Written<View>): Answer<View> {
  const { before, after, revision } = written;
  return {
    status: before === null ? 201 : 200,
    body: after,
    revision,
    change: { target: after.id, before, after },
    configurationChanged: true,
  };
}

/** The answer of a DELETE; `before` is the resource as it was. */
export function archivedAnswer<View extends { readonly id: string }>(before: View): Answer<z.infer<typeof deletedView>> {
  return { body: { id: before.id, deleted: true }, change: { target: before.id, before, after: null }, configurationChanged: true };
}

/** A path parameter. Anything may be asked for; what does not exist is 404, not 400. */
export const pathPart = z.string().min(1).max(200);

export const displayName = z.string().max(200).nullable();

/** Unix seconds, as everywhere in the API. */
export const unixSeconds = z.number().int().nonnegative();

export function toUnixSeconds(date: Date): number {
  return Math.floor(date.getTime() / 1000);
}

export const NO_QUERY = z.strictObject({});

export const listQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(100).default(20),
  after: z.string().min(1).max(200).optional(),
});
export type ListQuery = z.infer<typeof listQuery>;

export function pageOf<Item extends z.ZodType>(item: Item) {
  return z.object({ data: z.array(item), has_more: z.boolean(), last_id: z.string().nullable() });
}

export interface Page<View> {
  data: View[];
  has_more: boolean;
  last_id: string | null;
}

/** `rows` holds up to one more than the limit, which tells whether more follow. */
export function toPage<Row extends { readonly id: string }, View>(
  rows: readonly Row[],
  limit: number,
  view: (row: Row) => View,
): Page<View> {
  const shown = rows.slice(0, limit);
  return { data: shown.map(view), has_more: rows.length > limit, last_id: shown.at(-1)?.id ?? null };
}

/** A cursor that is an id. Throws Problem. */
export function afterId(after: string | undefined): string | null {
  if (after === undefined) return null;
  if (!isUuid(after)) throw new Problem("invalid_request", { param: "after", message: "'after' must be the last_id of the page before." });
  return after;
}

export const deletedView = z.object({ id: z.string(), deleted: z.literal(true) });

/** The two columns of a sealed, unique name. */
export function sealName(
  keyring: TenantKeyring,
  table: string,
  row: string,
  name: string,
  index: Buffer,
): { name_sealed: Buffer; name_index: Buffer } {
  return { name_sealed: keyring.seal(name, { table, column: "name_sealed", row }), name_index: index };
}

export function openName(keyring: TenantKeyring, table: string, row: { readonly id: string; readonly name_sealed: Buffer }): string {
  return keyring.open(row.name_sealed, { table, column: "name_sealed", row: row.id }).toString();
}

export function sealDisplayName(keyring: TenantKeyring, table: string, row: string, text: string | null): Buffer | null {
  return text === null ? null : keyring.seal(text, { table, column: "display_name_sealed", row });
}

export function openDisplayName(
  keyring: TenantKeyring,
  table: string,
  row: { readonly id: string; readonly display_name_sealed: Buffer | null },
): string | null {
  if (row.display_name_sealed === null) return null;
  return keyring.open(row.display_name_sealed, { table, column: "display_name_sealed", row: row.id }).toString();
}
