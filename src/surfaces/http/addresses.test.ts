import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { test } from "node:test";
import fc from "fast-check";
import { readConfig } from "../../config.ts";
import { createRemoteAddress } from "./addresses.ts";

function remoteAddress(trusted: string, peer: string | undefined, forwarded?: string): string {
  const networks = trusted === "" ? [] : (readConfig({ TRUSTED_PROXIES: trusted }).TRUSTED_PROXIES ?? []);
  const request = { socket: { remoteAddress: peer }, headers: forwarded === undefined ? {} : { "x-forwarded-for": forwarded } };
  return createRemoteAddress(networks)(request as unknown as IncomingMessage);
}

test("nobody is believed unless named, whatever is written", () => {
  for (const forwarded of ["1.2.3.4", "127.0.0.1", "::1, 1.2.3.4", ""]) {
    assert.equal(remoteAddress("", "10.0.0.1", forwarded), "10.0.0.1");
    assert.equal(remoteAddress("192.168.0.0/16", "10.0.0.1", forwarded), "10.0.0.1");
  }
});

test("behind trusted proxies the client is the right-most address that is no proxy's; what stands left of it is a stranger's word", () => {
  const trusted = "10.0.0.0/8, fd00::/8, 203.0.113.7";
  for (const [peer, forwarded, client] of [
    ["10.0.0.1", "198.51.100.4", "198.51.100.4"],
    ["10.0.0.1", "6.6.6.6, 198.51.100.4", "198.51.100.4"],
    ["10.0.0.1", "10.6.6.6, 198.51.100.4, 10.0.0.2,203.0.113.7", "198.51.100.4"],
    ["10.0.0.1", "<script>, 198.51.100.4", "198.51.100.4"],
    ["fd00::1", "2001:db8::9, fd12::1", "2001:db8::9"],
    ["10.0.0.1", "2001:db8::9", "2001:db8::9"],
    // A stranger cannot hide behind the proxy's own address by writing more than a chain can hold.
    ["10.0.0.1", `${"6.6.6.6,".repeat(100)} 198.51.100.4, 10.0.0.2`, "198.51.100.4"],
    // All of them are ours: the left-most began it.
    ["10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"],
    // A socket that listens on both families writes IPv4 so, and the list still knows it.
    ["::ffff:10.0.0.1", "::ffff:198.51.100.4", "198.51.100.4"],
    // Azure and some others add the port.
    ["10.0.0.1", "198.51.100.4:51234", "198.51.100.4"],
    ["10.0.0.1", "[2001:db8::9]:51234", "2001:db8::9"],
    ["10.0.0.1", "[2001:db8::9]", "2001:db8::9"],
    ["10.0.0.1", undefined, "10.0.0.1"],
  ] as const)
    assert.equal(remoteAddress(trusted, peer, forwarded), client, `${peer} ${forwarded}`);
});

test("garbage where a proxy should have written an address is not believed: the connection's own address counts", () => {
  const chain = Array.from({ length: 40 }, () => "10.0.0.2").join(",");
  for (const forwarded of [
    "",
    "unknown",
    "1.2.3",
    "6.6.6.6, unknown",
    "6.6.6.6,",
    "1.2.3.4:port",
    "fe80::1%eth0",
    "_hidden, 10.0.0.2",
    chain,
    "::1]",
  ])
    assert.equal(remoteAddress("10.0.0.0/8", "10.0.0.1", forwarded), "10.0.0.1", forwarded);
  assert.equal(remoteAddress("10.0.0.0/8", undefined, "6.6.6.6"), "", "a connection that is gone");
});

test("whatever a stranger writes, behind one trusted proxy the answer is the address that the proxy added", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.ipV4(), fc.ipV6()), fc.ipV4(), (stranger, address) => {
      fc.pre(!address.startsWith("10."));
      assert.equal(remoteAddress("10.0.0.0/8", "10.0.0.1", `${stranger}, ${address}`), address);
    }),
  );
});
