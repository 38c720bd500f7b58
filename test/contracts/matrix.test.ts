import assert from "node:assert/strict";
import { test } from "node:test";
import { BESIDE_THE_TABLE, routeTable } from "../../scripts/route-table.ts";
import { startInstallation } from "./installation.ts";
import { summary } from "./cells.ts";
import { runMatrix } from "./matrix.ts";
import { worldAt } from "./real-world.ts";

test("every cell of the matrix over the real route table is covered, and every mounted route is of the table or named here", async (t) => {
  const installation = await startInstallation(t);
  const { database, mounted } = installation;
  const routes = routeTable();
  const inTable = new Set(routes.map((route) => `${route.method} ${route.path.replaceAll(/\{(\w+)\}/g, ":$1")}`));
  assert.deepEqual(
    mounted.filter((route) => !inTable.has(route) && !(route in BESIDE_THE_TABLE)),
    [],
    "mounted, but neither in the route table nor named",
  );
  assert.deepEqual(
    [...inTable, ...Object.keys(BESIDE_THE_TABLE)].filter((route) => !mounted.includes(route)),
    [],
    "in the route table or named, but not mounted",
  );

  const cells = await database.asSuperuser((superuser) => runMatrix(worldAt(installation, routes, superuser)));
  t.diagnostic(summary(cells));
  assert.equal(cells.filter((cell) => cell.verdict !== "covered").length, 0, summary(cells));
});
