import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI, { BadRequestError, NotFoundError, PermissionDeniedError, RateLimitError } from "openai";
import { type AtriumProcess, createModel, createTenancy, removeData, startAtriumProcess, type Tenancy } from "../support/atrium.ts";

// Rate limits, spend limits and spend alerts of OpenAI's Admin API by its official SDK, over a real server process.

const MODEL = "priced";
/** USD a million tokens: a call of 100 tokens of output costs a tenth of a cent and a little. */
const PRICE = { input: "1", output: "10" };
/** What is shown where nothing limits a project. */
const UNLIMITED = 500_000_000;
const never = "01890000-0000-7000-8000-00000000dead";
const MONTHLY = { currency: "USD", interval: "month" } as const;
const NO_MAIL = { type: "email" as const, recipients: [] };

type Organization = OpenAI.Admin.Organization;
let atrium: AtriumProcess;
let tenants = 0;

before(async () => {
  atrium = await startAtriumProcess();
  const options = { output_tokens: 100 };
  await createModel(atrium, { model: MODEL, provider: "simulated", upstreamModel: "simulated", price: PRICE, options });
});

after(async () => {
  assert.equal(await atrium.stop(), 0);
  await removeData(atrium.dataDirectory);
  assert.doesNotMatch(atrium.output(), /uncaught|unhandled|TypeError/i);
});

interface Administered extends Tenancy {
  readonly projectId: string;
  readonly organization: Organization;
}

/** A tenant, its project, a key that calls models there, and an administrator. */
async function administered(): Promise<Administered> {
  const tenancy = await createTenancy(atrium, `organization-${++tenants}`, MODEL);
  const { key } = (await atrium.admin("POST", `tenants/${tenancy.tenant}/keys`, { permissions: ["tenant_admin"] })) as { key: string };
  const { organization } = client(key).admin;
  const projectId = (await organization.projects.list()).data[0]?.id as string;
  return { ...tenancy, projectId, organization };
}

function client(key: string): OpenAI {
  return new OpenAI({ baseURL: `${atrium.url}/v1`, apiKey: key, adminAPIKey: key, maxRetries: 0 });
}

function call(key: string) {
  return client(key).chat.completions.create({ model: MODEL, max_tokens: 100, messages: [{ role: "user", content: "Hello." }] });
}

const refusedWith = (code: string) => (thrown: unknown) => thrown instanceof RateLimitError && thrown.code === code;
const missing = (thrown: unknown) => thrown instanceof NotFoundError;
const bad = (param: string) => (thrown: unknown) => thrown instanceof BadRequestError && thrown.param === param;
const forbidden = (thrown: unknown) => thrown instanceof PermissionDeniedError;

async function onlyRateLimit({ organization, projectId }: Administered) {
  const [limit, ...others] = (await organization.projects.rateLimits.listRateLimits(projectId)).data;
  assert.ok(limit !== undefined && others.length === 0);
  return limit;
}

/** Another tenant's project is answered as one that never was. */
async function hidden(asked: (organization: Organization, project: string) => Promise<unknown>, projectId: string): Promise<void> {
  const { organization } = await administered();
  const told: string[] = [];
  for (const project of [projectId, never])
    await assert.rejects(asked(organization, project), (thrown) => {
      assert.ok(thrown instanceof NotFoundError, String(thrown));
      told.push(thrown.message);
      return true;
    });
  assert.equal(told[0], told[1]);
}

test("a tenant limits a model for its project: the next call above it is refused, and the end of the limit is felt at once", async () => {
  const ours = await administered();
  const { projects } = ours.organization;
  const unlimited = await onlyRateLimit(ours);
  assert.deepEqual(
    [unlimited.object, unlimited.model, unlimited.max_requests_per_1_minute, unlimited.max_tokens_per_1_minute],
    ["project.rate_limit", MODEL, UNLIMITED, UNLIMITED],
  );
  const params = { project_id: ours.projectId };
  const limited = await projects.rateLimits.updateRateLimit(unlimited.id, { ...params, max_requests_per_1_minute: 2 });
  assert.deepEqual([limited.max_requests_per_1_minute, limited.max_tokens_per_1_minute], [2, UNLIMITED]);
  assert.deepEqual(await onlyRateLimit(ours), limited);
  await call(ours.key);
  await call(ours.key);
  await assert.rejects(call(ours.key), refusedWith("rate_limit_exceeded"));
  await projects.rateLimits.updateRateLimit(unlimited.id, { ...params, max_requests_per_1_minute: 3 });
  await call(ours.key);
  await assert.rejects(call(ours.key), refusedWith("rate_limit_exceeded"));
  await projects.rateLimits.updateRateLimit(unlimited.id, { ...params, max_requests_per_1_minute: UNLIMITED });
  await call(ours.key);

  await projects.rateLimits.updateRateLimit(unlimited.id, { ...params, max_tokens_per_1_minute: 150 });
  await call(ours.key);
  await assert.rejects(call(ours.key), refusedWith("rate_limit_exceeded"));
  const images = { ...params, max_images_per_1_minute: 1 };
  await assert.rejects(projects.rateLimits.updateRateLimit(unlimited.id, images), bad("max_images_per_1_minute"));
  await assert.rejects(projects.rateLimits.updateRateLimit(`rl_${ours.projectId}_${never}`, params), missing);
});

