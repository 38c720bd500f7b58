import { type IncomingMessage, request as httpRequest } from "node:http";
import type { Socket } from "node:net";
import { connectVetted } from "./connect.ts";
import { EgressFailed, EgressRefused } from "./refusal.ts";
import { type EgressPolicy, type Lookup, type Vetted, vetUrl } from "./vet.ts";

export interface EgressRequest {
  readonly method?: string;
  /** `host`, `connection` and what says how long the body is are set here: the caller's are dropped. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
  readonly signal?: AbortSignal;
  /** For everything: look-up, connection, all redirects and the whole body, ms. */
  readonly timeoutMs?: number;
  readonly maxBodyBytes?: number;
  /** Whether the status is all that is waited for: then `body` is empty. */
  readonly statusOnly?: boolean;
  /** Followed at most; 0 hands the answer over that asks for one. */
  readonly maxRedirects?: number;
}

export interface EgressResponse {
  readonly status: number;
  /** Lower-case names; what came more than once is joined by commas, `set-cookie` is left out. */
  readonly headers: Readonly<Record<string, string>>;
  /** As it came: nothing is decompressed. */
  readonly body: Buffer;
  /** Where it came from, after redirects. */
  readonly url: string;
}

export interface RequestNeeds {
  readonly policy: EgressPolicy;
  readonly lookup: Lookup;
  /** Trusted instead of the system's authorities. */
  readonly ca: string | undefined;
}

/** Vets, connects, sends, and does so again for each redirect. Throws EgressRefused, EgressFailed. */
export async function guardedRequest(needs: RequestNeeds, text: string, request: EgressRequest): Promise<EgressResponse> {
  const { signal, release } = deadline(request.timeoutMs ?? DEFAULT_TIMEOUT_MS, request.signal);
  try {
    let hop: Hop = { url: text, method: request.method ?? "GET", headers: ownHeaders(request.headers ?? {}), body: request.body };
    const most = request.maxRedirects ?? 0;
    for (let followed = 0; ; followed++) {
      const vetted = await vetUrl(hop.url, needs.policy, needs.lookup, signal);
      const maxBodyBytes = request.statusOnly === true ? null : (request.maxBodyBytes ?? DEFAULT_BODY_BYTES);
      const answer = await exchange(needs, vetted, hop, maxBodyBytes, signal);
      const next = most === 0 ? null : redirectOf(hop, vetted.url, answer);
      if (next === null) return answer;
      if (followed === most) throw new EgressRefused("too_many_redirects");
      hop = next;
    }
  } catch (error) {
    throw signal.aborted ? new EgressFailed(request.signal?.aborted === true ? "aborted" : "timeout", error) : error;
  } finally {
    release();
  }
}

interface Hop {
  readonly url: string;
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array | undefined;
}

/** Null where the answer asks for none. Throws EgressRefused where it asks for what is not done. */
function redirectOf(hop: Hop, from: URL, { status, headers }: EgressResponse): Hop | null {
  const location = headers["location"];
  if (location === undefined || !REDIRECTS.has(status)) return null;
  if (!URL.canParse(location, from.href)) throw new EgressRefused("not_a_url");
  // A relative one is completed by the parser; an absolute one is judged as it is written.
  const isAbsolute = /^[a-z][a-z0-9+.-]*:/i.test(location);
  const to = new URL(location, from.href);
  const url = isAbsolute ? location : to.href;
  if (from.protocol === "https:" && to.protocol === "http:") throw new EgressRefused("downgrade");
  const dropsBody = status === 303 || ((status === 301 || status === 302) && hop.method === "POST");
  const isReading = hop.method === "GET" || hop.method === "HEAD";
  const after: Hop = dropsBody && !isReading ? { ...hop, url, method: "GET", body: undefined } : { ...hop, url };
  if (to.origin === from.origin) return after;
  if (after.body !== undefined) throw new EgressRefused("body_to_another_origin");
  return { ...after, headers: Object.fromEntries(Object.entries(hop.headers).filter(([name]) => PUBLIC_HEADERS.has(name))) };
}

