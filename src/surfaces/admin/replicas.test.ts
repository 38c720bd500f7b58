import assert from "node:assert/strict";
import { test } from "node:test";
import { type AtriumProcess, BOOTSTRAP_KEY, removeData, startAtriumProcess } from "../../../test/support/atrium.ts";
import { emptyDatabase } from "../../../test/support/postgres.ts";

const MASTER_KEY = "ab".repeat(32);

test("a write through a process that has not heard of it yet never lands in an archived tenant of the same name", async (t) => {
  const database = await emptyDatabase(t, "embedded");
  const environment = { DATABASE_URL: database.url, ATRIUM_MASTER_KEY: MASTER_KEY };
  const processes: AtriumProcess[] = [];
  t.after(async () => {
    for (const each of processes) {
      await each.stop();
      await removeData(each.dataDirectory);
    }
  });
  for (let count = 0; count < 2; count += 1) processes.push(await startAtriumProcess({ environment }));
  const [one, other] = processes as [AtriumProcess, AtriumProcess];

  await one.admin("PUT", "tenants/acme", {});
  await other.admin("GET", "tenants/acme");
  for (let round = 0; round < 3; round += 1) {
    // Without notices the other process learns of a change when it polls, up to half a second later.
    await database.asSuperuser((client) =>
      client.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"),
    );
    await one.admin("DELETE", "tenants/acme");
    await one.admin("PUT", "tenants/acme", {});
    const project = `tenants/acme/projects/round-${round}`;
    const written = await fetch(`${other.url}/admin/v1/${project}`, {
      method: "PUT",
      headers: { authorization: `Bearer ${BOOTSTRAP_KEY}` },
    });
    if (written.ok) await one.admin("GET", project);
    else assert.equal(written.status, 404);
  }
});
