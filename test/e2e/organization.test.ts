import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI, { APIError, AuthenticationError, NotFoundError, PermissionDeniedError } from "openai";
import { type AtriumProcess, createModel, createTenancy, removeData, startAtriumProcess, type Tenancy } from "../support/atrium.ts";

// OpenAI's Admin API by its official SDK, a tenant administering itself, over a real server process.

const MODEL = "simulated";
let atrium: AtriumProcess;
let acme: Tenancy;
let other: Tenancy;
/** Admin keys of the two tenants, and what their administrators are called with. */
let ours: OpenAI.Admin.Organization;
let theirs: OpenAI.Admin.Organization;

before(async () => {
  atrium = await startAtriumProcess();
  await createModel(atrium, { model: MODEL, provider: "simulated", upstreamModel: "simulated", options: { output_tokens: 5 } });
  acme = await createTenancy(atrium, "acme", MODEL);
  other = await createTenancy(atrium, "other", MODEL);
  ours = await administratorOf(acme);
  theirs = await administratorOf(other);
});

after(async () => {
  assert.equal(await atrium.stop(), 0);
  await removeData(atrium.dataDirectory);
  assert.doesNotMatch(atrium.output(), /uncaught|unhandled|TypeError/i);
});

async function keyOf({ tenant }: Tenancy, body: object): Promise<string> {
  return ((await atrium.admin("POST", `tenants/${tenant}/keys`, body)) as { key: string }).key;
}

function client(key: string): OpenAI {
  return new OpenAI({ baseURL: `${atrium.url}/v1`, apiKey: key, adminAPIKey: key, maxRetries: 0 });
}

async function administratorOf(tenancy: Tenancy): Promise<OpenAI.Admin.Organization> {
  return client(await keyOf(tenancy, { permissions: ["tenant_admin"] })).admin.organization;
}

function call(key: string) {
  return client(key).chat.completions.create({ model: MODEL, max_tokens: 5, messages: [{ role: "user", content: "Hello." }] });
}

const missing = (thrown: unknown) => thrown instanceof NotFoundError;
const wrongKey = (thrown: unknown) => thrown instanceof AuthenticationError;
const denied = (thrown: unknown) => thrown instanceof PermissionDeniedError;
const never = "01890000-0000-7000-8000-00000000dead";

/** Rejects for another tenant exactly as for what never was. */
async function hidden(asked: (organization: OpenAI.Admin.Organization, id: string) => Promise<unknown>, id: string): Promise<void> {
  const answers: string[] = [];
  for (const each of [id, never]) {
    await assert.rejects(asked(theirs, each), (thrown) => {
      assert.ok(thrown instanceof NotFoundError, String(thrown));
      answers.push(thrown.message);
      return true;
    });
  }
  assert.equal(answers[0], answers[1]);
}

test("projects are created, read, listed by pages, renamed and archived, and are another tenant's never", async () => {
  const project = await ours.projects.create({ name: "Customer Support (EU)" });
  assert.deepEqual([project.object, project.name, project.status], ["organization.project", "Customer Support (EU)", "active"]);
  assert.ok(Math.abs(project.created_at - Date.now() / 1000) < 60);
  const twin = await ours.projects.create({ name: "Customer Support (EU)" });
  assert.notEqual(twin.id, project.id);
  assert.deepEqual(await ours.projects.retrieve(project.id), project);
  const renamed = await ours.projects.update(project.id, { name: "Support" });
  assert.deepEqual([renamed.id, renamed.name], [project.id, "Support"]);

  const listed: string[] = [];
  for await (const each of ours.projects.list({ limit: 1 })) listed.push(each.id);
  assert.equal(listed.length, 3, "the SDK follows the pages");
  assert.ok(listed.includes(project.id) && listed.includes(twin.id));

  await hidden((organization, id) => organization.projects.retrieve(id), project.id);
  await hidden((organization, id) => organization.projects.update(id, { name: "mine" }), project.id);
  await hidden((organization, id) => organization.projects.archive(id), project.id);
  assert.ok((await theirs.projects.list()).data.every((each) => !listed.includes(each.id)));

  const archived = await ours.projects.archive(twin.id);
  assert.deepEqual([archived.id, archived.status], [twin.id, "archived"]);
  const left = (await ours.projects.list()).data.map((each) => each.id);
  assert.ok(!left.includes(twin.id));
  const all = (await ours.projects.list({ include_archived: true })).data;
  assert.equal(all.find((each) => each.id === twin.id)?.status, "archived");
});

