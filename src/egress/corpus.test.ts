import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import ipaddr from "ipaddr.js";
import fc from "fast-check";
import { classify, formatAddress, isWithinNetwork, type Network, type Octets, parseAddress } from "./address.ts";
import { EgressRefused } from "./refusal.ts";
import { type EgressPolicy, type Vetted, vetUrl } from "./vet.ts";

interface Payload {
  readonly url: string;
  /** What the name's look-up gives; absent where none may happen. */
  readonly resolves?: readonly string[];
  /** CIDRs of ATRIUM_EGRESS_ALLOW. */
  readonly allow?: readonly string[];
  /** Refused for this. */
  readonly reason?: string;
  /** Or let through, to these. */
  readonly connects?: readonly string[];
}

const corpus = JSON.parse(readFileSync(path.join(import.meta.dirname, "testing", "corpus.json"), "utf8")) as Readonly<
  Record<"refused" | "allowed" | "with_named_networks", readonly Payload[]>
>;

function networkOf(cidr: string): Network {
  const [address = "", length] = cidr.split("/");
  return { address, prefixLength: Number(length), family: address.includes(":") ? "ipv6" : "ipv4" };
}

async function judge({ url, resolves, allow = [] }: Payload): Promise<Vetted | string> {
  const policy: EgressPolicy = { allow: allow.map(networkOf) };
  const lookup = async () => resolves ?? assert.fail(`${url}: looked up`);
  try {
    return await vetUrl(url, policy, lookup, new AbortController().signal);
  } catch (refusal) {
    if (refusal instanceof EgressRefused) return refusal.reason;
    throw refusal;
  }
}

async function assertJudged(payloads: readonly Payload[]): Promise<number> {
  for (const payload of payloads) {
    const judged = await judge(payload);
    const found = typeof judged === "string" ? judged : judged.addresses;
    assert.deepEqual(found, payload.reason ?? payload.connects, JSON.stringify(payload));
  }
  return payloads.filter(({ reason }) => reason !== undefined).length;
}

test("every payload of the corpus is refused, for its reason", async (t) => {
  const payloads = [...corpus.refused, { url: `https://example.com/${"a".repeat(2_048)}`, reason: "too_long" }];
  const refused = await assertJudged(payloads);
  const reasons = new Set(payloads.map(({ reason }) => reason));
  t.diagnostic(`${refused} of ${payloads.length} payloads refused (100 %), for ${reasons.size} reasons`);
  assert.equal(refused, payloads.length);
  assert.ok(refused >= 200);
});

test("what is public is let through, and connected to where it was judged to be", async (t) => {
  assert.equal(await assertJudged(corpus.allowed), 0);
  t.diagnostic(`${corpus.allowed.length} let through`);
});

test("a named network opens its own addresses, and nothing beside them", async () => {
  assert.ok((await assertJudged(corpus.with_named_networks)) > 5);
});

/** Special-purpose blocks, each of which a random address would hardly ever meet. */
const BLOCKS = `
  0.0.0.0/6 10.0.0.0/7 100.64.0.0/9 127.0.0.0/7 169.254.0.0/15 172.16.0.0/11 192.0.0.0/15 192.168.0.0/15 192.31.196.0/23 192.52.193.0/23
  192.88.99.0/23 192.175.48.0/23 198.18.0.0/14 198.51.100.0/23 203.0.113.0/23 224.0.0.0/3 ::/95 ::ffff:0:0:0/95 64:ff9b::/95
  64:ff9b:1::/47 100::/63 2001::/22 2001:db8::/31 2002::/15 2620:4f:8000::/47 3fff::/19 5f00::/15 fc00::/6 fe80::/9 fec0::/9 ff00::/7
  2000::/3 ::/0 0.0.0.0/0`
  .trim()
  .split(/\s+/);

/** An address of a block, or just beside it. */
const addresses = fc.tuple(fc.constantFrom(...BLOCKS), fc.uint8Array({ minLength: 16, maxLength: 16 })).map(([block, noise]): Octets => {
  const network = networkOf(block);
  const prefix = parseAddress(network.address) as Octets;
  const length = network.prefixLength + (network.family === "ipv4" ? 96 : 0);
  return prefix.map((octet, index) => {
    const bits = Math.min(8, Math.max(0, length - index * 8));
    const mask = (0xff00 >> bits) & 0xff;
    return (octet & mask) | ((noise[index] as number) & ~mask & 0xff);
  });
});

/** What ipaddr.js says of the address that would really be met: mapped and NAT64 ones are their IPv4 address. */
function oracleRange(octets: Octets): string {
  const parsed = ipaddr.process(ipaddr.fromByteArray([...octets]).toString());
  if (parsed.range() === "rfc6052") return ipaddr.fromByteArray([...octets.subarray(12)]).range();
  return parsed.range();
}

/** Where ours is stricter than the oracle: each a class that the oracle's table has no line for. */
const STRICTER: ReadonlySet<string> = new Set(
  "isatap nat64_local metadata reserved translated teredo documentation benchmark site_local".split(" "),
);

test("no address that ipaddr.js knows as special is public here, and what is refused beyond it is refused for a reason of its own", (t) => {
  const counts = { public: 0, refused: 0, stricter: 0 };
  fc.assert(
    fc.property(addresses, (octets) => {
      const range = oracleRange(octets);
      const ours = classify(octets);
      if (ours === "public") {
        counts.public += 1;
        assert.equal(range, "unicast", `${formatAddress(octets)} is ${range}`);
        return;
      }
      counts.refused += 1;
      if (range !== "unicast") return;
      counts.stricter += 1;
      assert.ok(STRICTER.has(ours), `${formatAddress(octets)} is ${ours}, and unicast for the oracle`);
      const isIPv4 = isWithinNetwork(octets, { address: "0.0.0.0", prefixLength: 0, family: "ipv4" });
      if (isIPv4) assert.ok(ours === "metadata" || ours === "reserved", formatAddress(octets));
    }),
    { numRuns: 50_000 },
  );
  t.diagnostic(JSON.stringify(counts));
  assert.ok(counts.public > 1_000 && counts.refused > 1_000);
});

test("an address is the same 16 octets in every spelling, and is written as the one that was judged", () => {
  fc.assert(
    fc.property(addresses, (octets) => {
      const oracle = ipaddr.fromByteArray([...octets]) as ipaddr.IPv6;
      for (const spelling of [oracle.toString(), oracle.toNormalizedString(), formatAddress(octets)])
        assert.deepEqual([...(parseAddress(spelling) ?? [])], [...octets], spelling);
    }),
    { numRuns: 5_000 },
  );
});
