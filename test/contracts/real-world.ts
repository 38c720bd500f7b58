import type pg from "pg";
import type { AnyRoute } from "../../src/surfaces/admin/index.ts";
import type { MatrixWorld, Received, Sent } from "./stage.ts";

/** A running installation over HTTP, with a superuser's connection to its database beside it. */
export function worldAt(url: string, adminKey: string, routes: readonly AnyRoute[], superuser: pg.Client): MatrixWorld {
  const send = (request: Sent) => overHttp(url, request);
  const admin = async (method: string, path: string, body?: unknown): Promise<unknown> => {
    const answer = await send({ method, path, key: adminKey, body });
    if (answer.status >= 300) throw new Error(`${method} ${path} answered ${answer.status}: ${answer.text}`);
    return JSON.parse(answer.text);
  };
  let minted = 0;
  return {
    routes,
    adminKey,
    // Its checksum is right, so it is only refused after the look-up.
    unknownKey: "atr_0000000000_00000000000000000000000000000000000000000004Ubt4m",
    shortLifeMs: 1_000,
    send,
    checksum: (tenant) => checksum(superuser, tenant),
    async mint(tenant, role, expiresInMs) {
      const above = `/admin/v1/tenants/${tenant}`;
      const { data } = (await admin("GET", `${above}/projects`)) as { data: { id: string }[] };
      const path = role === "developer" ? `${above}/projects/${data[0]?.id}/keys` : `${above}/keys`;
      const expiry = expiresInMs === undefined ? {} : { expires_at: new Date(Date.now() + expiresInMs).toISOString() };
      return (await admin("POST", path, { name: `matrix-${++minted}`, permissions: [role], ...expiry })) as { id: string; key: string };
    },
    async revoke(tenant, id) {
      await admin("DELETE", `/admin/v1/tenants/${tenant}/keys/${id}`);
    },
  };
}

async function overHttp(url: string, { method, path, key, headers, body, raw }: Sent): Promise<Received> {
  const payload = raw ?? (body === undefined ? null : JSON.stringify(body));
  const answer = await fetch(url + path, {
    method,
    headers: { ...(key === null ? {} : { authorization: `Bearer ${key}` }), ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
    body: method === "GET" ? null : payload,
  });
  return { status: answer.status, headers: Object.fromEntries(answer.headers), text: await answer.text() };
}

/** Every row of the tenant, of every table, and the row that describes it. */
async function checksum(client: pg.Client, tenant: string): Promise<string> {
  const { rows } = await client.query<{ name: string }>(TENANT_TABLES);
  const each = rows.map(({ name }) => `SELECT '${name}' AS name, md5(string_agg(t::text, '|' ORDER BY t::text)) AS digest FROM ${name} t WHERE tenant_id = $1${name === "tenants" ? " OR id = $1" : ""}`);
  return JSON.stringify((await client.query(each.join(" UNION ALL "), [tenant])).rows);
}

const TENANT_TABLES = `SELECT c.table_name AS name FROM information_schema.columns c
  JOIN pg_class k ON k.relname = c.table_name AND k.relkind IN ('r', 'p') AND NOT k.relispartition
  WHERE c.table_schema = 'public' AND c.column_name = 'tenant_id' ORDER BY 1`;