test("a service account calls with a key that is shown once, may have more, and ends with all of them", async () => {
  const project = await ours.projects.create({ name: "Robots" });
  await atrium.admin("PUT", `tenants/acme/grants/${MODEL}`, {});
  const account = await ours.projects.serviceAccounts.create(project.id, { name: "Nightly batch", expires_in_seconds: 3600 });
  assert.deepEqual([account.object, account.name, account.role], ["organization.project.service_account", "Nightly batch", "member"]);
  const first = account.api_key;
  assert.ok(first !== null && first.value.startsWith("atr_"));
  assert.ok(Math.abs((first.expires_at ?? 0) - Date.now() / 1000 - 3600) < 60);
  assert.equal((await call(first.value)).object, "chat.completion");
  const second = await ours.projects.serviceAccounts.apiKeys.create(account.id, { project_id: project.id, name: "second" });
  assert.equal((await call(second.value)).object, "chat.completion");

  const keys = (await ours.projects.apiKeys.list(project.id)).data;
  assert.deepEqual(keys.map((key) => key.id).toSorted(), [first.id, second.id].toSorted());
  assert.ok(keys.every((key) => key.object === "organization.project.api_key" && !JSON.stringify(key).includes(first.value.slice(-20))));
  assert.deepEqual(
    keys.map((key) => [key.owner.type, key.owner.service_account?.id, key.owner.service_account?.name]),
    keys.map(() => ["service_account", account.id, "Nightly batch"]),
  );
  const params = { project_id: project.id };
  assert.equal((await ours.projects.apiKeys.retrieve(first.id, params)).id, first.id);
  assert.equal((await ours.projects.serviceAccounts.update(account.id, { ...params, name: "Nightly" })).name, "Nightly");
  assert.equal((await ours.projects.serviceAccounts.list(project.id)).data[0]?.name, "Nightly");

  await hidden((organization, id) => organization.projects.serviceAccounts.retrieve(id, params), account.id);
  await hidden((organization, id) => organization.projects.apiKeys.retrieve(id, params), first.id);
  await hidden((organization, id) => organization.projects.serviceAccounts.delete(id, params), account.id);

  const revoked = await ours.projects.apiKeys.delete(first.id, params);
  assert.deepEqual(revoked, { id: first.id, object: "organization.project.api_key.deleted", deleted: true });
  await assert.rejects(call(first.value), wrongKey);
  await ours.projects.serviceAccounts.delete(account.id, params);
  await assert.rejects(call(second.value), wrongKey);
  await assert.rejects(ours.projects.serviceAccounts.retrieve(account.id, params), missing);
});

