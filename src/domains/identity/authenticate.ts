import { createHmac, createSecretKey, hash as digest, type KeyObject, randomBytes, timingSafeEqual } from "node:crypto";
import type { Clock } from "../../kernel/clock.ts";
import { type KeyId, PLATFORM_TENANT, type ProjectId, type TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { parseKeyId } from "./key-format.ts";
import type { KeyRecord, MemberRecord, Principal } from "./model.ts";
import { admit, type Origin } from "./origin.ts";
import { type Permission, ROLES } from "./permissions.ts";
import { permissionsIn } from "./source.ts";

export interface AuthenticateNeeds {
  /** HMAC key of everything stored about keys, 32 bytes. */
  readonly pepper: Buffer;
  /** ATRIUM_BOOTSTRAP_KEY; null when it is not set, and then it opens nothing. */
  readonly bootstrapKey: string | null;
  readonly clock: Clock;
  /** From the snapshot. */
  readonly knownKey: (id: KeyId) => KeyRecord | undefined;
  /** From the database: whose key this is. Rejects when the database is away. */
  readonly ownerInDirectory: (id: KeyId) => Promise<TenantId | undefined>;
  /** Brings the snapshot up to now. Rejects when the database is away. */
  readonly refresh: () => Promise<void>;
  readonly stalenessMs: () => number;
  /** Configuration older than this is not trusted, ms. */
  readonly stalenessBoundMs: number;
}

/**
 * Who presents this, there and from there. Synchronous when the snapshot knows the key, which is every call but a new key's first.
 * Throws Problem, or rejects with one: invalid_api_key, expired_api_key, permission_denied (not this key's endpoint), overloaded.
 */
export type Authenticate = (credential: string | null, from: Origin) => Principal | Promise<Principal>;

export function createAuthenticate(needs: AuthenticateNeeds): Authenticate {
  // As a KeyObject: 4 µs an HMAC, against 16 µs with the key in a Buffer.
  const pepper = createSecretKey(needs.pepper);
  const bootstrapHash = needs.bootstrapKey === null ? null : hashKey(pepper, needs.bootstrapKey);
  const dummyHash = randomBytes(32);
  const findElsewhere = createLookup(needs);
  const proven = new Proven();
  const check = (hash: Buffer, record: KeyRecord | undefined): Principal => {
    const same = timingSafeEqual(hash, record === undefined ? dummyHash : Buffer.from(record.hash, "latin1"));
    if (record === undefined || !same) throw new Problem("invalid_api_key");
    return principalOfKey(record);
  };
  const usable = (record: KeyRecord, principal: Principal, from: Origin): Principal => {
    if (record.networks !== null || record.routes !== null) admit(record, from);
    if (record.expiresAt !== null && needs.clock.now() >= record.expiresAt) throw new Problem("expired_api_key");
    return principal;
  };
  const checked = (hash: Buffer, record: KeyRecord | undefined, from: Origin): Principal => {
    const principal = check(hash, record);
    return usable(principal.key as KeyRecord, principal, from);
  };
  return (credential, from) => {
    if (needs.stalenessMs() > needs.stalenessBoundMs)
      throw new Problem("overloaded", { message: STALE, retryAfterSeconds: RETRY_AFTER_SECONDS });
    const text = credential === null || credential.length > MAX_CREDENTIAL_LENGTH ? "" : credential;
    const id = parseKeyId(text);
    const record = id === null ? undefined : needs.knownKey(id);
    const known = record === undefined ? null : proven.find(record, text);
    if (record !== undefined && known !== null) return usable(record, known, from);
    const hash = hashKey(pepper, text);
    if (bootstrapHash !== null && timingSafeEqual(hash, bootstrapHash)) return BOOTSTRAP;
    if (record !== undefined) return usable(record, proven.remember(record, text, check(hash, record)), from);
    if (id === null) return checked(hash, undefined, from);
    const elsewhere = findElsewhere(id);
    return elsewhere === undefined ? checked(hash, undefined, from) : elsewhere.then((found) => checked(hash, found, from));
  };
}

/**
 * What proved itself once, by the snapshot's record of its key, so that it ends with that record: a salted SHA-256 of the same
 * text costs 0.6 µs, its HMAC under the pepper 3 and another native object for the collector. The text itself is not kept, and
 * the salt, this process's own, leaves nothing to be learnt from how long a comparison takes.
 */
class Proven {
  readonly #salt = randomBytes(32).toString("hex");
  readonly #byRecord = new WeakMap<KeyRecord, { readonly digest: string; readonly principal: Principal }>();

  find(record: KeyRecord, text: string): Principal | null {
    const proof = this.#byRecord.get(record);
    return proof !== undefined && proof.digest === this.#digest(text) ? proof.principal : null;
  }

  remember(record: KeyRecord, text: string, principal: Principal): Principal {
    this.#byRecord.set(record, { digest: this.#digest(text), principal });
    return principal;
  }

  #digest(text: string): string {
    return digest("sha256", this.#salt + text, "hex");
  }
}

export function hashKey(pepper: KeyObject | Buffer, key: string): Buffer {
  return createHmac("sha256", pepper).update(key).digest();
}

/**
 * Looks for a key that another process may have made since this one last looked: once for all who ask, and not again for
 * a second where there was none. Undefined: known not to exist.
 */
function createLookup(needs: AuthenticateNeeds): (id: KeyId) => Promise<KeyRecord | undefined> | undefined {
  const running = new Map<KeyId, Promise<KeyRecord | undefined>>();
  const missedUntil = new Map<KeyId, number>();
  const look = async (id: KeyId): Promise<KeyRecord | undefined> => {
    try {
      const owner = await needs.ownerInDirectory(id);
      if (owner !== undefined) await needs.refresh();
    } catch (cause) {
      throw new Problem("overloaded", { retryAfterSeconds: RETRY_AFTER_SECONDS, cause });
    }
    const found = needs.knownKey(id);
    if (found === undefined) remember(id);
    return found;
  };
  const remember = (id: KeyId): void => {
    missedUntil.delete(id);
    missedUntil.set(id, needs.clock.monotonic() + MISS_MS);
    const oldest = missedUntil.keys().next();
    if (missedUntil.size > MAX_MISSES && oldest.done !== true) missedUntil.delete(oldest.value);
  };
  return (id) => {
    const until = missedUntil.get(id);
    if (until !== undefined && needs.clock.monotonic() < until) return undefined;
    const present = running.get(id);
    if (present !== undefined) return present;
    if (running.size >= MAX_LOOKUPS) throw new Problem("overloaded", { retryAfterSeconds: RETRY_AFTER_SECONDS });
    const lookup = look(id).finally(() => running.delete(id));
    running.set(id, lookup);
    return lookup;
  };
}

export function principalOfKey(record: KeyRecord): Principal {
  const { member } = record;
  return principalOf({
    kind: member === null ? "key" : member.kind,
    id: member === null ? record.id : member.id,
    key: record,
    member,
    tenant: record.tenant,
    project: record.project,
    permissions: record.permissions,
    models: record.models,
  });
}

/**
 * The principal that a member is without a key, in a project or above them; one for each record of the snapshot, so that it ends
 * with the member's rights. Whoever asks has made sure of the member.
 */
export function principalOfMember(member: MemberRecord, project: ProjectId | null): Principal {
  let made = ofMembers.get(member);
  if (made === undefined) ofMembers.set(member, (made = new Map()));
  let principal = made.get(project);
  if (principal === undefined) {
    principal = principalOf({
      kind: member.kind,
      id: member.id,
      key: null,
      member,
      tenant: member.tenant,
      project,
      permissions: permissionsIn(member, project),
      models: null,
    });
    if (made.size < MAX_PROJECTS) made.set(project, principal);
  }
  return principal;
}

const ofMembers = new WeakMap<MemberRecord, Map<ProjectId | null, Principal>>();
const MAX_PROJECTS = 100;

interface PrincipalFacts {
  readonly kind: Principal["kind"];
  readonly id: string;
  readonly key: KeyRecord | null;
  readonly member: MemberRecord | null;
  readonly tenant: TenantId;
  readonly project: ProjectId | null;
  readonly permissions: ReadonlySet<Permission>;
  readonly models: ReadonlySet<string> | null;
}

/** The one place that mints a principal. */
function principalOf(facts: PrincipalFacts): Principal {
  return facts as unknown as Principal;
}

export const BOOTSTRAP = principalOf({
  kind: "bootstrap",
  id: "bootstrap",
  key: null,
  member: null,
  tenant: PLATFORM_TENANT,
  project: null,
  permissions: new Set(ROLES.platform_admin),
  models: null,
});

const STALE = "This server has lost sight of its configuration for too long to trust a key. Retry later.";
const RETRY_AFTER_SECONDS = 1;
/** Ours are 64 characters; a bootstrap key may be longer. */
const MAX_CREDENTIAL_LENGTH = 1024;
const MISS_MS = 1000;
const MAX_MISSES = 10_000;
const MAX_LOOKUPS = 256;
