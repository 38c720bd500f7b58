import { type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import {
  type Address,
  addressOf,
  afterId,
  existing,
  type ListQuery,
  openDisplayName,
  openName,
  type Page,
  requireRevision,
  sealDisplayName,
  sealName,
  toPage,
  toUnixSeconds,
  upsert,
  type Written,
} from "../../storage/snapshot/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import type { Allowed } from "../identity/index.ts";
import type { TierId } from "./model.ts";
import type { CapacityVerbsNeeds } from "./needs.ts";
import { archiveTier, findTier, findTierForUpdate, type Fresh, insertTier, listTiers, type TierRow, updateTier } from "./store.ts";

/** Omitted keeps, null clears. */
export interface TierFields {
  readonly display_name?: string | null | undefined;
}

export interface TierView {
  readonly id: string;
  readonly name: string;
  readonly display_name: string | null;
  readonly created_at: number;
  readonly updated_at: number;
}

type Read = Allowed<"platform:tenants:read">;
type Write = Allowed<"platform:tenants:write">;

/** In the platform's transaction. All throw Problem. */
export interface TierVerbs {
  put(tx: TenantTransaction, allowed: Write, nameOrId: string, fields: TierFields, ifMatch: number | null): Promise<Written<TierView>>;
  get(tx: TenantTransaction, allowed: Read, nameOrId: string): Promise<{ view: TierView; revision: number }>;
  list(tx: TenantTransaction, allowed: Read, page: ListQuery): Promise<Page<TierView>>;
  /** The tier and its limits. */
  archive(tx: TenantTransaction, allowed: Write, nameOrId: string, ifMatch: number | null): Promise<TierView>;
  /** The live tier of this name or id. Throws not_found. */
  idOf(tx: TenantTransaction, nameOrId: string): Promise<TierId>;
  /** The same, which lives on until the transaction ends. */
  lock(tx: TenantTransaction, nameOrId: string): Promise<TierId>;
}

export function createTierVerbs(needs: Pick<CapacityVerbsNeeds, "clock" | "makeId" | "keyring">): TierVerbs {
  const ringOf = (tx: TenantTransaction): TenantKeyring => needs.keyring(tenantOf(tx));
  const at = (tx: TenantTransaction, text: string): Address<TierId> => addressOf(ringOf(tx), "tiers", text);
  return {
    async put(tx, _allowed, nameOrId, fields, ifMatch) {
      const address = at(tx, nameOrId);
      const keyring = ringOf(tx);
      return upsert(tx, address, ifMatch, {
        what: "tier",
        find: () => findTierForUpdate(tx, address),
        change: (row) => changed(needs, tx, keyring, row, fields),
        async make(name, index) {
          const id = needs.makeId<TierId>();
          const now = new Date(needs.clock.now());
          const sealed = sealDisplayName(keyring, "tiers", id, fields.display_name ?? null);
          const row = {
            id,
            ...sealName(keyring, "tiers", id, name, index),
            display_name_sealed: sealed,
            revision: 1,
            created_at: now,
            updated_at: now,
          };
          await insertTier(tx, row);
          return { before: null, after: viewOf(keyring, row), revision: row.revision };
        },
      });
    },

    async get(tx, _allowed, nameOrId) {
      const row = existing(await findTier(tx, at(tx, nameOrId)));
      return { view: viewOf(ringOf(tx), row), revision: row.revision };
    },

    async list(tx, _allowed, page) {
      const rows = await listTiers(tx, afterId(page.after), page.limit + 1);
      return toPage(rows, page.limit, (row) => viewOf(ringOf(tx), row));
    },

    async archive(tx, _allowed, nameOrId, ifMatch) {
      const row = existing(await findTierForUpdate(tx, at(tx, nameOrId)));
      requireRevision(ifMatch, row.revision);
      await archiveTier(tx, row.id, new Date(needs.clock.now()));
      return viewOf(ringOf(tx), row);
    },

    idOf: async (tx, nameOrId) => existing(await findTier(tx, at(tx, nameOrId))).id,
    lock: async (tx, nameOrId) => existing(await findTierForUpdate(tx, at(tx, nameOrId))).id,
  };
}

async function changed(
  needs: Pick<CapacityVerbsNeeds, "clock">,
  tx: TenantTransaction,
  keyring: TenantKeyring,
  row: TierRow,
  fields: TierFields,
): Promise<Written<TierView>> {
  const changes = {
    display_name_sealed:
      fields.display_name === undefined ? row.display_name_sealed : sealDisplayName(keyring, "tiers", row.id, fields.display_name),
    revision: row.revision + 1,
    updated_at: new Date(needs.clock.now()),
  };
  await updateTier(tx, row.id, changes);
  return { before: viewOf(keyring, row), after: viewOf(keyring, { ...row, ...changes }), revision: changes.revision };
}

function viewOf(keyring: TenantKeyring, row: Fresh<TierRow>): TierView {
  return {
    id: row.id,
    name: openName(keyring, "tiers", row),
    display_name: openDisplayName(keyring, "tiers", row),
    created_at: toUnixSeconds(row.created_at),
    updated_at: toUnixSeconds(row.updated_at),
  };
}