test("users are invited, known by their address, given roles in words of OpenAI's or ours, and removed", async () => {
  const invite = await ours.invites.create({ email: "Grace@Example.com", role: "reader" });
  assert.deepEqual(
    [invite.object, invite.email, invite.role, invite.status],
    ["organization.invite", "grace@example.com", "reader", "pending"],
  );
  assert.match((invite as unknown as { token: string }).token, /^atri_[0-9A-Za-z]{43}$/);
  assert.equal((await ours.invites.retrieve(invite.id)).status, "pending");
  assert.ok(!JSON.stringify(await ours.invites.list()).includes("atri_"), "the token is shown once");
  await hidden((organization, id) => organization.invites.retrieve(id), invite.id);
  await hidden((organization, id) => organization.invites.delete(id), invite.id);
  assert.equal((await ours.invites.delete(invite.id)).deleted, true);
  await assert.rejects(ours.invites.retrieve(invite.id), missing);

  await atrium.admin("PUT", "tenants/acme/members/ada@example.com", { display_name: "Ada", roles: ["developer"] });
  const [ada] = (await ours.users.list({ emails: ["ADA@example.com"] })).data;
  assert.ok(ada !== undefined);
  assert.deepEqual([ada.object, ada.email, ada.name, ada.role], ["organization.user", "ada@example.com", "Ada", "reader"]);
  assert.equal((await ours.users.update(ada.id, { role: "owner" })).role, "owner");
  assert.equal((await ours.users.update(ada.id, { role: "reader" })).role, "reader");
  const named = (await ours.users.update(ada.id, { role: "auditor" })) as unknown as { roles: string[] };
  assert.deepEqual(named.roles, ["auditor"]);
  await assert.rejects(ours.users.update(ada.id, { role: "platform_admin" }), /400/);

  const project = await ours.projects.create({ name: "With people" });
  const params = { project_id: project.id };
  const member = await ours.projects.users.create(project.id, { user_id: ada.id, role: "member" });
  assert.deepEqual([member.object, member.id, member.role], ["organization.project.user", ada.id, "member"]);
  assert.equal((await ours.projects.users.update(ada.id, { ...params, role: "owner" })).role, "owner");
  assert.deepEqual(
    (await ours.projects.users.list(project.id)).data.map((each) => each.id),
    [ada.id],
  );
  assert.equal((await ours.users.retrieve(ada.id)).projects?.data[0]?.name, "with-people");
  await hidden((organization, id) => organization.users.retrieve(id), ada.id);
  await hidden((organization, id) => organization.users.update(id, { role: "owner" }), ada.id);
  await hidden((organization, id) => organization.users.delete(id), ada.id);
  await hidden((organization, id) => organization.projects.users.retrieve(id, params), ada.id);
  await ours.projects.users.delete(ada.id, params);
  await assert.rejects(ours.projects.users.retrieve(ada.id, params), missing);
  assert.deepEqual(await ours.users.delete(ada.id), { id: ada.id, object: "organization.user.deleted", deleted: true });
  await assert.rejects(ours.users.retrieve(ada.id), missing);
});

test("roles are listed and read with what they may do, the platform's not among them, and nobody makes, changes or ends one", async () => {
  const roles = (await ours.roles.list({ limit: 100 })).data;
  assert.deepEqual(
    roles.map((role) => role.id),
    ["auditor", "data_scientist", "developer", "finance", "reviewer", "tenant_admin"],
  );
  assert.ok(roles.every((role) => role.predefined_role && role.permissions.every((permission) => !permission.startsWith("platform:"))));
  for (const order of ["asc", "desc"] as const) {
    const paged: string[] = [];
    for await (const role of ours.roles.list({ limit: 4, order })) paged.push(role.id);
    assert.deepEqual(paged, order === "asc" ? roles.map(({ id }) => id) : roles.map(({ id }) => id).toReversed());
  }
  await assert.rejects(ours.roles.list({ after: "nothing" }), /400/);
  assert.deepEqual(await ours.roles.retrieve("finance"), roles[3]);
  await assert.rejects(ours.roles.retrieve("platform_admin"), missing);

  const project = await ours.projects.create({ name: "With roles" });
  const inProject = (await ours.projects.roles.list(project.id)).data;
  assert.deepEqual(
    inProject.map((role) => role.id),
    roles.map((role) => role.id),
  );
  const admin = await ours.projects.roles.retrieve("tenant_admin", { project_id: project.id });
  assert.deepEqual([admin.resource_type, admin.permissions], ["api.project", ["models:call", "usage:read"]]);
  await hidden((organization, id) => organization.projects.roles.list(id), project.id);

  const changes = [
    ["GET", () => ours.roles.create({ role_name: "Mine", permissions: ["models:call"] })],
    ["GET", () => ours.roles.update("finance", { role_name: "Mine" })],
    ["GET", () => ours.roles.delete("finance")],
    ["GET", () => ours.projects.roles.create(project.id, { role_name: "Mine", permissions: ["models:call"] })],
    ["GET", () => ours.projects.roles.delete("finance", { project_id: project.id })],
  ] as const;
  for (const [allow, change] of changes)
    await assert.rejects(change(), (thrown) => {
      assert.ok(thrown instanceof APIError);
      assert.deepEqual([thrown.status, thrown.code, thrown.headers?.get("allow")], [405, "method_not_allowed", allow]);
      return true;
    });
});

