import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI, { APIError } from "openai";
import { type AtriumProcess, createModel, createTenancy, removeData, startAtriumProcess, type Tenancy } from "../support/atrium.ts";
import { startIdentityProvider } from "../support/identity-provider.ts";

// Who loses the right to a call in flight, over a real server process: the stream is cut within a second, and is no success.

const MODEL = "long";
/** An answer takes half a minute: none of the tests waits for its end. */
const OUTPUT_TOKENS = 3_000;
const WITHIN_MS = 1_000;
let atrium: AtriumProcess;

before(async () => {
  atrium = await startAtriumProcess({ environment: { ATRIUM_EGRESS_ALLOW: "127.0.0.0/8" } });
  const options = { output_tokens: OUTPUT_TOKENS, per_token_ms: 10 };
  await createModel(atrium, {
    model: MODEL,
    provider: "simulated",
    upstreamModel: "simulated",
    price: { input: "1", output: "10" },
    options,
  });
});

after(async () => {
  assert.equal(await atrium.stop(), 0);
  await removeData(atrium.dataDirectory);
  assert.doesNotMatch(atrium.output(), /uncaught|unhandled|TypeError/i);
});

let tenants = 0;
function tenancy(): Promise<Tenancy> {
  return createTenancy(atrium, `revoked-${++tenants}`, MODEL);
}

interface Running {
  /** Resolves to how the stream ended: what the SDK threw, or null for an ending that passes for a success. */
  readonly ended: Promise<unknown>;
}

const MESSAGES = [{ role: "user" as const, content: "Tell me everything." }];

/** A stream of each dialect by its official SDK, once its first tokens are here. */
const DIALECTS: Readonly<Record<string, (key: string) => Promise<Running>>> = {
  async openai(key) {
    const client = new OpenAI({ baseURL: `${atrium.url}/v1`, apiKey: key, maxRetries: 0 });
    const stream = await client.chat.completions.create({ model: MODEL, max_tokens: OUTPUT_TOKENS, messages: MESSAGES, stream: true });
    return following(stream);
  },
  async anthropic(key) {
    const client = new Anthropic({ baseURL: atrium.url, apiKey: key, maxRetries: 0, logLevel: "off" });
    return following(await client.messages.create({ model: MODEL, max_tokens: OUTPUT_TOKENS, messages: MESSAGES, stream: true }));
  },
};

async function following(stream: AsyncIterable<unknown>): Promise<Running> {
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
  const read = async (): Promise<unknown> => {
    let events = 0;
    try {
      for await (const _ of stream) if (++events === 10) begin();
      return null;
    } catch (thrown) {
      return thrown;
    } finally {
      begin();
    }
  };
  const ended = read();
  await begun;
  return { ended };
}

/** What each dialect's SDK makes of the terminal error event. */
function wordOf(thrown: unknown): string {
  if (thrown instanceof APIError) return String(thrown.code);
  if (thrown instanceof Anthropic.APIError)
    return String((thrown.error as { error?: { details?: { error_code?: string } } }).error?.details?.error_code);
  return String(thrown);
}

/** Starts one stream of each dialect, takes the right away, and says how long each went on after that was answered, in ms. */
async function cut(key: string, take: () => Promise<unknown>, code: string): Promise<number[]> {
  const running = await Promise.all(Object.values(DIALECTS).map((start) => start(key)));
  const took = running.map(({ ended }) => ended.then(() => performance.now()));
  await take();
  const takenAt = performance.now();
  for (const { ended } of running) assert.equal(wordOf(await ended), code);
  const waits = (await Promise.all(took)).map((at) => Math.max(0, at - takenAt));
  for (const wait of waits) assert.ok(wait < WITHIN_MS, `still running after ${wait} ms`);
  return waits;
}

interface Hop {
  readonly tenant: string;
  readonly status: string;
  readonly tokens: { readonly output: number };
  readonly charge: string;
}

