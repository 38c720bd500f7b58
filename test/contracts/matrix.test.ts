import assert from "node:assert/strict";
import { test } from "node:test";
import { routeTable } from "../../scripts/route-table.ts";
import { ADMIN_KEY, startInstallation } from "./installation.ts";
import { runMatrix, summary } from "./matrix.ts";
import { worldAt } from "./real-world.ts";

/** Routes that are no part of the table, each with what guards it instead. */
const BESIDE_THE_TABLE: Readonly<Record<string, string>> = {
  "GET /livez": "says only that the process runs",
  "HEAD /livez": "as GET",
  "GET /readyz": "says only whether calls are taken",
  "HEAD /readyz": "as GET",
  "GET /metrics": "a platform key with platform:metrics:read",
  "POST /v1/chat/completions": "the pipeline authenticates",
  "GET /v1/models": "the pipeline's rules of which models a key may use",
  "GET /v1/models/*": "the pipeline's rules of which models a key may use",
  "GET /admin/v1/openapi.json": "any valid key",
};

test("every cell of the matrix over the real route table is covered, and every mounted route is of the table or named here", async (t) => {
  const { url, database, mounted } = await startInstallation(t);
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

  const cells = await database.asSuperuser((superuser) => runMatrix(worldAt(url, ADMIN_KEY, routes, superuser)));
  t.diagnostic(summary(cells));
  assert.equal(cells.filter((cell) => cell.verdict !== "covered").length, 0, summary(cells));
});
