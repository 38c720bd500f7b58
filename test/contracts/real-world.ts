import type pg from "pg";
import { Agent, request } from "undici";
import { type Permission, ROLES } from "../../src/domains/identity/index.ts";
import type { AnyRoute } from "../../src/surfaces/admin/index.ts";
import { askInProcess } from "./in-process.ts";
import { ADMIN_KEY, type Installation } from "./installation.ts";
import type { MatrixWorld, MintedKey, Outcast, Owner, Received, Sent, StagedModels } from "./stage.ts";

/** A running installation over HTTP, with a superuser's connection to its database beside it. */
export function worldAt(
  { url, server }: Pick<Installation, "url" | "server">,
  routes: readonly AnyRoute[],
  superuser: pg.Client,
): MatrixWorld {
  const adminKey = ADMIN_KEY;
  const send = (request: Sent) => overHttp(url, request);
  const admin: Admin = async (method, path, body, key = adminKey) => {
    const answer = await send({ method, path, key, body });
    if (answer.status >= 300) throw new Error(`${method} ${path} answered ${answer.status}: ${answer.text}`);
    return JSON.parse(answer.text);
  };
  let minted = 0;
  const world: MatrixWorld = {
    routes,
    adminKey,
    // Its checksum is right, so it is only refused after the look-up.
    unknownKey: "atr_0000000000_00000000000000000000000000000000000000000004Ubt4m",
    shortLifeMs: 1_000,
    send,
    ask: (request) => askInProcess(server, request),
    checksum: createChecksum(superuser),
    remembers: true,
    auditRows: async () =>
      Number((await superuser.query<{ count: string }>(`SELECT count(*) FROM audit_rows WHERE ${AN_ACTION}`)).rows[0]?.count),
    async mint(tenant, role, place, expiresInMs) {
      const above = `/admin/v1/tenants/${tenant}`;
      const { data } = (await admin("GET", `${above}/projects`)) as { data: { id: string }[] };
      const path = place === "project" ? `${above}/projects/${data[0]?.id}/keys` : `${above}/keys`;
      const expiry = expiresInMs === undefined ? {} : { expires_at: new Date(Date.now() + expiresInMs).toISOString() };
      const body = { name: `matrix-${++minted}`, permissions: [role], ...expiry };
      const answer = await send({ method: "POST", path, key: adminKey, body });
      if (answer.status === 400) return null;
      if (answer.status !== 201) throw new Error(`a key of ${role} answered ${answer.status}: ${answer.text}`);
      return JSON.parse(answer.text) as MintedKey;
    },
    controls: CONTROLS,
    madeAs: {
      "/v1/organization/projects/{project}": "/admin/v1/tenants/{tenant}/projects/{project}",
      "/v1/projects/{project}": "/admin/v1/tenants/{tenant}/projects/{project}",
      "/v1/projects/{project}/users/{id}": "/v1/organization/projects/{project}/users/{id}",
      "/v1/organization/users/{id}": "/admin/v1/tenants/{tenant}/members/{member}",
      "/v1/organization/projects/{project}/api_keys/{id}": "/admin/v1/tenants/{tenant}/projects/{project}/keys/{id}",
    },
    outcasts: () => outcasts(admin),
    async platformKeys() {
      const named: readonly (readonly [string, readonly Permission[]])[] = [
        ...Object.entries(ROLES).filter(([role]) => role.startsWith("platform_")),
        ...(["platform:metrics:read", "platform:catalog:read", "keys:read"] as const).map((each) => [each, [each]] as const),
      ];
      return Promise.all(
        named.map(async ([name, permissions]) => {
          const { key } = (await admin("POST", "/admin/v1/keys", {
            name: `matrix-${name.replaceAll(/\W/g, "-")}`,
            permissions: [name],
          })) as MintedKey;
          return { name: `platform key of ${name}`, key, permissions };
        }),
      );
    },
    models: (tenants) => stageModels(admin, tenants),
    async revoke(tenant, id) {
      await admin("DELETE", `/admin/v1/tenants/${tenant}/keys/${id}`);
    },
    query: (route) =>
      route.id in EVERYTHING
        ? { start_time: String(startOfToday()), end_time: String(startOfToday() + 2 * 86_400), ...EVERYTHING[route.id] }
        : (ACTIONS[route.id] ?? {}),
    async call(tenant, canary) {
      await admin("PUT", "/admin/v1/models/matrix", { visibility: "all" });
      await admin("PUT", "/admin/v1/models/matrix/deployments/only", { provider: "simulated", upstream_model: "simulated", price: "free" });
      const { key } = (await world.mint(tenant, "developer", "project")) as MintedKey;
      const headers = { "content-type": "application/json", "x-atrium-feature": canary, "x-atrium-user": canary };
      const answer = await send({
        method: "POST",
        path: "/v1/chat/completions",
        key,
        headers,
        body: { model: "matrix", messages: [{ role: "user", content: "Hello" }] },
      });
      if (answer.status !== 200) throw new Error(`the chat answered ${answer.status}: ${answer.text}`);
      const usage = await send({
        method: "GET",
        path: `/v1/organization/usage/completions?start_time=${startOfToday()}&group_by=feature`,
        key,
      });
      if (!usage.text.includes(canary)) throw new Error(`the usage of ${tenant} does not show its call: ${usage.text}`);
    },
  };
  return world;
}

