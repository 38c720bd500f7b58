import type { Network } from "./address.ts";
import { lookupInDns } from "./lookup.ts";
import { EgressFailed } from "./refusal.ts";
import { type EgressRequest, type EgressResponse, guardedRequest } from "./request.ts";
import { type Lookup, vetUrl } from "./vet.ts";

export type { Network } from "./address.ts";
export { EgressFailed, type EgressFailure, type EgressReason, EgressRefused, NOT_PUBLIC } from "./refusal.ts";
export type { EgressRequest, EgressResponse } from "./request.ts";

export interface EgressOptions {
  /** Networks beside public space, as ATRIUM_EGRESS_ALLOW names them. */
  readonly allow: readonly Network[];
  /** In place of DNS. */
  readonly lookup?: Lookup;
  /** PEM; trusted instead of the system's authorities. */
  readonly ca?: string;
}

/** The way out to URLs that tenants can influence. */
export interface Egress {
  /**
   * For whoever stores a URL: throws EgressRefused for one that would not be called. A name that has no address, or none within
   * `VET_MS`, passes: it may get one, and each request is judged anew.
   */
  vet(url: string): Promise<void>;
  /** Throws EgressRefused, EgressFailed. Any status is an answer. */
  request(url: string, request?: EgressRequest): Promise<EgressResponse>;
  /** As global `fetch`, for libraries that take one; follows at most three redirects. Rejects as `request` does. */
  fetch(url: string | URL, init?: EgressFetchInit): Promise<Response>;
}

/** What of `RequestInit` is honoured. */
export interface EgressFetchInit {
  readonly method?: string | undefined;
  readonly headers?: ConstructorParameters<typeof Headers>[0];
  readonly body?: unknown;
  readonly redirect?: "follow" | "manual" | "error" | undefined;
  readonly signal?: AbortSignal | null | undefined;
}

export function createEgress({ allow, lookup = lookupInDns, ca }: EgressOptions): Egress {
  const needs = { policy: { allow }, lookup, ca };
  const request = (url: string, options: EgressRequest = {}): Promise<EgressResponse> => guardedRequest(needs, url, options);
  let looking = 0;
  return {
    request,
    fetch: (url, init = {}) => fetchThrough(request, String(url), init),
    async vet(url) {
      // Whoever asks for names of a slow name server waits alone: the others' are judged when they are called.
      const lookupNow: Lookup = looking < MAX_LOOKING ? lookup : () => Promise.resolve([]);
      looking += 1;
      try {
        await vetUrl(url, needs.policy, lookupNow, AbortSignal.timeout(VET_MS));
      } catch (error) {
        if (!(error instanceof EgressFailed)) throw error;
      } finally {
        looking -= 1;
      }
    },
  };
}

async function fetchThrough(request: Egress["request"], url: string, init: EgressFetchInit): Promise<Response> {
  const { method = "GET", redirect = "follow", signal } = init;
  const headers = new Headers(init.headers);
  if (init.body instanceof URLSearchParams && !headers.has("content-type"))
    headers.set("content-type", "application/x-www-form-urlencoded;charset=UTF-8");
  const body = bodyOf(init.body);
  const answer = await request(url, {
    method,
    headers: Object.fromEntries(headers),
    maxRedirects: redirect === "follow" ? FETCH_REDIRECTS : 0,
    ...(body === undefined ? {} : { body }),
    ...(signal === null || signal === undefined ? {} : { signal }),
  });
  const { status } = answer;
  if (redirect === "error" && status >= 300 && status < 400) throw new EgressFailed("bad_response");
  if (status < 200 || status > 599) throw new EgressFailed("bad_response");
  const response = new Response(BODILESS.has(status) ? null : new Uint8Array(answer.body), { status, headers: answer.headers });
  Object.defineProperty(response, "url", { value: answer.url });
  return response;
}

function bodyOf(body: unknown): string | Uint8Array | undefined {
  if (body === undefined || body === null) return undefined;
  if (typeof body === "string" || body instanceof Uint8Array) return body;
  if (body instanceof URLSearchParams) return body.toString();
  throw new EgressFailed("bad_request");
}

/** Statuses that `Response` takes no body with. */
const BODILESS: ReadonlySet<number> = new Set([204, 205, 304]);
const FETCH_REDIRECTS = 3;
const VET_MS = 1_000;
const MAX_LOOKING = 4;
