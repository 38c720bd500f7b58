import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { extract, pack } from "tar-stream";
import { BACKENDS } from "../../../test/support/postgres-server.ts";
import { emptyDatabase, freshDatabase, type TestDatabase, withDatabases } from "../../../test/support/postgres.ts";
import { scaled } from "../../../test/support/scale.ts";
import { auditCatalog, describeCatalog } from "../database/catalog.ts";
import { openDatabase } from "../database/index.ts";
import { migrate, readMigrations } from "../database/migrate.ts";
import { DatabaseRefusal } from "../database/refusal.ts";
import { masterKeyFrom } from "../secrets/index.ts";
import { backUp, BackupRefusal, type BackupRefusalCode, type Manifest, restore, verifyBackup } from "./index.ts";
import { type Contents, contentsOf, fill } from "./testing/filling.ts";

test("a backup restored elsewhere has every row and the same ledger, schema and walls, from each server to each", async (t) => {
  await withDatabases(t, async (source, t) => {
    await source.asSuperuser((client) => fill(client, 3_000));
    const expected = await source.asSuperuser(contentsOf);
    const file = await backUpTo(t, source);
    await withDatabases(t, async ({ backend }, t) => {
      const target = await emptyDatabase(t, backend);
      const { manifest, migrated } = await restoreInto(t, target, file);
      assert.deepEqual(await target.asSuperuser(contentsOf), restored(expected));
      assert.equal(expected.money.usage, expected.money.debits);
      assert.equal(expected.money.wrong, 0);
      assert.deepEqual(migrated, []);
      assert.deepEqual(await target.asSuperuser(auditCatalog), []);
      assert.equal(await target.asSuperuser(describeCatalog), await source.asSuperuser(describeCatalog));
      assert.deepEqual(await partitionCounts(target), await partitionCounts(source));
      await (await target.open()).ping();
      t.diagnostic(
        `${manifest.tables.reduce((sum, table) => sum + table.rows, 0)} rows of ${manifest.tables.length} tables, Σ ${expected.money.usage} pd`,
      );
    });
  });
});

test("an owner that is below row security backs up and restores every row as well", async (t) => {
  await withDatabases(t, async ({ backend }, t) => {
    const [source, target] = [await ownedDatabase(t, backend), await ownedDatabase(t, backend)];
    await (await openDatabase({ ...source.options, databaseUrl: source.ownerUrl })).close();
    await source.asSuperuser((client) => fill(client, 500));
    const file = await backUpTo(t, source, { databaseUrl: source.ownerUrl });
    await restoreInto(t, target, file, { databaseUrl: target.ownerUrl });
    assert.deepEqual(await target.asSuperuser(contentsOf), restored(await source.asSuperuser(contentsOf)));
    assert.deepEqual(await target.asSuperuser(auditCatalog), []);
    const opened = await openDatabase({ ...target.options, databaseUrl: target.ownerUrl });
    await opened.close();
  });
});

test("what is restored is kept by no process: any server may grant holds under its budgets at once", async (t) => {
  const source = await freshDatabase(t, "embedded");
  await source.asSuperuser((client) => fill(client, 1));
  const kept = "SELECT count(*)::integer AS count FROM budget_keeper WHERE released_at IS NULL";
  const count = (database: TestDatabase) =>
    database.asSuperuser(async (client) => (await client.query<{ count: number }>(kept)).rows[0]?.count);
  assert.equal(await count(source), 1);
  const target = await emptyDatabase(t, "embedded");
  await restoreInto(t, target, await backUpTo(t, source));
  assert.equal(await count(target), 0);
});

test("a backup of an older schema is restored as it was, then migrated forward", async (t) => {
  await withDatabases(t, async ({ backend }, t) => {
    const [source, target] = [await emptyDatabase(t, backend), await emptyDatabase(t, backend)];
    const [first, ...later] = readMigrations();
    assert.ok(first !== undefined);
    const next = { version: 9999, name: "9999_next", sql: "ALTER TABLE projects ADD COLUMN colour text NOT NULL DEFAULT 'red'" };
    await migrate({ ...source.options, url: source.url, migrations: [first] });
    await source.asSuperuser((client) => fill(client, 10));
    const file = await backUpTo(t, source);
    const { migrated } = await restoreInto(t, target, file, { migrations: [first, ...later, next] });
    assert.deepEqual(
      migrated,
      [...later, next].map(({ name }) => name),
    );
    const { rows } = await target.asSuperuser((client) => client.query("SELECT colour FROM projects"));
    assert.deepEqual(rows, [{ colour: "red" }]);
    assert.deepEqual(await target.asSuperuser(auditCatalog), []);
  });
});

