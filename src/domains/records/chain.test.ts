import assert from "node:assert/strict";
import { test } from "node:test";
import type pg from "pg";
import { emptyDatabase, type TestDatabase, withDatabases } from "../../../test/support/postgres.ts";
import { BACKENDS } from "../../../test/support/postgres-server.ts";
import { systemClock } from "../../kernel/clock.ts";
import { createIdMaker, PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import { systemRandom } from "../../kernel/random.ts";
import { bumpConfig, type Database, openDatabase } from "../../storage/database/index.ts";
import { migrate, readMigrations } from "../../storage/database/migrate.ts";
import { createTenantKey, createTenantKeyring, type TenantKeyring } from "../../storage/secrets/index.ts";
import { type Checkpoint, type CheckpointSigner, createCheckpointSigner } from "./checkpoint.ts";
import type { AuditRow } from "./model.ts";
import { writeAudit } from "./service.ts";
import { readHead, readHeads, tenantsWithTrails } from "./store.ts";
import { readTrails } from "./trail.ts";
import { verifyTrails } from "./verify.ts";

const makeId = createIdMaker(systemClock, systemRandom);
const ring = (tenant: TenantId): TenantKeyring => createTenantKeyring(tenant, new Map([[1, createTenantKey()]]));
const row = (target: string): AuditRow => ({
  id: makeId(),
  actor: "bootstrap",
  actorKind: "bootstrap",
  action: "project.put",
  target,
  before: null,
  after: { name: `name of ${target}` },
  requestId: "request",
  remoteAddress: null,
  status: 200,
  at: Date.now(),
});

async function write(database: Database, tenant: TenantId, rows: number): Promise<void> {
  for (let each = 0; each < rows; each++) await database.forTenant(tenant, (tx) => writeAudit(tx, ring(tenant), row(String(each))));
}

const signerOf = (database: TestDatabase, opened: Database): CheckpointSigner =>
  createCheckpointSigner(database.options.masterKey, opened.installationId, systemClock);

async function verified(database: TestDatabase, opened: Database, checkpoints: readonly Checkpoint[] = [], erased = false) {
  const tenants = await opened.forSystem("report", tenantsWithTrails);
  const options = { checkpoints, publicKeys: [signerOf(database, opened).publicKey], erased };
  return (await verifyTrails(readTrails(opened, tenants, "all"), options)).findings;
}

async function checkpointOf(database: TestDatabase, opened: Database): Promise<Checkpoint> {
  return signerOf(database, opened).sign(await opened.forSystem("report", readHeads));
}

test("50 actions at once in one tenant, among others in two more, make chains without a gap and without a fork", (t) =>
  withDatabases(t, async (database, t) => {
    const opened = await database.open();
    const [acme, other] = [makeId<TenantId>(), makeId<TenantId>()];
    const act = (tenant: TenantId, target: number) =>
      opened.forTenant(tenant, async (tx) => {
        await writeAudit(tx, ring(tenant), row(String(target)));
        if (target % 2 === 0) await bumpConfig(tx);
        if (target % 10 === 9) throw new Error("the action fails");
      });
    const started = performance.now();
    const ended = await Promise.allSettled(
      Array.from({ length: 50 }, (_, target) => [acme, other, PLATFORM_TENANT].map((tenant) => act(tenant, target))).flat(),
    );
    assert.equal(ended.filter(({ status }) => status === "fulfilled").length, 3 * 45);
    for (const tenant of [acme, other, PLATFORM_TENANT]) assert.equal((await opened.forTenant(tenant, readHead)).sequence, 45);
    assert.deepEqual(await verified(database, opened), []);
    t.diagnostic(`150 actions, 15 of them failing, in ${Math.round(performance.now() - started)} ms`);
  }));

test("a connection that dies between an action's row and its commit leaves neither row nor gap", (t) =>
  withDatabases(t, async (database) => {
    const opened = await database.open();
    const acme = makeId<TenantId>();
    await write(opened, acme, 2);
    await assert.rejects(
      opened.forTenant(acme, async (tx) => {
        await writeAudit(tx, ring(acme), row("lost"));
        await database.asSuperuser((client) =>
          client.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'",
          ),
        );
      }),
    );
    await write(opened, acme, 1);
    assert.equal((await opened.forTenant(acme, readHead)).sequence, 3);
    assert.deepEqual(await verified(database, opened), []);
  }));

