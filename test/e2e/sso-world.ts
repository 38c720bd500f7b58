import type { TestContext } from "node:test";
import { type AtriumProcess, createModel, removeData, startAtriumProcess } from "../support/atrium.ts";
import { type IdentityProvider, startIdentityProvider } from "../support/identity-provider.ts";
import { freshDatabase, type TestDatabase } from "../support/postgres.ts";
import { WebClient } from "../support/web-client.ts";

export const AUDIENCE = "https://atrium.test";
export const MODEL = "toy";

/** A server, the tenant `acme` with the project `research`, and an identity provider of its own, each a real one on loopback. */
export interface SsoWorld {
  readonly atrium: AtriumProcess;
  /** What it was started with. */
  readonly environment: Readonly<Record<string, string>>;
  readonly idp: IdentityProvider;
  readonly database: TestDatabase;
}

export async function startSsoWorld(t: TestContext): Promise<SsoWorld> {
  const database = await freshDatabase(t, "embedded");
  const environment = { DATABASE_URL: database.url, ATRIUM_MASTER_KEY: "a7".repeat(32), ATRIUM_EGRESS_ALLOW: "127.0.0.0/8" };
  const atrium = await startAtriumProcess({ environment });
  t.after(async () => {
    await atrium.kill();
    await removeData(atrium.dataDirectory);
  });
  const idp = await startIdp(t, atrium);
  await createModel(atrium, { model: MODEL, provider: "simulated", upstreamModel: "simulated" });
  for (const tenant of ["acme", "other"]) await atrium.admin("PUT", `tenants/${tenant}`, {});
  await atrium.admin("PUT", "tenants/acme/grants/toy", {});
  await atrium.admin("PUT", "tenants/acme/projects/research", {});
  await putProvider(atrium, "acme", idp);
  return { atrium, environment, idp, database };
}

/** A provider that knows this server's callbacks of the tenants `acme` and `other`. */
export async function startIdp(t: TestContext, atrium: Pick<AtriumProcess, "url">): Promise<IdentityProvider> {
  const idp = await startIdentityProvider(t, () => [
    {
      id: "atrium",
      secret: CLIENT_SECRET,
      redirectUris: ["acme/idp", "acme/second", "other/idp", "staff"].map((path) => `${atrium.url}/console/callback/${path}`),
      signedOutUris: [`${atrium.url}/console/signed-out`],
    },
  ]);
  idp.accounts.set("ada", { email: "ada@acme.test", name: "Ada Lovelace", groups: ["administrators"] });
  idp.accounts.set("ben", { email: "ben@acme.test", name: "Ben", groups: ["engineers"] });
  idp.accounts.set("eve", { email: "eve@acme.test", name: "Eve", groups: ["visitors"] });
  return idp;
}

export function putProvider(
  atrium: Pick<AtriumProcess, "admin">,
  tenant: string,
  { issuer }: IdentityProvider,
  changes: Readonly<Record<string, unknown>> = {},
  name = "idp",
): Promise<unknown> {
  return atrium.admin("PUT", `tenants/${tenant}/identity_providers/${name}`, {
    display_name: "Acme ID",
    issuer,
    client_id: "atrium",
    client_secret: CLIENT_SECRET,
    auto_provision: true,
    ...(tenant === "acme" && name === "idp" ? { audiences: [AUDIENCE], project_claim: "project", group_roles: GROUP_ROLES } : {}),
    ...changes,
  });
}

const GROUP_ROLES = [
  { group: "administrators", role: "tenant_admin" },
  { group: "engineers", role: "developer", project: "research" },
];

/** Signs in as this account, without a browser; ends before the provider's answer is sent back, with the URL of it. */
export async function upToCallback(
  atrium: Pick<AtriumProcess, "url">,
  client: WebClient,
  login: string,
  start = "acme/idp",
): Promise<string> {
  return authorize(
    client,
    (await client.follow(`${atrium.url}/console/start/${start}`, (url) => url.includes("/auth?"))).url,
    atrium,
    login,
  );
}

/** From the provider's first page on. */
export async function authorize(client: WebClient, url: string, atrium: Pick<AtriumProcess, "url">, login: string): Promise<string> {
  const isBack = (each: string) => each.startsWith(`${atrium.url}/console/callback/`);
  const page = await client.follow(url, isBack);
  if (isBack(page.url)) return page.url;
  const answered = await client.submit(page, { login, password: "any" });
  const onwards = new URL(answered.headers.get("location") ?? "", page.url).href;
  return isBack(onwards) ? onwards : (await client.follow(onwards, isBack)).url;
}

/** Signed in; throws where that fails. */
export async function signedIn(atrium: Pick<AtriumProcess, "url">, login: string, start = "acme/idp"): Promise<WebClient> {
  const client = new WebClient();
  const { url, response } = await client.follow(await upToCallback(atrium, client, login, start));
  if (!url.endsWith("/console/account"))
    throw new Error(`${login} is not signed in: ${response.status} at ${url}: ${await response.text()}`);
  return client;
}

/** What the session's pages bring beside the cookie. */
export async function csrfToken(atrium: Pick<AtriumProcess, "url">, client: WebClient): Promise<string> {
  const page = await (await client.send(`${atrium.url}/console/account`)).text();
  return /name="csrf_token" value="([^"]+)"/.exec(page)?.[1] ?? "";
}

const CLIENT_SECRET = "client-secret-canary-0123456789abcdef";
