import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { referencePages, stalePages } from "../../scripts/reference.ts";
import { routeTable } from "../../scripts/route-table.ts";
import { checkRoutes } from "../../src/surfaces/admin/index.ts";

const FOLDER = path.join(import.meta.dirname, "..", "..", "docs", "reference");

test("the reference and the OpenAPI document say what the code says (else: node scripts/reference.ts)", async () => {
  assert.deepEqual(await stalePages(FOLDER, referencePages(routeTable())), []);
});

test("a page that says something else, or is missing, is stale", async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), "atrium-reference-"));
  t.after(() => rm(folder, { recursive: true }));
  await writeFile(path.join(folder, "a.md"), "old");
  await writeFile(path.join(folder, "b.md"), "same");
  assert.deepEqual(
    await stalePages(
      folder,
      new Map([
        ["a.md", "new"],
        ["b.md", "same"],
        ["c.md", "missing"],
      ]),
    ),
    ["a.md", "c.md"],
  );
});

test("the whole route table is fit to be mounted", () => {
  assert.deepEqual(checkRoutes(routeTable()), []);
});