/** As somebody who owns the database and knows how rows are linked: the rest of the trail is linked anew, and its head is made to fit. */
const LINK_ANEW = `
DO $$
DECLARE link audit_rows; previous bytea := decode(repeat('00', 32), 'hex'); place bigint := 0;
BEGIN
  FOR link IN SELECT * FROM audit_rows WHERE tenant_id = ':tenant' ORDER BY sequence LOOP
    place := place + 1;
    link.sequence := place;
    link.before_digest := audit_digest(link.before);
    link.after_digest := audit_digest(link.after);
    link.hash := audit_hash(previous, link);
    previous := link.hash;
    UPDATE audit_rows SET sequence = link.sequence, hash = link.hash, before_digest = link.before_digest, after_digest = link.after_digest WHERE id = link.id;
  END LOOP;
  UPDATE audit_chains SET sequence = place, hash = previous WHERE tenant_id = ':tenant';
END $$`;

const OF = "WHERE tenant_id = ':tenant' AND sequence";
/** What the owner of the database does, and the finding; `anew`: it is only found by the checkpoint. */
const DEEDS: readonly { readonly deed: string; readonly sql: string; readonly finding: RegExp; readonly anew?: RegExp }[] = [
  {
    deed: "an actor is changed",
    sql: `UPDATE audit_rows SET actor = 'somebody' ${OF} = 3`,
    finding: /row 3 \(project.put, .*\) was changed/,
    anew: /row 6 is not the one that the checkpoint/,
  },
  {
    deed: "a time is moved by a microsecond",
    sql: `UPDATE audit_rows SET at = at + interval '1 microsecond' ${OF} = 3`,
    finding: /row 3 .* was changed/,
  },
  {
    deed: "what was after is replaced",
    sql: `UPDATE audit_rows SET after = '{"sealed": "AAAA"}' ${OF} = 3`,
    finding: /what row 3 says of after was changed/,
    anew: /row 6 is not the one/,
  },
  {
    deed: "what was after is taken away",
    sql: `UPDATE audit_rows SET after = NULL ${OF} = 3`,
    finding: /what row 3 says of after is gone/,
  },
  {
    deed: "a row in the middle is deleted",
    sql: `DELETE FROM audit_rows ${OF} = 3`,
    finding: /row 3 is missing/,
    anew: /saw 6 rows, and there are 5/,
  },
  { deed: "several rows are deleted", sql: `DELETE FROM audit_rows ${OF} BETWEEN 2 AND 4`, finding: /rows 2 to 4 are missing/ },
  { deed: "the first row is deleted", sql: `DELETE FROM audit_rows ${OF} = 1`, finding: /row 1 is missing/ },
  {
    deed: "two rows change places",
    sql: `UPDATE audit_rows SET sequence = -2 ${OF} = 2; UPDATE audit_rows SET sequence = 2 ${OF} = 4; UPDATE audit_rows SET sequence = 4 ${OF} = -2`,
    finding: /row 2 .* was changed, or follows another row/,
    anew: /row 6 is not the one/,
  },
  {
    deed: "a row is put in, in another's place",
    sql: `UPDATE audit_rows SET sequence = sequence + 100 ${OF} > 2; UPDATE audit_rows SET sequence = sequence - 99 ${OF} > 100;
      INSERT INTO audit_rows (tenant_id, id, actor, actor_kind, action, target, status, at, sequence, hash)
        VALUES (':tenant', gen_random_uuid(), 'a', 'key', 'forged', 't', 200, now(), 3, sha256('forged'))`,
    finding: /row 3 \(forged, .*\) was changed, or follows/,
    anew: /row 6 is not the one/,
  },
  {
    deed: "a row is put in before the first",
    sql: `INSERT INTO audit_rows (tenant_id, id, actor, actor_kind, action, target, status, at, sequence, hash)
        VALUES (':tenant', gen_random_uuid(), 'a', 'key', 'forged', 't', 200, now(), -5, sha256('forged'))`,
    finding: /row -5 comes after row 0/,
  },
  {
    deed: "a row is put in beyond the head",
    sql: `INSERT INTO audit_rows (tenant_id, id, actor, actor_kind, action, target, status, at, sequence, hash)
        VALUES (':tenant', gen_random_uuid(), 'a', 'key', 'forged', 't', 200, now(), 7, sha256('forged'))`,
    finding: /rows beyond that were put in/,
  },
  {
    deed: "rows are taken from the end",
    sql: `DELETE FROM audit_rows ${OF} > 4`,
    finding: /rows 5 to 6 are missing at its end/,
    anew: /saw 6 rows, and there are 4/,
  },
  { deed: "the head is set back", sql: "UPDATE audit_chains SET sequence = 4 WHERE tenant_id = ':tenant'", finding: /it ends at row 4/ },
  {
    deed: "the whole trail goes",
    sql: "DELETE FROM audit_rows WHERE tenant_id = ':tenant'; DELETE FROM audit_chains WHERE tenant_id = ':tenant'",
    finding: /saw a trail of .*, and it is gone/,
  },
];

