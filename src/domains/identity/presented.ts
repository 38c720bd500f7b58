import { createSecretKey, timingSafeEqual } from "node:crypto";
import type { KeyId, TenantId } from "../../kernel/ids.ts";
import type { Database } from "../../storage/database/index.ts";
import { hashKey } from "./authenticate.ts";
import { parseKeyId } from "./key-format.ts";
import { readKeyHashes } from "./store.ts";

/** What may be kept of a credential: its public half, and the hash of the whole. */
export interface PresentedKey {
  readonly id: KeyId;
  readonly hash: Buffer;
}

/** Tells whose a refused credential was, for the audit trail. */
export interface PresentedKeys {
  /** Null for what has not the form of a key. */
  of(credential: string): PresentedKey | null;
  /**
   * Those that were made here and came with their right secret, revoked and expired ones included: naming a key's public half
   * is nobody's deed. Rejects when the database is away.
   */
  owners(keys: readonly PresentedKey[]): Promise<ReadonlyMap<PresentedKey, TenantId>>;
}

export function createPresentedKeys(pepper: Buffer, database: Database): PresentedKeys {
  const hashing = createSecretKey(pepper);
  return {
    of(credential) {
      const id = parseKeyId(credential);
      return id === null ? null : { id, hash: hashKey(hashing, credential) };
    },
    async owners(keys) {
      const rows = new Map((await readKeyHashes(database, [...new Set(keys.map(({ id }) => id))])).map((row) => [row.id, row]));
      const owners = new Map<PresentedKey, TenantId>();
      for (const key of keys) {
        const row = rows.get(key.id);
        if (row !== undefined && timingSafeEqual(row.hash, key.hash)) owners.set(key, row.tenant_id);
      }
      return owners;
    },
  };
}
