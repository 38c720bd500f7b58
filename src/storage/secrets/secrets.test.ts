import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { inspect } from "node:util";
import fc from "fast-check";
import { PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import { systemRandom } from "../../kernel/random.ts";
import {
  createTenantKey,
  createTenantKeyring,
  derive,
  loadMasterKey,
  MasterKeyProblem,
  masterKeyFrom,
  SealBroken,
  type TenantKey,
  unwrapTenantKey,
  wrapTenantKey,
} from "./index.ts";

const TENANT = "01900000-0000-7000-8000-00000000000a" as TenantId;
const PLACE = { table: "credentials", column: "secret", row: "r1" };

const text = fc.string({ unit: "binary" });
const place = fc.record({ table: text, column: text, row: text });
const keyring = (tenant: TenantId = TENANT, versions: ReadonlyMap<number, TenantKey> = new Map([[1, createTenantKey()]])) =>
  createTenantKeyring(tenant, versions);

test("what is sealed opens in its place, and only there", () => {
  const ring = keyring();
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), place, place, (plaintext, here, there) => {
      const sealed = ring.seal(plaintext, here);
      assert.deepEqual(new Uint8Array(ring.open(sealed, here)), plaintext);
      if (JSON.stringify(here) !== JSON.stringify(there)) assert.throws(() => ring.open(sealed, there), SealBroken);
    }),
  );
});

test("no shift of bytes between table, column and row gives another place the same seal", () => {
  const ring = keyring();
  const sealed = ring.seal("secret", { table: "ab", column: "c", row: "d" });
  for (const moved of [
    { table: "a", column: "bc", row: "d" },
    { table: "ab", column: "", row: "cd" },
    { table: "ab", column: "cd", row: "" },
  ]) {
    assert.throws(() => ring.open(sealed, moved), SealBroken);
  }
});

test("a ciphertext with any one bit changed, or cut, does not open", () => {
  const ring = keyring();
  const sealed = ring.seal("a provider's key", PLACE);
  for (let bit = 0; bit < sealed.length * 8; bit++) {
    const changed = Buffer.from(sealed);
    changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7));
    assert.throws(() => ring.open(changed, PLACE), SealBroken, `bit ${bit}`);
  }
  for (let length = 0; length < sealed.length; length++) assert.throws(() => ring.open(sealed.subarray(0, length), PLACE), SealBroken);
});

test("a ciphertext does not open for another tenant, not even under the same key", () => {
  const versions = new Map([[1, createTenantKey()]]);
  const sealed = keyring(TENANT, versions).seal("secret", PLACE);
  assert.throws(() => keyring(PLATFORM_TENANT, versions).open(sealed, PLACE), SealBroken);
});

test("after a rotation old values open, new ones are under the new key, and blind indexes and secrets stay", () => {
  const [first, second] = [createTenantKey(), createTenantKey()];
  const before = keyring(TENANT, new Map([[1, first]]));
  const after = keyring(
    TENANT,
    new Map([
      [1, first],
      [2, second],
    ]),
  );
  assert.equal(after.open(before.seal("old", PLACE), PLACE).toString(), "old");
  assert.throws(() => before.open(after.seal("new", PLACE), PLACE), SealBroken);
  assert.deepEqual(after.blindIndex("projects.name", "x"), before.blindIndex("projects.name", "x"));
  assert.deepEqual(after.secret("cache"), before.secret("cache"));
});

test("a keyring that was idle while thousands were used opens and derives what it did before", () => {
  let openings = 0;
  const key = createTenantKey();
  const ring = createTenantKeyring(TENANT, new Map([[1, () => (openings++, key)]]));
  const [sealed, index, secret] = [ring.seal("secret", PLACE), ring.blindIndex("a", "b"), ring.secret("cache")];
  assert.equal(openings, 1, "a key in use is not opened again");
  const crowd = Array.from({ length: 1_500 }, () => keyring());
  for (const each of crowd) for (const column of ["c", "d"]) each.seal("x", { table: "t", column, row: "r" });
  assert.deepEqual([ring.open(sealed, PLACE).toString(), ring.blindIndex("a", "b"), ring.secret("cache")], ["secret", index, secret]);
  assert.equal(openings, 2, "an idle tenant's key was let go, and opened when it was needed");
});

test("a key that does not open is found when its keyring is made", () => {
  const master = masterKeyFrom("01".repeat(32));
  const wrapped = wrapTenantKey(master, TENANT, 2, createTenantKey());
  wrapped[40] = (wrapped[40] as number) ^ 1;
  const versions = new Map([
    [1, createTenantKey],
    [2, () => unwrapTenantKey(master, TENANT, 2, wrapped)],
  ]);
  assert.throws(() => createTenantKeyring(TENANT, versions), SealBroken);
});

