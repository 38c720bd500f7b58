import assert from "node:assert/strict";
import { createHmac, createPublicKey } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { exportJWK, generateKeyPair, SignJWT, UnsecuredJWT } from "jose";
import { type IdentityProvider, startIdentityProvider } from "../../../../test/support/identity-provider.ts";
import type { MemberId, ProjectId, TenantId, Uuid } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { MemberRecord, Principal } from "../model.ts";
import { createAuthenticateToken, isToken } from "./bearer.ts";
import type { Assertion } from "./decide.ts";
import { createIssuers } from "./issuers.ts";
import { audienceKey, type ProviderRecord, type ProviderRules } from "./model.ts";

const TENANT = "01900000-0000-7000-8000-00000000000a" as TenantId;
const OTHER_TENANT = "01900000-0000-7000-8000-00000000000b" as TenantId;
const MEMBER = "01900000-0000-7000-8000-0000000000aa" as MemberId;
const [ONE, OTHER] = ["01900000-0000-7000-8000-0000000000b1", "01900000-0000-7000-8000-0000000000b2"] as [ProjectId, ProjectId];
const AUDIENCE = "https://atrium.test";
const MINUTE_MS = 60_000;

test("a token of the provider, for this audience, is its subject, with what its groups say", async (t) => {
  const { idp, authenticate, admitted } = await world(t, { groupRoles: [{ group: "ml", role: "developer", project: null }] });
  const principal = await authenticate(await idp.token({ sub: "service-1", aud: AUDIENCE, groups: ["ml", "other"] }));
  assert.deepEqual([principal.id, principal.tenant], [MEMBER, TENANT]);
  assert.deepEqual([admitted[0]?.subject, admitted[0]?.roles], ["service-1", ["developer"]]);
});

test("a verified token is not verified again, and is refused at once when its member is removed or its provider changed", async (t) => {
  const { idp, authenticate, members, admitted, changeProvider } = await world(t);
  const token = await idp.token({ sub: "s", aud: AUDIENCE });
  await authenticate(token);
  const again = authenticate(token);
  assert.ok(!(again instanceof Promise), "a known token is answered synchronously");
  assert.equal(admitted.length, 1);
  const record = members.get(MEMBER) as MemberRecord;
  members.delete(MEMBER);
  assert.throws(() => authenticate(token), isProblem("invalid_api_key"));
  members.set(MEMBER, record);
  changeProvider({});
  await authenticate(token);
  assert.equal(admitted.length, 2, "after a change of the provider it is verified again");
  changeProvider({ audiences: ["another"] });
  assert.throws(() => authenticate(token), isProblem("invalid_api_key"));
});

test("tokens asked for at the same time are verified once", async (t) => {
  const { idp, authenticate, admitted } = await world(t);
  const token = await idp.token({ sub: "s", aud: AUDIENCE });
  await Promise.all(Array.from({ length: 20 }, async () => authenticate(token)));
  assert.equal(admitted.length, 1);
});

