import { statSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import packageJson from "../../../package.json" with { type: "json" };
import { systemClock as clock } from "../../kernel/clock.ts";
import { type BackedUp, backUp, keyFingerprint } from "../../storage/backup/index.ts";
import { existingMasterKey, requireInstallation, runCommand, UsageError } from "./command.ts";
import { describeBackup } from "./describe-backup.ts";

// `npm run backup -- --to FILE|DIRECTORY`: the database as of one moment, and this machine's journal, in one file. The server
// may run or not.

await runCommand(async ({ config, database }) => {
  const { to } = parseArgs({ options: { to: { type: "string" } } }).values;
  if (to === undefined)
    throw new UsageError("Say where to: npm run backup -- --to FILE, or a directory, where the file gets a name with the time.");
  requireInstallation(config);
  const masterKey = existingMasterKey(config);
  const file = fileFor(to);
  const backup = await backUp({ ...database, masterKey, to: file, release: packageJson.version });
  process.stdout.write(
    `${file} (${(backup.bytes / 1e6).toFixed(1)} MB)\n${describeBackup(backup.manifest)}${warnings(backup, config.ATRIUM_DATA_DIR)}`,
  );
  return 0;
});

function fileFor(to: string): string {
  const target = path.resolve(to);
  const isDirectory = to.endsWith(path.sep) || statSync(target, { throwIfNoEntry: false })?.isDirectory() === true;
  const time = new Date(clock.now()).toISOString().replace(/\.\d+/, "").replaceAll(":", "");
  return isDirectory ? path.join(target, `atrium-${time}.tar`) : target;
}

function warnings({ manifest, strangeJournal }: BackedUp, dataDirectory: string): string {
  const key = `The master key (${keyFingerprint(manifest.master_key_check)}) is NOT in it, and without that key nothing sealed in it opens again:
keep ATRIUM_MASTER_KEY, or ${path.join(dataDirectory, "master.key")}, in another place than this file.\n`;
  if (strangeJournal)
    return `${key}The database has had nothing yet from the journal in ${dataDirectory}, which is in the backup: if that is another
installation's data directory, take the backup again with the right ATRIUM_DATA_DIR.\n`;
  if (manifest.journal !== null) return key;
  return `${key}There is no journal in ${dataDirectory}: what servers elsewhere have settled and not yet shipped to the database is not in it.\n`;
}
