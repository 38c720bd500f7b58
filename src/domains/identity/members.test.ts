import assert from "node:assert/strict";
import { test } from "node:test";
import { type Configuration, openConfiguration } from "../../../test/support/configuration.ts";
import { withDatabases } from "../../../test/support/postgres.ts";
import type { MemberId, ProjectId, TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { bumpConfig, type Database } from "../../storage/database/index.ts";
import type { SignIn } from "./index.ts";
import type { Principal } from "./model.ts";

const tenant = { tenant: "acme" };

function problem(code: Problem["code"]) {
  return (error: unknown) => {
    assert.ok(error instanceof Problem, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  };
}

/** A tenant with a project, the platform's administrator, and what a test asks of them. */
async function acme(t: { after(work: () => Promise<void>): void }, database: Database) {
  const configuration = await openConfiguration(t, database);
  const { act } = configuration;
  const admin = await configuration.admin();
  const id = (await act(admin, "tenants.put", { params: tenant })).body["id"] as TenantId;
  const project = (await act(admin, "projects.put", { params: { ...tenant, project: "shop" } })).body["id"] as ProjectId;
  const put = async (email: string, body: object, by: Principal = admin) =>
    (await act(by, "members.put", { params: { ...tenant, member: email }, body })).body as { id: MemberId; roles: string[] };
  const now = (member: MemberId): Principal => {
    const principal = configuration.identity.members.principal(id, member);
    assert.ok(principal !== null);
    return principal;
  };
  const signIn = createSignIn(configuration, database, id);
  return { configuration, act, admin, id, project, put, now, signIn };
}

const BASE: SignIn = {
  issuer: "https://login.example",
  subject: "ada",
  email: "ada@example.com",
  emailVerified: true,
  name: "Ada",
  roles: [],
  projects: [],
  assertedAt: 1_000,
  mayProvision: false,
  invitation: null,
};

/** As whoever verified an assertion does it: one transaction, the version, the snapshot. */
function createSignIn(configuration: Configuration, database: Database, tenantId: TenantId) {
  return async (facts: Partial<SignIn> = {}): Promise<{ member: MemberId; action: string | null } | null> => {
    const { done, version } = await database.forTenant(tenantId, async (tx) => {
      const signedIn = await configuration.identity.members.signIn(tx, { ...BASE, ...facts });
      return { done: signedIn, version: signedIn?.changed === true ? await bumpConfig(tx) : null };
    });
    if (version !== null) await configuration.snapshot.catchUp(version);
    return done === null ? null : { member: done.member, action: done.change?.action ?? null };
  };
}

test("a member holds what its roles say, over the tenant and in its projects, at every use; its address and name are nowhere in plain", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, admin, id, project, put, now, configuration } = await acme(t, await database.open());
    const projects = [{ project: "shop", roles: ["developer"] }];
    const { id: ada } = await put("Ada@Example.com", { display_name: "Ada Lovelace", roles: ["auditor"], projects });
    assert.equal((await put("ada@example.COM", {})).id, ada, "an address is one whatever its case");
    assert.ok(now(ada).permissions.has("audit:read") && !now(ada).permissions.has("models:call"));
    const there = configuration.identity.members.principal(id, ada, project);
    assert.ok(there?.permissions.has("models:call") && there.permissions.has("audit:read") && there.project === project);

    await put(ada, { roles: [] });
    assert.equal(now(ada).project, project, "who may do nothing above projects stands in the only one");
    assert.ok(!now(ada).permissions.has("audit:read"));
    await put(ada, { projects: [] });
    assert.equal(now(ada).permissions.size, 0);
    await database.asSuperuser(async (client) => {
      const { rows } = await client.query("SELECT members::text AS text FROM members");
      assert.equal(rows.length, 1);
      assert.doesNotMatch(JSON.stringify(rows), /example|lovelace|416461/i);
    });
    await act(admin, "members.delete", { params: { ...tenant, member: ada } });
    assert.equal(configuration.identity.members.principal(id, ada), null);
    await assert.rejects(act(admin, "members.get", { params: { ...tenant, member: ada } }), problem("not_found"));
  }));