test("a blind index is equal exactly for an equal column and value of the same tenant key", () => {
  const [ring, other] = [keyring(), keyring()];
  fc.assert(
    fc.property(text, text, text, text, (column, value, column2, value2) => {
      const same = column === column2 && value === value2;
      assert.equal(ring.blindIndex(column, value).equals(ring.blindIndex(column2, value2)), same);
      assert.ok(!ring.blindIndex(column, value).equals(other.blindIndex(column, value)));
    }),
  );
  assert.deepEqual(ring.blindIndex("a", "b"), ring.blindIndex("a", "b"));
});

test("a tenant's secrets differ by purpose and by tenant key", () => {
  const [ring, other] = [keyring(), keyring()];
  assert.equal(
    new Set([ring.secret("cache"), ring.secret("salt"), other.secret("cache"), other.secret("salt")].map((each) => each.toString("hex")))
      .size,
    4,
  );
});

test("a wrapped tenant key unwraps only for its tenant and version, under its master key", () => {
  const [master, otherMaster] = [masterKeyFrom("01".repeat(32)), masterKeyFrom("02".repeat(32))];
  const key = createTenantKey();
  const wrapped = wrapTenantKey(master, TENANT, 1, key);
  assert.ok(unwrapTenantKey(master, TENANT, 1, wrapped).equals(key));
  assert.throws(() => unwrapTenantKey(otherMaster, TENANT, 1, wrapped), SealBroken);
  assert.throws(() => unwrapTenantKey(master, PLATFORM_TENANT, 1, wrapped), SealBroken);
  assert.throws(() => unwrapTenantKey(master, TENANT, 2, wrapped), SealBroken);
});

test("secrets derived from the master key differ by label and version, and are the same in every process", () => {
  const master = masterKeyFrom("01".repeat(32));
  const secrets = [derive(master, "pepper", 1), derive(master, "pepper", 2), derive(master, "cursor", 1)];
  assert.equal(new Set(secrets.map((secret) => secret.toString("hex"))).size, 3);
  assert.equal(secrets[0]?.toString("hex"), "43e836178f6379fa97225d4c77eb4f95a07faaefae2aac5700e2660d3be72000"); // RFC 5869, computed apart
});

test("no key is printed by inspection or JSON", () => {
  const bytes = "01".repeat(32);
  const printed =
    inspect([masterKeyFrom(bytes), keyring()], { depth: 9, showHidden: true }) + JSON.stringify([masterKeyFrom(bytes), createTenantKey()]);
  assert.ok(!printed.includes("0101") && !printed.includes("AQEB") && !/01 01/.test(printed), printed);
});

test("a master key is 32 bytes in base64, base64url or hexadecimal, and nothing else", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (bytes) => {
      const key = Buffer.from(bytes);
      for (const encoding of ["base64", "base64url", "hex"] as const)
        assert.deepEqual(masterKeyFrom(`${key.toString(encoding)}\n`).export(), key);
    }),
  );
  for (const bad of ["", "secret", "00".repeat(31), "00".repeat(33), Buffer.alloc(31).toString("base64"), "g".repeat(64)]) {
    assert.throws(() => masterKeyFrom(bad), MasterKeyProblem, bad);
  }
});

test("the first start makes a 0600 key file, and later starts read it", (t) => {
  const dataDirectory = temporaryDirectory(t);
  const source = { dataDirectory, mayGenerate: true, random: systemRandom };
  const made = loadMasterKey(source);
  const path = join(dataDirectory, "master.key");
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(dataDirectory), ["master.key"]);
  assert.ok(loadMasterKey(source).equals(made));
  assert.ok(masterKeyFrom(readFileSync(path, "utf8")).equals(made));
});

test("a key given by value beats the file", (t) => {
  const dataDirectory = temporaryDirectory(t);
  loadMasterKey({ dataDirectory, mayGenerate: true, random: systemRandom });
  const given = loadMasterKey({ value: "03".repeat(32), dataDirectory, mayGenerate: true, random: systemRandom });
  assert.ok(given.equals(masterKeyFrom("03".repeat(32))));
});

test("with a database of its own and no key given, it refuses rather than generates", (t) => {
  const dataDirectory = temporaryDirectory(t);
  assert.throws(
    () => loadMasterKey({ dataDirectory, mayGenerate: false, random: systemRandom }),
    (error) => error instanceof MasterKeyProblem && /ATRIUM_MASTER_KEY/.test(error.message),
  );
  assert.ok(!existsSync(join(dataDirectory, "master.key")));
});

test("a lost key file beside an existing database is not replaced by a new key", (t) => {
  const dataDirectory = temporaryDirectory(t);
  mkdirSync(join(dataDirectory, "postgres"));
  assert.throws(() => loadMasterKey({ dataDirectory, mayGenerate: true, random: systemRandom }), /is gone/);
  assert.ok(!existsSync(join(dataDirectory, "master.key")));
});

test("a key file that others can read is refused", (t) => {
  const dataDirectory = temporaryDirectory(t);
  loadMasterKey({ dataDirectory, mayGenerate: true, random: systemRandom });
  chmodSync(join(dataDirectory, "master.key"), 0o644);
  assert.throws(() => loadMasterKey({ dataDirectory, mayGenerate: true, random: systemRandom }), /chmod 600/);
});

function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "atrium-secrets-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
