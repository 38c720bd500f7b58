import { createHash } from "node:crypto";
import { z } from "zod";

/** The hash before the first row of every chain. */
export const GENESIS = "00".repeat(32);

/** The newest row of a chain; of a chain without rows, 0 and GENESIS. */
export interface Head {
  readonly sequence: number;
  /** 64 hexadecimal digits. */
  readonly hash: string;
}

const hex = z.string().regex(/^[0-9a-f]{64}$/);

export const headSchema = z.strictObject({ sequence: z.number().int().nonnegative(), hash: hex });

/** A row of the trail as it is stored, sealed contents included: what its hash is over, and what an export holds. */
export const linkSchema = z.strictObject({
  sequence: z.number().int(),
  id: z.string(),
  actor: z.string(),
  actor_kind: z.string(),
  action: z.string(),
  target: z.string(),
  /** The stored text; null where there is none, or no more. */
  before: z.string().nullable(),
  before_digest: hex.nullable(),
  after: z.string().nullable(),
  after_digest: hex.nullable(),
  request_id: z.string().nullable(),
  remote_address: z.string().nullable(),
  status: z.number().int(),
  count: z.number().int(),
  /** With microseconds, as the database has it: `2026-11-22T08:00:00.123000Z`. */
  at: z.string(),
  hash: hex,
});
export type Link = z.infer<typeof linkSchema>;

/** What the row's hash must be, 64 hexadecimal digits. The database computes it by migration 0005; here it is checked. */
export function linkHash(previous: string, tenant: string, link: Link): string {
  return sha256(
    fields([
      "atrium audit row 1",
      Buffer.from(previous, "hex"),
      tenant,
      String(link.sequence),
      link.id,
      link.actor,
      link.actor_kind,
      link.action,
      link.target,
      bytesOf(link.before_digest),
      bytesOf(link.after_digest),
      link.request_id,
      link.remote_address,
      String(link.status),
      String(link.count),
      link.at,
    ]),
  );
}

export function sha256(bytes: string | Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Absent differs from empty, and the length stands first: no two lists of fields give the same bytes. */
export function fields(values: readonly (string | Buffer | null)[]): Buffer {
  return Buffer.concat(
    values.flatMap((value) => {
      if (value === null) return [ABSENT];
      const bytes = Buffer.from(value);
      const head = Buffer.alloc(5);
      head[0] = 1;
      head.writeUInt32BE(bytes.length, 1);
      return [head, bytes];
    }),
  );
}

function bytesOf(digest: string | null): Buffer | null {
  return digest === null ? null : Buffer.from(digest, "hex");
}

const ABSENT = Buffer.from([0]);
