import assert from "node:assert/strict";
import { appendFile, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { freshDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { systemClock } from "../../kernel/clock.ts";
import { createIdMaker, type TenantId } from "../../kernel/ids.ts";
import { systemRandom } from "../../kernel/random.ts";
import type { Database } from "../../storage/database/index.ts";
import { checkpointSchema, createCheckpointSigner, isSigned } from "./checkpoint.ts";
import { CHECKPOINT_FILE, openCheckpointLog } from "./checkpoint-log.ts";
import { insertAuditRows } from "./store.ts";

const makeId = createIdMaker(systemClock, systemRandom);

async function setting(t: TestContext) {
  const database = await freshDatabase(t, "embedded");
  const opened = await database.open();
  const directory = await mkdtemp(path.join(tmpdir(), "atrium-audit-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const errors: object[] = [];
  const signer = createCheckpointSigner(database.options.masterKey, opened.installationId, systemClock);
  const log = { info: () => {}, warn: () => {}, error: (fields: object) => void errors.push(fields) };
  const file = path.join(directory, "audit", CHECKPOINT_FILE);
  const open = () => openCheckpointLog({ directory: path.dirname(file), database: opened, signer, clock: systemClock, log });
  const lines = async () =>
    (await readFile(file, "utf8"))
      .trimEnd()
      .split("\n")
      .map((line) => checkpointSchema.parse(JSON.parse(line)));
  return { database, opened, file, errors, open, lines };
}

async function act(opened: Database, tenant: TenantId): Promise<void> {
  const row = {
    actor: "a",
    actor_kind: "key",
    action: "x",
    target: "t",
    before: null,
    after: null,
    request_id: null,
    remote_address: null,
  };
  await opened.forTenant(tenant, (tx) => insertAuditRows(tx, [{ ...row, id: makeId(), status: 200, count: 1, at: new Date() }]));
}

async function takeLastRow(database: TestDatabase, tenant: TenantId): Promise<void> {
  await database.asSuperuser(async (client) => {
    await client.query("DELETE FROM audit_rows WHERE tenant_id = $1 AND sequence = 2", [tenant]);
    await client.query(
      "UPDATE audit_chains SET sequence = 1, hash = (SELECT hash FROM audit_rows WHERE tenant_id = $1) WHERE tenant_id = $1",
      [tenant],
    );
  });
}

test("the heads that moved, and no others, are signed, in a file that only its owner reads", async (t) => {
  const { opened, file, open, lines } = await setting(t);
  const [acme, other] = [makeId<TenantId>(), makeId<TenantId>()].sort() as [TenantId, TenantId];
  const log = open();
  assert.equal(await log.write(), 0);
  for (const tenant of [acme, other]) await act(opened, tenant);
  assert.equal(await log.write(), 2);
  assert.equal(await log.write(), 0);
  await act(opened, acme);
  assert.equal(await log.write(), 1);
  const written = await lines();
  assert.deepEqual(
    written.map(({ heads }) => heads.map(({ tenant, sequence }) => [tenant, sequence])),
    [
      [
        [acme, 1],
        [other, 1],
      ],
      [[acme, 2]],
    ],
  );
  assert.ok(written.every(isSigned));
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.equal((await stat(path.dirname(file))).mode & 0o777, 0o700);
});

test("a restart signs only what moved since, and what a crash tore off is cut away", async (t) => {
  const { opened, file, open, lines } = await setting(t);
  const acme = makeId<TenantId>();
  await act(opened, acme);
  await open().write();
  assert.equal(await open().write(), 0);
  await appendFile(file, '{"format":"atrium aud');
  await act(opened, acme);
  assert.equal(await open().write(), 1);
  assert.deepEqual(
    (await lines()).map(({ heads }) => heads[0]?.sequence),
    [1, 2],
  );
});

test("a trail that went back, while the server ran or while it did not, is reported once and signed as it is", async (t) => {
  for (const restarted of [false, true]) {
    const { database, opened, errors, open, lines } = await setting(t);
    const acme = makeId<TenantId>();
    for (let n = 0; n < 2; n++) await act(opened, acme);
    const log = open();
    await log.write();
    await takeLastRow(database, acme);
    const later = restarted ? open() : log;
    assert.equal(await later.write(), 1);
    assert.equal(await later.write(), 0);
    assert.deepEqual(errors, [{ tenant: acme, signed: 2, found: 1 }]);
    assert.deepEqual(
      (await lines()).map(({ heads }) => heads[0]?.sequence),
      [2, 1],
    );
  }
});

test("a full file is kept under another name, and no chain is signed again for it", async (t) => {
  const { opened, file, open, lines } = await setting(t);
  const [acme, other] = [makeId<TenantId>(), makeId<TenantId>()];
  for (const tenant of [acme, other]) await act(opened, tenant);
  const log = open();
  await log.write();
  await truncate(file, 16 * 1024 * 1024);
  await act(opened, acme);
  assert.equal(await log.write(), 1);
  assert.equal((await lines()).length, 1);
  assert.equal((await readdir(path.dirname(file))).filter((name) => /^checkpoints-2\d{3}-.*\.jsonl$/.test(name)).length, 1);
});

test("a line that is no checkpoint stops nothing: the heads are signed again", async (t) => {
  const { opened, file, open } = await setting(t);
  await act(opened, makeId<TenantId>());
  await open().write();
  await writeFile(file, '{"format":"something else"}\n');
  assert.equal(await open().write(), 1);
});
