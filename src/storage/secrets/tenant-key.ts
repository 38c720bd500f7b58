import { createCipheriv, createDecipheriv, createHmac, createSecretKey, hkdfSync, type KeyObject } from "node:crypto";
import type { Brand } from "../../kernel/brand.ts";
import type { TenantId } from "../../kernel/ids.ts";
import { type RandomBytes, systemRandom } from "../../kernel/random.ts";
import { derive, type MasterKey } from "./master-key.ts";

/** A tenant's own random key, 32 bytes: everything sealed for the tenant ends with it. */
export type TenantKey = Brand<KeyObject, "TenantKey">;

/** Where a sealed value lives. The tenant and the key's version are added: a ciphertext moved elsewhere does not open. */
export interface SealedPlace {
  readonly table: string;
  readonly column: string;
  readonly row: string;
}

/** One tenant's keys, all versions. */
export interface TenantKeyring {
  readonly tenant: TenantId;
  /** AES-256-GCM under the newest version. 33 bytes longer than the plaintext. */
  seal(plaintext: string | Uint8Array, place: SealedPlace): Buffer;
  /** Throws SealBroken for another place, another tenant, a changed byte, or a version not held. */
  open(sealed: Uint8Array, place: SealedPlace): Buffer;
  /** 32 bytes that are equal for equal (column, value) of this tenant, and tell nothing without its key. */
  blindIndex(column: string, value: string): Buffer;
  /** A secret of 32 bytes that ends with the tenant's key. */
  secret(purpose: TenantSecret): Buffer;
}

/** `cache`: the key function of every cache. `salt`: what engines get as `cache_salt`. `session`: ids of sessions. */
export type TenantSecret = "cache" | "salt" | "session";

/** The bytes do not open here. Says nothing about why: an attacker who moves ciphertexts learns nothing. */
export class SealBroken extends Error {
  override readonly name = "SealBroken";
}

export function createTenantKey(random: RandomBytes = systemRandom): TenantKey {
  return createSecretKey(random(new Uint8Array(32))) as TenantKey;
}

/** The tenant key as it may lie in the database: sealed under the master key, bound to tenant and version. */
export function wrapTenantKey(
  master: MasterKey,
  tenant: TenantId,
  version: number,
  key: TenantKey,
  random: RandomBytes = systemRandom,
): Buffer {
  return encrypt(wrappingKey(master), version, key.export(), fields([tenant, "tenant_keys", "wrapped", tenant, String(version)]), random);
}

/** Throws SealBroken when it was wrapped for another tenant or version, or under another master key. */
export function unwrapTenantKey(master: MasterKey, tenant: TenantId, version: number, wrapped: Uint8Array): TenantKey {
  const bytes = decrypt(wrappingKey(master), wrapped, fields([tenant, "tenant_keys", "wrapped", tenant, String(version)]));
  return createSecretKey(bytes) as TenantKey;
}

/**
 * `versions` holds at least one key, or how to come by it: an idle tenant's lies wrapped, in a tenth of a KeyObject's 680 bytes. Throws
 * what that throws, since each is opened once here: a damaged key is found now, and not by a call.
 */
export function createTenantKeyring(
  tenant: TenantId,
  versions: ReadonlyMap<number, TenantKey | (() => TenantKey)>,
  random: RandomBytes = systemRandom,
): TenantKeyring {
  return new Keyring(tenant, versions, random);
}

/** What a keyring holds of a tenant that is idle is this object and its keys; what is derived from them is remembered lately, not for good. */
class Keyring implements TenantKeyring {
  readonly tenant: TenantId;
  /** By version, ascending. */
  readonly #versions: readonly (readonly [version: number, key: TenantKey | (() => TenantKey)])[];
  readonly #random: RandomBytes;

  constructor(tenant: TenantId, versions: ReadonlyMap<number, TenantKey | (() => TenantKey)>, random: RandomBytes) {
    if (versions.size === 0) throw new Error(`no key of tenant ${tenant}`);
    this.tenant = tenant;
    this.#versions = [...versions].toSorted(([one], [other]) => one - other);
    this.#random = random;
    for (const version of versions.keys()) this.#key(version);
  }