for (const { deed, sql, finding, anew } of DEEDS) {
  test(`found: ${deed}${anew === undefined ? "" : "; and by the checkpoint where the rest was linked anew"}`, (t) =>
    withDatabases(t, async (database) => {
      const opened = await database.open();
      const acme = makeId<TenantId>();
      await write(opened, acme, 6);
      const checkpoint = await checkpointOf(database, opened);
      assert.deepEqual(await verified(database, opened, [checkpoint]), []);
      const run = (client: pg.Client, text: string) => client.query(text.replaceAll(":tenant", acme));

      await database.asSuperuser((client) => run(client, sql));
      assert.match((await verified(database, opened, [checkpoint])).join("\n"), finding);
      if (anew === undefined) return;
      await database.asSuperuser(async (client) => {
        await run(client, "UPDATE audit_rows SET sequence = sequence + 1000 WHERE tenant_id = ':tenant'");
        await run(client, LINK_ANEW);
      });
      assert.deepEqual(await verified(database, opened), [], "linked as a trail of its own, so only what is held elsewhere shows it");
      assert.match((await verified(database, opened, [checkpoint])).join("\n"), anew);
    }));
}

test("a trail goes on verifying when its tenant's keys and contents are destroyed", (t) =>
  withDatabases(t, async (database) => {
    const opened = await database.open();
    const acme = makeId<TenantId>();
    await write(opened, acme, 3);
    const checkpoint = await checkpointOf(database, opened);
    await database.asSuperuser(async (client) => {
      await client.query("DELETE FROM tenant_keys WHERE tenant_id = $1", [acme]);
      await client.query("UPDATE audit_rows SET before = NULL, after = NULL WHERE tenant_id = $1", [acme]);
    });
    assert.deepEqual(await verified(database, opened, [checkpoint], true), []);
  }));

test("the rows of a database from before the chain are linked by the migration, and those that the release before writes beside it", async (t) => {
  for (const backend of BACKENDS) {
    await t.test(backend.title, async (t) => {
      if (backend.unavailable !== null) {
        t.diagnostic(backend.unavailable);
        t.skip(backend.unavailable);
        return;
      }
      const database = await emptyDatabase(t, backend.kind);
      const before = readMigrations().filter(({ version }) => version < 5);
      await migrate({ ...database.options, url: database.url, migrations: before });
      const [acme, other] = [makeId<TenantId>(), makeId<TenantId>()];
      const insert = (client: pg.Client, tenant: string, n: number) =>
        client.query(
          `INSERT INTO audit_rows (tenant_id, id, actor, actor_kind, action, target, before, after, request_id, remote_address, status, at)
           VALUES ($1, $2, $3, 'key', 'project.put', 'ü \\ "', $4, NULL, NULL, '::1', 200, $5)`,
          [tenant, makeId(), `actor ${n}`, JSON.stringify({ sealed: "AAEC" }), new Date(n * 1_234)],
        );
      await database.asSuperuser(async (client) => {
        for (let n = 0; n < 20; n++) for (const tenant of [acme, other]) await insert(client, tenant, n);
      });
      const opened = await openDatabase(database.options);
      t.after(() => opened.close());
      await database.asSuperuser((client) => insert(client, acme, 20));
      await write(opened, acme, 1);

      assert.deepEqual(await verified(database, opened), []);
      assert.equal((await opened.forTenant(acme, readHead)).sequence, 22);
      assert.equal((await opened.forTenant(other, readHead)).sequence, 20);
    });
  }
});
