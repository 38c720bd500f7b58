import assert from "node:assert/strict";
import { test } from "node:test";
import type { ProjectId, TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import { createAllow } from "./allow.ts";
import type { Allowed, Principal } from "./model.ts";
import type { KeyVerbs } from "./service.ts";

const TENANT = "01890000-0000-7000-8000-00000000000a" as TenantId;
const caller = { tenant: TENANT, project: null, permissions: new Set(["keys:read"]) } as unknown as Principal;

test("what is allowed carries the permission, the tenant and who; what is not is thrown as a problem", () => {
  const allow = createAllow((tenant) => (tenant === TENANT ? "active" : undefined));
  const allowed = allow(caller, "keys:read", TENANT);
  assert.deepEqual([allowed.permission, allowed.tenant, allowed.principal], ["keys:read", TENANT, caller]);
  const refusals: readonly [() => unknown, string][] = [
    [() => allow(caller, "keys:write", TENANT), "permission_denied"],
    [() => allow(caller, "keys:read", "01890000-0000-7000-8000-00000000000b" as TenantId), "not_found"],
  ];
  for (const [attempt, code] of refusals) assert.throws(attempt, (error) => error instanceof Problem && error.code === code);
});

/** Never run: the compiler is the test. Each expected error that stops being one fails `npm run types`. */
async function forgeries(keys: KeyVerbs, tx: TenantTransaction, read: Allowed<"keys:read">, project: ProjectId): Promise<void> {
  await keys.list(tx, read, project, { limit: 1 });
  // @ts-expect-error: the right to read is not the right to write
  await keys.revoke(tx, read, project, "0123456789");
  // @ts-expect-error: an id proves nothing
  await keys.list(tx, TENANT, project, { limit: 1 });
  // @ts-expect-error: a look-alike was not minted
  await keys.list(tx, { permission: "keys:read", principal: caller, tenant: TENANT, project: null }, project, { limit: 1 });
  // @ts-expect-error: another permission's proof
  const write: Allowed<"keys:write"> = read;
  await keys.revoke(tx, write, project, "0123456789");
}

void forgeries;
