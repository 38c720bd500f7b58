import { systemClock } from "../../../kernel/clock.ts";
import { systemRandom } from "../../../kernel/random.ts";
import { masterKeyFrom } from "../../secrets/index.ts";
import { bumpConfig, openDatabase } from "../index.ts";
import { PLATFORM_TENANT } from "../../../kernel/ids.ts";

/**
 * A process for the tests to kill: opens the database of the directory given, commits one row, prints the server's pid,
 * and closes on SIGTERM. With `exit` as second argument it ends without closing.
 */
const [dataDirectory, ending] = process.argv.slice(2);
if (dataDirectory === undefined) throw new Error("usage: parent.fixture.ts DIRECTORY [exit]");
let serverPid: unknown;
const log = {
  info: (fields: object) => {
    if ("pid" in fields) serverPid = fields.pid;
  },
  warn: () => {},
  error: () => {},
};
const database = await openDatabase({
  dataDirectory,
  masterKey: masterKeyFrom("a7".repeat(32)),
  clock: systemClock,
  random: systemRandom,
  log,
});
const version = await database.forTenant(PLATFORM_TENANT, bumpConfig);
// Ctrl-C reaches the whole process group; a server that drains does not stop at once.
process.on("SIGINT", () => {});
process.once("SIGTERM", async () => {
  await database.ping();
  await database.close();
  process.stdout.write("closed\n");
});
process.stdout.write(`${JSON.stringify({ serverPid, version })}\n`);
if (ending === "exit") process.exit(0);
