import { createHook } from "node:async_hooks";
import { writeFileSync } from "node:fs";
import pg from "pg";

// Loaded into a server process before it (`NODE_OPTIONS=--import=…`): counts what it does, and writes the counts to the file
// that ATRIUM_TEST_COUNTS names at each SIGUSR2.

const counts: Record<string, number> = { SQL: 0 };
createHook({
  init(_id, type) {
    counts[type] = (counts[type] ?? 0) + 1;
  },
}).enable();

const query: (...given: unknown[]) => unknown = Reflect.get(pg.Client.prototype, "query");
Reflect.set(pg.Client.prototype, "query", function (this: pg.Client, ...given: unknown[]) {
  counts["SQL"] = (counts["SQL"] ?? 0) + 1;
  return Reflect.apply(query, this, given);
});

process.on("SIGUSR2", () => writeFileSync(process.env["ATRIUM_TEST_COUNTS"] as string, JSON.stringify(counts)));
