import assert from "node:assert/strict";
import { test } from "node:test";
import type { MemberId, TenantId } from "../../../kernel/ids.ts";
import type { TenantTransaction } from "../../../storage/database/index.ts";
import { createAdmitMember, type SignInFacts } from "./admission.ts";
import type { Assertion } from "./decide.ts";
import type { ProviderRecord } from "./model.ts";

const ASSERTION: Assertion = { subject: "s", email: null, emailVerified: false, name: null, roles: [], projects: [], mayProvision: true };

test("a provider makes no more members of a tenant than are taken, whomever it vouches for", async () => {
  let members = 0;
  const asked: SignInFacts[] = [];
  const unused = () => assert.fail("nothing changed");
  const admit = createAdmitMember({
    database: { forTenant: (_tenant, work) => work({} as TenantTransaction) },
    clock: { now: () => 0, monotonic: () => 0 },
    makeId: unused,
    signIn: async (_tx, facts) => (asked.push(facts), { member: "m" as MemberId, changed: false, change: null }),
    memberCount: () => members,
    writeAudit: unused,
    bumpConfig: unused,
    catchUp: unused,
  });
  const provider = { tenant: "t" as TenantId, issuer: "https://id.acme.test" } as ProviderRecord;
  for (members of [9_999, 10_000]) assert.equal(await admit(provider, ASSERTION, 0), "m", "those who are members go on");
  assert.deepEqual(
    asked.map(({ mayProvision }) => mayProvision),
    [true, false],
  );
});
