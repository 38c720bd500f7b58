import type { IncomingHttpHeaders } from "node:http";

const BEARER = /^Bearer +(\S+) *$/i;

/** The credential a request presents: `Authorization: Bearer`, `x-api-key` or `api-key`; null when there is none. */
export function credentialOf(headers: IncomingHttpHeaders): string | null {
  if (headers.authorization !== undefined) return BEARER.exec(headers.authorization)?.[1] ?? null;
  const named = headers["x-api-key"] ?? headers["api-key"];
  return typeof named === "string" && named !== "" ? named : null;
}
