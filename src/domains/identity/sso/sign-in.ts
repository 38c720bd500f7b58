import { hash } from "node:crypto";
import { jwtVerify } from "jose";
import * as oidc from "openid-client";
import { z } from "zod";
import type { Clock } from "../../../kernel/clock.ts";
import type { MemberId } from "../../../kernel/ids.ts";
import { SealBroken, type TenantKeyring } from "../../../storage/secrets/index.ts";
import { type AdmissionNeeds, type AdmissionOrigin, type AdmitMember, memberRow } from "./admission.ts";
import { assertedAt, decideAssertion, isComplete } from "./decide.ts";
import { type FetchGuarded, isPlain, type Issuer, type Issuers, IssuerUnreachable, TIMEOUT_SECONDS } from "./issuers.ts";
import type { Claims, ProviderRecord } from "./model.ts";
import type { Sessions } from "./sessions.ts";

export interface SignInNeeds extends Pick<AdmissionNeeds, "makeId" | "writeAudit"> {
  readonly clock: Clock;
  readonly fetchGuarded: FetchGuarded;
  readonly issuers: Issuers;
  readonly admit: AdmitMember;
  readonly sessions: Sessions;
  /** Of the provider's tenant. */
  readonly keyring: (provider: ProviderRecord) => TenantKeyring;
}

/** Why somebody is not signed in. `unreachable` and `unfinished` may be tried again. */
export type SignInFailure = "unreachable" | "unfinished" | "declined" | "not_a_member" | "not_configured";

export class SignInRefused extends Error {
  override readonly name = "SignInRefused";
  readonly failure: SignInFailure;

  constructor(failure: SignInFailure, cause?: unknown) {
    super(`sign-in refused: ${failure}`, { cause });
    this.failure = failure;
  }
}

export interface Begun {
  /** The provider's page. */
  readonly location: string;
  /** What the browser must bring back: sealed, and bound to this provider. */
  readonly cookie: string;
  /** How long the browser may keep it. */
  readonly cookieSeconds: number;
}

export interface Finished {
  /** The session's. */
  readonly cookie: string;
  readonly member: MemberId;
  /** A path of the console. */
  readonly returnTo: string;
}

export interface SignIn {
  /** Rejects with SignInRefused: unreachable, not_configured. */
  begin(provider: ProviderRecord, wanted: { redirectUri: string; returnTo: string; invitation: string | null }): Promise<Begun>;
  /** `answer` is the URL that the provider sent the browser to. Rejects with SignInRefused, and with Problem while the database is away. */
  finish(provider: ProviderRecord, answer: URL, cookie: string | null, origin: AdmissionOrigin): Promise<Finished>;
  /** Where the person is signed out of the provider too; null where it has no such page, or cannot be asked. */
  endSession(provider: ProviderRecord, idToken: string | null, returnTo: string): Promise<string | null>;
}

