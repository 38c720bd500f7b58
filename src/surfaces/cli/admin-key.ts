import { mintAdminKey, pepperOf } from "../../domains/identity/index.ts";
import { writeAudit } from "../../domains/records/index.ts";
import { systemClock as clock } from "../../kernel/clock.ts";
import { createIdMaker } from "../../kernel/ids.ts";
import { openBeside } from "../../storage/database/index.ts";
import { existingMasterKey, requireInstallation, runCommand } from "./command.ts";

// `npm run admin-key`: mints a platform-admin key, for whoever holds the machine. The server may run or not; a running one
// knows the key at once.

await runCommand(async ({ config, random, database: settings }) => {
  requireInstallation(config);
  const masterKey = existingMasterKey(config);
  const database = await openBeside({ ...settings, masterKey, clock });
  try {
    const { key } = await mintAdminKey(
      { database, masterKey, pepper: pepperOf(masterKey), clock, random, makeId: createIdMaker(clock, random), writeAudit },
      "command line",
    );
    process.stdout.write(`${key}\n`);
  } finally {
    await database.close();
  }
  return 0;
});
