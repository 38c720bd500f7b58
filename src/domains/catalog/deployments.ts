import type { CredentialId, DeploymentId, ModelId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
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
import { faultOfDeployment, faultOfKeptPrice, parseOptions, type ProviderFacts } from "./decide.ts";
import { modelAddress } from "./models.ts";
import { type CatalogVerbsNeeds, providerNamed, refuse } from "./needs.ts";
import { atTime, type PriceView, priceView, timelineAfter } from "./pricing.ts";
import { type StatedPrice, statedPrice } from "./price.ts";
import { type StoredOptions, storedOptions } from "./source.ts";
import {
  archiveDeployment,
  type CredentialRow,
  credentialsById,
  type DeploymentRow,
  findCredentialToUse,
  findDeployment,
  findModelForUpdate,
  findModelRow,
  type Fresh,
  insertDeployment,
  insertPrice,
  type KeptPrice,
  listDeployments,
  type ModelRow,
  nextPosition,
  priceTimelines,
  updateDeployment,
} from "./store.ts";

/** Omitted keeps, null clears (back to the default). Times in milliseconds. */
export interface DeploymentFields {
  readonly display_name?: string | null | undefined;
  readonly provider?: string | undefined;
  /** Name or id. */
  readonly credential?: string | null | undefined;
  readonly upstream_model?: string | undefined;
  readonly region?: string | null | undefined;
  readonly position?: number | undefined;
  readonly price?: StatedPrice | null | undefined;
  readonly connect_timeout_ms?: number | null | undefined;
  readonly first_token_timeout_ms?: number | null | undefined;
  readonly idle_timeout_ms?: number | null | undefined;
  readonly total_timeout_ms?: number | null | undefined;
  readonly unknown_fields?: "forward" | "refuse" | null | undefined;
  readonly options?: Readonly<Record<string, unknown>> | null | undefined;
}

export interface DeploymentView {
  readonly id: string;
  readonly name: string;
  readonly display_name: string | null;
  readonly provider: string;
  readonly credential: string | null;
  readonly upstream_model: string;
  readonly region: string | null;
  readonly position: number;
  /** In force, as it can be stated again. */
  readonly price: StatedPrice;
  readonly price_version: string;
  readonly price_details: PriceView;
  readonly scheduled_prices: PriceView[];
  readonly connect_timeout_ms: number | null;
  readonly first_token_timeout_ms: number | null;
  readonly idle_timeout_ms: number | null;
  readonly total_timeout_ms: number | null;
  readonly unknown_fields: "forward" | "refuse" | null;
  readonly options: Record<string, unknown>;
  readonly created_at: number;
  readonly updated_at: number;
}

type Read = Allowed<"platform:catalog:read">;
type Write = Allowed<"platform:catalog:write">;

export interface DeploymentVerbs {
  put(
    tx: TenantTransaction,
    allowed: Write,
    model: string,
    nameOrId: string,
    fields: DeploymentFields,
    ifMatch: number | null,
  ): Promise<Written<DeploymentView>>;
  get(tx: TenantTransaction, allowed: Read, model: string, nameOrId: string): Promise<{ view: DeploymentView; revision: number }>;
  list(tx: TenantTransaction, allowed: Read, model: string, page: ListQuery): Promise<Page<DeploymentView>>;
  archive(tx: TenantTransaction, allowed: Write, model: string, nameOrId: string, ifMatch: number | null): Promise<DeploymentView>;
}

export function createDeploymentVerbs(needs: CatalogVerbsNeeds): DeploymentVerbs {
  const at = (tx: TenantTransaction, text: string): Address<DeploymentId> => addressOf(needs.keyring(tenantOf(tx)), "deployments", text);
  return {
    /** Locks the model first, so that writes to its deployments come one after the other. */
    async put(tx, _allowed, model, nameOrId, fields, ifMatch) {
      const parent = existing(await findModelForUpdate(tx, modelAddress(needs, tx, model)));
      const address = at(tx, nameOrId);
      return upsert(tx, address, ifMatch, {
        what: "deployment",
        find: () => findDeployment(tx, parent.id, address),
        change: (row) => change(needs, tx, row, fields),
        make: (name, index) => add(needs, tx, parent.id, { name, index }, fields),
      });
    },

    async get(tx, _allowed, model, nameOrId) {
      const parent = existing(await findModelRow(tx, modelAddress(needs, tx, model)));
      const row = existing(await findDeployment(tx, parent.id, at(tx, nameOrId)));
      const [view] = await viewsOf(needs, tx, [row]);
      return { view: existing(view), revision: row.revision };
    },

    async list(tx, _allowed, model, page) {
      const parent = existing(await findModelRow(tx, modelAddress(needs, tx, model)));
      const rows = await listDeployments(tx, parent.id, afterId(page.after), page.limit + 1);
      const views = new Map((await viewsOf(needs, tx, rows)).map((view) => [view.id, view]));
      return toPage(rows, page.limit, (row) => existing(views.get(row.id)));
    },

    async archive(tx, _allowed, model, nameOrId, ifMatch) {
      const parent: ModelRow = existing(await findModelForUpdate(tx, modelAddress(needs, tx, model)));
      const row = existing(await findDeployment(tx, parent.id, at(tx, nameOrId)));
      requireRevision(ifMatch, row.revision);
      const [view] = await viewsOf(needs, tx, [row]);
      await archiveDeployment(tx, row.id, new Date(needs.clock.now()));
      return existing(view);
    },
  };
}

async function add(
  needs: CatalogVerbsNeeds,
  tx: TenantTransaction,
  model: ModelId,
  named: { name: string; index: Buffer },
  fields: DeploymentFields,
): Promise<Written<DeploymentView>> {
  const keyring = needs.keyring(tenantOf(tx));
  const id = needs.makeId<DeploymentId>();
  const now = new Date(needs.clock.now());
  const provider = providerNamed(needs, fields.provider);
  const credential = await credentialFor(needs, tx, fields.credential ?? null);
  const target = { provider, upstreamModel: fields.upstream_model ?? "" };
  const prices = target.upstreamModel === "" ? [] : await timelineAfter(needs, target, fields.price, []);
  const row: Fresh<DeploymentRow> = {
    id,
    model_id: model,
    ...sealName(keyring, "deployments", id, named.name, named.index),
    display_name_sealed: sealDisplayName(keyring, "deployments", id, fields.display_name ?? null),
    provider: provider.id,
    credential_id: credential?.id ?? null,
    upstream_model: target.upstreamModel,
    region: fields.region ?? null,
    position: fields.position ?? (await nextPosition(tx, model)),
    options: mergeOptions(provider, {}, fields),
    revision: 1,
    created_at: now,
    updated_at: now,
  };
  refuseBad(tx, provider, row, credential, prices);
  await insertDeployment(tx, row);
  for (const price of prices) await insertPrice(tx, id, price);
  return { before: null, after: viewOf(needs, keyring, row, credential, prices), revision: row.revision };
}

async function change(
  needs: CatalogVerbsNeeds,
  tx: TenantTransaction,
  row: DeploymentRow,
  fields: DeploymentFields,
): Promise<Written<DeploymentView>> {
  const keyring = needs.keyring(tenantOf(tx));
  const [before] = await viewsOf(needs, tx, [row]);
  const provider = providerNamed(needs, fields.provider ?? row.provider);
  const credential = await credentialFor(needs, tx, fields.credential === undefined ? row.credential_id : fields.credential);
  const target = { provider, upstreamModel: kept(fields.upstream_model, row.upstream_model) };
  const present = (await priceTimelines(tx, [row.id])).get(row.id) ?? [];
  if (fields.price === undefined) refuse(faultOfKeptPrice(row, target, present));
  const prices = await timelineAfter(needs, target, fields.price, present);
  const changes = {
    display_name_sealed:
      fields.display_name === undefined ? row.display_name_sealed : sealDisplayName(keyring, "deployments", row.id, fields.display_name),
    provider: provider.id,
    credential_id: credential?.id ?? null,
    upstream_model: target.upstreamModel,
    region: kept(fields.region, row.region),
    position: kept(fields.position, row.position),
    options: mergeOptions(provider, storedOptions.parse(row.options), fields),
    revision: row.revision + 1,
    updated_at: new Date(needs.clock.now()),
  };
  const changed = { ...row, ...changes };
  refuseBad(tx, provider, changed, credential, prices);
  await updateDeployment(tx, row.id, changes);
  for (const price of prices) if (!present.includes(price)) await insertPrice(tx, row.id, price);
  return { before: existing(before), after: viewOf(needs, keyring, changed, credential, prices), revision: changes.revision };
}

function refuseBad(
  tx: TenantTransaction,
  provider: ProviderFacts,
  row: Pick<DeploymentRow, "upstream_model">,
  credential: CredentialRow | null,
  prices: readonly KeptPrice[],
): void {
  refuse(
    faultOfDeployment(provider, {
      owner: tenantOf(tx),
      credentialProvider: credential?.provider ?? null,
      upstreamModel: row.upstream_model,
      priced: prices.length > 0,
    }),
  );
}

async function credentialFor(needs: CatalogVerbsNeeds, tx: TenantTransaction, nameOrId: string | null): Promise<CredentialRow | null> {
  if (nameOrId === null) return null;
  const row = await findCredentialToUse(tx, addressOf<CredentialId>(needs.keyring(tenantOf(tx)), "credentials", nameOrId));
  if (row === undefined)
    throw new Problem("invalid_request", {
      param: "credential",
      message: "There is no credential of this name. Make it with PUT credentials/{credential}.",
    });
  return row;
}

function mergeOptions(provider: ProviderFacts, present: StoredOptions, fields: DeploymentFields): Record<string, unknown> {
  const parsed = parseOptions(provider, (fields.options === undefined ? present.options : fields.options) ?? {});
  if ("param" in parsed) throw new Problem("invalid_request", parsed);
  const merged = {
    connect_timeout_ms: kept(fields.connect_timeout_ms, present.connect_timeout_ms ?? null),
    first_token_timeout_ms: kept(fields.first_token_timeout_ms, present.first_token_timeout_ms ?? null),
    idle_timeout_ms: kept(fields.idle_timeout_ms, present.idle_timeout_ms ?? null),
    total_timeout_ms: kept(fields.total_timeout_ms, present.total_timeout_ms ?? null),
    unknown_fields: kept(fields.unknown_fields, present.unknown_fields ?? null),
    options: kept(fields.options, present.options ?? null),
  };
  return Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== null));
}

