import { test } from "node:test";
import { createIdentity, KEY_INDEX, identitySource } from "../../src/domains/identity/index.ts";
import { createTenants, NAME_INDEX, readRevisions, tenantsSource } from "../../src/domains/tenants/index.ts";
import { systemClock as clock } from "../../src/kernel/clock.ts";
import { createIdMaker } from "../../src/kernel/ids.ts";
import { systemRandom as random } from "../../src/kernel/random.ts";
import { bumpConfig } from "../../src/storage/database/index.ts";
import { derive } from "../../src/storage/secrets/index.ts";
import { createSnapshot } from "../../src/storage/snapshot/index.ts";
import { mountRoutes, type AnyRoute } from "../../src/surfaces/admin/index.ts";
import { createHttpServer } from "../../src/surfaces/http/server.ts";
import { createLog } from "../../src/telemetry/index.ts";
import { freshDatabase, silentLog, TEST_MASTER_KEY } from "../support/postgres.ts";
import { runMatrix, summary } from "./matrix.ts";
import { worldAt } from "./real-world.ts";

const KEY = "bootstrap-key-of-the-tests-0123456789";

test("interim", async (t) => {
  const testDatabase = await freshDatabase(t, "embedded");
  const database = await testDatabase.open();
  const newId = createIdMaker(clock, random);
  const masterKey = TEST_MASTER_KEY;
  const snapshot = await createSnapshot({
    database, clock, random, masterKey, log: silentLog, pollMs: 500, listTenants: readRevisions,
    sources: { tenants: tenantsSource, identity: identitySource },
    indexes: { [KEY_INDEX]: (parts) => parts.identity.keys.keys(), [NAME_INDEX]: (parts) => [parts.tenants.tenant.name] },
  });
  const tenants = createTenants({ snapshot, masterKey, clock, random, makeId: newId, revokeProjectKeys: (tx, project) => identity.keys.revokeProject(tx, project) });
  const identity = createIdentity({ database, snapshot, pepper: derive(masterKey, "pepper", 1), bootstrapKey: KEY, clock, random, stalenessBoundMs: 60_000, projectOf: (tx, project) => (tenants as unknown as {projects: {idOf(tx: unknown, p: string): Promise<never>}}).projects.idOf(tx, project) });
  const log = createLog("error");
  const server = createHttpServer({ newId, log });
  const routes: AnyRoute[] = [...tenants.routes, ...identity.routes];
  mountRoutes(server, routes, {
    clock, makeId: newId, forTenant: (id, work) => database.forTenant(id, work), authenticate: identity.authenticate, allow: identity.allow, findTenant: tenants.find,
    writeAudit: async (tx, { id, actor, actorKind, action, target, status, at, before, after }) => { await tx.insertInto("audit_rows").values({ id, actor, actor_kind: actorKind, action, target, status, at: new Date(at), before: JSON.stringify(before), after: JSON.stringify(after) }).execute(); },
    bumpConfig, catchUp: (version) => snapshot.catchUp(version),
    keyringOf: (tenant) => snapshot.current.tenants.get(tenant)!.keyring,
  });
  const url = await server.listen({ port: 0, host: "127.0.0.1" });
  t.after(async () => { await server.close(); await snapshot.close(); log.close(); });
  const started = Date.now();
  const cells = await testDatabase.asSuperuser((client) => runMatrix(worldAt(url, KEY, routes, client)));
  console.log(summary(cells), Date.now() - started);
});
