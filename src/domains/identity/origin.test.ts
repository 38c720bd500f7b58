import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Problem } from "../../kernel/problem.ts";
import type { KeyRecord } from "./model.ts";
import { admit, networksOf, networksWithin, type Origin, parseNetwork } from "./origin.ts";

const FROM: Origin = { family: "chat.completions", address: "203.0.113.7" };

function answerTo(bounds: Partial<KeyRecord>, from: Origin = FROM): string {
  try {
    admit({ networks: null, routes: null, ...bounds } as KeyRecord, from);
    return "admitted";
  } catch (thrown) {
    assert.ok(thrown instanceof Problem);
    return thrown.code;
  }
}

test("an address outside a key's ranges is answered as an unknown key is, an endpoint it is not for by name", () => {
  const inside = [networksOf(["203.0.113.0/24", "2001:db8::/32"])];
  const outside = [networksOf(["198.51.100.1"])];
  assert.equal(answerTo({ networks: inside }), "admitted");
  assert.equal(answerTo({ networks: inside }, { ...FROM, address: "2001:db8::7" }), "admitted");
  assert.equal(answerTo({ networks: outside }), "invalid_api_key");
  assert.equal(answerTo({ networks: [...inside, ...outside] }), "invalid_api_key", "each of them must hold it");
  assert.equal(answerTo({ networks: inside }, { ...FROM, address: "" }), "invalid_api_key", "an address that nobody knows");
  assert.equal(answerTo({ networks: [networksOf(["::/0"])] }), "invalid_api_key", "all of IPv6 is none of IPv4");
  assert.equal(answerTo({ networks: [networksOf([])] }), "invalid_api_key", "no range is no address");
  assert.equal(answerTo({ routes: new Set(["chat.completions"]) }), "admitted");
  assert.equal(answerTo({ routes: new Set(["messages", "models"]) }), "permission_denied");
  assert.equal(answerTo({ routes: new Set() }), "permission_denied");
  assert.equal(answerTo({ networks: outside, routes: new Set() }), "invalid_api_key", "whoever is elsewhere learns nothing of the key");
});

test("what is no network is none", () => {
  for (const text of [
    "",
    "10.0.0.0/33",
    "10.0.0/8",
    "::/129",
    "10.0.0.0/",
    "10.0.0.0/8/8",
    "fe80::1%eth0",
    "example.com",
    "10.0.0.0/-1",
    "010.0.0.1",
  ])
    assert.equal(parseNetwork(text), null, text);
  for (const text of ["10.0.0.0/8", "0.0.0.0/0", "::/0", "::1", "192.0.2.1"]) assert.notEqual(parseNetwork(text), null, text);
});

const octets = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255));
const number = ([a, b, c, d]: readonly number[]) => (((a ?? 0) * 256 + (b ?? 0)) * 256 + (c ?? 0)) * 256 + (d ?? 0);
const range = fc.tuple(octets, fc.integer({ min: 0, max: 32 }));

test("one range is within another exactly when every address of it is", () => {
  fc.assert(
    fc.property(range, range, ([outer, long], [inner, longer]) => {
      const first = (octets: readonly number[], bits: number) => Math.floor(number(octets) / 2 ** (32 - bits));
      const expected = longer >= long && Math.floor(number(inner) / 2 ** (32 - long)) === first(outer, long);
      assert.equal(networksWithin([`${outer.join(".")}/${long}`], [`${inner.join(".")}/${longer}`]), expected);
    }),
    { numRuns: 1_000 },
  );
});
