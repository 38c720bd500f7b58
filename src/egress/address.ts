import { isIP } from "node:net";

/** An IPv6 address, or an IPv4 one in its mapped form `::ffff:a.b.c.d`: 16 octets, so that every spelling of an address is judged once. */
export type Octets = Uint8Array;

/** A block of addresses, as settings name it and as `BlockList.addSubnet` takes it. */
export interface Network {
  readonly address: string;
  readonly prefixLength: number;
  readonly family: "ipv4" | "ipv6";
}

/** What kind of network an address is part of; `public` alone may be called without being named. */
export type AddressClass =
  | "public"
  | "unspecified"
  | "loopback"
  | "private"
  | "shared"
  | "link_local"
  | "metadata"
  | "documentation"
  | "benchmark"
  | "multicast"
  | "reserved"
  | "6to4"
  | "teredo"
  | "isatap"
  | "nat64_local"
  | "translated"
  | "site_local";

/** Null where the text is no address, or one with a zone: those are of a link, and the octets do not say of which. */
export function parseAddress(text: string): Octets | null {
  switch (isIP(text)) {
    case 4:
      return mapped(text.split(".").map(Number));
    case 6:
      return text.includes("%") ? null : parseIPv6(text);
    default:
      return null;
  }
}

/** As a socket takes it. */
export function formatAddress(octets: Octets): string {
  if (isMapped(octets)) return octets.subarray(12).join(".");
  const groups = Array.from({ length: 8 }, (_, index) =>
    (((octets[2 * index] as number) << 8) | (octets[2 * index + 1] as number)).toString(16),
  );
  return groups.join(":");
}

export function classify(octets: Octets): AddressClass {
  const found = TABLE.find(({ prefix, length }) => isWithin(octets, prefix, length));
  // An address that could be reached from anywhere is in 2000::/3, or it is not IPv6: what no line names is refused.
  if (found === undefined) return (octets[0] as number) >> 5 === 1 ? withinGlobalUnicast(octets) : "reserved";
  return found.class === "carries_ipv4" ? classify(mapped([...octets.subarray(12)])) : found.class;
}

export function isWithinNetwork(octets: Octets, { address, prefixLength, family }: Network): boolean {
  const prefix = parseAddress(address);
  return prefix !== null && isWithin(octets, prefix, family === "ipv4" ? prefixLength + 96 : prefixLength);
}

/** ISATAP has no prefix of its own: it is known by the other half (RFC 5214, with either value of its universal bit). */
function withinGlobalUnicast(octets: Octets): AddressClass {
  const isIsatap = ((octets[8] as number) & 0xfd) === 0 && octets[9] === 0 && octets[10] === 0x5e && octets[11] === 0xfe;
  return isIsatap ? "isatap" : "public";
}

/** `a.b.c.d` at the end is two groups; `::` is as many zeros as are missing. */
function parseIPv6(text: string): Octets {
  const plain = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...parts: string[]) => {
    const [a, b, c, d] = parts.slice(0, 4).map(Number) as [number, number, number, number];
    return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  });
  const [head = "", tail] = plain.split("::");
  const groupsOf = (part: string): string[] => (part === "" ? [] : part.split(":"));
  const before = groupsOf(head);
  const after = groupsOf(tail ?? "");
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => "0");
  const groups = [...before, ...zeros, ...after].map((group) => Number.parseInt(group, 16));
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]));
}

function mapped(ipv4: readonly number[]): Octets {
  return Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...ipv4]);
}

function isMapped(octets: Octets): boolean {
  return isWithin(octets, MAPPED, 96);
}

function isWithin(octets: Octets, prefix: Octets, length: number): boolean {
  const whole = length >> 3;
  for (let index = 0; index < whole; index++) if (octets[index] !== prefix[index]) return false;
  const rest = length & 7;
  const mask = (0xff00 >> rest) & 0xff;
  return rest === 0 || ((octets[whole] as number) & mask) === ((prefix[whole] as number) & mask);
}

const MAPPED = mapped([0, 0, 0, 0]);

/** IANA's special-purpose registries, and what clouds answer on in public space. The first line that holds an address counts. */
const RANGES: readonly (readonly [block: string, is: AddressClass | "carries_ipv4"])[] = [
  ["169.254.169.254/32", "metadata"],
  ["169.254.170.2/32", "metadata"],
  ["169.254.170.23/32", "metadata"],
  ["100.100.100.200/32", "metadata"],
  ["168.63.129.16/32", "metadata"],
  ["192.0.0.192/32", "metadata"],
  ["0.0.0.0/8", "unspecified"],
  ["10.0.0.0/8", "private"],
  ["100.64.0.0/10", "shared"],
  ["127.0.0.0/8", "loopback"],
  ["169.254.0.0/16", "link_local"],
  ["172.16.0.0/12", "private"],
  ["192.0.0.0/24", "reserved"],
  ["192.0.2.0/24", "documentation"],
  ["192.31.196.0/24", "reserved"],
  ["192.52.193.0/24", "reserved"],
  ["192.88.99.0/24", "6to4"],
  ["192.168.0.0/16", "private"],
  ["192.175.48.0/24", "reserved"],
  ["198.18.0.0/15", "benchmark"],
  ["198.51.100.0/24", "documentation"],
  ["203.0.113.0/24", "documentation"],
  ["224.0.0.0/4", "multicast"],
  ["240.0.0.0/4", "reserved"],
  ["::ffff:0.0.0.0/96", "public"],
  ["::/128", "unspecified"],
  ["::1/128", "loopback"],
  ["::/96", "translated"],
  ["::ffff:0:0:0/96", "translated"],
  ["64:ff9b::/96", "carries_ipv4"],
  ["64:ff9b:1::/48", "nat64_local"],
  ["fd00:ec2::254/128", "metadata"],
  ["fd00:ec2::23/128", "metadata"],
  ["fd20:ce::254/128", "metadata"],
  ["fd00:42::42/128", "metadata"],
  ["fc00::/7", "private"],
  ["fe80::/10", "link_local"],
  ["fec0::/10", "site_local"],
  ["ff00::/8", "multicast"],
  ["2001::/32", "teredo"],
  ["2001:2::/48", "benchmark"],
  ["2001::/23", "reserved"],
  ["2001:db8::/32", "documentation"],
  ["2002::/16", "6to4"],
  ["2620:4f:8000::/48", "reserved"],
  ["3fff::/20", "documentation"],
];

const TABLE = RANGES.map(([block, is]) => {
  const [address = "", length] = block.split("/");
  return { prefix: parseAddress(address) as Octets, length: Number(length) + (isIP(address) === 4 ? 96 : 0), class: is };
});
