import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ProjectId } from "../../../kernel/ids.ts";
import { assertedAt, claimAt, decideAssertion, parseIssuer } from "./decide.ts";
import type { Claims, GroupRole, ProviderRules } from "./model.ts";

const ONE = "01900000-0000-7000-8000-0000000000b1" as ProjectId;
const RULES: ProviderRules = {
  audiences: [],
  algorithms: ["RS256"],
  scopes: ["openid"],
  groupsClaim: "groups",
  projectClaim: null,
  groupRoles: [
    { group: "admins", role: "tenant_admin", project: null },
    { group: "ml", role: "developer", project: ONE },
    { group: "ml", role: "reviewer", project: ONE },
  ],
  emailDomains: [],
  trustEmail: false,
  autoProvision: true,
};

test("groups become the roles that the provider's rules give them, in the tenant or in a project, and no others", () => {
  const roles = (groups: unknown, changes: Partial<ProviderRules> = {}) => {
    const { roles, projects, mayProvision } = asserted({ groups }, changes);
    return [roles, projects.map(({ roles: each }) => each), mayProvision];
  };
  assert.deepEqual(roles(["admins", "unknown"]), [["tenant_admin"], [], true]);
  assert.deepEqual(roles(["ml"]), [[], [["developer", "reviewer"]], true]);
  assert.deepEqual(roles("ml admins"), [["tenant_admin"], [["developer", "reviewer"]], true], "a list in one text, as scopes are");
  assert.deepEqual(roles(["ADMINS", "tenant_admin", "admins "]), [[], [], false]);
  for (const odd of [undefined, null, 7, {}, [["admins"]], [{ admins: true }], { 0: "admins" }])
    assert.deepEqual(roles(odd), [[], [], false]);
  assert.deepEqual(roles(["admins"], { autoProvision: false }), [["tenant_admin"], [], false]);
  const everybody: GroupRole[] = [{ group: "*", role: "reviewer", project: null }];
  assert.deepEqual(roles("*", { groupRoles: everybody }), [[], [], false], "without an email nobody is of a domain");
});

test("whatever a provider claims, nobody gets a role that the rules do not name", () => {
  const named = new Set(RULES.groupRoles.map(({ role }) => role as string));
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom("sub", "groups", "roles", "email", "__proto__", "constructor"), fc.jsonValue()), (claims) => {
      const verdict = decideAssertion(RULES, claims as Claims, true);
      if (verdict.kind === "refused") return;
      const { roles, projects } = verdict.assertion;
      for (const role of [...roles, ...projects.flatMap((each) => each.roles)]) assert.ok(named.has(role));
    }),
  );
});

test("an email counts as verified where the provider says so, or is trusted where it does not say", () => {
  const verified = (claims: Claims, changes: Partial<ProviderRules> = {}) =>
    asserted({ email: "a@acme.test", ...claims }, changes).emailVerified;
  assert.equal(verified({ email_verified: true }), true);
  assert.equal(verified({ email_verified: "true" }), true);
  assert.equal(verified({}), false);
  assert.equal(verified({}, { trustEmail: true }), true);
  assert.equal(verified({ email_verified: false }, { trustEmail: true }), false);
  assert.equal(verified({ email: undefined, email_verified: true }), false);
});

test("where a provider speaks for some email domains, a person needs a verified email of one; a service needs none, but no other either", () => {
  const changes = { emailDomains: ["acme.test"] };
  const kind = (claims: Claims, isPerson = true) => decideAssertion({ ...RULES, ...changes }, { sub: "s", ...claims }, isPerson).kind;
  assert.equal(kind({ email: "a@ACME.test", email_verified: true }), "asserted");
  for (const email of ["a@evil.test", "a@acme.test.evil.test", "a@sub.acme.test", "acme.test", "a@acme.test@evil.test"])
    for (const isPerson of [true, false]) assert.equal(kind({ email, email_verified: true }, isPerson), "refused", email);
  assert.equal(kind({ email: "a@acme.test" }), "refused");
  assert.equal(kind({}), "refused");
  assert.equal(kind({}, false), "asserted");
});

test("the group '*' is whoever has a verified email of the domains, and no token without an email", () => {
  const rules: ProviderRules = { ...RULES, emailDomains: ["acme.test"], groupRoles: [{ group: "*", role: "reviewer", project: null }] };
  const rolesOf = (claims: Claims, isPerson: boolean) => {
    const verdict = decideAssertion(rules, { sub: "s", ...claims }, isPerson);
    return verdict.kind === "asserted" ? [verdict.assertion.roles, verdict.assertion.mayProvision] : verdict.kind;
  };
  for (const isPerson of [true, false])
    assert.deepEqual(rolesOf({ email: "a@acme.test", email_verified: true }, isPerson), [["reviewer"], true]);
  assert.deepEqual(rolesOf({}, false), [[], false]);
  assert.deepEqual(rolesOf({ groups: ["*"] }, false), [[], false]);
});

test("claims are as old as they say, and never of the future nor of before all time", () => {
  const now = 2_000_000;
  const times = [{ iat: 1_000 }, { nbf: 1_500 }, { iat: 9e9 }, { iat: -1e300 }, { iat: 1e300 }, {}].map((claims) =>
    assertedAt(claims, now),
  );
  assert.deepEqual(times, [1_000_000, 1_500_000, 2_000_000, 0, 2_000_000, 0]);
});

test("without a subject of a right form there is nobody", () => {
  for (const sub of [undefined, "", 7, null, "x".repeat(256), ["s"]])
    assert.equal(decideAssertion(RULES, { sub }, false).kind, "refused", String(sub));
});

test("a claim is found by its name first, then by its path, and never on a prototype", () => {
  const claims = { "https://acme.test/groups": ["a"], realm_access: { roles: ["b"] }, "realm_access.roles": ["c"] };
  assert.deepEqual(claimAt(claims, "https://acme.test/groups"), ["a"]);
  assert.deepEqual(claimAt(claims, "realm_access.roles"), ["c"]);
  assert.deepEqual(claimAt({ realm_access: { roles: ["b"] } }, "realm_access.roles"), ["b"]);
  for (const path of ["constructor", "__proto__", "realm_access.constructor.name", "realm_access.roles.length.x", ""])
    assert.equal(claimAt({ realm_access: { roles: ["b"] } }, path), undefined, path);
});

test("an issuer is kept as it was written, and is a web address without user, query and fragment", () => {
  for (const good of ["https://id.acme.test", "https://id.acme.test/", "https://id.acme.test/realms/a", "http://127.0.0.1:9"])
    assert.equal(parseIssuer(good), good);
  for (const bad of [
    "",
    "id.acme.test",
    "ftp://x.test",
    "https://a@x.test",
    "https://x.test?a",
    "https://x.test#a",
    "https://x.test/ a",
    "javascript:alert(1)",
  ])
    assert.equal(parseIssuer(bad), null, bad);
});

function asserted(claims: Claims, changes: Partial<ProviderRules> = {}) {
  const verdict = decideAssertion({ ...RULES, ...changes }, { sub: "s", ...claims }, true);
  assert.equal(verdict.kind, "asserted");
  return (verdict as Extract<typeof verdict, { kind: "asserted" }>).assertion;
}
