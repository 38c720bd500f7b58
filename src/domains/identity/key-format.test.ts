import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { KeyId } from "../../kernel/ids.ts";
import { systemRandom } from "../../kernel/random.ts";
import { newKeyId, newKeySecret, parseKeyId, renderKey } from "./key-format.ts";

const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".split("");
const base62 = (length: number) =>
  fc.array(fc.constantFrom(...BASE62), { minLength: length, maxLength: length }).map((digits) => digits.join(""));
const keys = fc.tuple(base62(10), base62(43));

test("every key is written as it is read: parse∘render gives the id back", () => {
  fc.assert(fc.property(keys, ([id, secret]) => parseKeyId(renderKey(id as KeyId, secret)) === id));
});

test("a key with one character changed, added, removed or swapped with its neighbour has no id", () => {
  fc.assert(
    fc.property(keys, fc.nat(63), fc.constantFrom(...BASE62), ([id, secret], at, digit) => {
      const key = renderKey(id as KeyId, secret);
      const forms = [
        key.slice(0, at) + digit + key.slice(at + 1),
        key.slice(0, at) + digit + key.slice(at),
        key.slice(0, at) + key.slice(at + 1),
        key.slice(0, at) + (key[at + 1] ?? "") + (key[at] ?? "") + key.slice(at + 2),
      ];
      return forms.every((form) => form === key || parseKeyId(form) === null);
    }),
    { numRuns: 2000 },
  );
});

test("arbitrary text has no id", () => {
  fc.assert(fc.property(fc.string(), (text) => parseKeyId(text) === null));
  assert.equal(parseKeyId(`${renderKey("0123456789" as KeyId, "a".repeat(43))}\n`), null);
});

test("the form is the documented one, checksum included", () => {
  const key = renderKey("0123456789" as KeyId, "A".repeat(43));
  assert.match(key, /^atr_[0-9A-Za-z]{10}_[0-9A-Za-z]{43}[0-9A-Za-z]{6}$/);
  // CRC-32 (IEEE) of "atr_0123456789_AAA…A", computed with Python's zlib.crc32, in base62.
  assert.equal(key.slice(-6), "3YR9Qe");
});

test("secrets are uniform over base62", () => {
  const counts = new Map<string, number>();
  for (let draw = 0; draw < 2000; draw += 1)
    for (const digit of newKeySecret(systemRandom) + newKeyId(systemRandom)) counts.set(digit, (counts.get(digit) ?? 0) + 1);
  const expected = (2000 * 53) / 62;
  assert.equal(counts.size, 62);
  // Six standard deviations: fails by chance once in a hundred million runs.
  for (const [digit, count] of counts) assert.ok(Math.abs(count - expected) < 6 * Math.sqrt(expected), `${digit}: ${count}`);
});
