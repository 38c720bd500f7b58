import assert from "node:assert/strict";
import { test } from "node:test";
import { startToyPlatform } from "../../../test/contracts/toy-platform.ts";
import { z } from "zod";
import type { Allowed, Proofs } from "../../domains/identity/index.ts";
import { routeBuilder } from "../../kernel/route.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import { checkRoutes, methodsAt, type AnyRoute } from "./route-table.ts";

const builder = routeBuilder<Proofs, TenantTransaction>();
const EMPTY = z.strictObject({});
const GOOD = {
  id: "things.put",
  method: "PUT",
  path: "/admin/v1/tenants/{tenant}/things/{thing}",
  summary: "Put a thing.",
  reach: "path",
  params: z.strictObject({ tenant: z.string(), thing: z.string() }),
  query: EMPTY,
  body: EMPTY,
  result: EMPTY,
  example: { params: { tenant: "a", thing: "b" } },
  audit: { action: "things.put" },
  handler: async () => ({ body: {} }),
} as const;
const good: AnyRoute = builder({ ...GOOD, permission: "projects:write" });

test("a route without a permission, with an unknown one, or calling a verb that asks for another does not compile", () => {
  const needsKeysWrite = async (_proof: Allowed<"keys:write">) => ({ body: {} });
  // @ts-expect-error a permission is required
  builder({ ...GOOD });
  // @ts-expect-error this permission does not exist
  builder({ ...GOOD, permission: "projects:paint" });
  // @ts-expect-error the verb asks for the proof of another permission
  builder({ ...GOOD, permission: "projects:write", handler: ({ allowed }) => needsKeysWrite(allowed) });
  builder({ ...GOOD, permission: "keys:write", handler: ({ allowed }) => needsKeysWrite(allowed) });
});

test("every way a route can be unfit to be mounted is found", () => {
  assert.deepEqual(checkRoutes([good]), []);
  const unfit: readonly (readonly [Partial<AnyRoute>, RegExp])[] = [
    [{ permission: "nonsense" }, /not a permission/],
    [{ audit: null }, /needs an audit action/],
    [{ method: "GET", body: null }, /has no audit action/],
    [{ method: "GET", audit: null }, /GET has no body/],
    [{ path: "/elsewhere/{tenant}/{thing}" }, /below none of/],
    [{ reach: "own" }, /reaches 'path' exactly/],
    [
      { path: "/admin/v1/things/{thing}", params: z.strictObject({ thing: z.string() }), example: { params: { thing: "b" } } },
      /reaches 'path' exactly/,
    ],
    [{ params: z.strictObject({ tenant: z.string() }) }, /name different parameters/],
    [{ example: { params: { tenant: "a" } } }, /the example and the path/],
    [{ params: z.object({ tenant: z.string(), thing: z.string() }) }, /must be z.strictObject/],
    [{ query: z.object({}) }, /must be z.strictObject/],
    [{ body: z.looseObject({}) }, /must be z.strictObject/],
    [{ example: { params: { tenant: "a", thing: "b" }, query: { c: "d" } } }, /example's query/],
    [{ example: { params: { tenant: "a", thing: "b" }, body: { c: "d" } } }, /example's body/],
  ];
  for (const [change, finding] of unfit) assert.match(checkRoutes([{ ...good, ...change }]).join("\n"), finding);
  assert.match(checkRoutes([good, good]).join("\n"), /two routes have this id/);
  assert.match(
    checkRoutes([good, { ...good, id: "b", path: good.path.replace("{thing}", "{x}") }]).join("\n"),
    /two routes have this address/,
  );
});

test("a server with an unfit route does not start", async () => {
  await assert.rejects(startToyPlatform(new Set(["broken-example"])), /not fit to be mounted/);
});

test("a concrete path finds the methods of its template", () => {
  assert.deepEqual(methodsAt([good], "/admin/v1/tenants/a/things/b"), ["PUT"]);
  assert.deepEqual(methodsAt([good], "/admin/v1/tenants/a/things/"), []);
  assert.deepEqual(methodsAt([good], "/admin/v1/tenants/a/things"), []);
});
