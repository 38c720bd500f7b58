import { existsSync } from "node:fs";
import path from "node:path";
import { databaseSettings, readConfig } from "../../config.ts";
import { mintAdminKey, pepperOf } from "../../domains/identity/index.ts";
import { writeAudit } from "../../domains/records/index.ts";
import { systemClock as clock } from "../../kernel/clock.ts";
import { createIdMaker } from "../../kernel/ids.ts";
import { systemRandom as random } from "../../kernel/random.ts";
import { openBeside } from "../../storage/database/index.ts";
import { loadMasterKey } from "../../storage/secrets/index.ts";
import { createLog } from "../../telemetry/index.ts";

// `npm run admin-key`: mints a platform-admin key, for whoever holds the machine. The server may run or not; a running one
// knows the key at once.

const log = createLog("warn");
try {
  const config = readConfig(process.env);
  const { ATRIUM_DATA_DIR: dataDirectory, ATRIUM_MASTER_KEY: value } = config;
  if (config.DATABASE_URL === null && !existsSync(path.join(dataDirectory, "postgres")))
    throw new Error(`There is no Atrium in ${dataDirectory}: set ATRIUM_DATA_DIR to the data directory of the server.`);
  const masterKey = loadMasterKey({ value: value ?? undefined, dataDirectory, mayGenerate: false, random });
  const database = await openBeside({ ...databaseSettings(config), masterKey, clock, random, log });
  try {
    const { key } = await mintAdminKey(
      { database, masterKey, pepper: pepperOf(masterKey), clock, random, makeId: createIdMaker(clock, random), writeAudit },
      "command line",
    );
    process.stdout.write(`${key}\n`);
  } finally {
    await database.close();
  }
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
} finally {
  log.close();
}
