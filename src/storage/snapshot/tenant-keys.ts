import type { Clock } from "../../kernel/clock.ts";
import type { TenantId } from "../../kernel/ids.ts";
import type { RandomBytes } from "../../kernel/random.ts";
import type { SystemTransaction, TenantTransaction } from "../database/index.ts";
import { tenantOf } from "../database/index.ts";
import {
  createTenantKey,
  createTenantKeyring,
  type MasterKey,
  type TenantKey,
  type TenantKeyring,
  unwrapTenantKey,
  wrapTenantKey,
} from "../secrets/index.ts";
import { ofTenants } from "./source.ts";

export interface TenantKeysNeeds {
  readonly masterKey: MasterKey;
  readonly clock: Clock;
  readonly random: RandomBytes;
}

export interface WrappedKey {
  readonly tenant_id: TenantId;
  readonly version: number;
  readonly wrapped: Buffer;
}

/** The wrapped keys of the tenants named, all versions. */
export function readTenantKeys(tx: SystemTransaction, tenants: readonly TenantId[]): Promise<WrappedKey[]> {
  return tx.selectFrom("tenant_keys").select(["tenant_id", "version", "wrapped"]).where(ofTenants(tenants)).execute();
}

/** Throws SealBroken where a key was wrapped for another tenant or version, or under another master key. */
export function openKeyring({ masterKey, random }: TenantKeysNeeds, tenant: TenantId, keys: readonly WrappedKey[]): TenantKeyring {
  const versions = new Map<number, () => TenantKey>();
  for (const { version, wrapped } of keys) versions.set(version, unwrapper(masterKey, tenant, version, wrapped.toString("latin1")));
  return createTenantKeyring(tenant, versions, random);
}

/** As a string: a Buffer of 65 bytes takes twice that beside them, and what the driver read with it stays for as long. */
function unwrapper(masterKey: MasterKey, tenant: TenantId, version: number, wrapped: string): () => TenantKey {
  return () => unwrapTenantKey(masterKey, tenant, version, Buffer.from(wrapped, "latin1"));
}

/** Gives the transaction's tenant its key, unless it has one, and returns its keyring. Every process may try; one wins. */
export async function makeTenantKey(needs: TenantKeysNeeds, tx: TenantTransaction): Promise<TenantKeyring> {
  const tenant = tenantOf(tx);
  const wrapped = wrapTenantKey(needs.masterKey, tenant, FIRST_VERSION, createTenantKey(needs.random), needs.random);
  await tx
    .insertInto("tenant_keys")
    .values({ version: FIRST_VERSION, wrapped, created_at: new Date(needs.clock.now()) })
    .onConflict((conflict) => conflict.columns(["tenant_id", "version"]).doNothing())
    .execute();
  return openKeyring(needs, tenant, await tx.selectFrom("tenant_keys").select(["tenant_id", "version", "wrapped"]).execute());
}

const FIRST_VERSION = 1;