test("what the platform limits stays beside what the tenant does: the stricter one is felt and shown, and the tenant cannot change it", async () => {
  const ours = await administered();
  const { projects } = ours.organization;
  const params = { project_id: ours.projectId };
  const limit = (name: string, fields: object) => atrium.admin("PUT", `tenants/${ours.tenant}/limits/${name}`, fields);
  await limit("contract", { scope: { kind: "tenant" }, dimension: "requests", limit: 1, window: "sliding" });
  const { id, max_requests_per_1_minute: shown } = await onlyRateLimit(ours);
  assert.equal(shown, 1);
  const looser = await projects.rateLimits.updateRateLimit(id, { ...params, max_requests_per_1_minute: 600 });
  assert.equal(looser.max_requests_per_1_minute, 1);
  await call(ours.key);
  await assert.rejects(call(ours.key), refusedWith("rate_limit_exceeded"));
  const { data } = (await atrium.admin("GET", `tenants/${ours.tenant}/limits`)) as {
    data: { name: string; set_by: string; limit: number }[];
  };
  assert.deepEqual(
    data.map(({ set_by: by, limit: amount }) => [by, amount]),
    [
      ["platform", 1],
      ["tenant", 600],
    ],
  );
  // The platform's at the tenant's own name: only the platform changes it.
  const own = data.at(-1)?.name as string;
  await atrium.admin("DELETE", `tenants/${ours.tenant}/limits/${own}`);
  await limit(own, { scope: { kind: "project", project: ours.project, model: MODEL }, dimension: "requests", limit: 5 });
  await assert.rejects(projects.rateLimits.updateRateLimit(id, { ...params, max_requests_per_1_minute: 600 }), forbidden);
  await assert.rejects(projects.rateLimits.updateRateLimit(id, { ...params, max_requests_per_1_minute: UNLIMITED }), forbidden);
});

test("a limit for everybody is shown where each project has a level of its own, and not where all tenants share one", async () => {
  const ours = await administered();
  const everybody = (scope: string) =>
    atrium.admin("PUT", "limits/everybody", { scope: { kind: scope }, dimension: "requests", limit: 9_000 });
  try {
    await everybody("project");
    assert.equal((await onlyRateLimit(ours)).max_requests_per_1_minute, 9_000);
    await everybody("model");
    assert.equal((await onlyRateLimit(ours)).max_requests_per_1_minute, UNLIMITED);
  } finally {
    await atrium.admin("DELETE", "limits/everybody");
  }
});

test("a spend limit refuses the next call that it cannot pay for, and its end is felt at once", async () => {
  const ours = await administered();
  const { projects, spendLimit } = ours.organization;
  await assert.rejects(projects.spendLimit.retrieve(ours.projectId), missing);
  await assert.rejects(projects.spendLimit.delete(ours.projectId), missing);
  const set = await projects.spendLimit.update(ours.projectId, { ...MONTHLY, threshold_amount: 0 });
  assert.deepEqual({ ...set }, { object: "project.spend_limit", ...MONTHLY, threshold_amount: 0, enforcement: { status: "inactive" } });
  await assert.rejects(call(ours.key), refusedWith("budget_exceeded"));
  assert.equal((await projects.spendLimit.retrieve(ours.projectId)).enforcement.status, "enforcing");
  await projects.spendLimit.update(ours.projectId, { ...MONTHLY, threshold_amount: 1 });
  for (let calls = 0; calls < 9; calls++) await call(ours.key);
  await assert.rejects(call(ours.key), refusedWith("budget_exceeded"));
  assert.deepEqual(await projects.spendLimit.delete(ours.projectId), { object: "project.spend_limit.deleted", deleted: true });
  await call(ours.key);
  await assert.rejects(projects.spendLimit.retrieve(ours.projectId), missing);

  const whole = await spendLimit.update({ ...MONTHLY, threshold_amount: 1 });
  assert.deepEqual([whole.object, whole.threshold_amount], ["organization.spend_limit", 1]);
  await assert.rejects(call(ours.key), refusedWith("budget_exceeded"), "what was spent before it counts");
  assert.equal((await spendLimit.retrieve()).threshold_amount, 1);
  assert.deepEqual(await spendLimit.delete(), { object: "organization.spend_limit.deleted", deleted: true });
  await call(ours.key);
});

test("a spend limit that the platform set is shown to the tenant, which cannot change or end it", async () => {
  const { organization, tenant } = await administered();
  const budget = { scope: { kind: "tenant" }, unit: "usd", window: "month", cap: "25.50" };
  await atrium.admin("PUT", `tenants/${tenant}/budgets/spend-limit`, budget);
  assert.equal((await organization.spendLimit.retrieve()).threshold_amount, 2_550);
  await assert.rejects(organization.spendLimit.update({ ...MONTHLY, threshold_amount: 100_000 }), forbidden);
  await assert.rejects(organization.spendLimit.delete(), forbidden);
});

