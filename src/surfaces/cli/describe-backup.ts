import type { Manifest } from "../../storage/backup/index.ts";

/** What a backup holds, in two lines. */
export function describeBackup(manifest: Manifest): string {
  const { tables, journal, migrations } = manifest;
  const rows = tables.reduce((sum, table) => sum + table.rows, 0);
  const segments = journal?.segments.length ?? 0;
  return `Installation ${manifest.installation} as of ${manifest.created_at}, by Atrium ${manifest.atrium}, schema ${migrations.at(-1)?.name}
${rows.toLocaleString("en")} rows of ${tables.length} tables; ${segments} journal ${segments === 1 ? "segment" : "segments"}\n`;
}