test("a backup is one tar of gzipped rows that other tools read, open to its owner alone, and never takes another file's name", async (t) => {
  const source = await freshDatabase(t, "embedded");
  await source.asSuperuser((client) => fill(client, 20));
  const file = await backUpTo(t, source);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const entries = await entriesOf(file);
  const manifest = JSON.parse(String(entries.get("manifest.json"))) as Manifest;
  const projects = gunzipSync(entries.get("tables/projects.copy/000001.gz") as Buffer).toString();
  assert.ok(projects.includes("line\\nthere") && projects.endsWith("\n"));
  assert.equal(manifest.tables.find(({ name }) => name === "usage_rows")?.rows, 20);
  assert.ok(!Buffer.concat([...entries.values()]).includes(source.options.masterKey.export()));
  const before = readFileSync(file);
  await assert.rejects(
    backUp({ ...source.options, dataDirectory: "unused", to: file, release: "0.0.0" }),
    refusal("file_exists", /name another/),
  );
  assert.deepEqual(readFileSync(file), before);
  assert.deepEqual(readdirSync(join(file, "..")), ["backup.tar"]);
  const nowhere = { ...source.options, to: join(file, "..", "missing", "b.tar"), release: "0.0.0" };
  await assert.rejects(backUp(nowhere), refusal("directory_missing", /make it/));
});

test("a stream longer than a part goes through whole", async (t) => {
  const [source, target] = [await freshDatabase(t, "embedded"), await emptyDatabase(t, "embedded")];
  await source.asSuperuser(async (client) => {
    await fill(client, 1);
    await client.query("UPDATE audit_rows SET after = jsonb_build_object('long', repeat(md5(id::text), 10000))");
  });
  const file = await backUpTo(t, source);
  const { manifest } = await restoreInto(t, target, file);
  const parts = manifest.tables.find(({ name }) => name === "audit_rows")?.parts ?? 0;
  assert.ok(parts > 5, `${parts} parts`);
  assert.deepEqual(await target.asSuperuser(contentsOf), restored(await source.asSuperuser(contentsOf)));
});

test("a byte changed anywhere in a backup is found, or is in none of what a restore reads; one cut short is found", async (t) => {
  const source = await freshDatabase(t, "embedded");
  await source.asSuperuser((client) => fill(client, 20));
  const file = await backUpTo(t, source);
  const [bytes, whole] = [readFileSync(file), await verifyBackup(file)];
  const damagedFile = join(file, "..", "damaged.tar");
  const verdict = async (changed: Buffer) => {
    writeFileSync(damagedFile, changed);
    return verifyBackup(damagedFile).catch((error: unknown) => error);
  };
  let found = 0;
  await fc.assert(
    fc.asyncProperty(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), async (at, mask) => {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] as number) ^ mask;
      const result = await verdict(changed);
      if (result instanceof BackupRefusal) found += 1;
      else assert.deepEqual(result, whole, String(result));
    }),
    { numRuns: scaled(300) },
  );
  const end = bytes.lastIndexOf("  manifest.json\n");
  await fc.assert(
    fc.asyncProperty(fc.nat(end), async (length) => {
      const result = await verdict(bytes.subarray(0, length));
      assert.ok(result instanceof BackupRefusal, String(result));
    }),
    { numRuns: scaled(100) },
  );
  t.diagnostic(`${found} of ${scaled(300)} changed bytes found; the others are padding or describe the tar's entries`);
  assert.ok(found > scaled(100));
});

