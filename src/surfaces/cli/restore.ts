import path from "node:path";
import { parseArgs } from "node:util";
import { systemClock as clock } from "../../kernel/clock.ts";
import { restore, verifyBackup } from "../../storage/backup/index.ts";
import { existingMasterKey, runCommand, UsageError } from "./command.ts";
import { describeBackup } from "./describe-backup.ts";

// `npm run restore -- --from FILE`: makes an empty database, and a data directory without a journal, what they were at the
// moment of the backup. `npm run restore -- --verify FILE`: reads and checks all of a backup, without a database.

await runCommand(async ({ config, database }) => {
  const { from, verify } = parseArgs({ options: { from: { type: "string" }, verify: { type: "string" } } }).values;
  if (verify !== undefined && from === undefined) {
    process.stdout.write(`${describeBackup(await verifyBackup(path.resolve(verify)))}Every checksum is right.\n`);
    return 0;
  }
  if (from === undefined || verify !== undefined)
    throw new UsageError("Say which: npm run restore -- --from FILE, or --verify FILE to check one without a database.");
  const masterKey = existingMasterKey(config);
  const { manifest, migrated } = await restore({ ...database, masterKey, clock, from: path.resolve(from) });
  const forward = migrated.length === 0 ? "" : `Then migrated: ${migrated.join(", ")}\n`;
  const journal = manifest.journal === null ? "" : "The next start ships what its journal holds beyond the database.\n";
  process.stdout.write(`Restored.\n${describeBackup(manifest)}${forward}${journal}`);
  return 0;
});