/** In lower case, without those that are set here or are of the connection. */
function ownHeaders(headers: Readonly<Record<string, string>>): Record<string, string> {
  const lower = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value] as const);
  return Object.fromEntries(lower.filter(([name]) => !CONNECTION_HEADERS.has(name)));
}

/** `maxBodyBytes` null: the body is not read. */
async function exchange(
  { ca }: RequestNeeds,
  vetted: Vetted,
  hop: Hop,
  maxBodyBytes: number | null,
  signal: AbortSignal,
): Promise<EgressResponse> {
  const socket = await connectVetted(vetted, ca, signal);
  try {
    const response = await send(socket, vetted.url, hop, signal);
    const body = maxBodyBytes === null ? Buffer.alloc(0) : await readAll(response, maxBodyBytes);
    return { status: response.statusCode ?? 0, headers: plainHeaders(response), body, url: vetted.url.href };
  } finally {
    socket.destroy();
  }
}

function send(socket: Socket, url: URL, { method, headers, body }: Hop, signal: AbortSignal): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown): void => reject(new EgressFailed("bad_response", error));
    try {
      const request = httpRequest({
        createConnection: () => socket,
        method,
        path: `${url.pathname}${url.search}`,
        headers: { "accept-encoding": "identity", ...headers, ...fixedHeaders(url, method, body) },
        maxHeaderSize: MAX_HEADER_BYTES,
        signal,
      });
      request.once("response", resolve);
      request.once("error", fail);
      // After the answer has begun, what breaks is told by the answer.
      request.on("error", () => {});
      // An answer of 101 ends the request, without an answer and without an error.
      request.once("close", () => fail(new Error("ended without an answer")));
      request.end(body);
    } catch (error) {
      reject(new EgressFailed("bad_request", error));
    }
  });
}

function fixedHeaders(url: URL, method: string, body: string | Uint8Array | undefined): Record<string, string> {
  const length = body === undefined ? 0 : Buffer.byteLength(body);
  const hasLength = body !== undefined || method === "POST" || method === "PUT";
  return { host: url.host, connection: "close", ...(hasLength ? { "content-length": String(length) } : {}) };
}

async function readAll(response: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > maxBytes) throw new EgressFailed("response_too_large");
      chunks.push(chunk);
    }
  } catch (error) {
    throw error instanceof EgressFailed ? error : new EgressFailed("bad_response", error);
  }
  return Buffer.concat(chunks);
}

function plainHeaders(response: IncomingMessage): Record<string, string> {
  const { "set-cookie": _, ...headers } = response.headers;
  return Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, Array.isArray(value) ? value.join(", ") : value]],
    ),
  );
}

/** The timeout and the caller's own signal as one, without a timer that outlives the request. */
function deadline(timeoutMs: number, outer: AbortSignal | undefined): { readonly signal: AbortSignal; release(): void } {
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  const timer = setTimeout(abort, timeoutMs);
  outer?.addEventListener("abort", abort, { once: true });
  if (outer?.aborted === true) abort();
  return {
    signal: controller.signal,
    release() {
      clearTimeout(timer);
      outer?.removeEventListener("abort", abort);
    },
  };
}

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
/** Those that tell nothing of the caller; all others stay with the first origin. */
const PUBLIC_HEADERS: ReadonlySet<string> = new Set(["accept", "accept-language", "user-agent"]);
const CONNECTION_HEADERS: ReadonlySet<string> = new Set(
  "host connection content-length transfer-encoding keep-alive te trailer upgrade expect proxy-authorization proxy-connection".split(" "),
);
const DEFAULT_TIMEOUT_MS = 10_000;
const DEFAULT_BODY_BYTES = 1024 * 1024;
const MAX_HEADER_BYTES = 16 * 1024;
