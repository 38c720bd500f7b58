import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import { exportJWK, generateKeyPair, type JWK, SignJWT } from "jose";
import { type Configuration, Provider } from "oidc-provider";

/** Somebody with an account at the provider. The login is the account's name, the password anything. */
export interface Account {
  readonly email: string;
  readonly emailVerified?: boolean;
  readonly name?: string;
  readonly groups?: readonly string[];
}

export interface IdentityProviderClient {
  readonly id: string;
  readonly secret: string;
  readonly redirectUris: readonly string[];
  readonly signedOutUris?: readonly string[];
}

/** An OpenID provider on loopback, with pages that a browser signs in on. */
export interface IdentityProvider {
  readonly issuer: string;
  /** By login; may be changed while it runs. */
  readonly accounts: Map<string, Account>;
  /** Requests it got, by path. */
  readonly asked: Map<string, number>;
  /** A bearer token that it signed, as it would for a service: `claims` over `iss`, `sub`, `aud`, `iat`, `exp`. */
  token(claims: Readonly<Record<string, unknown>>, header?: Readonly<Record<string, unknown>>): Promise<string>;
  readonly publicKey: JWK;
  /** It signs with another key from now on; the one before is not published any more. */
  rotate(): Promise<void>;
  close(): Promise<void>;
}

/** Made of `oidc-provider`; its clients are known from the start. Closed with the test. */
export async function startIdentityProvider(
  t: TestContext,
  clients: (issuer: string) => readonly IdentityProviderClient[],
): Promise<IdentityProvider> {
  const accounts = new Map<string, Account>();
  const asked = new Map<string, number>();
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  let key = await newKey("first");
  let handle = providerOf(issuer, accounts, clients(issuer), key.jwk).callback();
  server.on("request", (request, response) => {
    const path = (request.url ?? "").split("?", 1)[0] as string;
    asked.set(path, (asked.get(path) ?? 0) + 1);
    void handle(request, response);
  });
  const close = async () => {
    server.closeAllConnections();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  };
  t.after(close);
  return {
    issuer,
    accounts,
    asked,
    get publicKey() {
      return key.publicJwk;
    },
    async token(claims, header = {}) {
      const now = Math.floor(Date.now() / 1000);
      return new SignJWT({ iss: issuer, iat: now, exp: now + 300, ...claims })
        .setProtectedHeader({ alg: "RS256", kid: key.jwk.kid as string, typ: "at+jwt", ...header })
        .sign(key.privateKey);
    },
    async rotate() {
      key = await newKey("second");
      handle = providerOf(issuer, accounts, clients(issuer), key.jwk).callback();
    },
    close,
  };
}

async function newKey(kid: string) {
  const { privateKey, publicKey } = await generateKeyPair("RS256", { extractable: true });
  const named = { kid, alg: "RS256", use: "sig" };
  return { privateKey, jwk: { ...(await exportJWK(privateKey)), ...named }, publicJwk: { ...(await exportJWK(publicKey)), ...named } };
}

function providerOf(
  issuer: string,
  accounts: ReadonlyMap<string, Account>,
  clients: readonly IdentityProviderClient[],
  jwk: JWK,
): Provider {
  const configuration: Configuration = {
    clients: clients.map(({ id, secret, redirectUris, signedOutUris = [] }) => ({
      client_id: id,
      client_secret: secret,
      redirect_uris: [...redirectUris],
      post_logout_redirect_uris: [...signedOutUris],
    })),
    jwks: { keys: [jwk as never] },
    cookies: { keys: ["a test's"] },
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name", "groups"] },
    // Some providers tell all in the ID token; this one keeps to the specification, so that userinfo is asked too.
    conformIdTokenClaims: true,
    pkce: { required: () => true },
    async findAccount(_context, login) {
      const account = accounts.get(login);
      if (account === undefined) return undefined;
      const { email, emailVerified = true, name = login, groups = [] } = account;
      return { accountId: login, claims: async () => ({ sub: login, email, email_verified: emailVerified, name, groups: [...groups] }) };
    },
    async loadExistingGrant(context) {
      const { oidc } = context;
      const grant = new oidc.provider.Grant({ clientId: oidc.client?.clientId as string, accountId: oidc.session?.accountId as string });
      grant.addOIDCScope("openid email profile");
      await grant.save();
      return grant;
    },
  };
  const provider = new Provider(issuer, configuration);
  provider.on("server_error", (_context, error) => console.error("identity provider", error));
  return provider;
}