/** What makes a field count; null where a route refuses it whatever it names. */
const CONTROLS: NonNullable<MatrixWorld["controls"]> = {
  "deployments.put body credential": { provider: "vllm", upstream_model: "example", price: "free" },
  "platform_limits.put body scope.deployment": { scope: { kind: "deployment", model: "example" } },
  "tier_limits.put body scope.deployment": null,
  "tenant_limits.put body scope.deployment": null,
};

/** By the platform's bootstrap key, unless by another. */
type Admin = (method: string, path: string, body?: unknown, key?: string) => Promise<unknown>;

/** Keys that stopped, each for another reason; and one that is good, of a tenant that is suspended. */
async function outcasts(admin: Admin): Promise<Outcast[]> {
  const keyOf = async (path: string): Promise<MintedKey> => (await admin("POST", `${path}/keys`, { name: "outcast" })) as MintedKey;
  const made = async (name: string): Promise<string> => {
    await admin("PUT", `/admin/v1/tenants/${name}`, {});
    await admin("PUT", `/admin/v1/tenants/${name}/projects/only`, {});
    return `/admin/v1/tenants/${name}`;
  };
  const suspended = await made("matrix-suspended");
  const ofSuspended = (await admin("POST", `${suspended}/keys`, { name: "outcast", permissions: ["tenant_admin"] })) as MintedKey;
  await admin("PUT", suspended, { status: "suspended" });
  const archived = await made("matrix-archived");
  const ofArchived = await keyOf(`${archived}/projects/only`);
  await admin("DELETE", archived);
  const other = await made("matrix-other");
  const ofProject = await keyOf(`${other}/projects/only`);
  await admin("DELETE", `${other}/projects/only`);
  await admin("PUT", `${other}/projects/second`, {});
  const rotated = await keyOf(`${other}/projects/second`);
  await admin("POST", `${other}/projects/second/keys/${rotated.id}/rotate`, { grace_seconds: 0 });
  const limited = async (name: string, limits: object): Promise<MintedKey> =>
    (await admin("POST", `${other}/keys`, { name, permissions: ["tenant_admin"], ...limits })) as MintedKey;
  const creator = await limited("creator", {});
  const heir = (await admin("POST", "/v1/organization/admin_api_keys", { name: "heir" }, creator.key)) as { value: string };
  const accounts = "/v1/organization/projects/second/service_accounts";
  const account = (await admin("POST", accounts, { name: "robot" }, creator.key)) as { id: string; api_key: { value: string } };
  await admin("DELETE", `${accounts}/${account.id}`, undefined, creator.key);
  await admin("DELETE", `${other}/keys/${creator.id}`);
  return [
    { name: "key of a removed service account", key: account.api_key.value, refusedWith: "invalid_api_key" },
    { name: "key whose creator was revoked", key: heir.value, refusedWith: "invalid_api_key" },
    {
      name: "key for models only",
      key: (await limited("models-only", { routes: ["models"] })).key,
      refusedWith: "permission_denied",
      isFor: "models",
    },
    {
      name: "key for another network",
      key: (await limited("elsewhere", { ip_ranges: ["203.0.113.0/24"] })).key,
      refusedWith: "invalid_api_key",
    },
    { name: "key of a suspended tenant", key: ofSuspended.key, refusedWith: null },
    { name: "key of an archived tenant", key: ofArchived.key, refusedWith: "invalid_api_key" },
    { name: "key of an archived project", key: ofProject.key, refusedWith: "invalid_api_key" },
    { name: "key that was replaced", key: rotated.key, refusedWith: "expired_api_key" },
  ];
}