test("a forged, foreign, early or misdirected token gets one and the same refusal", async (t) => {
  const { idp, authenticate } = await world(t);
  const now = Math.floor(Date.now() / 1000);
  const good = { iss: idp.issuer, sub: "s", aud: AUDIENCE, iat: now, exp: now + 300 };
  const stranger = await generateKeyPair("RS256", { extractable: true });
  const strangersJwk = await exportJWK(stranger.publicKey);
  const signed = (claims: object, header: object, key = stranger.privateKey) =>
    new SignJWT({ ...good, ...claims }).setProtectedHeader({ alg: "RS256", kid: "first", ...header }).sign(key);
  const [header, payload, signature] = (await idp.token({ sub: "s", aud: AUDIENCE })).split(".") as [string, string, string];
  const attacks: Record<string, string> = {
    "alg none": new UnsecuredJWT(good).encode().replace(/\.$/, ".AA"),
    "alg none, written otherwise": `${encode({ alg: "nOnE" })}.${encode(good)}.AA`,
    "HS256 with the public key": publicKeyAsSecret(idp, good),
    "another audience": await idp.token({ sub: "s", aud: "https://other.test" }),
    "no audience": await idp.token({ sub: "s" }),
    "another issuer": await idp.token({ sub: "s", aud: AUDIENCE, iss: "https://other.test" }),
    "another issuer with a slash": await idp.token({ sub: "s", aud: AUDIENCE, iss: `${idp.issuer}/` }),
    "not yet": await idp.token({ sub: "s", aud: AUDIENCE, nbf: now + 120 }),
    "no end": await idp.token({ sub: "s", aud: AUDIENCE, exp: undefined }),
    "no subject": await idp.token({ aud: AUDIENCE }),
    "an algorithm that is not allowed": await new SignJWT(good)
      .setProtectedHeader({ alg: "ES512", kid: "first" })
      .sign((await generateKeyPair("ES512")).privateKey),
    "a stranger's key under a known kid": await signed({}, {}),
    "a stranger's key in the header": await signed({}, { jwk: strangersJwk }),
    "a kid that is a path": await signed({}, { kid: "../../../../dev/null" }),
    "a kid that is SQL": await signed({}, { kid: "' OR 1=1 --" }),
    "an unknown critical extension": await signed({}, { crit: ["b64"], b64: true }),
    "another payload": `${header}.${encode({ ...good, sub: "admin" })}.${signature}`,
    "another signature": `${header}.${payload}.${signature.slice(0, -4)}AAAA`,
    "no JSON": `eyJhbGciOi.${payload}.${signature}`,
  };
  for (const [name, token] of Object.entries(attacks)) {
    assert.ok(isToken(token), name);
    await assert.rejects(async () => authenticate(token), isProblem("invalid_api_key"), name);
  }
  t.diagnostic(`${Object.keys(attacks).length} attacks refused`);
  await authenticate(await idp.token({ sub: "s", aud: [AUDIENCE, "https://other.test"] }));
});

test("keys are never fetched from where a token says", async (t) => {
  const { idp, authenticate } = await world(t);
  const { privateKey, publicKey } = await generateKeyPair("RS256", { extractable: true });
  let fetched = 0;
  const thief = createServer((_request, response) => {
    fetched += 1;
    void exportJWK(publicKey).then((jwk) => response.end(JSON.stringify({ keys: [{ ...jwk, kid: "thief" }] })));
  });
  await new Promise<void>((resolve) => thief.listen(0, "127.0.0.1", resolve));
  t.after(() => thief.close());
  const url = `http://127.0.0.1:${(thief.address() as AddressInfo).port}/keys`;
  for (const header of [{ jku: url }, { x5u: url }]) {
    const token = new SignJWT({ iss: idp.issuer, sub: "s", aud: AUDIENCE }).setExpirationTime("5m");
    const signed = await token.setProtectedHeader({ alg: "RS256", kid: "thief", ...header }).sign(privateKey);
    await assert.rejects(async () => authenticate(signed), isProblem("invalid_api_key"));
  }
  assert.equal(fetched, 0);
});

test("a token that was good and has expired says so; one that was never good does not", async (t) => {
  const { idp, authenticate, time } = await world(t);
  const now = Math.floor(Date.now() / 1000);
  const expired = await idp.token({ sub: "s", aud: AUDIENCE, iat: now - 900, exp: now - 600 });
  await assert.rejects(async () => authenticate(expired), isProblem("expired_api_key"));
  await assert.rejects(async () => authenticate(`${expired.slice(0, -4)}AAAA`), isProblem("invalid_api_key"));
  const brief = await idp.token({ sub: "s", aud: AUDIENCE });
  await authenticate(brief);
  time.later = 6 * MINUTE_MS;
  assert.throws(() => authenticate(brief), isProblem("expired_api_key"));
});

test("an unknown key id makes one look at the provider's keys, not one for each token", async (t) => {
  const { idp, authenticate } = await world(t);
  await authenticate(await idp.token({ sub: "s", aud: AUDIENCE }));
  const before = idp.asked.get("/jwks");
  for (let count = 0; count < 20; count++) {
    const token = await idp.token({ sub: "s", aud: AUDIENCE }, { kid: `unknown-${count}` });
    await assert.rejects(async () => authenticate(token), isProblem("invalid_api_key"));
  }
  assert.equal(idp.asked.get("/jwks"), before, "within the cooldown after the last look there is none");
  assert.equal(before, 1);
});

