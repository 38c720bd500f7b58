import type { DispatchFailure } from "./contract.ts";
import { MalformedUpstream, type Fault } from "./dialects/wire.ts";
import type { ResponseHeaders } from "./upstream/header-block.ts";
import { ConnectionLost } from "./upstream/endpoint.ts";
import { CLOSED } from "./upstream/pool.ts";

/** An error response as a failure. The upstream's words are kept only where the fault can be the caller's, less our secrets. */
export function failureOfStatus(
  status: number,
  headers: ResponseHeaders,
  fault: Fault,
  secrets: readonly string[],
  now: number,
): DispatchFailure {
  const isCallers = status >= 400 && status < 500 && !ABOUT_OUR_ACCOUNT.has(status);
  const told = (text: string | null): string | null => (isCallers && text !== null ? redact(text, secrets) : null);
  return {
    kind: "status",
    status,
    retryAfterSeconds: retryAfterSeconds(headers, now),
    message: told(fault.message),
    param: told(fault.param),
    code: told(fault.code),
  };
}

/** A failure that a response of status 200 reported inside its body. Where the body names no status it counts as 502. */
export function failureOfFault(fault: Fault, headers: ResponseHeaders, secrets: readonly string[], now: number): DispatchFailure {
  return failureOfStatus(fault.status ?? 502, headers, fault, secrets, now);
}

/** A transport error before the first frame. `answered`: headers had come, so work was done and its answer was cut. */
export function failureOfTransport(error: Error, answered: boolean): DispatchFailure {
  if (error === CLOSED && !answered) return { kind: "unavailable" };
  return answered || error instanceof MalformedUpstream ? { kind: "malformed" } : { kind: "connect" };
}

/** What a log may hold of a transport error: our own words, else its name and code, never what it carries. */
export function causeOfTransport(error: Error): Error {
  if (error instanceof MalformedUpstream || error instanceof ConnectionLost) return error;
  const code = "code" in error && typeof error.code === "string" ? ` ${error.code}` : "";
  return new Error(`transport: ${error.name}${code}`);
}

/** 401, 402 and 403 speak of the platform's account, 407 of its network. */
const ABOUT_OUR_ACCOUNT: ReadonlySet<number> = new Set([401, 402, 403, 407]);

/** A pause longer than this is not believed. */
const MAX_RETRY_AFTER_SECONDS = 24 * 3600;

function retryAfterSeconds(headers: ResponseHeaders, now: number): number | null {
  const milliseconds = Number(headers.get("retry-after-ms") ?? Number.NaN);
  const given = headers.get("retry-after");
  const seconds = Number.isFinite(milliseconds)
    ? milliseconds / 1000
    : given === undefined
      ? Number.NaN
      : Number.isNaN(Number(given))
        ? (Date.parse(given) - now) / 1000
        : Number(given);
  return Number.isFinite(seconds) && seconds >= 0 ? Math.min(Math.ceil(seconds), MAX_RETRY_AFTER_SECONDS) : null;
}

function redact(text: string, secrets: readonly string[]): string {
  const without = secrets
    .filter((secret) => secret.length >= MIN_SECRET_LENGTH)
    .reduce((rest, secret) => rest.replaceAll(secret, "[redacted]"), text);
  return without.replace(/\b(?:(?:sk|xai|pplx|csk)-|gsk_|fw_|Bearer\s+)[A-Za-z0-9_*.-]{8,}/g, "[redacted]");
}

/** Shorter ones are words that a message may hold by chance (`none`, `test`). */
const MIN_SECRET_LENGTH = 6;
