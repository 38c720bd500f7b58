import assert from "node:assert/strict";
import { test } from "node:test";
import { type Cell, summary } from "./cells.ts";
import { runMatrix } from "./matrix.ts";
import { askInProcess } from "./in-process.ts";
import type { MatrixWorld, Sent } from "./stage.ts";
import { startToyPlatform, type ToyDefect, type ToyPlatform } from "./toy-platform.ts";

test("on a platform without defects every cell of the matrix is covered", async (t) => {
  const cells = await matrixWith();
  t.diagnostic(summary(cells));
  assert.equal(summary(cells).split("\n").length, 1, summary(cells));
  assert.ok(cells.length > 300);
});

/** What the matrix must say of each planted defect: the route, and a word of why. */
const FOUND: Readonly<
  Record<Exclude<ToyDefect, "broken-example" | "owner-refused" | "lookup-hangs">, readonly [route: string, caller: string, why: RegExp]>
> = {
  "foreign-project-by-id": ["projects.get", "tenant admin of B", /was told/],
  "foreign-tenant-allowed": ["projects.put", "tenant admin of B", /rows of A changed/],
  "deleted-told-apart": ["projects.get", "tenant admin of B", /told apart from what never existed/],
  "foreign-list": ["projects.list", "tenant admin of B", /was told/],
  "crash-on-star": ["projects.put", "platform admin", /answered 500/],
  "case-folded": ["tenants.delete", "platform admin", /told apart/],
  "answer-beyond-schema": ["projects.get", "tenant admin of A", /not what its schema says/],
  unaudited: ["projects.put", "tenant admin of A", /left 0 audit rows/],
  "revoked-told-apart": ["every path", "no key, malformed key, unknown key, revoked key", /different answers/],
};

for (const [defect, [route, caller, why]] of Object.entries(FOUND) as [ToyDefect, readonly [string, string, RegExp]][]) {
  test(`the matrix finds the planted defect '${defect}'`, async () => {
    const failed = (await matrixWith(defect)).filter((cell) => cell.verdict === "failed");
    assert.ok(
      failed.some((cell) => cell.route === route && cell.caller === caller && why.test(cell.why)),
      summary(failed),
    );
  });
}

test("where the owner's own call fails, its cells are void, and void is no success", async () => {
  const cells = await matrixWith("owner-refused");
  assert.ok(
    cells.some((cell) => cell.verdict === "void" && cell.route === "projects.get"),
    summary(cells),
  );
});

async function matrixWith(...defects: ToyDefect[]): Promise<Cell[]> {
  const toy = await startToyPlatform(new Set(defects));
  try {
    return await runMatrix(worldOf(toy));
  } finally {
    await toy.server.close();
  }
}

function worldOf(toy: ToyPlatform): MatrixWorld {
  const send = (request: Sent) => askInProcess(toy.server, request);
  return {
    routes: toy.routes,
    adminKey: toy.adminKey,
    unknownKey: "toy-secret-nobody",
    shortLifeMs: 50,
    send,
    ask: send,
    checksum: toy.checksum,
    remembers: false,
    auditRows: async () => toy.audit.length,
    async mint(tenant, role, place, expiresInMs) {
      if (place === "project" || role.startsWith("platform_")) return null;
      const body = { name: "matrix", permissions: [role], ...(expiresInMs === undefined ? {} : { expires_at: Date.now() + expiresInMs }) };
      return JSON.parse((await send({ method: "POST", path: `/admin/v1/tenants/${tenant}/keys`, key: toy.adminKey, body })).text) as {
        id: string;
        key: string;
      };
    },
    async revoke(tenant, id) {
      await send({ method: "DELETE", path: `/admin/v1/tenants/${tenant}/keys/${id}`, key: toy.adminKey });
    },
  };
}