/** The tenant's usage rows, once there are so many. */
async function hopsOf(tenant: string, count: number): Promise<Hop[]> {
  for (const until = performance.now() + 10_000; ;) {
    const { data } = (await atrium.admin("GET", "usage/hops?limit=100")) as { data: Hop[] };
    const own = data.filter((hop) => hop.tenant === tenant);
    if (own.length >= count) return own;
    assert.ok(performance.now() < until, `${own.length} of ${count} usage rows: ${JSON.stringify(data[0])}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test("the streams of a suspended tenant are cut within a second with its dialect's terminal error, charged for what was delivered, and are no success", async (t) => {
  const { tenant, key } = await tenancy();
  const bystander = await tenancy();
  const beside = await (DIALECTS["openai"] as (key: string) => Promise<Running>)(bystander.key);
  const waits = await cut(key, () => atrium.admin("PUT", `tenants/${tenant}`, { status: "suspended" }), "tenant_suspended");
  t.diagnostic(`cut after ${waits.map((wait) => wait.toFixed(0)).join(" and ")} ms`);
  const hops = await hopsOf(tenant, 2);
  const statuses = new Set<string>();
  for (const hop of hops) {
    assert.ok(hop.tokens.output > 0 && hop.tokens.output < OUTPUT_TOKENS / 2, `charged for ${hop.tokens.output} tokens`);
    assert.ok(Number(hop.charge) > 0);
    assert.notEqual(hop.status, "completed");
    statuses.add(hop.status);
  }
  t.diagnostic(`${hops.map((hop) => hop.tokens.output).join(" and ")} tokens; ${[...statuses].join()}`);
  const still = await Promise.race([beside.ended.then(() => "ended"), new Promise((resolve) => setTimeout(() => resolve("running"), 100))]);
  assert.equal(still, "running", "another tenant's stream goes on");
  await atrium.admin("DELETE", `tenants/${bystander.tenant}`);
  assert.equal(wordOf(await beside.ended), "invalid_api_key", "an archived tenant's does not");
});

test("the streams of a revoked key are cut, and of a key whose creator is revoked, whose service account is removed, or whose project is archived", async (t) => {
  const { tenant, project, key } = await tenancy();
  const at = `tenants/${tenant}`;
  const { data } = (await atrium.admin("GET", `${at}/projects/${project}/keys`)) as { data: { id: string }[] };
  const waits = await cut(key, () => atrium.admin("DELETE", `${at}/projects/${project}/keys/${data[0]?.id}`), "invalid_api_key");

  const admin = (await atrium.admin("POST", `${at}/keys`, { permissions: ["tenant_admin"] })) as { id: string; key: string };
  const ours = new OpenAI({ baseURL: `${atrium.url}/v1`, apiKey: admin.key, adminAPIKey: admin.key, maxRetries: 0 }).admin.organization;
  const robots = await ours.projects.create({ name: "Robots" });
  const account = await ours.projects.serviceAccounts.create(robots.id, { name: "robot" });
  const remove = () => ours.projects.serviceAccounts.delete(account.id, { project_id: robots.id });
  waits.push(...(await cut(account.api_key?.value ?? "", remove, "invalid_api_key")));

  const last = await ours.projects.serviceAccounts.create(robots.id, { name: "another" });
  waits.push(...(await cut(last.api_key?.value ?? "", () => ours.projects.archive(robots.id), "invalid_api_key")));

  const child = await ours.adminAPIKeys.create({ name: "made by the key" });
  waits.push(...(await cut(child.value, () => atrium.admin("DELETE", `${at}/keys/${admin.id}`), "invalid_api_key")));
  t.diagnostic(`cut after ${waits.map((wait) => wait.toFixed(0)).join(", ")} ms`);
});

/** That a new call is refused for want of the permission, within a second of now, by each dialect. */
async function refusedSoon(key: string): Promise<void> {
  const from = performance.now();
  for (const start of Object.values(DIALECTS))
    await assert.rejects(start(key), (thrown) => {
      assert.equal((thrown as APIError).status, 403);
      assert.equal(wordOf(thrown), "permission_denied");
      return true;
    });
  assert.ok(performance.now() - from < WITHIN_MS);
}

async function organizationOf(tenant: string): Promise<OpenAI.Admin.Organization> {
  const { key } = (await atrium.admin("POST", `tenants/${tenant}/keys`, { permissions: ["tenant_admin"] })) as { key: string };
  return new OpenAI({ baseURL: `${atrium.url}/v1`, adminAPIKey: key, maxRetries: 0 }).admin.organization;
}

test("a service account whose role is lowered below calling models has its streams cut and its calls refused, until the role is given back", async (t) => {
  const { tenant, project } = await tenancy();
  const { projects } = await organizationOf(tenant);
  const { id, api_key: made } = await projects.serviceAccounts.create(project, { name: "robot" });
  const key = made?.value ?? "";
  const become = (role: string) => projects.serviceAccounts.update(id, { project_id: project, role: role as "member" });
  const waits = await cut(key, () => become("reviewer"), "permission_denied");
  t.diagnostic(`cut after ${waits.map((wait) => wait.toFixed(0)).join(" and ")} ms`);
  await refusedSoon(key);
  await become("member");
  const running = await (DIALECTS["openai"] as (key: string) => Promise<Running>)(key);
  await projects.serviceAccounts.delete(id, { project_id: project });
  assert.equal(wordOf(await running.ended), "invalid_api_key");
});

test("a member who loses the role has the streams cut that it began with its own token, and those of a key that it made", async (t) => {
  const { tenant, project } = await tenancy();
  const idp = await startIdentityProvider(t, () => []);
  const audiences = ["https://atrium.test"];
  const provider = { issuer: idp.issuer, client_id: "atrium", client_secret: "client-secret-canary", audiences, project_claim: "project" };
  await atrium.admin("PUT", `tenants/${tenant}/identity_providers/idp`, { display_name: "People", ...provider });
  const organization = await organizationOf(tenant);
  const { users, projects } = organization;
  const email = "ada@example.com";
  const roles = ["tenant_admin", "auditor"];
  await atrium.admin("PUT", `tenants/${tenant}/members/${email}`, { roles, projects: [{ project, roles: ["developer", "reviewer"] }] });
  const [ada] = (await users.list({ emails: [email] })).data;
  const claims = { sub: "ada", aud: audiences[0], email, email_verified: true };
  const [above, inProject] = [await idp.token(claims), await idp.token({ ...claims, project })];
  const own = new OpenAI({ baseURL: `${atrium.url}/v1`, adminAPIKey: above, maxRetries: 0 }).admin.organization;
  const { value: made } = await own.adminAPIKeys.create({ name: "made by a member" });

  const [streamOfKey, streamInProject] = await Promise.all(
    [made, inProject].map((key) => (DIALECTS["anthropic"] as (key: string) => Promise<Running>)(key)),
  );
  const waits = await cut(above, () => users.roles.delete("tenant_admin", { user_id: ada?.id ?? "" }), "permission_denied");
  assert.equal(wordOf(await streamOfKey?.ended), "permission_denied", "what it made has what it has");
  await refusedSoon(above);
  await refusedSoon(made);

  const params = { project_id: project, user_id: ada?.id ?? "" };
  waits.push(...(await cut(inProject, () => projects.users.roles.delete("developer", params), "permission_denied")));
  assert.equal(wordOf(await streamInProject?.ended), "permission_denied");
  await refusedSoon(inProject);
  t.diagnostic(`cut after ${waits.map((wait) => wait.toFixed(0)).join(", ")} ms`);
});

test("a key that is rotated, and a change that is about something else, cut nothing", async () => {
  const { tenant, project, key } = await tenancy();
  const running = await (DIALECTS["openai"] as (key: string) => Promise<Running>)(key);
  const at = `tenants/${tenant}`;
  const { data } = (await atrium.admin("GET", `${at}/projects/${project}/keys`)) as { data: { id: string }[] };
  await atrium.admin("POST", `${at}/projects/${project}/keys/${data[0]?.id}/rotate`, { grace_seconds: 0 });
  await atrium.admin("PUT", at, { display_name: "Renamed" });
  const state = await Promise.race([
    running.ended.then(() => "ended"),
    new Promise((resolve) => setTimeout(() => resolve("running"), 300)),
  ]);
  assert.equal(state, "running");
  await atrium.admin("PUT", at, { status: "suspended" });
  assert.equal(wordOf(await running.ended), "tenant_suspended");
});