test("what is refused changes nothing: a sentence each, and the target stays empty", async (t) => {
  await withDatabases(t, async (source, t) => {
    await source.asSuperuser((client) => fill(client, 20));
    const file = await backUpTo(t, source);
    const target = await emptyDatabase(t, source.backend);
    const directory = temporaryDirectory(t);
    const refused = async (from: string, code: string, sentence: RegExp, changes: Partial<Parameters<typeof restore>[0]> = {}) => {
      const options = { ...target.options, dataDirectory: directory, from, ...changes };
      await assert.rejects(restore(options), (error: unknown) => {
        assert.ok(error instanceof BackupRefusal || error instanceof DatabaseRefusal, String(error));
        assert.equal(error.code, code);
        assert.match(error.message, sentence);
        return true;
      });
    };
    const [notTar, cut] = [join(directory, "not.tar"), join(directory, "cut.tar")];
    writeFileSync(notTar, randomBytes(4096));
    writeFileSync(cut, readFileSync(file).subarray(0, statSync(file).size / 2));

    await refused(notTar, "not_a_backup", /not a backup of Atrium/);
    await refused(cut, "backup_damaged", /cut short/);
    await refused(file, "master_key_differs", /set ATRIUM_MASTER_KEY/, { masterKey: masterKeyFrom("b8".repeat(32)) });
    await refused(file, "schema_newer", /start the newer release/, { migrations: readMigrations().slice(0, -1) });
    await refused(await edited(directory, file, (manifest) => ({ ...manifest, format: 2 })), "backup_of_newer_format", /newer one/);
    const oneMore = (table: Manifest["tables"][number]) => (table.name === "audit_rows" ? { ...table, rows: table.rows + 1 } : table);
    const moreRows = await edited(directory, file, (manifest) => ({ ...manifest, tables: manifest.tables.map(oneMore) }));
    await refused(moreRows, "backup_damaged", /101 rows of audit_rows, and the database took 100/);
    const fewer = await edited(directory, file, (manifest) => ({
      ...manifest,
      tables: manifest.tables.map((each) => ({ ...each, columns: each.columns.slice(1) })),
    }));
    await refused(fewer, "backup_damaged", /not those of its migrations/);
    mkdirSync(join(directory, "journal"));
    writeFileSync(join(directory, "journal", "id"), "x");
    await refused(file, "journal_present", /move that folder away/);
    rmSync(join(directory, "journal"), { recursive: true });
    const { rows } = await target.asSuperuser((client) =>
      client.query("SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace"),
    );
    assert.deepEqual(rows, []);
    assert.deepEqual(
      readdirSync(directory).filter((name) => name.startsWith("journal")),
      [],
    );

    await restore({ ...target.options, dataDirectory: directory, from: file });
    const before = await target.asSuperuser(contentsOf);
    await refused(file, "target_not_empty", /not empty/);
    assert.deepEqual(await target.asSuperuser(contentsOf), before);
  });
});

test("a database that is no Atrium's, or another master key's, is not backed up, and leaves no file", async (t) => {
  await withDatabases(t, async (source, t) => {
    const directory = temporaryDirectory(t);
    const options = { ...source.options, dataDirectory: directory, to: join(directory, "b.tar"), release: "0.0.0" };
    await assert.rejects(backUp({ ...options, masterKey: masterKeyFrom("b8".repeat(32)) }), { code: "master_key_mismatch" });
    const empty = await emptyDatabase(t, source.backend);
    await assert.rejects(
      backUp({ ...options, ...empty.options, dataDirectory: directory }),
      refusal("no_installation", /nothing to back up/),
    );
    assert.deepEqual(readdirSync(directory), []);
  });
});

test("partitions that upkeep cannot make because a backup reads are left for the next time, and nobody waits", async (t) => {
  await withDatabases(t, async (source) => {
    await source.asSuperuser(async (reader) => {
      await reader.query("BEGIN; LOCK TABLE usage_rows, ledger_entries IN ACCESS SHARE MODE");
      const later = { now: () => Date.now() + 200 * 24 * 60 * 60 * 1000, monotonic: () => 0 };
      const database = await openDatabase({ ...source.options, clock: later });
      await reader.query("ROLLBACK");
      const made = await database.ensurePartitions();
      await database.close();
      assert.ok(made.length >= 4, made.join(", "));
    });
  });
});