/** Authorization code with PKCE, state and nonce. What is pending travels sealed in the browser, so that strangers fill no memory here. */
export function createSignIn(needs: SignInNeeds): SignIn {
  const spent = new SpentStates(needs.clock);
  return {
    async begin(provider, { redirectUri, returnTo, invitation }) {
      const configuration = await configurationOf(needs, provider);
      const pending: Pending = {
        state: oidc.randomState(),
        nonce: oidc.randomNonce(),
        verifier: oidc.randomPKCECodeVerifier(),
        returnTo,
        invitation,
        until: needs.clock.now() + PENDING_MS,
      };
      const challenge = await oidc.calculatePKCECodeChallenge(pending.verifier);
      const location = pageOf(provider, () =>
        oidc.buildAuthorizationUrl(configuration, {
          redirect_uri: redirectUri,
          scope: provider.rules.scopes.join(" "),
          code_challenge: challenge,
          code_challenge_method: "S256",
          state: pending.state,
          nonce: pending.nonce,
        }),
      );
      return {
        location: location.href,
        cookie: needs.keyring(provider).seal(JSON.stringify(pending), placeOf(provider)).toString("base64url"),
        cookieSeconds: PENDING_MS / 1000,
      };
    },

    async finish(provider, answer, cookie, origin) {
      const pending = opened(needs, provider, cookie);
      if (pending === null || !spent.spend(pending)) throw new SignInRefused("unfinished");
      const issuer = await issuerOf(needs, provider);
      const { claims, idToken } = await exchanged(needs, provider, issuer, answer, pending);
      const verdict = decideAssertion(provider.rules, claims, true);
      if (verdict.kind === "refused") throw new SignInRefused("not_a_member");
      let session = "";
      const member = await needs.admit(provider, verdict.assertion, assertedAt(claims, needs.clock.now()), {
        invitation: pending.invitation,
        origin,
        async alongside(tx, admitted) {
          session = await needs.sessions.open(tx, {
            tenant: provider.tenant,
            subject: { kind: "member", id: admitted },
            provider,
            idToken,
          });
          const deed = { action: "console.sign_in", before: null, after: { identity_provider: provider.name } };
          await needs.writeAudit(tx, memberRow(needs, admitted, deed, origin));
        },
      });
      if (member === null) throw new SignInRefused("not_a_member");
      return { cookie: session, member, returnTo: pending.returnTo };
    },

    async endSession(provider, idToken, returnTo) {
      try {
        const configuration = await configurationOf(needs, provider);
        if (configuration.serverMetadata().end_session_endpoint === undefined) return null;
        const hint = idToken === null ? {} : { id_token_hint: idToken };
        return pageOf(provider, () => oidc.buildEndSessionUrl(configuration, { post_logout_redirect_uri: returnTo, ...hint })).href;
      } catch (error) {
        if (error instanceof SignInRefused) return null;
        throw error;
      }
    },
  };
}

async function issuerOf(needs: SignInNeeds, provider: ProviderRecord): Promise<Issuer> {
  try {
    return await needs.issuers.of(provider.tenant, provider.issuer);
  } catch (cause) {
    throw new SignInRefused("unreachable", cause);
  }
}

async function configurationOf(needs: SignInNeeds, provider: ProviderRecord): Promise<oidc.Configuration> {
  if (provider.clientId === null) throw new SignInRefused("not_configured");
  const { metadata } = await issuerOf(needs, provider);
  const configuration = new oidc.Configuration(metadata, provider.clientId, undefined, clientAuthentication(needs, provider, metadata));
  configuration[oidc.customFetch] = (url, init) => needs.fetchGuarded(url, init as RequestInit);
  configuration.timeout = TIMEOUT_SECONDS;
  if (isPlain(provider.issuer)) oidc.allowInsecureRequests(configuration);
  return configuration;
}

function clientAuthentication(needs: SignInNeeds, provider: ProviderRecord, metadata: oidc.ServerMetadata): oidc.ClientAuth {
  if (provider.clientSecretSealed === null) return oidc.None();
  const place = { table: "identity_providers", column: "client_secret_sealed", row: provider.id };
  const secret = needs.keyring(provider).open(provider.clientSecretSealed, place).toString();
  const methods = metadata.token_endpoint_auth_methods_supported ?? ["client_secret_basic"];
  return methods.includes("client_secret_basic") ? oidc.ClientSecretBasic(secret) : oidc.ClientSecretPost(secret);
}

/**
 * The provider's answer for its tokens. openid-client checks state, issuer, nonce, audience and times; the signature and its algorithm
 * are checked here, with the keys and the list that bearer tokens meet.
 */
