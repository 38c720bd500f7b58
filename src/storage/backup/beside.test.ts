import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { freshDatabase, withDatabases } from "../../../test/support/postgres.ts";
import { migrate, readMigrations } from "../database/migrate.ts";
import { backUp, BackupRefusal } from "./index.ts";
import { Snapshot } from "./snapshot.ts";

// What goes on beside a backup, and what it finds.

test("a migration that comes while a backup reads waits for its end, and no request waits behind it", async (t) => {
  await withDatabases(t, async (source) => {
    const { url, options } = source;
    const snapshot = await Snapshot.take({ ...options, ownerUrl: url, requestUrl: url });
    let migrated = false;
    const next = { version: 9999, name: "9999_next", sql: "ALTER TABLE prices ADD COLUMN colour text" };
    const migrating = migrate({ ...options, url, migrations: [...readMigrations(), next] }).then(() => (migrated = true));
    try {
      await sleep(300);
      await source.asSuperuser((client) => client.query("SET lock_timeout = 1000; SELECT count(*) FROM prices; DELETE FROM grants"));
      assert.equal(migrated, false);
      await migrate({ ...options, url });
    } finally {
      await snapshot.close();
      await migrating;
    }
    const { rows } = await source.asSuperuser((client) => client.query("SELECT count(colour)::int AS coloured FROM prices"));
    assert.deepEqual(rows, [{ coloured: 0 }]);
  });
});