test("nobody gives more than they hold, nor changes who holds more; roles are given where they belong", (t) =>
  withDatabases(t, async (database, t) => {
    const { admin, act, put, now, configuration } = await acme(t, await database.open());
    const boss = now((await put("boss@example.com", { roles: ["tenant_admin"] })).id);
    const { id: clerk } = await put("clerk@example.com", { roles: ["developer"] });
    assert.deepEqual((await put("clerk@example.com", { roles: ["auditor"] }, boss)).roles, ["auditor"]);
    const keyed = await act(admin, "tenant_keys.create", { params: tenant, body: { permissions: ["members:read", "members:write"] } });
    const helper = await configuration.principal(keyed.body["key"]);
    await assert.rejects(put("clerk@example.com", { roles: ["developer"] }, helper), problem("permission_denied"));
    await assert.rejects(put("new@example.com", { roles: ["tenant_admin"] }, helper), problem("permission_denied"));
    await assert.rejects(act(helper, "members.delete", { params: { ...tenant, member: clerk } }), problem("permission_denied"));
    await put("plain@example.com", {}, helper);
    await assert.rejects(put("x@example.com", { roles: ["platform_admin"] }, admin), problem("invalid_request"));
    await assert.rejects(
      put("x@example.com", { projects: [{ project: "shop", roles: ["platform_engineer"] }] }, admin),
      problem("invalid_request"),
    );
    await assert.rejects(put("no address", {}, admin), problem("invalid_request"));
    await assert.rejects(
      act(admin, "platform_members.put", { params: { member: "x@example.com" }, body: { roles: ["developer"] } }),
      problem("invalid_request"),
    );
    await act(admin, "platform_members.put", { params: { member: "x@example.com" }, body: { roles: ["platform_engineer"] } });
  }));

test("what a member made shrinks with the member, and ends when it is removed, on every process within a second", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, admin, put, now, configuration } = await acme(t, await database.open());
    const there = await openConfiguration(t, await database.open());
    const { id: boss } = await put("boss@example.com", { roles: ["tenant_admin"] });
    const make = async (by: Principal, permissions: string[]) =>
      (await act(by, "tenant_keys.create", { params: tenant, body: { permissions } })).body["key"] as string;
    const key = await make(now(boss), ["tenant_admin"]);
    const child = await make(await configuration.principal(key), ["audit:read", "models:call"]);
    assert.ok((await there.principal(child)).permissions.has("models:call"));

    await put(boss, { roles: ["auditor"] });
    for (const each of [key, child]) {
      const { permissions } = await configuration.principal(each);
      assert.ok(permissions.has("audit:read") && !permissions.has("models:call") && !permissions.has("keys:write"));
    }
    await act(admin, "members.delete", { params: { ...tenant, member: boss } });
    const removedAt = performance.now();
    for (const each of [key, child]) await assert.rejects(configuration.principal(each), problem("invalid_api_key"));
    while (await there.principal(child).then(Boolean, () => false)) {
      assert.ok(performance.now() - removedAt < 1_000, "still accepted elsewhere after a second");
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }));

test("a rotated key hands what it made over to its successor, which stays bounded by what bounded the key", (t) =>
  withDatabases(t, async (database, t) => {
    const { act, admin, put, now, configuration } = await acme(t, await database.open());
    const { id: boss } = await put("boss@example.com", { roles: ["tenant_admin"] });
    const make = async (by: Principal) =>
      (await act(by, "tenant_keys.create", { params: tenant, body: { permissions: ["tenant_admin"] } })).body;
    const made = await make(now(boss));
    const child = (await make(await configuration.principal(made["key"])))["key"];
    const rotate = async (by: Principal, id: unknown) =>
      (await act(by, "tenant_keys.rotate", { params: { ...tenant, id: String(id) }, body: { grace_seconds: 0 } })).body;
    // By itself, then by what it made: neither may become its own bound.
    const second = await rotate(await configuration.principal(made["key"]), made["id"]);
    await configuration.principal(child);
    const third = await rotate(await configuration.principal(child), second["id"]);
    await configuration.principal(child);
    await configuration.principal(third["key"]);
    await act(admin, "members.delete", { params: { ...tenant, member: boss } });
    for (const key of [child, third["key"]]) await assert.rejects(configuration.principal(key), problem("invalid_api_key"));
  }));

test("who signs in is the member of that subject, else of that verified address; an address that is another subject's opens nothing", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, signIn } = await acme(t, await database.open());
    assert.equal(await signIn(), null, "a stranger is nobody");
    const { id: ada } = await put("ada@example.com", { roles: ["developer"] });
    assert.equal(await signIn({ emailVerified: false }), null, "an address that nobody verified is no proof");
    assert.deepEqual(await signIn(), { member: ada, action: "member.sign_in" });
    assert.deepEqual(await signIn({ email: "married@example.com", assertedAt: 2_000 }), { member: ada, action: null });
    assert.equal(await signIn({ subject: "eve" }), null, "the address went to somebody else");
    assert.equal(await signIn({ issuer: "https://other.example" }), null, "the same subject of another issuer is somebody else");
    assert.equal(await signIn({ subject: "eve", mayProvision: true }), null, "nor does it become a member beside");
  }));