async function exchanged(
  needs: SignInNeeds,
  provider: ProviderRecord,
  issuer: Issuer,
  answer: URL,
  pending: Pending,
): Promise<{ claims: Claims; idToken: string }> {
  const configuration = await configurationOf(needs, provider);
  try {
    const tokens = await oidc.authorizationCodeGrant(configuration, answer, {
      expectedState: pending.state,
      expectedNonce: pending.nonce,
      pkceCodeVerifier: pending.verifier,
      idTokenExpected: true,
    });
    const idToken = tokens.id_token as string;
    const { payload } = await jwtVerify(idToken, issuer.keys, {
      algorithms: [...provider.rules.algorithms],
      issuer: provider.issuer,
      audience: provider.clientId as string,
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
      requiredClaims: ["exp", "iat", "sub"],
    });
    return { claims: await completed(configuration, provider, payload as Claims, tokens.access_token), idToken };
  } catch (cause) {
    throw new SignInRefused(failureOf(cause), cause);
  }
}

/** Some providers tell groups, and even the email, only when they are asked once more. */
async function completed(
  configuration: oidc.Configuration,
  provider: ProviderRecord,
  claims: Claims,
  accessToken: string,
): Promise<Claims> {
  if (isComplete(provider.rules, claims) || configuration.serverMetadata().userinfo_endpoint === undefined) return claims;
  const more = await oidc.fetchUserInfo(configuration, accessToken, claims["sub"] as string);
  return { ...more, ...claims };
}

function failureOf(cause: unknown): SignInFailure {
  if (cause instanceof oidc.AuthorizationResponseError) return cause.error === "access_denied" ? "declined" : "unfinished";
  if (cause instanceof IssuerUnreachable || cause instanceof TypeError) return "unreachable";
  return "unfinished";
}

/**
 * What a browser is sent to: nothing but a web page, and over TLS unless the issuer itself is plain. The host goes into a content
 * security policy, where `*` and `;`, which a URL may have in it, mean something. Throws SignInRefused.
 */
function pageOf(provider: ProviderRecord, build: () => URL): URL {
  let url: URL;
  try {
    url = build();
  } catch (cause) {
    throw new SignInRefused("unreachable", cause);
  }
  const isWeb = url.protocol === "https:" || (isPlain(provider.issuer) && url.protocol === "http:");
  if (!isWeb || !/^(?:[a-z0-9._-]+|\[[0-9a-f:]+\])$/.test(url.hostname)) throw new SignInRefused("unreachable");
  return url;
}

/** Null for what this installation did not seal for this provider, and for what is too old. */
function opened(needs: SignInNeeds, provider: ProviderRecord, cookie: string | null): Pending | null {
  if (cookie === null || cookie.length > MAX_COOKIE_LENGTH) return null;
  try {
    const text = needs.keyring(provider).open(Buffer.from(cookie, "base64url"), placeOf(provider)).toString();
    const pending = pendingSignIn.parse(JSON.parse(text));
    return needs.clock.now() < pending.until ? pending : null;
  } catch (error) {
    if (error instanceof SealBroken) return null;
    throw error;
  }
}

const pendingSignIn = z.object({
  state: z.string(),
  nonce: z.string(),
  verifier: z.string(),
  returnTo: z.string(),
  invitation: z.string().nullable(),
  until: z.number(),
});
type Pending = z.infer<typeof pendingSignIn>;

/** No table holds it: the place binds it to the one provider. */
function placeOf(provider: ProviderRecord) {
  return { table: "identity_providers", column: "sign_in", row: provider.id };
}

/** A state is for one answer. Providers refuse a code's second use as well; this one does not leave the house. */
class SpentStates {
  readonly #clock: Clock;
  readonly #until = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** False where it was spent before. */
  spend({ state, until }: Pending): boolean {
    const digest = hash("sha256", state, "base64");
    if (this.#until.has(digest)) return false;
    this.#until.set(digest, until);
    for (const [old, end] of this.#until) {
      if (end > this.#clock.now() && this.#until.size <= MAX_SPENT) break;
      this.#until.delete(old);
    }
    return true;
  }
}

/** How long somebody may take at the provider, ms. */
const PENDING_MS = 10 * 60_000;
const MAX_COOKIE_LENGTH = 4_096;
const CLOCK_TOLERANCE_SECONDS = 30;
const MAX_SPENT = 10_000;
