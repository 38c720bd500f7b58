import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { link } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { emptyDatabase, freshDatabase, withDatabases } from "../../../test/support/postgres.ts";
import { createClient } from "../database/connection.ts";
import { lockOutStarts, migrate, readMigrations } from "../database/migrate.ts";
import { backUp, BackupRefusal, type BackupRefusalCode, type Manifest, restore, verifyBackup } from "./index.ts";
import { Snapshot } from "./snapshot.ts";
import { BackupWriter } from "./writer.ts";

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

test("a name that is taken is refused before anything is read", async (t) => {
  const { options } = await freshDatabase(t, "embedded");
  const directory = temporaryDirectory(t);
  const to = join(directory, "b.tar");
  writeFileSync(to, "mine");
  const nowhere = { ...options, databaseUrl: "postgres://127.0.0.1:1/none", dataDirectory: directory, release: "0.0.0" };
  await assert.rejects(backUp({ ...nowhere, to }), refusal("file_exists"));
});

test("a backup takes its name whole, with links or on a disk without, and never the name of a file that came meanwhile", async (t) => {
  const manifest = { ...(await emptyManifest(t)), tables: [] };
  const noLinks = async () => {
    throw Object.assign(new Error("operation not permitted"), { code: "EPERM" });
  };
  for (const makeLink of [link, noLinks]) {
    const directory = temporaryDirectory(t);
    const path = join(directory, "b.tar");
    const [writer, late] = [
      await BackupWriter.create(path, new Date(), makeLink),
      await BackupWriter.create(`${path}2`, new Date(), makeLink),
    ];
    await writer.finish(manifest);
    assert.deepEqual(await verifyBackup(path), manifest);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    writeFileSync(`${path}2`, "mine");
    await assert.rejects(late.finish(manifest), refusal("file_exists"));
    await late.discard();
    assert.deepEqual(readdirSync(directory).sort(), ["b.tar", "b.tar2"]);
    assert.equal(readFileSync(`${path}2`, "utf8"), "mine");
  }
});

test("a journal that cannot be told which it is stops a backup, rather than be left out of it", async (t) => {
  const { options } = await freshDatabase(t, "embedded");
  const directory = temporaryDirectory(t);
  const journal = join(directory, "journal");
  mkdirSync(journal);
  const to = join(directory, "b.tar");
  writeFileSync(join(journal, "id"), "");
  assert.equal(
    (await backUp({ ...options, dataDirectory: directory, to: join(directory, "new.tar"), release: "0.0.0" })).manifest.journal,
    null,
  );
  writeFileSync(join(journal, "0000000001.journal"), "records");
  await assert.rejects(backUp({ ...options, dataDirectory: directory, to, release: "0.0.0" }), refusal("journal_unreadable"));
  rmSync(join(journal, "id"));
  await assert.rejects(backUp({ ...options, dataDirectory: directory, to, release: "0.0.0" }), refusal("journal_unreadable"));
  mkdirSync(join(journal, "id"));
  await assert.rejects(backUp({ ...options, dataDirectory: directory, to, release: "0.0.0" }), { code: "EISDIR" });
  assert.deepEqual(readdirSync(directory).sort(), ["journal", "new.tar"]);
});

test("a journal that the database has had nothing from is told, because it may be another installation's", async (t) => {
  const { options, asSuperuser } = await freshDatabase(t, "embedded");
  const directory = temporaryDirectory(t);
  const id = "01900000-0000-7000-8000-0000000000aa";
  mkdirSync(join(directory, "journal"));
  writeFileSync(join(directory, "journal", "id"), id);
  const strange = async (name: string) =>
    (await backUp({ ...options, dataDirectory: directory, to: join(directory, name), release: "0.0.0" })).strangeJournal;
  assert.equal(await strange("empty.tar"), false, "nothing is in it");
  writeFileSync(join(directory, "journal", "0000000001.journal"), "records");
  assert.equal(await strange("strange.tar"), true);
  await asSuperuser((client) => client.query("INSERT INTO journals VALUES ($1, 0, now())", [id]));
  assert.equal(await strange("known.tar"), false);
});

test("a server that starts on the database a moment before a restore is not restored over, and the restore says so", async (t) => {
  const source = await freshDatabase(t, "embedded");
  const directory = temporaryDirectory(t);
  const from = join(directory, "b.tar");
  await backUp({ ...source.options, dataDirectory: directory, to: from, release: "0.0.0" });
  const target = await emptyDatabase(t, "embedded");
  const starting = new MigrationAtWork(target.url);
  await starting.begin();
  const restored = restore({ ...target.options, dataDirectory: directory, from }).catch((error: unknown) => error);
  await starting.isWaitedFor();
  await starting.finish("CREATE TABLE tenants ()");
  const error = await restored;
  assert.ok(error instanceof BackupRefusal && error.code === "target_not_empty", String(error));
  assert.deepEqual(readdirSync(directory), ["b.tar"]);
});

/** A process that migrates, for as long as the test wants. */
class MigrationAtWork {
  readonly #client: pg.Client;

  constructor(url: string) {
    this.#client = createClient(url, "test");
  }

  async begin(): Promise<void> {
    await this.#client.connect();
    await this.#client.query("BEGIN");
    await lockOutStarts(this.#client);
  }

  async isWaitedFor(): Promise<void> {
    for (;;) {
      const { rowCount } = await this.#client.query("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
      if (rowCount === 1) return;
      await sleep(10);
    }
  }

  async finish(sql: string): Promise<void> {
    await this.#client.query(`${sql}; COMMIT`);
    await this.#client.end();
  }
}

async function emptyManifest(t: TestContext): Promise<Manifest> {
  const { options } = await freshDatabase(t, "embedded");
  const directory = temporaryDirectory(t);
  return (await backUp({ ...options, dataDirectory: directory, to: join(directory, "b.tar"), release: "0.0.0" })).manifest;
}

function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "atrium-beside-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function refusal(code: BackupRefusalCode): (error: unknown) => boolean {
  return (error) => error instanceof BackupRefusal && error.code === code;
}