  seal(plaintext: string | Uint8Array, place: SealedPlace): Buffer {
    const bytes = typeof plaintext === "string" ? Buffer.from(plaintext) : plaintext;
    const [newest] = this.#versions.at(-1) as readonly [number, unknown];
    return encrypt(this.#columnKey(newest, place), newest, bytes, placeFields(this.tenant, place, newest), this.#random);
  }

  open(sealed: Uint8Array, place: SealedPlace): Buffer {
    if (sealed.length < OVERHEAD_BYTES) throw new SealBroken("a sealed value is too short");
    const version = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength).readUInt32BE(1);
    return decrypt(this.#columnKey(version, place), sealed, placeFields(this.tenant, place, version));
  }

  blindIndex(column: string, value: string): Buffer {
    return createHmac(
      "sha256",
      LATELY.of(this, "blind-index", () => createSecretKey(this.#fromFirst("blind-index"))),
    )
      .update(fields([column, value]))
      .digest();
  }

  secret(purpose: TenantSecret): Buffer {
    return LATELY.of(this, `secret/${purpose}`, () => createSecretKey(this.#fromFirst(purpose))).export();
  }

  /**
   * A key for each column, so that one tenant's busiest column alone counts towards the 2^32 messages that
   * random 96-bit nonces allow a key.
   */
  #columnKey(version: number, { table, column }: SealedPlace): KeyObject {
    const label = `seal/${table}.${column}`;
    return LATELY.of(this, `${version}/${label}`, () => createSecretKey(deriveFromTenant(this.#key(version), label)));
  }

  /** From the first version for as long as the tenant lives: a rotation re-seals values, but must not regroup rows. */
  #fromFirst(label: string): Buffer {
    const [first] = this.#versions[0] as readonly [number, unknown];
    return deriveFromTenant(this.#key(first), label);
  }

  #key(version: number): TenantKey {
    const [, key] = this.#versions.find(([held]) => held === version) ?? [];
    if (key === undefined) throw new SealBroken("a sealed value names a key version that is not held");
    return typeof key === "function" ? (LATELY.of(this, String(version), key) as TenantKey) : key;
  }
}

/**
 * Keys made of others lately, of all keyrings together, so that those of idle tenants take no room: what was not asked for while
 * `MAX_LATELY` others were made is made again, in 30 µs. Held by its keyring, so that it ends with it.
 */
class Lately {
  #young = new WeakMap<Keyring, Map<string, KeyObject>>();
  #old = new WeakMap<Keyring, Map<string, KeyObject>>();
  #count = 0;

  of(keyring: Keyring, name: string, make: () => KeyObject): KeyObject {
    const known = this.#young.get(keyring)?.get(name);
    if (known !== undefined) return known;
    const key = this.#old.get(keyring)?.get(name) ?? make();
    if (this.#count >= MAX_LATELY) {
      this.#old = this.#young;
      this.#young = new WeakMap();
      this.#count = 0;
    }
    this.#count += 1;
    const ofKeyring = this.#young.get(keyring);
    if (ofKeyring === undefined) this.#young.set(keyring, new Map([[name, key]]));
    else ofKeyring.set(name, key);
    return key;
  }
}

const wrappingKeys = new WeakMap<MasterKey, KeyObject>();

function wrappingKey(master: MasterKey): KeyObject {
  let key = wrappingKeys.get(master);
  if (key === undefined) wrappingKeys.set(master, (key = createSecretKey(derive(master, "tenant-key-wrapping", 1))));
  return key;
}

function deriveFromTenant(key: TenantKey, label: string): Buffer {
  return Buffer.from(hkdfSync("sha256", key, Buffer.alloc(0), `atrium/tenant/${label}`, 32));
}

/** format (1) · key version (4) · nonce (12) · tag (16) · ciphertext */
function encrypt(key: KeyObject, version: number, plaintext: Uint8Array, context: Buffer, random: RandomBytes): Buffer {
  const sealed = Buffer.allocUnsafe(OVERHEAD_BYTES + plaintext.length);
  sealed.writeUInt8(FORMAT, 0);
  sealed.writeUInt32BE(version, 1);
  const nonce = random(sealed.subarray(5, 17));
  const cipher = createCipheriv("aes-256-gcm", key, nonce);
  cipher.setAAD(context);
  cipher.update(plaintext).copy(sealed, OVERHEAD_BYTES);
  cipher.final();
  cipher.getAuthTag().copy(sealed, 17);
  return sealed;
}

function decrypt(key: KeyObject, sealed: Uint8Array, context: Buffer): Buffer {
  if (sealed.length < OVERHEAD_BYTES || sealed[0] !== FORMAT) throw new SealBroken("not a sealed value");
  const decipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(5, 17), { authTagLength: 16 });
  decipher.setAAD(context);
  decipher.setAuthTag(sealed.subarray(17, OVERHEAD_BYTES));
  try {
    return Buffer.concat([decipher.update(sealed.subarray(OVERHEAD_BYTES)), decipher.final()]);
  } catch {
    throw new SealBroken("a sealed value does not open here");
  }
}

function placeFields(tenant: TenantId, place: SealedPlace, version: number): Buffer {
  return fields([tenant, place.table, place.column, place.row, String(version)]);
}

/** Length-prefixed, so that no two lists of fields give the same bytes. */
function fields(values: readonly string[]): Buffer {
  const parts: Buffer[] = [];
  for (const value of values) {
    const bytes = Buffer.from(value);
    const length = Buffer.allocUnsafe(4);
    length.writeUInt32BE(bytes.length);
    parts.push(length, bytes);
  }
  return Buffer.concat(parts);
}

const FORMAT = 1;
const OVERHEAD_BYTES = 33;
/** 0.7 kB each. Twice as many are held for a while. */
const MAX_LATELY = 1024;
const LATELY = new Lately();
