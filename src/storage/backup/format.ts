import { z } from "zod";
import { BackupRefusal } from "./refusal.ts";

/**
 * A backup is one tar file. Its content is streams (a table's rows as `COPY … TO` writes them, a journal segment), each cut
 * into parts of at most {@link PART_BYTES} that are gzipped one by one, so that neither end ever holds more than a part:
 *
 *     tables/usage_rows.copy/000001.gz …    zcat tables/usage_rows.copy/*.gz shows the rows
 *     journal/0000000001.journal/000001.gz …
 *     manifest.json
 *     manifest.sha256                       as sha256sum writes it
 *
 * The manifest is at the end because only then are counts and checksums known; a file that was cut short has none.
 */
export const FORMAT = 1;
export const PART_BYTES = 4 * 1024 * 1024;
/** What gzip can make of a part that does not compress, and more than any manifest has. */
export const MAX_ENTRY_BYTES = 2 * PART_BYTES;

export const MANIFEST = "manifest.json";
export const MANIFEST_DIGEST = "manifest.sha256";

const PART = /^(.+)\/(\d{6})\.gz$/;

export function partName(stream: string, ordinal: number): string {
  return `${stream}/${String(ordinal).padStart(6, "0")}.gz`;
}

/** The stream and the ordinal in a part's name; null for any other entry. */
export function parsePartName(name: string): { readonly stream: string; readonly ordinal: number } | null {
  const match = PART.exec(name);
  return match === null ? null : { stream: match[1] as string, ordinal: Number(match[2]) };
}

export function tableStream(table: string): string {
  return `tables/${table}.copy`;
}

export function journalStream(segment: string): string {
  return `journal/${segment}`;
}

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
/** A stream's length and SHA-256 before compression, and the number of its parts. */
const digest = { bytes: z.int().min(0), sha256, parts: z.int().min(0) };
const month = z.string().regex(/^\d{4}-(?:0[1-9]|1[0-2])$/);

const manifestSchema = z.object({
  format: z.literal(FORMAT),
  /** The release that wrote it. */
  atrium: z.string(),
  /** When the snapshot was taken, by the database's clock. */
  created_at: z.iso.datetime({ offset: true }),
  installation: z.uuid(),
  /** What the database remembers of its master key, which is not in the backup. */
  master_key_check: sha256,
  database: z.object({ version: z.string(), encoding: z.string() }),
  migrations: z.array(z.object({ version: z.int(), name: z.string(), sha256 })).min(1),
  /** In an order in which every reference finds its row. */
  tables: z.array(z.object({ name: z.string(), columns: z.array(z.string()), rows: z.int().min(0), ...digest, months: z.array(month) })),
  /** What PostgreSQL may not have had yet; null where the machine had no journal. */
  journal: z.object({ id: z.uuid(), segments: z.array(z.object({ name: z.string().regex(/^\d{10}\.journal$/), ...digest })) }).nullable(),
});

export type Manifest = Readonly<z.infer<typeof manifestSchema>>;
export type ManifestTable = Manifest["tables"][number];

export interface StreamDigest {
  readonly bytes: number;
  readonly sha256: string;
  readonly parts: number;
}

/** Every stream that the manifest lists, in order. */
export function streamsOf(manifest: Manifest): ReadonlyMap<string, StreamDigest> {
  return new Map([
    ...manifest.tables.map((table) => [tableStream(table.name), table] as const),
    ...(manifest.journal?.segments ?? []).map((segment) => [journalStream(segment.name), segment] as const),
  ]);
}

/** Throws `backup_of_newer_format` and `backup_damaged`. */
export function parseManifest(text: string): Manifest {
  const value = parseJson(text);
  const { format } = z.looseObject({ format: z.int() }).catch({ format: 0 }).parse(value);
  if (format > FORMAT) {
    throw new BackupRefusal(
      "backup_of_newer_format",
      `This backup has format ${format} and this Atrium reads up to ${FORMAT}: restore it with the release that made it, or a newer one.`,
    );
  }
  const parsed = manifestSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new BackupRefusal(
    "backup_damaged",
    `The backup's manifest does not say what it must: use another copy. ${z.prettifyError(parsed.error)}`,
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new BackupRefusal("backup_damaged", "The backup's manifest is not JSON: use another copy.", { cause });
  }
}

/** The first half of the check, in short groups: enough to tell keys apart, and it tells nothing about the key. */
export function keyFingerprint(check: string): string {
  return check.slice(0, 16).replace(/(.{4})(?=.)/g, "$1-");
}
