import { createAllow } from "../../src/domains/identity/allow.ts";
import { createAuthenticate } from "../../src/domains/identity/authenticate.ts";
import { pepperOf } from "../../src/domains/identity/index.ts";
import { createKeyVerbs } from "../../src/domains/identity/service.ts";
import { createProjectVerbs, createTenantVerbs } from "../../src/domains/tenants/service.ts";
import { systemClock as clock } from "../../src/kernel/clock.ts";
import { createIdMaker, PLATFORM_TENANT, type ProjectId, type TenantId } from "../../src/kernel/ids.ts";
import { systemRandom as random } from "../../src/kernel/random.ts";
import { asTenant, bumpConfig, openDatabase, type TenantTransaction, tenantOf } from "../../src/storage/database/index.ts";
import { masterKeyFrom, type TenantKeyring } from "../../src/storage/secrets/index.ts";
import { makeTenantKey } from "../../src/storage/snapshot/index.ts";
import { BOOTSTRAP_KEY } from "../../test/support/atrium.ts";
import { silentLog } from "../../test/support/postgres-server.ts";

/**
 * Makes `tenant-0` and so on, each with a project and a key that it returns, by the verbs that the admin API calls, many in one
 * transaction: 10,000 through the API took longer than the rest of the bench. No server may be changing configuration meanwhile.
 */
export async function makeTenants(count: number, databaseUrl: string, masterKeyText: string): Promise<string[]> {
  const masterKey = masterKeyFrom(masterKeyText);
  const database = await openDatabase({ dataDirectory: "unused", databaseUrl, masterKey, clock, random, log: silentLog });
  try {
    const verbs = await createVerbs(masterKey);
    const platformKeyring = await database.forTenant(PLATFORM_TENANT, (tx) => makeTenantKey({ masterKey, clock, random }, tx));
    const keys: string[] = [];
    let next = 0;
    const work = async (): Promise<void> => {
      for (let first = next; first < count; first = next) {
        next += TENANTS_PER_TRANSACTION;
        const last = Math.min(next, count);
        await database.forTenant(PLATFORM_TENANT, async (tx) => {
          const rings = new Map([[PLATFORM_TENANT, platformKeyring]]);
          for (let index = first; index < last; index++) keys[index] = await verbs(rings, tx, `tenant-${index}`);
          await bumpConfig(tx);
        });
      }
    };
    await Promise.all(Array.from({ length: TRANSACTIONS_AT_ONCE }, work));
    return keys;
  } finally {
    await database.close();
  }
}

/** Resolves to what makes one tenant in the platform's transaction and returns its key; `rings` are the keyrings that its verbs look for. */
async function createVerbs(
  masterKey: ReturnType<typeof masterKeyFrom>,
): Promise<(rings: Map<TenantId, TenantKeyring>, tx: TenantTransaction, name: string) => Promise<string>> {
  const pepper = pepperOf(masterKey);
  const admin = await createAuthenticate({
    pepper,
    bootstrapKey: BOOTSTRAP_KEY,
    clock,
    knownKey: () => undefined,
    ownerInDirectory: async () => undefined,
    refresh: async () => {},
    stalenessMs: () => 0,
    stalenessBoundMs: 1,
  })(BOOTSTRAP_KEY, { family: "admin", address: "127.0.0.1" });
  const allow = createAllow(() => "active");
  const makeId = createIdMaker(clock, random);
  return async (rings, tx, name) => {
    const keyring = (tenant: TenantId): TenantKeyring => rings.get(tenant) as TenantKeyring;
    const needs = {
      clock,
      makeId,
      keyring,
      awaitKeyring: async (tenant: TenantId) => keyring(tenant),
      async makeTenantKey(inside: TenantTransaction) {
        const made = await makeTenantKey({ masterKey, clock, random }, inside);
        rings.set(tenantOf(inside), made);
        return made;
      },
      revokeProjectKeys: async () => {},
    };
    const made = await createTenantVerbs(needs).put(tx, allow(admin, "platform:tenants:write", PLATFORM_TENANT), name, {}, null);
    const tenant = made.after.id as TenantId;
    return asTenant(tx, tenant, async (inside) => {
      const project = await createProjectVerbs(needs).put(inside, allow(admin, "projects:write", tenant), "main", {}, null);
      const fields = { name: "app", permissions: ["developer"], models: null };
      const verbs = createKeyVerbs({ pepper, clock, random, keyring });
      return (await verbs.create(inside, allow(admin, "keys:write", tenant), project.after.id as ProjectId, fields)).key;
    });
  };
}

const TENANTS_PER_TRANSACTION = 250;
const TRANSACTIONS_AT_ONCE = 3;
