import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { BOOTSTRAP_KEY, removeData, startAtriumProcess } from "../support/atrium.ts";
import { WebClient } from "../support/web-client.ts";
import {
  AUDIENCE,
  authorize,
  csrfToken,
  MODEL,
  putProvider,
  signedIn,
  type SsoWorld,
  startIdp,
  startSsoWorld,
  upToCallback,
} from "./sso-world.ts";

// Sign-in, sessions and bearer tokens as an attacker meets them: a whole process, and no browser that would hold anything back.

const REVOKED_WITHIN_MS = 1_000;

test("sign-in, sessions and tokens withstand", async (t) => {
  const world = await startSsoWorld(t);
  const { atrium, idp, database } = world;
  const rows = async (sql: string) => (await database.asSuperuser((client) => client.query(sql))).rows as Record<string, unknown>[];

  await t.test("an answer with another state, with none, or with another browser's is refused, and leaves nobody signed in", async () => {
    const client = new WebClient();
    const callback = new URL(await upToCallback(atrium, client, "ada"));
    const stolen = callback.href;
    for (const state of ["another", null]) {
      const changed = new URL(stolen);
      if (state === null) changed.searchParams.delete("state");
      else changed.searchParams.set("state", state);
      const attempt = new WebClient();
      attempt.setCookie("atrium_sign_in", client.cookies.get("atrium_sign_in") as string);
      await refused(await attempt.send(changed.href), 400, "Sign-in was not finished", attempt);
    }
    const elsewhere = new WebClient();
    await refused(await elsewhere.send(stolen), 400, "Sign-in was not finished", elsewhere);
    const withTheirOwn = new WebClient();
    await upToCallback(atrium, withTheirOwn, "ben");
    await refused(await withTheirOwn.send(stolen), 400, "Sign-in was not finished", withTheirOwn);
  });

  await t.test("an answer counts once, with its cookie or without", async () => {
    const client = new WebClient();
    const callback = await upToCallback(atrium, client, "ada");
    const pending = client.cookies.get("atrium_sign_in") as string;
    assert.equal((await client.send(callback)).status, 303);
    const replaying = new WebClient();
    replaying.setCookie("atrium_sign_in", pending);
    await refused(await replaying.send(callback), 400, "Sign-in was not finished", replaying);
    await refused(await client.send(callback), 400, "Sign-in was not finished", null);
  });

  await t.test("a sign-in cookie that was changed, or sealed for another provider, is none", async () => {
    await putProvider(atrium, "acme", idp, {}, "second");
    const client = new WebClient();
    const callback = await upToCallback(atrium, client, "ada");
    const pending = client.cookies.get("atrium_sign_in") as string;
    const changed = new WebClient();
    changed.setCookie("atrium_sign_in", `${pending.slice(0, -2)}${pending.endsWith("AA") ? "BB" : "AA"}`);
    await refused(await changed.send(callback), 400, "Sign-in was not finished", changed);
    await refused(await client.send(callback.replace("/acme/idp", "/acme/second")), 400, "Sign-in was not finished", client);
  });

  await t.test("an ID token that was asked for with another nonce is refused", async () => {
    const client = new WebClient();
    const begun = await client.send(`${atrium.url}/console/start/acme/idp`);
    const asked = new URL(begun.headers.get("location") as string);
    assert.equal(asked.searchParams.get("code_challenge_method"), "S256");
    asked.searchParams.set("nonce", "an-attackers-nonce");
    await refused(await client.send(await authorize(client, asked.href, atrium, "ada")), 400, "Sign-in was not finished", client);
  });

  await t.test("a code that was got with another challenge is refused", async () => {
    const client = new WebClient();
    const begun = await client.send(`${atrium.url}/console/start/acme/idp`);
    const asked = new URL(begun.headers.get("location") as string);
    asked.searchParams.set("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    await refused(await client.send(await authorize(client, asked.href, atrium, "ada")), 400, "Sign-in was not finished", client);
  });

  await t.test("one provider's answer is not taken for another's", async () => {
    const mallory = await startIdp(t, atrium);
    await putProvider(atrium, "acme", mallory, {}, "second");
    const client = new WebClient();
    const honest = new URL(await upToCallback(atrium, client, "ada"));
    honest.searchParams.set("iss", mallory.issuer);
    await refused(await client.send(honest.href), 400, "Sign-in was not finished", client);
    const lured = new WebClient();
    const code = new URL(await upToCallback(atrium, lured, "ada"));
    const begun = await lured.send(`${atrium.url}/console/start/acme/second`);
    const state = new URL(begun.headers.get("location") as string).searchParams.get("state") as string;
    code.pathname = "/console/callback/acme/second";
    code.searchParams.set("state", state);
    await refused(await lured.send(code.href), 400, "Sign-in was not finished", lured);
    assert.equal(mallory.asked.get("/token"), undefined, "the honest provider's code never went to the other");
  });

  await t.test("a session is another one after each sign-in, and the one before has ended", async () => {
    const client = await signedIn(atrium, "ada");
    const first = client.cookies.get("atrium_session") as string;
    const fixed = new WebClient();
    fixed.setCookie("atrium_session", first);
    assert.equal((await fixed.follow(await upToCallback(atrium, fixed, "ben"))).response.status, 200);
    assert.notEqual(fixed.cookies.get("atrium_session"), first);
    assert.equal((await client.send(`${atrium.url}/console/account`)).status, 401);
    const invented = new WebClient();
    invented.setCookie("atrium_session", `${first.slice(0, 37)}${"A".repeat(43)}`);
    assert.equal((await invented.send(`${atrium.url}/console/account`)).status, 401);
  });

  await t.test("a session ends with the provider that vouched for it: deleted, with another issuer, or for sign-in no more", async (t) => {
    const mallory = await startIdp(t, atrium);
    for (const end of [
      () => atrium.admin("DELETE", "tenants/acme/identity_providers/second"),
      () => putProvider(atrium, "acme", mallory, { group_roles: [{ group: "administrators", role: "auditor" }] }, "second"),
      () => putProvider(atrium, "acme", idp, { client_id: null, client_secret: null }, "second"),
    ]) {
      const rules = { group_roles: [{ group: "administrators", role: "auditor" }] };
      await putProvider(atrium, "acme", idp, rules, "second");
      const client = await signedIn(atrium, "ada", "acme/second");
      await putProvider(atrium, "acme", idp, { ...rules, display_name: "Changed" }, "second");
      assert.equal((await client.send(`${atrium.url}/console/account`)).status, 200, "another name of it ends nothing");
      const headers = { "x-atrium-csrf": await csrfToken(atrium, client), "sec-fetch-site": "same-origin" };
      await end();
      assert.equal((await client.send(`${atrium.url}/admin/v1/tenants/acme/projects`, { headers })).status, 401);
      await refused(await client.send(`${atrium.url}/console/account`), 401, "Your session has ended", client);
    }
    await atrium.admin("DELETE", "tenants/acme/identity_providers/second");
  });

  await t.test("an issuer that lies about itself sends nobody anywhere", async (t) => {
    let metadata: Record<string, unknown> = {};
    const server = createServer((_, response) => response.setHeader("content-type", "application/json").end(JSON.stringify(metadata)));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    t.after(() => server.close());
    const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const honest = { issuer, authorization_endpoint: `${issuer}/auth`, token_endpoint: `${issuer}/token`, jwks_uri: `${issuer}/jwks` };
    const start = async (lie: Record<string, unknown>, name: string) => {
      metadata = { ...honest, ...lie };
      // A path of its own makes it another issuer, which is asked anew.
      const own = `${issuer}/${name}`;
      await putProvider(atrium, "acme", { ...idp, issuer: own }, {}, "liar");
      if (lie["issuer"] === undefined) metadata = { ...metadata, issuer: own };
      return fetch(`${atrium.url}/console/start/acme/liar`, { redirect: "manual" });
    };
    assert.equal((await start({}, "honest")).status, 302);
    const lies = [
      { issuer: "https://accounts.google.com" },
      { issuer: 7 },
      { authorization_endpoint: "javascript:alert(1)" },
      { authorization_endpoint: "data:text/html,x" },
      { authorization_endpoint: "http://*;script-src/" },
      { authorization_endpoint: "" },
      { authorization_endpoint: null },
      { jwks_uri: "not a url" },
      { jwks_uri: null },
    ];
    for (const [index, lie] of lies.entries()) {
      const answer = await start(lie, `${index}`);
      assert.deepEqual([answer.status, answer.headers.get("location")], [502, null], JSON.stringify(lie));
    }
    await atrium.admin("DELETE", "tenants/acme/identity_providers/liar");
  });

  await t.test("a session that is idle or over has ended", async () => {
    for (const column of ["idle_at", "expires_at"]) {
      const client = await signedIn(atrium, "ada");
      await rows(`UPDATE console_sessions SET ${column} = now() - interval '1 second'`);
      await refused(await client.send(`${atrium.url}/console/account`), 401, "Your session has ended", client);
    }
    assert.deepEqual(await rows("SELECT 1 FROM console_sessions"), [], "what has ended is gone");
  });

  await t.test("the database holds neither cookies nor the client's secret nor tokens in clear", async () => {
    const client = await signedIn(atrium, "ada");
    const cookie = client.cookies.get("atrium_session") as string;
    const text = JSON.stringify([
      await rows("SELECT *, encode(content_sealed, 'escape') AS content, encode(cookie_hash, 'base64') AS hash FROM console_sessions"),
      await rows(
        "SELECT *, encode(rules_sealed, 'escape') AS rules, encode(client_secret_sealed, 'escape') AS secret FROM identity_providers",
      ),
    ]);
    assert.doesNotMatch(text, /secret-canary|administrators|eyJ/);
    assert.ok(!text.includes(cookie.slice(37)));
    assert.doesNotMatch(JSON.stringify(await atrium.admin("GET", "tenants/acme/identity_providers/idp")), /secret-canary/);
  });

  await t.test("a change of state that the console's own page did not ask for is refused", async () => {
    const client = await signedIn(atrium, "ada");
    const token = await csrfToken(atrium, client);
    const own = new URL(atrium.url).origin;
    const signOut = (csrf: string, headers: Record<string, string>) =>
      client.send(`${atrium.url}/console/sign-out`, { method: "POST", body: new URLSearchParams({ csrf_token: csrf }), headers });
    const attempts: readonly (readonly [string, Record<string, string>])[] = [
      [token, {}],
      [token, { origin: "https://evil.test" }],
      [token, { origin: "null" }],
      [token, { origin: own, "sec-fetch-site": "same-site" }],
      [token, { "sec-fetch-site": "cross-site" }],
      [token, { "sec-fetch-site": "none" }],
      ["", { origin: own }],
      [`${token.slice(0, -1)}_`, { origin: own, "sec-fetch-site": "same-origin" }],
    ];
    for (const [csrf, headers] of attempts) assert.equal((await signOut(csrf, headers)).status, 403, JSON.stringify(headers));
    assert.equal((await client.send(`${atrium.url}/console/account`)).status, 200);
    assert.equal((await signOut(token, { origin: own, "sec-fetch-site": "same-origin" })).status, 303);
    const keyForm = new WebClient();
    await keyForm.send(`${atrium.url}/console/sign-in`);
    for (const form_token of ["", "another"]) {
      const body = new URLSearchParams({ key: BOOTSTRAP_KEY, form_token });
      const answer = await keyForm.send(`${atrium.url}/console/sign-in/key`, { method: "POST", body, headers: { origin: own } });
      assert.equal(answer.status, 403);
    }
  });

  await t.test("a session's cookie opens the API with its token from the console's own pages, and not otherwise", async () => {
    const client = await signedIn(atrium, "ada");
    const token = await csrfToken(atrium, client);
    const own = new URL(atrium.url).origin;
    const url = `${atrium.url}/admin/v1/tenants/acme/projects`;
    const status = async (headers: Record<string, string>, target = url) => (await client.send(target, { headers })).status;
    const right = { "x-atrium-csrf": token, "sec-fetch-site": "same-origin" };
    assert.equal(await status(right), 200);
    assert.equal(await status({ ...right, origin: own }, `${atrium.url}/v1/organization/projects`), 200);
    assert.equal(await status(right, `${atrium.url}/admin/v1/tenants/other/projects`), 404);
    assert.equal(await status(right, `${atrium.url}/admin/v1/tenants`), 403);
    assert.equal(await status(right, `${atrium.url}/v1/models`), 401, "models are called with keys and tokens");
    for (const wrong of [{}, { "x-atrium-csrf": token }, { ...right, "x-atrium-csrf": "x" }, { ...right, origin: "https://evil.test" }])
      assert.equal(await status(wrong), 401, JSON.stringify(wrong));
    assert.equal(await status({ "x-atrium-csrf": token, "sec-fetch-site": "same-site" }), 401);
  });

  await t.test("nobody is sent to another site from here", async () => {
    for (const wanted of [
      "https://evil.test",
      "//evil.test",
      "/\\evil.test",
      "/%2f/evil.test",
      "/account/../../x",
      "javascript:alert(1)",
    ]) {
      const client = new WebClient();
      const start = `acme/idp?return_to=${encodeURIComponent(wanted)}`;
      const answer = await client.send(await upToCallback(atrium, client, "ada", start));
      assert.equal(answer.headers.get("location"), "/console/account", wanted);
    }
  });

  await t.test("an organization that does not exist is told like one without sign-in, and errors show nothing internal", async () => {
    const page = async (path: string) => {
      const answer = await fetch(`${atrium.url}/console/${path}`);
      return [answer.status, (await answer.text()).replaceAll(/never|other|[0-9a-f-]{36}|[\w-]{43}/g, "")];
    };
    assert.deepEqual(await page("sign-in/never"), await page("sign-in/other"));
    assert.deepEqual(await page("start/never/idp"), await page("start/other/idp"));
    const hostile = await (await fetch(`${atrium.url}/console/sign-in/${encodeURIComponent('"><script>alert(1)</script>')}`)).text();
    assert.doesNotMatch(hostile, /<script/);
    assert.equal((await fetch(`${atrium.url}/console/nothing`)).status, 404);
    assert.equal((await fetch(`${atrium.url}/console/sign-out`, { method: "POST", body: "{" })).status, 415);
  });

  await t.test("whoever has no role of a group is not let in, and it is noted", async () => {
    const client = new WebClient();
    const { response } = await client.follow(await upToCallback(atrium, client, "eve"));
    await refused(response, 403, "You have no access yet", client);
    assert.deepEqual(await rows("SELECT 1 FROM members WHERE removed_at IS NULL AND subject_index IS NULL"), []);
  });

  await t.test("a removed member's session and tokens are refused within a second, and its group does not bring it back", async () => {
    const client = await signedIn(atrium, "ben");
    const token = await idp.token({ sub: "ben", aud: AUDIENCE, groups: ["engineers"] });
    assert.equal(await modelsStatus(world, token), 200);
    const members = (await atrium.admin("GET", "tenants/acme/members?limit=100")) as { data: { id: string; email: string | null }[] };
    const ben = members.data.find(({ email }) => email === "ben@acme.test");
    await atrium.admin("DELETE", `tenants/acme/members/${ben?.id}`);
    const removedAt = performance.now();
    while ((await modelsStatus(world, token)) !== 401) assert.ok(performance.now() - removedAt < REVOKED_WITHIN_MS);
    assert.equal((await client.send(`${atrium.url}/console/account`)).status, 401);
    assert.equal(await modelsStatus(world, await idp.token({ sub: "ben", aud: AUDIENCE, groups: ["engineers"], jti: "new" })), 401);
    const again = new WebClient();
    await refused((await again.follow(await upToCallback(atrium, again, "ben"))).response, 403, "You have no access yet", again);
  });

  await t.test("a service calls a model with a token, in the project that the token names, and no further", async () => {
    const service = { sub: "batch-job", aud: AUDIENCE, groups: ["engineers"] };
    const token = await idp.token({ ...service, project: "research" });
    const answer = await fetch(`${atrium.url}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify({ model: MODEL, messages: [{ role: "user", content: "hello" }] }),
    });
    assert.equal(answer.status, 200, await answer.text());
    const status = async (path: string) => (await fetch(`${atrium.url}${path}`, { headers: { authorization: `Bearer ${token}` } })).status;
    assert.equal(await status("/admin/v1/tenants/acme/projects"), 403);
    assert.equal(await status("/admin/v1/tenants/other/projects"), 404);
    assert.equal(await modelsStatus(world, await idp.token({ ...service, project: "elsewhere" })), 401);
    assert.equal(await modelsStatus(world, await idp.token({ ...service, aud: "https://other.test" })), 401);
    const [owner] = await rows("SELECT count(*)::int AS count FROM members WHERE removed_at IS NULL AND email_index IS NULL");
    assert.equal(owner?.["count"], 1, "the service became one member, without an email");
  });

  await t.test("an issuer's audience is one tenant's, and an issuer that may not be reached is refused", async () => {
    await assert.rejects(putProvider(atrium, "other", idp, { audiences: [AUDIENCE] }), /409/);
    for (const issuer of [
      "http://169.254.169.254",
      "https://10.0.0.1",
      "https://localhost",
      "file:///etc/passwd",
      "https://user@acme.test",
    ])
      await assert.rejects(atrium.admin("PUT", "tenants/other/identity_providers/inside", { issuer }), /400/, issuer);
  });

  await t.test("who holds less than a tenant's administrator changes no identity provider", async () => {
    const { key } = (await atrium.admin("POST", "tenants/acme/keys", {
      name: "narrow",
      permissions: ["identity_providers:write", "identity_providers:read"],
    })) as { key: string };
    const answer = await fetch(`${atrium.url}/admin/v1/tenants/acme/identity_providers/idp`, {
      method: "PUT",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify({ issuer: idp.issuer }),
    });
    assert.equal(answer.status, 403);
    await assert.rejects(putProvider(atrium, "acme", idp, { group_roles: [{ group: "x", role: "platform_admin" }] }), /400/);
    await assert.rejects(putProvider(atrium, "acme", idp, { group_roles: [{ group: "*", role: "developer" }] }), /email_domains/);
    await assert.rejects(putProvider(atrium, "acme", idp, { algorithms: ["HS256"] }), /400/);
    await assert.rejects(putProvider(atrium, "acme", idp, { algorithms: ["none"] }), /400/);
  });

  await t.test("an administrator's key signs in, and the session ends with the key", async () => {
    const { id, key } = (await atrium.admin("POST", "tenants/acme/keys", { name: "person", permissions: ["tenant_admin"] })) as {
      id: string;
      key: string;
    };
    const client = new WebClient();
    const signIn = async (each: string) =>
      client.submit(await client.follow(`${atrium.url}/console/sign-in`), { key: each }, "/sign-in/key");
    assert.equal((await signIn(key)).status, 303);
    assert.match(await (await client.send(`${atrium.url}/console/account`)).text(), new RegExp(`Key ${id}`));
    assert.deepEqual(
      (await rows(`SELECT subject FROM console_sessions WHERE subject_kind = 'key'`)).map(({ subject }) => subject),
      [id],
    );
    await atrium.admin("DELETE", `tenants/acme/keys/${id}`);
    await sleep(REVOKED_WITHIN_MS);
    assert.equal((await client.send(`${atrium.url}/console/account`)).status, 401);
    assert.equal((await signIn(key)).status, 401);
    assert.equal((await signIn(BOOTSTRAP_KEY)).status, 303);
    assert.match(await (await client.send(`${atrium.url}/console/account`)).text(), /Platform/);
  });

  await t.test("signing in and out, and every change of a provider, is in the tenant's trail", async () => {
    const client = await signedIn(atrium, "ada");
    const token = await csrfToken(atrium, client);
    const body = new URLSearchParams({ csrf_token: token });
    const answer = await client.send(`${atrium.url}/console/sign-out`, {
      method: "POST",
      body,
      headers: { origin: new URL(atrium.url).origin },
    });
    assert.match(answer.headers.get("location") ?? "", new RegExp(`^${idp.issuer}/session/end\\?.*id_token_hint=`));
    const trail = (await atrium.admin("GET", "tenants/acme/audit?limit=100")) as {
      data: { action: string; actor_kind: string; after: unknown }[];
    };
    const actions = new Map(trail.data.map((row) => [row.action, row]));
    for (const action of ["console.sign_in", "console.sign_out", "member.provision", "identity_provider.put"])
      assert.ok(actions.has(action), action);
    assert.equal(actions.get("console.sign_in")?.actor_kind, "user");
    assert.doesNotMatch(JSON.stringify(trail), /secret-canary|eyJ/);
  });

  await t.test("behind a proxy, addresses and cookies are those of PUBLIC_URL", async () => {
    const behind = await startAtriumProcess({
      environment: { ...world.environment, PUBLIC_URL: "https://atrium.test/ai", BASE_PATH: "/ai" },
    });
    t.after(async () => {
      await behind.kill();
      await removeData(behind.dataDirectory);
    });
    const begun = await fetch(`${behind.url}/console/start/acme/idp`, { redirect: "manual" });
    const asked = new URL(begun.headers.get("location") as string);
    assert.equal(asked.searchParams.get("redirect_uri"), "https://atrium.test/ai/console/callback/acme/idp");
    assert.match(
      begun.headers.get("set-cookie") ?? "",
      /^__Host-atrium_sign_in=[^;]+; Path=\/; HttpOnly; SameSite=Lax; Secure; Max-Age=600$/,
    );
    const page = await (await fetch(`${behind.url}/console/sign-in/acme`)).text();
    assert.match(page, /href="\/ai\/console\/start\/acme\/idp\?/);
    assert.match(page, /href="\/ai\/console\/style\.css"/);
  });

  await t.test("what it printed holds no secret", () => {
    assert.doesNotMatch(atrium.output(), /secret-canary|eyJ|bootstrap-key-of/);
  });
});

async function modelsStatus({ atrium }: SsoWorld, token: string): Promise<number> {
  return (await fetch(`${atrium.url}/v1/models`, { headers: { authorization: `Bearer ${token}` } })).status;
}

/** A clear page of this status, and nobody signed in by it. */
async function refused(response: Response, status: number, title: string, client: WebClient | null): Promise<void> {
  const text = await response.text();
  assert.equal(response.status, status, text);
  assert.match(text, new RegExp(`<h1>${title}</h1>`));
  assert.doesNotMatch(text, /Error|stack|openid|127\.0\.0\.1|expected/i);
  assert.match(response.headers.get("content-security-policy") ?? "", /default-src 'none'/);
  if (client !== null) assert.equal(client.cookies.get("atrium_session"), undefined);
}