test("an issuer that is down is 503, is not asked for each token, and what was verified before goes on", async (t) => {
  const { idp, authenticate, time } = await world(t);
  const known = await idp.token({ sub: "s", aud: AUDIENCE });
  await authenticate(known);
  const { idp: down, authenticate: elsewhere, requests } = await world(t);
  const token = await down.token({ sub: "s", aud: AUDIENCE });
  await down.close();
  for (let count = 0; count < 10; count++) await assert.rejects(async () => elsewhere(token), isProblem("overloaded"));
  assert.equal(requests(), 1);
  await idp.close();
  time.later = MINUTE_MS;
  await authenticate(known);
});

test("an issuer that has no keys to show, whatever it answers in their place, is 503 and is not asked for each token", async (t) => {
  for (const [status, body] of [
    [429, '{"keys":[]}'],
    [404, "none"],
    [302, ""],
    [200, "<html>"],
    [200, '{"keys":7}'],
  ] as const) {
    const { idp, authenticate, requests, answerKeys } = await world(t);
    answerKeys(() => new Response(body, { status }));
    for (let count = 0; count < 5; count++) {
      const token = await idp.token({ sub: `s${count}`, aud: AUDIENCE });
      await assert.rejects(async () => authenticate(token), isProblem("overloaded"), `${status} ${body}`);
    }
    assert.equal(requests(), 2, "its metadata, and its keys");
  }
});