test("somebody new becomes a member where that is allowed, with the claimed roles alone", (t) =>
  withDatabases(t, async (database, t) => {
    const { signIn, now, project } = await acme(t, await database.open());
    const facts = { mayProvision: true, roles: ["finance", "nonsense"], projects: [{ project, roles: ["developer"] }] };
    const signedIn = await signIn(facts);
    assert.equal(signedIn?.action, "member.provision");
    const ada = now(signedIn?.member as MemberId);
    assert.ok(ada.permissions.has("usage:read") && !ada.permissions.has("keys:write"));
    const service = await signIn({ subject: "ci", email: null, name: null, mayProvision: true, roles: ["developer"] });
    assert.ok(now(service?.member as MemberId).permissions.has("models:call"), "a service has no address");
    const unverified = await signIn({ subject: "x", email: "boss@example.com", emailVerified: false, mayProvision: true });
    assert.equal(unverified?.action, "member.provision");
    const again = await signIn({ subject: "y", email: "boss@example.com", mayProvision: true });
    assert.notEqual(again?.member, unverified?.member, "an address that nobody verified is nobody's");
  }));

test("the newest assertion says what is claimed: an older one that comes later raises nothing, and what was given stays", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, signIn, now, project } = await acme(t, await database.open());
    const { id: ada } = await put("ada@example.com", { roles: ["reviewer"] });
    const inShop = [{ project, roles: ["developer"] }];
    await signIn({ roles: ["tenant_admin"], projects: inShop, assertedAt: 1_000 });
    assert.ok(now(ada).permissions.has("keys:write"));
    await signIn({ assertedAt: 3_000 });
    assert.ok(!now(ada).permissions.has("keys:write") && now(ada).permissions.has("projects:read"));
    assert.equal((await signIn({ roles: ["tenant_admin"], assertedAt: 2_000 }))?.action, null);
    assert.ok(!now(ada).permissions.has("keys:write"));
    // One that says the same still makes those before it old.
    await signIn({ assertedAt: 5_000 });
    await signIn({ roles: ["tenant_admin"], assertedAt: 4_000 });
    assert.ok(!now(ada).permissions.has("keys:write"));
  }));

test("an invitation is accepted once, by its token or a verified address, while it is open; its roles are its maker's to give", (t) =>
  withDatabases(t, async (database, t) => {
    const { put, now, act, signIn, project, configuration, id } = await acme(t, await database.open());
    const boss = now((await put("boss@example.com", { roles: ["tenant_admin"] })).id);
    const invite = async (email: string, body: object = {}) =>
      (await act(boss, "organization_invites.create", { body: { email, role: "reader", ...body } })).body as { id: string; token: string };
    const statusOf = async (invitation: string) =>
      (await act(boss, "organization_invites.get", { params: { id: invitation } })).body["status"];

    const first = await invite("ada@example.com", { role: "owner", projects: [{ id: "shop", role: "member" }] });
    assert.equal(await signIn({ emailVerified: false }), null);
    const ada = await signIn();
    assert.equal(ada?.action, "invitation.accept");
    assert.ok(now(ada?.member as MemberId).permissions.has("keys:write"));
    assert.ok(configuration.identity.members.principal(id, ada?.member as MemberId, project)?.permissions.has("models:call"));
    assert.equal(await statusOf(first.id), "accepted");
    await assert.rejects(act(boss, "organization_invites.delete", { params: { id: first.id } }), problem("conflict"));
    await assert.rejects(invite("ada@example.com"), problem("conflict"));

    const second = await invite("grace@example.com");
    const stranger = { subject: "grace", email: null, name: null };
    assert.equal(await signIn({ ...stranger, invitation: `${second.token.slice(0, -1)}_` }), null);
    assert.equal((await signIn({ ...stranger, invitation: second.token }))?.action, "invitation.accept");
    assert.equal(await signIn({ subject: "eve", email: null, invitation: second.token }), null, "a token is good once");

    const third = await invite("late@example.com");
    await act(boss, "organization_invites.delete", { params: { id: third.id } });
    assert.equal(await signIn({ subject: "late", email: "late@example.com", invitation: third.token }), null, "it was withdrawn");
    await database.asSuperuser((client) => client.query("UPDATE invitations SET expires_at = now() - interval '1 second'"));
    const { rows } = await database.asSuperuser((client) => client.query("SELECT invitations::text AS text FROM invitations"));
    for (const hidden of [second.token, "example.com"]) assert.ok(!JSON.stringify(rows).includes(hidden));
  }));
