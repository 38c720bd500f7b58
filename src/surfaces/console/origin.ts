import type { FastifyRequest } from "fastify";

export interface OriginNeeds {
  /** PUBLIC_URL; null: whatever host the browser asked for, at this server's own scheme and base path. */
  readonly publicUrl: string | null;
  readonly secure: boolean;
  readonly basePath: string;
}

/** Where browsers reach the console: `https://atrium.example/ai`, without a slash at its end. */
export function consoleUrl(request: FastifyRequest, { publicUrl, secure, basePath }: OriginNeeds): URL {
  if (publicUrl !== null) return new URL(publicUrl);
  const { host } = request;
  return new URL(`${secure ? "https" : "http"}://${HOST.test(host) ? host : "localhost"}${basePath}`);
}

/**
 * Whether the browser says that its own page, of this origin, made the request. Every browser of today says so; what says nothing is no
 * browser, and has no business with a cookie.
 */
export function isFromOwnPage({ headers }: FastifyRequest, own: URL): boolean {
  const site = headers["sec-fetch-site"];
  const { origin } = headers;
  if (site === undefined && origin === undefined) return false;
  return (site === undefined || site === "same-origin") && (origin === undefined || origin === own.origin);
}

const HOST = /^(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/;