async function viewsOf(needs: CatalogVerbsNeeds, tx: TenantTransaction, rows: readonly DeploymentRow[]): Promise<DeploymentView[]> {
  const keyring = needs.keyring(tenantOf(tx));
  const timelines = await priceTimelines(
    tx,
    rows.map((row) => row.id),
  );
  const credentials = new Map(
    (
      await credentialsById(
        tx,
        rows.flatMap((row) => row.credential_id ?? []),
      )
    ).map((row) => [row.id, row]),
  );
  return rows.map((row) =>
    viewOf(
      needs,
      keyring,
      row,
      row.credential_id === null ? null : existing(credentials.get(row.credential_id)),
      existing(timelines.get(row.id)),
    ),
  );
}

function viewOf(
  { clock }: Pick<CatalogVerbsNeeds, "clock">,
  keyring: TenantKeyring,
  row: Fresh<DeploymentRow>,
  credential: CredentialRow | null,
  prices: readonly KeptPrice[],
): DeploymentView {
  const stored = storedOptions.parse(row.options);
  const { present, pending } = atTime(prices, clock.now());
  return {
    id: row.id,
    name: openName(keyring, "deployments", row),
    display_name: openDisplayName(keyring, "deployments", row),
    provider: row.provider,
    credential: credential === null ? null : openName(keyring, "credentials", credential),
    upstream_model: row.upstream_model,
    region: row.region,
    position: row.position,
    price: statedPrice(present.price),
    price_version: present.price.version,
    price_details: priceView(present),
    scheduled_prices: pending.map(priceView),
    connect_timeout_ms: stored.connect_timeout_ms ?? null,
    first_token_timeout_ms: stored.first_token_timeout_ms ?? null,
    idle_timeout_ms: stored.idle_timeout_ms ?? null,
    total_timeout_ms: stored.total_timeout_ms ?? null,
    unknown_fields: stored.unknown_fields ?? null,
    options: stored.options ?? {},
    created_at: toUnixSeconds(row.created_at),
    updated_at: toUnixSeconds(row.updated_at),
  };
}