test("a user is given roles and loses them one by one, over the organization and in a project, never above what the giver holds, each with an audit row", async () => {
  await atrium.admin("PUT", "tenants/acme/members/lin@example.com", { roles: ["developer"] });
  const [lin] = (await ours.users.list({ emails: ["lin@example.com"] })).data;
  const user_id = lin?.id ?? "";
  const held = async () => (await ours.users.roles.list(user_id)).data.map(({ id }) => id);
  const acts = async () => {
    const { data } = (await atrium.admin("GET", "tenants/acme/audit?limit=100")) as { data: { action: string; target: string }[] };
    return data.filter(({ action, target }) => /^(project_)?member\.put$/.test(action) && target === user_id).length;
  };
  const before = await acts();

  const given = await ours.users.roles.create(user_id, { role_id: "finance" });
  assert.deepEqual([given.object, given.role, given.user.id], ["user.role", await ours.roles.retrieve("finance"), user_id]);
  await ours.users.roles.create(user_id, { role_id: "finance" });
  assert.deepEqual(await held(), ["developer", "finance"]);
  const paged: string[] = [];
  for await (const role of ours.users.roles.list(user_id, { limit: 1, order: "desc" })) paged.push(role.id);
  assert.deepEqual(paged, ["finance", "developer"]);
  const finance = await ours.users.roles.retrieve("finance", { user_id });
  assert.deepEqual([finance.name, finance.predefined_role, finance.assignment_sources], ["finance", true, null]);
  assert.deepEqual(await ours.users.roles.delete("finance", { user_id }), { object: "user.role.deleted", deleted: true });
  assert.deepEqual(await held(), ["developer"]);
  await assert.rejects(ours.users.roles.retrieve("finance", { user_id }), missing);
  await assert.rejects(ours.users.roles.delete("finance", { user_id }), missing);
  for (const wrong of ["platform_admin", "nothing", "owner"])
    await assert.rejects(ours.users.roles.create(user_id, { role_id: wrong }), /400/);
  assert.equal(await acts(), before + 3);

  const project = await ours.projects.create({ name: "With roles in it" });
  const params = { project_id: project.id, user_id };
  const assign = (role_id: string) => ours.projects.users.roles.create(user_id, { project_id: project.id, role_id });
  await assert.rejects(assign("developer"), missing, "who is not in the project has no role in it");
  await ours.projects.users.create(project.id, { user_id, role: "member" });
  assert.equal((await assign("reviewer")).user.projects?.data[0]?.id, project.id);
  const inProject = (await ours.projects.users.roles.list(user_id, { project_id: project.id })).data;
  assert.deepEqual(
    inProject.map(({ id, resource_type }) => [id, resource_type]),
    [
      ["developer", "api.project"],
      ["reviewer", "api.project"],
    ],
  );
  assert.deepEqual((await ours.projects.users.roles.retrieve("developer", params)).permissions, ["models:call", "usage:read"]);
  assert.equal((await ours.projects.users.roles.delete("developer", params)).deleted, true);
  await assert.rejects(ours.projects.users.roles.retrieve("developer", params), missing);
  assert.equal(await acts(), before + 6);

  await hidden((organization, id) => organization.users.roles.list(id), user_id);
  await hidden((organization, id) => organization.users.roles.create(id, { role_id: "reviewer" }), user_id);
  await hidden((organization, id) => organization.users.roles.delete("developer", { user_id: id }), user_id);
  await hidden((organization, id) => organization.projects.users.roles.list(id, { project_id: project.id }), user_id);
  await hidden(
    (organization, id) => organization.projects.users.roles.delete("reviewer", { project_id: project.id, user_id: id }),
    user_id,
  );

  const lesser = client(
    await keyOf(acme, { permissions: ["members:read", "members:write", "models:call", "usage:read", "projects:read"] }),
  );
  const { users, projects } = lesser.admin.organization;
  await users.roles.create(user_id, { role_id: "reviewer" });
  for (const role_id of ["tenant_admin", "auditor", "finance"])
    await assert.rejects(users.roles.create(user_id, { role_id }), denied, role_id);
  await projects.users.roles.create(user_id, { project_id: project.id, role_id: "tenant_admin" });
  await ours.users.roles.create(user_id, { role_id: "tenant_admin" });
  await assert.rejects(users.roles.delete("tenant_admin", { user_id }), denied, "who holds more is not its to change");
  await assert.rejects(projects.users.roles.delete("reviewer", params), denied);
  assert.deepEqual(await held(), ["developer", "reviewer", "tenant_admin"]);
});

