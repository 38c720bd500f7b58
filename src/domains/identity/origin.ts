import { BlockList, isIP } from "node:net";
import { Problem } from "../../kernel/problem.ts";
import type { KeyRecord } from "./model.ts";

/** The endpoints a key's `routes` may name, each a family of paths. */
export const ROUTE_FAMILIES = {
  "chat.completions": "`POST /v1/chat/completions`",
  messages: "`POST /v1/messages` and `/v1/messages/count_tokens`",
  models: "`GET /v1/models`",
  organization: "`/v1/organization/…` and `/v1/projects/…`",
  admin: "`/admin/v1/…`",
  metrics: "`GET /metrics`",
  console: "`/console`",
} as const satisfies Record<string, string>;

export type RouteFamily = keyof typeof ROUTE_FAMILIES;

/** Where a request is going, and where it came from as the trusted proxies have it. */
export interface Origin {
  readonly family: RouteFamily;
  /** Empty where its connection is already gone. */
  readonly address: string;
}

/** A key's allow-list of addresses. */
export interface Networks {
  /** CIDRs, as they were given. */
  readonly ranges: readonly string[];
  holds(address: string): boolean;
}

/**
 * Whether the key may be used there and from there. Throws Problem: invalid_api_key from elsewhere, since whoever found a key must
 * not learn that it is one; permission_denied for an endpoint that it is not for.
 */
export function admit(key: KeyRecord, from: Origin): void {
  if (key.networks !== null && !key.networks.every((networks) => networks.holds(from.address))) throw new Problem("invalid_api_key");
  if (key.routes !== null && !key.routes.has(from.family))
    throw new Problem("permission_denied", { message: `This key is not for this endpoint; it is for: ${[...key.routes].join(", ")}.` });
}

/** `10.0.0.0/8`, `2001:db8::/32`, or one address. Null for anything else. */
export function parseNetwork(text: string): Network | null {
  const [address = "", prefix, ...more] = text.split("/");
  const version = isIP(address);
  if (version === 0 || more.length > 0 || address.includes("%")) return null;
  const bits = version === 6 ? 128 : 32;
  if (prefix === undefined) return { address, prefixLength: bits, family: version === 6 ? "ipv6" : "ipv4" };
  if (!/^\d{1,3}$/.test(prefix) || Number(prefix) > bits) return null;
  return { address, prefixLength: Number(prefix), family: version === 6 ? "ipv6" : "ipv4" };
}

interface Network {
  readonly address: string;
  readonly prefixLength: number;
  readonly family: "ipv4" | "ipv6";
}

/** The allow-list of these CIDRs; what is none allows nothing. A list for each family: in one, `::/0` would hold every IPv4 address as well. */
export function networksOf(ranges: readonly string[]): Networks {
  const lists = { ipv4: new BlockList(), ipv6: new BlockList() };
  for (const range of ranges) {
    const network = parseNetwork(range);
    if (network !== null) add(lists[network.family], network);
  }
  return {
    ranges,
    holds(address) {
      const version = isIP(address);
      return version === 6 ? lists.ipv6.check(address, "ipv6") : version === 4 && lists.ipv4.check(address, "ipv4");
    },
  };
}

/** Whether each of these networks lies in one of those. */
export function networksWithin(outer: readonly string[], inner: readonly string[]): boolean {
  return inner.every((range) => {
    const network = parseNetwork(range);
    return network !== null && outer.some((each) => lies(network, parseNetwork(each)));
  });
}

function lies(inner: Network, outer: Network | null): boolean {
  if (outer === null || outer.family !== inner.family || outer.prefixLength > inner.prefixLength) return false;
  const list = new BlockList();
  add(list, outer);
  return list.check(inner.address, inner.family);
}

function add(list: BlockList, network: Network): void {
  list.addSubnet(network.address, network.prefixLength, network.family);
}
