import type { ModelId } from "../../kernel/ids.ts";
import { type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import {
  type Address,
  addressOf,
  afterId,
  kept,
  type ListQuery,
  existing,
  upsert,
  MODEL_NAME,
  notFound,
  openDisplayName,
  openName,
  type Page,
  requireRevision,
  sealDisplayName,
  sealName,
  toPage,
  toUnixSeconds,
  type Written,
} from "../../storage/snapshot/index.ts";
import type { Allowed } from "../identity/index.ts";
import { type CatalogVerbsNeeds, platformModel, platformModelKnown } from "./needs.ts";
import {
  archiveModel,
  deleteGrant,
  findGrant,
  findModelForUpdate,
  findModelRow,
  type Fresh,
  insertGrant,
  insertModel,
  listGrants,
  listModelRows,
  type ModelRow,
  updateModel,
} from "./store.ts";

/** Omitted keeps, null clears. */
export interface ModelFields {
  readonly display_name?: string | null | undefined;
  readonly visibility?: "granted" | "all" | undefined;
  readonly capabilities?: readonly string[] | null | undefined;
  /** Tokens. */
  readonly context_window?: number | null | undefined;
  readonly max_output_tokens?: number | null | undefined;
}

export interface ModelView {
  readonly id: string;
  readonly name: string;
  readonly display_name: string | null;
  readonly visibility: "granted" | "all";
  readonly capabilities: string[];
  readonly context_window: number | null;
  readonly max_output_tokens: number | null;
  readonly created_at: number;
  readonly updated_at: number;
}

/** `id` is the model's. */
export interface GrantView {
  readonly id: string;
  readonly model: string;
  readonly created_at: number;
}

type Read = Allowed<"platform:catalog:read">;
type Write = Allowed<"platform:catalog:write">;

export interface ModelVerbs {
  put(tx: TenantTransaction, allowed: Write, nameOrId: string, fields: ModelFields, ifMatch: number | null): Promise<Written<ModelView>>;
  get(tx: TenantTransaction, allowed: Read, nameOrId: string): Promise<{ view: ModelView; revision: number }>;
  list(tx: TenantTransaction, allowed: Read, page: ListQuery): Promise<Page<ModelView>>;
  /** The model and its deployments. */
  archive(tx: TenantTransaction, allowed: Write, nameOrId: string, ifMatch: number | null): Promise<ModelView>;
}

/** In the grantee's transaction. */
export interface GrantVerbs {
  put(tx: TenantTransaction, allowed: Write, modelNameOrId: string): Promise<{ view: GrantView; isNew: boolean }>;
  get(tx: TenantTransaction, allowed: Allowed<"tenant:read">, modelNameOrId: string): Promise<GrantView>;
  list(tx: TenantTransaction, allowed: Allowed<"tenant:read">, page: ListQuery): Promise<Page<GrantView>>;
  remove(tx: TenantTransaction, allowed: Write, modelNameOrId: string): Promise<GrantView>;
}

export function createModelVerbs(needs: CatalogVerbsNeeds): ModelVerbs {
  const ringOf = (tx: TenantTransaction): TenantKeyring => needs.keyring(tenantOf(tx));
  return {
    async put(tx, _allowed, nameOrId, fields, ifMatch) {
      const address = modelAddress(needs, tx, nameOrId);
      return upsert(tx, address, ifMatch, {
        what: "model",
        pattern: MODEL_NAME,
        find: () => findModelForUpdate(tx, address),
        change: (row) => change(needs, tx, row, fields),
        make: (name, index) => add(needs, tx, name, index, fields),
      });
    },

    async get(tx, _allowed, nameOrId) {
      const row = existing(await findModelRow(tx, modelAddress(needs, tx, nameOrId)));
      return { view: viewOf(ringOf(tx), row), revision: row.revision };
    },

    async list(tx, _allowed, page) {
      const rows = await listModelRows(tx, afterId(page.after), page.limit + 1);
      return toPage(rows, page.limit, (row) => viewOf(ringOf(tx), row));
    },

    async archive(tx, _allowed, nameOrId, ifMatch) {
      const row = existing(await findModelForUpdate(tx, modelAddress(needs, tx, nameOrId)));
      requireRevision(ifMatch, row.revision);
      await archiveModel(tx, row.id, new Date(needs.clock.now()));
      return viewOf(ringOf(tx), row);
    },
  };
}

export function modelAddress(needs: CatalogVerbsNeeds, tx: TenantTransaction, text: string): Address<ModelId> {
  return addressOf(needs.keyring(tenantOf(tx)), "models", text);
}

async function add(
  needs: CatalogVerbsNeeds,
  tx: TenantTransaction,
  name: string,
  index: Buffer,
  fields: ModelFields,
): Promise<Written<ModelView>> {
  const keyring = needs.keyring(tenantOf(tx));
  const id = needs.makeId<ModelId>();
  const now = new Date(needs.clock.now());
  const row: Fresh<ModelRow> = {
    id,
    ...sealName(keyring, "models", id, name, index),
    display_name_sealed: sealDisplayName(keyring, "models", id, fields.display_name ?? null),
    visibility: fields.visibility ?? "granted",
    capabilities: [...(fields.capabilities ?? [])],
    context_window: fields.context_window ?? null,
    max_output_tokens: fields.max_output_tokens ?? null,
    revision: 1,
    created_at: now,
    updated_at: now,
  };
  await insertModel(tx, row);
  return { before: null, after: viewOf(keyring, row), revision: row.revision };
}

async function change(needs: CatalogVerbsNeeds, tx: TenantTransaction, row: ModelRow, fields: ModelFields): Promise<Written<ModelView>> {
  const keyring = needs.keyring(tenantOf(tx));
  const changes = {
    display_name_sealed:
      fields.display_name === undefined ? row.display_name_sealed : sealDisplayName(keyring, "models", row.id, fields.display_name),
    visibility: kept(fields.visibility, row.visibility),
    capabilities: fields.capabilities === undefined ? row.capabilities : [...(fields.capabilities ?? [])],
    context_window: kept(fields.context_window, row.context_window),
    max_output_tokens: kept(fields.max_output_tokens, row.max_output_tokens),
    revision: row.revision + 1,
    updated_at: new Date(needs.clock.now()),
  };
  await updateModel(tx, row.id, changes);
  return { before: viewOf(keyring, row), after: viewOf(keyring, { ...row, ...changes }), revision: changes.revision };
}

function viewOf(keyring: TenantKeyring, row: Fresh<ModelRow>): ModelView {
  return {
    id: row.id,
    name: openName(keyring, "models", row),
    display_name: openDisplayName(keyring, "models", row),
    visibility: row.visibility,
    capabilities: row.capabilities,
    context_window: row.context_window,
    max_output_tokens: row.max_output_tokens,
    created_at: toUnixSeconds(row.created_at),
    updated_at: toUnixSeconds(row.updated_at),
  };
}

export function createGrantVerbs(needs: CatalogVerbsNeeds): GrantVerbs {
  /** A grant is seen while its model lives. */
  const granted = async (tx: TenantTransaction, nameOrId: string): Promise<GrantView> => {
    const model = await platformModel(needs, nameOrId);
    const row = model === undefined ? undefined : await findGrant(tx, model.id);
    if (model === undefined || row === undefined) throw notFound();
    return { id: model.id, model: model.name, created_at: toUnixSeconds(row.created_at) };
  };
  return {
    async put(tx, _allowed, nameOrId) {
      const model = await platformModel(needs, nameOrId);
      if (model === undefined) throw notFound();
      const { created_at, isNew } = await insertGrant(tx, model.id, new Date(needs.clock.now()));
      return { view: { id: model.id, model: model.name, created_at: toUnixSeconds(created_at) }, isNew };
    },

    get: (tx, _allowed, nameOrId) => granted(tx, nameOrId),

    async list(tx, _allowed, page) {
      const rows = await listGrants(tx, afterId(page.after), page.limit + 1);
      const found = toPage(
        rows.map((row) => ({ ...row, id: row.model_id })),
        page.limit,
        (row) => {
          const model = platformModelKnown(needs, row.model_id);
          return model === undefined ? [] : [{ id: model.id, model: model.name, created_at: toUnixSeconds(row.created_at) }];
        },
      );
      return { ...found, data: found.data.flat() };
    },

    async remove(tx, _allowed, nameOrId) {
      const view = await granted(tx, nameOrId);
      await deleteGrant(tx, view.id as ModelId);
      return view;
    },
  };
}