async function stageModels(admin: Admin, tenants: Readonly<Record<Owner, string>>): Promise<StagedModels> {
  for (const above of ["/admin/v1", `/admin/v1/tenants/${tenants.A}`, `/admin/v1/tenants/${tenants.B}`]) await endLimits(admin, above);
  const put = async (name: string, served = true): Promise<string> => {
    const { id } = (await admin("PUT", `/admin/v1/models/${name}`, {})) as { id: string };
    const deployment = { provider: "simulated", upstream_model: "simulated", price: "free", options: { output_tokens: 3 } };
    if (served) await admin("PUT", `/admin/v1/models/${name}/deployments/only`, deployment);
    return id;
  };
  const grant = (owner: Owner, name: string) => admin("PUT", `/admin/v1/tenants/${tenants[owner]}/grants/${name}`, {});
  const named = (what: string) => `Matrix-Cell-${what}`;
  const own = { A: named("of-a"), B: named("of-b") };
  const ids = { A: await put(own.A), B: await put(own.B) };
  const [ungranted, withdrawn, deleted, empty] = [named("ungranted"), named("withdrawn"), named("deleted"), named("empty")];
  for (const name of [ungranted, withdrawn, deleted]) await put(name);
  await put(empty, false);
  await grant("A", own.A);
  for (const name of [own.B, withdrawn, deleted, empty]) await grant("B", name);
  await admin("DELETE", `/admin/v1/tenants/${tenants.B}/grants/${withdrawn}`);
  await admin("DELETE", `/admin/v1/models/${deleted}`);
  const bounds = { name: "for-another-model", permissions: ["developer"], models: [empty] };
  const { key } = (await admin("POST", `/admin/v1/tenants/${tenants.B}/keys`, bounds)) as MintedKey;
  return { own, ids, ungranted, withdrawn, deleted, keyForAnother: key };
}

/** More calls are made than the limits of the examples let pass. */
async function endLimits(admin: Admin, above: string): Promise<void> {
  const { data } = (await admin("GET", `${above}/limits?limit=100`)) as { data: { name: string }[] };
  for (const { name } of data) await admin("DELETE", `${above}/limits/${name}`);
}

/** Reports, made to name everything they can; over a time that does not move between two answers. */
const EVERYTHING: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "usage.completions": { group_by: "project_id,api_key_id,model,feature,user" },
  "usage.costs": { group_by: "project_id,api_key_id,line_item,model,feature,user" },
  "platform_usage.report": { group_by: "tenant,project,key,model,deployment,feature,user" },
  "platform_usage.hops": {},
  "platform_usage.export": { format: "jsonl" },
  "usage.export": { format: "csv" },
};

/** Actions that the matrix's things are made by: rows of refusals come between two answers by themselves. */
const ACTIONS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "audit.list": { action: "tenant.put" },
  "tenant_audit.list": { action: "project.put" },
  "organization_audit_logs.list": { "event_types[]": "project.created" },
};

/** Unix seconds. */
function startOfToday(): number {
  return Math.floor(Date.now() / 86_400_000) * 86_400;
}

async function overHttp(url: string, { method, path, key, headers, body, raw }: Sent): Promise<Received> {
  const payload = raw ?? (body === undefined ? null : JSON.stringify(body));
  const answer = await request(url + path, {
    method,
    dispatcher: CONNECTIONS,
    headers: {
      ...(key === null ? {} : { authorization: `Bearer ${key}` }),
      ...(body === undefined ? {} : { "content-type": "application/json" }),
      ...headers,
    },
    body: method === "GET" ? null : payload,
  });
  const received = Object.entries(answer.headers).map(([name, value]) => [name, String(value)] as const);
  return { status: answer.statusCode, headers: Object.fromEntries(received), text: await answer.body.text() };
}

/** Kept open between requests. */
const CONNECTIONS = new Agent({ connections: 8 });

/** Digests every row of a tenant, of every table, and the row that describes it. */
function createChecksum(client: pg.Client): (tenant: string) => Promise<string> {
  const query = client
    .query<{ name: string }>(TENANT_TABLES)
    .then(({ rows }) => rows.map(({ name }) => digestOf(name)).join(" UNION ALL "));
  return async (tenant) => JSON.stringify((await client.query(await query, [tenant])).rows);
}

function digestOf(table: string): string {
  const more = table === "tenants" ? " OR id = $1" : table === "audit_rows" ? ` AND ${AN_ACTION}` : "";
  const row = table === "event_deliveries" ? "(t.webhook_id, t.event_id)::text" : "t::text";
  return `SELECT '${table}' AS name, md5(string_agg(${row}, '|' ORDER BY ${row})) AS digest FROM ${table} t WHERE tenant_id = $1${more}`;
}

/** The server adds the rows of refusals, and with them moves the heads of trails, each minute by itself; it tries deliveries too. */
const AN_ACTION = "action NOT LIKE 'refused.%'";

const TENANT_TABLES = `SELECT c.table_name AS name FROM information_schema.columns c
  JOIN pg_class k ON k.relname = c.table_name AND k.relkind IN ('r', 'p') AND NOT k.relispartition
  WHERE c.table_schema = 'public' AND c.column_name = 'tenant_id' AND c.table_name <> 'audit_chains' ORDER BY 1`;
