import type { IncomingMessage } from "node:http";
import { BlockList, isIP } from "node:net";
import type { Network } from "../../config.ts";

/** The address a request came from, for records. Empty where its connection is already gone. */
export type RemoteAddressOf = (request: Pick<IncomingMessage, "socket" | "headers">) => string;

/** Proxies of one `x-forwarded-for`: more is no chain of them. */
const MAX_PROXIES = 32;

/**
 * Behind trusted proxies, the right-most address of `x-forwarded-for` that is no proxy's: what stands to the left of it was
 * written by strangers, however much it is. A header that holds anything but addresses up to there, or more proxies than any
 * chain has, is not believed, and the answer is the connection's own address, as it is for every other peer.
 */
export function createRemoteAddress(trusted: readonly Network[]): RemoteAddressOf {
  if (trusted.length === 0) return ({ socket }) => ownAddress(socket);
  const proxies = new BlockList();
  for (const { address, prefixLength, family } of trusted) proxies.addSubnet(address, prefixLength, family);
  const isProxy = (address: string): boolean => isIP(address) !== 0 && proxies.check(address, isIP(address) === 6 ? "ipv6" : "ipv4");
  return ({ socket, headers }) => {
    const own = ownAddress(socket);
    const forwarded = headers["x-forwarded-for"];
    if (forwarded === undefined || !isProxy(own)) return own;
    const chain = [forwarded].flat().join(",").split(",");
    const nearest = chain.slice(-MAX_PROXIES).map((written) => addressIn(written.trim()));
    const client = nearest.findLastIndex((address) => address === null || !isProxy(address));
    // All of them are proxies: the first began it, where it is the chain's first.
    if (client === -1) return chain.length > MAX_PROXIES ? own : (nearest[0] ?? own);
    return nearest[client] ?? own;
  };
}

function ownAddress({ remoteAddress }: IncomingMessage["socket"]): string {
  return plain(remoteAddress ?? "");
}

/** An IPv4 address as itself on a socket that listens on both, and a link-local one without the interface's name. */
function plain(address: string): string {
  if (!address.includes(":")) return address;
  const [unscoped = ""] = address.split("%", 1);
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(unscoped)?.[1];
  return mapped ?? unscoped;
}

/** Some proxies add the port, and then brackets around IPv6. Null for anything that is no address. */
function addressIn(written: string): string | null {
  const bare = /^\[([^\]]+)\](?::\d{1,5})?$/.exec(written)?.[1] ?? /^([\d.]+):\d{1,5}$/.exec(written)?.[1] ?? written;
  return bare.includes("%") || isIP(bare) === 0 ? null : plain(bare);
}
