import { createLocalJWKSet, createRemoteJWKSet, customFetch as joseFetch, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";
import * as oidc from "openid-client";
import type { Clock } from "../../../kernel/clock.ts";
import type { TenantId } from "../../../kernel/ids.ts";

/** As the global one, but it reaches only where this installation may connect to. */
export type FetchGuarded = (url: string, init: RequestInit) => Promise<Response>;

export interface IssuersNeeds {
  readonly clock: Clock;
  readonly fetchGuarded: FetchGuarded;
}

/** An issuer as it describes itself, with its keys. */
export interface Issuer {
  readonly metadata: oidc.ServerMetadata;
  /** Rejects where no key matches, and with IssuerUnreachable. */
  readonly keys: JWTVerifyGetKey;
}

/** The provider's server does not answer, or not as an OpenID provider does. */
export class IssuerUnreachable extends Error {
  override readonly name = "IssuerUnreachable";
}

export interface Issuers {
  /** Its metadata is read once an hour; keys each ten minutes, and for an unknown `kid` at most twice a minute. Rejects with IssuerUnreachable. */
  of(tenant: TenantId, issuer: string): Promise<Issuer>;
}

/** One tenant's issuer is not another's, although the URL be the same: what one tenant causes, another does not meet. */
export function createIssuers(needs: IssuersNeeds): Issuers {
  const known = new Map<string, Known>();
  return {
    of(tenant, issuer) {
      const key = `${tenant} ${issuer}`;
      const now = needs.clock.monotonic();
      const present = known.get(key);
      if (present !== undefined && now < present.until) return present.found;
      const fresh: Known = { until: now + METADATA_MS, found: describe(needs, issuer) };
      // Told at once for a while, so that a server that is down is not asked for each request.
      fresh.found.catch(() => (fresh.until = needs.clock.monotonic() + FAILURE_MS));
      known.delete(key);
      known.set(key, fresh);
      const oldest = known.keys().next();
      if (known.size > MAX_ISSUERS && oldest.done !== true) known.delete(oldest.value);
      return fresh.found;
    },
  };
}

interface Known {
  until: number;
  readonly found: Promise<Issuer>;
}

async function describe(needs: IssuersNeeds, issuer: string): Promise<Issuer> {
  const fetchOrFail = failingSlowly(needs);
  let metadata: oidc.ServerMetadata;
  try {
    const found = await oidc.discovery(new URL(issuer), "discovery", undefined, undefined, {
      timeout: TIMEOUT_SECONDS,
      [oidc.customFetch]: (url, init) => fetchOrFail(url, init as RequestInit),
      ...(isPlain(issuer) ? { execute: [oidc.allowInsecureRequests] } : {}),
    });
    metadata = found.serverMetadata();
  } catch (cause) {
    throw new IssuerUnreachable("an issuer's metadata cannot be read", { cause });
  }
  if (metadata.jwks_uri === undefined || !URL.canParse(metadata.jwks_uri)) throw new IssuerUnreachable("an issuer names no keys");
  if (isPlain(metadata.jwks_uri) && !isPlain(issuer)) throw new IssuerUnreachable("an issuer's keys are not over TLS");
  const remote = createRemoteJWKSet(new URL(metadata.jwks_uri), {
    timeoutDuration: TIMEOUT_SECONDS * 1000,
    cacheMaxAge: KEYS_MS,
    cooldownDuration: COOLDOWN_MS,
    [joseFetch]: (url, init) =>
      fetchOrFail(url, init, async (response) => void createLocalJWKSet((await response.json()) as JSONWebKeySet)),
  });
  return { metadata, keys: (header, token) => remote(header, token) };
}

/**
 * A fetch whose failure stands for a while: what strangers send must not make requests to a server that is down, that asks to be left
 * alone, or whose answer `check` rejects.
 */
function failingSlowly({ fetchGuarded, clock }: IssuersNeeds) {
  let failed: { readonly until: number; readonly error: IssuerUnreachable } | null = null;
  return async (url: string, init: RequestInit, check?: (response: Response) => Promise<void>): Promise<Response> => {
    if (failed !== null && clock.monotonic() < failed.until) throw failed.error;
    try {
      const response = await fetchGuarded(url, init);
      if (response.status !== 200) throw new Error(`status ${response.status}`);
      await check?.(response.clone());
      failed = null;
      return response;
    } catch (cause) {
      const error = new IssuerUnreachable("an issuer's server does not answer", { cause });
      failed = { until: clock.monotonic() + FAILURE_MS, error };
      throw error;
    }
  };
}

/** Whether its endpoints may be plain http too. */
export function isPlain(issuer: string): boolean {
  return issuer.startsWith("http://");
}

export const TIMEOUT_SECONDS = 5;
const METADATA_MS = 60 * 60_000;
const KEYS_MS = 10 * 60_000;
const COOLDOWN_MS = 30_000;
const FAILURE_MS = 5_000;
const MAX_ISSUERS = 1_000;