test("spend alerts are made, listed by pages in both directions, changed and ended, of the organization and of a project", async () => {
  const { organization, projectId, tenant } = await administered();
  const alerts = organization.spendAlerts;
  const made: string[] = [];
  for (const threshold_amount of [100, 200, 300]) {
    const alert = await alerts.create({ ...MONTHLY, threshold_amount, notification_channel: NO_MAIL });
    assert.deepEqual([alert.object, alert.threshold_amount, alert.interval], ["organization.spend_alert", threshold_amount, "month"]);
    made.push(alert.id);
  }
  const listed = async (query: { readonly limit: number; readonly order?: "desc" }) => {
    const ids: string[] = [];
    for await (const { id } of alerts.list(query)) ids.push(id);
    return ids;
  };
  assert.deepEqual(await listed({ limit: 1 }), made);
  assert.deepEqual(await listed({ limit: 2, order: "desc" }), made.toReversed());
  assert.deepEqual(
    (await alerts.list({ before: made[2] as string, limit: 1 })).data.map(({ id }) => id),
    [made[1]],
  );

  const params = { project_id: projectId };
  const own = await organization.projects.spendAlerts.create(projectId, {
    ...MONTHLY,
    threshold_amount: 50,
    notification_channel: NO_MAIL,
  });
  assert.equal(own.object, "project.spend_alert");
  assert.deepEqual(
    (await organization.projects.spendAlerts.list(projectId)).data.map(({ id }) => id),
    [own.id],
  );
  const change = { ...params, ...MONTHLY, threshold_amount: 75, notification_channel: NO_MAIL };
  assert.equal((await organization.projects.spendAlerts.update(own.id, change)).threshold_amount, 75);
  assert.equal((await organization.projects.spendAlerts.retrieve(own.id, params)).threshold_amount, 75);
  await assert.rejects(alerts.retrieve(own.id), missing, "of a project, it is none of the organization's");
  const budget = (await atrium.admin("GET", `tenants/${tenant}/budgets/${own.id}`)) as Record<string, unknown>;
  assert.deepEqual([budget["mode"], budget["cap"], budget["thresholds"], budget["set_by"]], ["soft", "0.75", [100], "tenant"]);
  assert.equal((await organization.projects.spendAlerts.delete(own.id, params)).deleted, true);
  await assert.rejects(organization.projects.spendAlerts.retrieve(own.id, params), missing);

  const mailed = { type: "email" as const, recipients: ["ada@example.com"] };
  await assert.rejects(
    alerts.create({ ...MONTHLY, threshold_amount: 100, notification_channel: mailed }),
    bad("notification_channel.recipients"),
  );
});

test("a spend alert is told by an event that names it, and calls go on", async () => {
  const { organization, projectId, tenant, key } = await administered();
  const alert = { ...MONTHLY, threshold_amount: 0, notification_channel: NO_MAIL };
  const { id } = await organization.projects.spendAlerts.create(projectId, alert);
  await call(key);
  const told = async () => {
    const { data } = (await atrium.admin("GET", `tenants/${tenant}/events?type=budget.exhausted`)) as {
      data: { data: { budget_id: string } }[];
    };
    return data.map(({ data: facts }) => facts.budget_id);
  };
  for (let looks = 0; looks < 50 && (await told()).length === 0; looks++) await sleep(100);
  assert.deepEqual(await told(), [id]);
  await call(key);
});

test("limits and alerts of another tenant's project are answered as those of a project that never was", async () => {
  const ours = await administered();
  const { id } = await onlyRateLimit(ours);
  const alert = { ...MONTHLY, threshold_amount: 100, notification_channel: NO_MAIL };
  const own = await ours.organization.projects.spendAlerts.create(ours.projectId, alert);
  await hidden((organization, project) => organization.projects.rateLimits.listRateLimits(project), ours.projectId);
  await hidden((organization, project) => organization.projects.rateLimits.updateRateLimit(id, { project_id: project }), ours.projectId);
  await hidden((organization, project) => organization.projects.spendLimit.retrieve(project), ours.projectId);
  await hidden(
    (organization, project) => organization.projects.spendLimit.update(project, { ...MONTHLY, threshold_amount: 1 }),
    ours.projectId,
  );
  await hidden((organization, project) => organization.projects.spendLimit.delete(project), ours.projectId);
  await hidden((organization, project) => organization.projects.spendAlerts.create(project, alert), ours.projectId);
  await hidden((organization, project) => organization.projects.spendAlerts.retrieve(own.id, { project_id: project }), ours.projectId);
  const theirs = await administered();
  await assert.rejects(theirs.organization.projects.rateLimits.updateRateLimit(id, { project_id: theirs.projectId }), missing);
  await assert.rejects(theirs.organization.projects.spendAlerts.delete(own.id, { project_id: theirs.projectId }), missing);
  await call(ours.key);
});
