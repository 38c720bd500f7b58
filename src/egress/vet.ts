import { isIP } from "node:net";
import { classify, formatAddress, isWithinNetwork, type Network, type Octets, parseAddress } from "./address.ts";
import { EgressFailed, type EgressReason, EgressRefused } from "./refusal.ts";

/** The addresses of a name, as text. Rejects, or resolves to none, where it has none. */
export type Lookup = (name: string, signal: AbortSignal) => Promise<readonly string[]>;

export interface EgressPolicy {
  /** Networks that may be called although they are not public, and over http. */
  readonly allow: readonly Network[];
}

/** A URL, and where its host is: `addresses` were judged, and no others may be connected to. */
export interface Vetted {
  readonly url: URL;
  /** At least one, as a socket takes them. */
  readonly addresses: readonly string[];
}

/**
 * What the text alone tells, before any look-up. Throws EgressRefused.
 * The URL has its fragment cut off, which is never sent.
 */
function parseTarget(text: string, policy: EgressPolicy): URL {
  if (text.length > MAX_URL_LENGTH) throw new EgressRefused("too_long");
  // The parser drops or rewrites these, so that another parser may read another host.
  if (!/^[\x21-\x5b\x5d-\x7e\u00a1-\u{10ffff}]+$/u.test(text)) throw new EgressRefused("not_a_url");
  const scheme = /^[a-z][a-z0-9+.-]*:/i.exec(text)?.[0].toLowerCase();
  if (scheme === undefined) throw new EgressRefused("not_a_url");
  if (scheme !== "https:" && scheme !== "http:") throw new EgressRefused("scheme");
  const authority = /^[a-z]+:\/\/([^/?#]*)/i.exec(text)?.[1] ?? "";
  if (authority === "") throw new EgressRefused("not_a_url");
  if (authority.includes("@")) throw new EgressRefused("user_information");
  if (!URL.canParse(text)) throw new EgressRefused(looksNumeric(authority) ? "notation" : "not_a_url");
  const url = new URL(text);
  url.hash = "";
  refuseHost(url, authority, policy);
  return url;
}

function looksNumeric(authority: string): boolean {
  return authority.startsWith("[") || /^(?=.*\d)[\d.xa-f:]*$/i.test(authority);
}

function refuseHost(url: URL, authority: string, policy: EgressPolicy): void {
  const written = authority.replace(/:\d*$/, "").toLowerCase();
  const { hostname } = url;
  // What the parser takes for an address must have been written as one: octal, hexadecimal and short forms mean different hosts to different parsers.
  if (isIP(hostname) === 4 && written !== hostname) throw new EgressRefused("notation");
  if (hostname.endsWith(".") || written.includes("%")) throw new EgressRefused("notation");
  if (!isLiteral(hostname) && !/^[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/.test(hostname)) throw new EgressRefused("notation");
  // Where networks are named, only its addresses tell whether it may be a name of theirs.
  const fault = policy.allow.length > 0 ? null : faultInPublic(url);
  if (fault !== null) throw new EgressRefused(fault);
}

/** What a URL may not be that leads to public space; null where it may. */
function faultInPublic(url: URL): EgressReason | null {
  if (isSpecialName(url.hostname)) return "special_name";
  if (url.protocol !== "https:") return "plain_http";
  const port = portOf(url);
  return port === 443 || port > 1023 ? null : "port";
}

export function portOf(url: URL): number {
  if (url.port !== "") return Number(url.port);
  return url.protocol === "https:" ? 443 : 80;
}

/** Throws EgressRefused, and EgressFailed where the name has no address, or none in time. */
export async function vetUrl(text: string, policy: EgressPolicy, lookup: Lookup, signal: AbortSignal): Promise<Vetted> {
  const url = parseTarget(text, policy);
  const addresses = await addressesOf(url, lookup, signal);
  const reasons = addresses.map((address) => reasonAgainst(address, url, policy));
  const reason = reasons.find((each) => each !== null);
  if (reason !== undefined && reason !== null) throw new EgressRefused(reason);
  return { url, addresses: addresses.flatMap((each) => (each === null ? [] : [formatAddress(each)])) };
}

async function addressesOf(url: URL, lookup: Lookup, signal: AbortSignal): Promise<readonly (Octets | null)[]> {
  const { hostname } = url;
  if (isLiteral(hostname)) return [parseAddress(hostname.replace(/^\[|\]$/g, ""))];
  let found: readonly string[];
  try {
    found = await Promise.race([lookup(hostname, signal), rejectionOf(signal)]);
  } catch (error) {
    throw new EgressFailed(signal.aborted ? "timeout" : "name_unknown", error);
  }
  if (found.length === 0) throw new EgressFailed("name_unknown");
  return found.map(parseAddress);
}

/** A look-up that ignores its signal is not waited for. */
function rejectionOf(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("no answer in time")), { once: true }));
}

/** Null where the address may be called by this URL. */
function reasonAgainst(address: Octets | null, url: URL, policy: EgressPolicy): EgressReason | null {
  if (address === null) return "unreadable_address";
  if (policy.allow.some((network) => isWithinNetwork(address, network))) return null;
  const found = classify(address);
  return found === "public" ? faultInPublic(url) : found;
}

function isLiteral(hostname: string): boolean {
  return hostname.startsWith("[") || isIP(hostname) !== 0;
}

/** Names that only mean something inside a network (RFC 6761, 6762, 8375, 9476): nobody else's are among them. */
function isSpecialName(hostname: string): boolean {
  if (isLiteral(hostname)) return false;
  const labels = hostname.split(".");
  return labels.length === 1 || SPECIAL_SUFFIXES.some((suffix) => hostname.endsWith(`.${suffix}`));
}

const SPECIAL_SUFFIXES =
  "localhost localdomain local internal intranet private corp home lan home.arpa test invalid onion alt svc cluster.local in-addr.arpa ip6.arpa".split(
    " ",
  );
const MAX_URL_LENGTH = 2_048;
