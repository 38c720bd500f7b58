import { parseArgs } from "node:util";
import { systemClock as clock } from "../../kernel/clock.ts";
import { migrateDatabase, readSchemaStatus } from "../../storage/database/index.ts";
import { existingMasterKey, requireInstallation, runCommand } from "./command.ts";

// `npm run migrate`: brings the schema to this release, as each start does. `npm run migrate -- --check`: changes nothing, and
// exits 0 when there is nothing to do, 1 when migrations wait or this release cannot run on the database.

await runCommand(async ({ config, database }) => {
  const { check } = parseArgs({ options: { check: { type: "boolean", default: false } } }).values;
  requireInstallation(config);
  const options = { ...database, masterKey: existingMasterKey(config), clock };
  const { installation, applied, pending } = await readSchemaStatus(options);
  if (!check) await migrateDatabase(options);
  const names = pending.map(({ name }) => `  ${name}\n`).join("");
  const state = installation === null ? "The database is empty" : `The database has schema ${applied.at(-1)?.name}`;
  if (pending.length === 0) process.stdout.write(`${state}, which is this release's.\n`);
  else if (check) process.stdout.write(`${state}. Pending, until \`npm run migrate\` or the next start:\n${names}`);
  else process.stdout.write(`Migrated:\n${names}`);
  return check && pending.length > 0 ? 1 : 0;
});