test("admin keys administer the organization until they are deleted, and what they made ends with them", async () => {
  const made = await ours.adminAPIKeys.create({ name: "automation", expires_in_seconds: 3600 });
  assert.deepEqual([made.object, made.name], ["organization.admin_api_key", "automation"]);
  const automation = client(made.value).admin.organization;
  assert.equal((await automation.adminAPIKeys.retrieve(made.id)).redacted_value.includes(made.value), false);
  const ascending = (await ours.adminAPIKeys.list()).data.map((key) => key.id);
  assert.ok(ascending.includes(made.id));
  const descending: string[] = [];
  for await (const key of ours.adminAPIKeys.list({ order: "desc", limit: 1 })) descending.push(key.id);
  assert.deepEqual(descending, ascending.toReversed());
  const child = await automation.adminAPIKeys.create({ name: "child" });
  const grandchild = await client(child.value).admin.organization.adminAPIKeys.create({ name: "grandchild" });
  await client(grandchild.value).admin.organization.projects.list();
  await hidden((organization, id) => organization.adminAPIKeys.retrieve(id), made.id);
  await hidden((organization, id) => organization.adminAPIKeys.delete(id), made.id);
  await ours.adminAPIKeys.delete(made.id);
  for (const key of [made, child, grandchild])
    await assert.rejects(client(key.value).admin.organization.projects.list(), wrongKey, key.name ?? "");
});

test("a key is for its endpoints and its addresses: another endpoint is refused by name, another address like an unknown key", async () => {
  const organizationOnly = await keyOf(acme, { permissions: ["tenant_admin"], routes: ["organization"] });
  await client(organizationOnly).admin.organization.projects.list();
  await assert.rejects(call(organizationOnly), denied);
  const elsewhere = await keyOf(acme, { permissions: ["tenant_admin"], ip_ranges: ["203.0.113.0/24", "2001:db8::/32"] });
  await assert.rejects(call(elsewhere), wrongKey);
  await assert.rejects(client(elsewhere).models.list(), wrongKey);
  const here = await keyOf(acme, { permissions: ["tenant_admin"], ip_ranges: ["127.0.0.0/8", "::1"] });
  assert.equal((await call(here)).object, "chat.completion");
  const nobody = client(here).admin.organization;
  const made = await nobody.adminAPIKeys.create({ name: "as bounded" });
  const view = (await atrium.admin("GET", `tenants/acme/keys/${made.id}`)) as { ip_ranges: string[] };
  assert.deepEqual(view.ip_ranges, ["127.0.0.0/8", "::1"], "what it makes is bounded as it is");
});

test("the platform administers tenants by their paths, and a project's key administers nothing", async () => {
  await assert.rejects(client(acme.key).admin.organization.projects.list(), denied);
  await assert.rejects(client("bootstrap-key-of-the-tests-0123456789").admin.organization.projects.list(), denied);
});