test("what the issuer signed for another use, or for the holder of a key, is not taken", async (t) => {
  const { idp, authenticate } = await world(t);
  const as = async (claims: object, header: object) => authenticate(await idp.token({ sub: "s", aud: AUDIENCE, ...claims }, { ...header }));
  for (const typ of ["logout+jwt", "application/logout+jwt", "secevent+jwt", "dpop+jwt", "oauth-authz-req+jwt", "", 7])
    await assert.rejects(as({}, { typ }), isProblem("invalid_api_key"), String(typ));
  for (const typ of [undefined, "JWT", "at+jwt", "application/AT+JWT"]) assert.equal((await as({ typ }, { typ })).id, MEMBER);
  await assert.rejects(as({ cnf: { jkt: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" } }, {}), isProblem("invalid_api_key"));
});

test("of one tenant's tokens so many are verified at once, and however slow its provider is, another tenant's are not kept waiting", async (t) => {
  const slow = await world(t);
  const { promise: late, resolve: answer } = Promise.withResolvers<void>();
  slow.answerKeys(() => late.then(() => new Response('{"keys":[]}')));
  const forged = async (index: number) => {
    const [header, , signature] = (await slow.idp.token({ sub: "s" })).split(".");
    return `${header}.${encode({ iss: slow.idp.issuer, aud: AUDIENCE, index })}.${signature}`;
  };
  const waiting: Promise<unknown>[] = [];
  for (let index = 0; index < 64; index++) waiting.push(Promise.resolve(slow.authenticate(await forged(index))));
  const one = await forged(64);
  assert.throws(() => slow.authenticate(one), isProblem("overloaded"));
  slow.moveTo(OTHER_TENANT);
  waiting.push(Promise.resolve(slow.authenticate(one)));
  answer();
  const ended = await Promise.allSettled(waiting);
  assert.ok(ended.every((each) => each.status === "rejected" && isProblem("invalid_api_key")(each.reason)));
});

test("the project is the one that the claim names, where the subject has rights in it", async (t) => {
  const { idp, authenticate, members } = await world(t, { projectClaim: "atrium.project" });
  const as = async (claims: object) => (await authenticate(await idp.token({ sub: "s", aud: AUDIENCE, ...claims }))).project;
  assert.equal(await as({}), undefined);
  assert.equal(await as({ atrium: { project: "one" } }), ONE);
  await assert.rejects(as({ atrium: { project: "other" } }), isProblem("invalid_api_key"));
  await assert.rejects(as({ atrium: { project: 7 } }), isProblem("invalid_api_key"));
  members.set(MEMBER, memberWith([ONE, OTHER]));
  assert.equal(await as({ atrium: { project: "other" }, nonce: 3 }), OTHER);
});

test("an API key, and what is too long, has not the form of a token", () => {
  for (const text of ["", "atr_0123456789_x", "eyJhbGciOiJIUzI1NiJ9", "eyJ.a", "eyJ.a.b.c", "eyJ.a.b=", `eyJ.${"a".repeat(20_000)}.b`])
    assert.ok(!isToken(text), text.slice(0, 30));
});

async function world(t: TestContext, rules: Partial<ProviderRules> = {}) {
  const idp = await startIdentityProvider(t, () => []);
  const time = { later: 0 };
  const clock = { now: () => Date.now() + time.later, monotonic: () => performance.now() };
  let provider = providerWith(idp, rules);
  let requests = 0;
  let keysAnswer: (() => Response | Promise<Response>) | null = null;
  const admitted: Assertion[] = [];
  const members = new Map<MemberId, MemberRecord>([[MEMBER, memberWith([ONE])]]);
  const authenticate = createAuthenticateToken({
    clock,
    issuers: createIssuers({
      clock,
      fetchGuarded(url, init) {
        requests += 1;
        return keysAnswer !== null && url.endsWith("/jwks") ? Promise.resolve(keysAnswer()) : fetch(url, init);
      },
    }),
    providerFor: (issuer, audience) =>
      provider.rules.audiences.some((each) => audienceKey(provider.issuer, each) === audienceKey(issuer, audience)) ? provider : undefined,
    admit: async (_provider, assertion) => (admitted.push(assertion), MEMBER),
    memberOf: (_tenant, id) => members.get(id),
    principalOf: (tenant, id, project) => (members.has(id) ? ({ id, tenant, project, kind: "user" } as unknown as Principal) : null),
    projectNamed: (_tenant, name) => ({ one: ONE, other: OTHER })[name],
  });
  return {
    idp,
    time,
    authenticate,
    admitted,
    members,
    requests: () => requests,
    /** In place of the provider's own. */
    answerKeys: (answer: typeof keysAnswer) => void (keysAnswer = answer),
    moveTo: (tenant: TenantId) => void (provider = { ...provider, tenant }),
    changeProvider: (changes: Partial<ProviderRules>) => void (provider = providerWith(idp, { ...rules, ...changes }, 2)),
  };
}

function providerWith(idp: IdentityProvider, rules: Partial<ProviderRules>, revision = 1): ProviderRecord {
  return {
    id: "01900000-0000-7000-8000-0000000000cc" as Uuid,
    tenant: TENANT,
    name: "idp",
    displayName: null,
    issuer: idp.issuer,
    clientId: null,
    clientSecretSealed: null,
    revision,
    rules: {
      audiences: [AUDIENCE],
      algorithms: ["RS256", "ES256"],
      scopes: ["openid"],
      groupsClaim: "groups",
      projectClaim: null,
      groupRoles: [],
      emailDomains: [],
      trustEmail: false,
      autoProvision: true,
      ...rules,
    },
  };
}

function memberWith(projects: readonly ProjectId[]): MemberRecord {
  return {
    id: MEMBER,
    tenant: TENANT,
    kind: "user",
    project: null,
    permissions: new Set(),
    projects: new Map(projects.map((project) => [project, new Set(["models:call"] as const)])),
  };
}

/** The classic confusion: the public key, which everybody has, taken for a shared secret. */
function publicKeyAsSecret(idp: IdentityProvider, claims: object): string {
  const pem = createPublicKey({ key: { ...idp.publicKey }, format: "jwk" }).export({ type: "spki", format: "pem" });
  const signing = `${encode({ alg: "HS256", kid: idp.publicKey.kid })}.${encode(claims)}`;
  return `${signing}.${createHmac("sha256", pem).update(signing).digest("base64url")}`;
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

function isProblem(code: Problem["code"]): (error: unknown) => boolean {
  return (error) => error instanceof Problem && error.code === code;
}