test("rows are all there is to copy: no sequence, generated column or large object, and no trigger that changes a restored row", async (t) => {
  const source = await freshDatabase(t, "embedded");
  const { rows } = await source.asSuperuser((client) =>
    client.query(`
      SELECT relname AS found FROM pg_class WHERE relkind IN ('S', 'm', 'f') AND relnamespace = 'public'::regnamespace
      -- This one leaves alone the rows that bring their place, as restored ones do.
      UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgname <> 'chain_audit_row'
      UNION ALL SELECT attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
        WHERE c.relnamespace = 'public'::regnamespace AND (attgenerated <> '' OR attidentity <> '')
      UNION ALL SELECT oid::text FROM pg_largeobject_metadata`),
  );
  assert.deepEqual(rows, []);
});

test("every table has rows in these tests", async (t) => {
  const source = await freshDatabase(t, "embedded");
  await source.asSuperuser((client) => fill(client, 1));
  const { tables } = await source.asSuperuser(contentsOf);
  assert.deepEqual(
    Object.entries(tables).filter(([, text]) => text.startsWith("0 ")),
    [],
  );
});

/** What is the same wherever it is restored: all but which process is at work. */
function restored({ tables, money }: Contents): Contents {
  return { tables: { ...tables, budget_keeper: "0 " }, money };
}

async function backUpTo(t: TestContext, source: TestDatabase, changes: { databaseUrl?: string } = {}): Promise<string> {
  const directory = temporaryDirectory(t);
  const to = join(directory, "backup.tar");
  await backUp({ ...source.options, dataDirectory: join(directory, "data"), to, release: "0.0.0", ...changes });
  return to;
}

function restoreInto(t: TestContext, target: TestDatabase, from: string, changes: Partial<Parameters<typeof restore>[0]> = {}) {
  return restore({ ...target.options, dataDirectory: temporaryDirectory(t), from, ...changes });
}

function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "atrium-backup-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A database whose owner is an ordinary role that may create roles. */
async function ownedDatabase(t: TestContext, backend: (typeof BACKENDS)[number]["kind"]) {
  const database = await emptyDatabase(t, backend);
  const name = `owner_${randomBytes(6).toString("hex")}`;
  await database.asSuperuser(async (client) => {
    await client.query(`CREATE ROLE ${name} LOGIN CREATEROLE PASSWORD 'owner'`);
    await client.query(`ALTER DATABASE ${new URL(database.url).pathname.slice(1)} OWNER TO ${name}`);
  });
  const url = new URL(database.url);
  [url.username, url.password] = [name, "owner"];
  return { ...database, ownerUrl: url.href };
}

async function partitionCounts(database: TestDatabase) {
  const { rows } = await database.asSuperuser((client) =>
    client.query("SELECT tableoid::regclass::text AS partition, count(*)::int AS rows FROM usage_rows GROUP BY 1 ORDER BY 1"),
  );
  return rows;
}

async function entriesOf(file: string): Promise<Map<string, Buffer>> {
  const entries = new Map<string, Buffer>();
  const tar = extract();
  tar.end(readFileSync(file));
  for await (const entry of tar) {
    const chunks: Buffer[] = [];
    for await (const chunk of entry) chunks.push(chunk as Buffer);
    entries.set(entry.header.name, Buffer.concat(chunks));
  }
  return entries;
}

/** The backup with another manifest, whose checksum is right. */
async function edited(directory: string, file: string, change: (manifest: Manifest) => object): Promise<string> {
  const entries = await entriesOf(file);
  const manifest = JSON.stringify(change(JSON.parse(String(entries.get("manifest.json"))) as Manifest));
  entries.set("manifest.json", Buffer.from(manifest));
  entries.set("manifest.sha256", Buffer.from(`${createHash("sha256").update(manifest).digest("hex")}  manifest.json\n`));
  const tar = pack();
  for (const [name, data] of entries) tar.entry({ name }, data);
  tar.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of tar) chunks.push(chunk as Buffer);
  const path = join(directory, `edited-${randomBytes(4).toString("hex")}.tar`);
  writeFileSync(path, Buffer.concat(chunks));
  return path;
}

function refusal(code: BackupRefusalCode, sentence: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof BackupRefusal && error.code === code && sentence.test(error.message);
}
