import type { ExpressionBuilder, Selectable } from "kysely";
import { type CredentialId, type DeploymentId, type ModelId, PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import type { SystemTransaction, Tables, TenantTransaction } from "../../storage/database/index.ts";
import { type Address, ofTenants } from "../../storage/snapshot/index.ts";
import type { DatasetOrigin, Price, PricePeriod } from "./model.ts";
import { ratesFromRow, ratesToRow, tiersFromRow, tiersToRow } from "./price.ts";

export type CredentialRow = Selectable<Tables["credentials"]>;
export type ModelRow = Selectable<Tables["models"]>;
export type DeploymentRow = Selectable<Tables["deployments"]>;
export type PriceRow = Selectable<Tables["prices"]>;
export type GrantRow = Selectable<Tables["grants"]>;
export type Fresh<Row> = Omit<Row, "tenant_id" | "archived_at">;
type Fixed = "tenant_id" | "archived_at" | "id" | "name_sealed" | "name_index" | "created_at";

export function findCredential(tx: TenantTransaction, address: Address<CredentialId>): Promise<CredentialRow | undefined> {
  return credentialAt(tx, address).executeTakeFirst();
}

export function findCredentialForUpdate(tx: TenantTransaction, address: Address<CredentialId>): Promise<CredentialRow | undefined> {
  return credentialAt(tx, address).forUpdate().executeTakeFirst();
}

/** Kept from being archived until the transaction ends. */
export function findCredentialToUse(tx: TenantTransaction, address: Address<CredentialId>): Promise<CredentialRow | undefined> {
  return credentialAt(tx, address).forShare().executeTakeFirst();
}

function credentialAt(tx: TenantTransaction, address: Address<CredentialId>) {
  const live = tx.selectFrom("credentials").selectAll().where("archived_at", "is", null);
  return address.kind === "id" ? live.where("id", "=", address.id) : live.where("name_index", "=", address.index);
}

export function listCredentials(tx: TenantTransaction, after: string | null, count: number): Promise<CredentialRow[]> {
  const live = tx.selectFrom("credentials").selectAll().where("archived_at", "is", null);
  return (after === null ? live : live.where("id", ">", after as CredentialId)).orderBy("id").limit(count).execute();
}

export async function insertCredential(tx: TenantTransaction, row: Fresh<CredentialRow>): Promise<void> {
  await tx.insertInto("credentials").values(row).execute();
}

export async function updateCredential(tx: TenantTransaction, id: CredentialId, changes: Omit<CredentialRow, Fixed>): Promise<void> {
  await tx.updateTable("credentials").set(changes).where("id", "=", id).execute();
}

/** The secrets go at once: history needs the row, not what they opened. */
export async function archiveCredential(tx: TenantTransaction, id: CredentialId, at: Date): Promise<void> {
  const changes = { archived_at: at, updated_at: at, secret_sealed: null, proxy_sealed: null, client_key_sealed: null };
  await tx.updateTable("credentials").set(changes).where("id", "=", id).execute();
}

export async function isCredentialUsed(tx: TenantTransaction, id: CredentialId): Promise<boolean> {
  const row = await tx
    .selectFrom("deployments")
    .select("id")
    .where("credential_id", "=", id)
    .where("archived_at", "is", null)
    .limit(1)
    .executeTakeFirst();
  return row !== undefined;
}

export function credentialsById(tx: TenantTransaction, ids: readonly CredentialId[]): Promise<CredentialRow[]> {
  if (ids.length === 0) return Promise.resolve([]);
  return tx.selectFrom("credentials").selectAll().where("id", "in", ids).execute();
}

export function findModelRow(tx: TenantTransaction, address: Address<ModelId>): Promise<ModelRow | undefined> {
  return modelAt(tx, address).executeTakeFirst();
}

/** Locked: writes to a model and its deployments come one after the other. */
export function findModelForUpdate(tx: TenantTransaction, address: Address<ModelId>): Promise<ModelRow | undefined> {
  return modelAt(tx, address).forUpdate().executeTakeFirst();
}

function modelAt(tx: TenantTransaction, address: Address<ModelId>) {
  const live = tx.selectFrom("models").selectAll().where("archived_at", "is", null);
  return address.kind === "id" ? live.where("id", "=", address.id) : live.where("name_index", "=", address.index);
}

export function listModelRows(tx: TenantTransaction, after: string | null, count: number): Promise<ModelRow[]> {
  const live = tx.selectFrom("models").selectAll().where("archived_at", "is", null);
  return (after === null ? live : live.where("id", ">", after as ModelId)).orderBy("id").limit(count).execute();
}

export async function insertModel(tx: TenantTransaction, row: Fresh<ModelRow>): Promise<void> {
  await tx.insertInto("models").values(row).execute();
}

export async function updateModel(tx: TenantTransaction, id: ModelId, changes: Omit<ModelRow, Fixed>): Promise<void> {
  await tx.updateTable("models").set(changes).where("id", "=", id).execute();
}

export async function archiveModel(tx: TenantTransaction, id: ModelId, at: Date): Promise<void> {
  await tx
    .updateTable("deployments")
    .set({ archived_at: at, updated_at: at })
    .where("model_id", "=", id)
    .where("archived_at", "is", null)
    .execute();
  await tx.updateTable("models").set({ archived_at: at, updated_at: at }).where("id", "=", id).execute();
}

export function findDeployment(tx: TenantTransaction, model: ModelId, address: Address<DeploymentId>): Promise<DeploymentRow | undefined> {
  const live = tx.selectFrom("deployments").selectAll().where("model_id", "=", model).where("archived_at", "is", null);
  return (address.kind === "id" ? live.where("id", "=", address.id) : live.where("name_index", "=", address.index)).executeTakeFirst();
}

export function listDeployments(tx: TenantTransaction, model: ModelId, after: string | null, count: number): Promise<DeploymentRow[]> {
  const live = tx.selectFrom("deployments").selectAll().where("model_id", "=", model).where("archived_at", "is", null);
  return (after === null ? live : live.where("id", ">", after as DeploymentId)).orderBy("id").limit(count).execute();
}

/** Where a new deployment goes unless it says otherwise: behind all others of the model. */
export async function nextPosition(tx: TenantTransaction, model: ModelId): Promise<number> {
  const row = await tx
    .selectFrom("deployments")
    .select((select) => select.fn.max("position").as("last"))
    .where("model_id", "=", model)
    .where("archived_at", "is", null)
    .executeTakeFirst();
  return row?.last === null || row === undefined ? 0 : row.last + 1;
}

export async function insertDeployment(tx: TenantTransaction, row: Fresh<DeploymentRow>): Promise<void> {
  await tx
    .insertInto("deployments")
    .values({ ...row, options: JSON.stringify(row.options) })
    .execute();
}

export async function updateDeployment(
  tx: TenantTransaction,
  id: DeploymentId,
  changes: Omit<DeploymentRow, Fixed | "model_id">,
): Promise<void> {
  await tx
    .updateTable("deployments")
    .set({ ...changes, options: JSON.stringify(changes.options) })
    .where("id", "=", id)
    .execute();
}

export async function archiveDeployment(tx: TenantTransaction, id: DeploymentId, at: Date): Promise<void> {
  await tx.updateTable("deployments").set({ archived_at: at, updated_at: at }).where("id", "=", id).execute();
}

/** A version as it is kept. */
export interface KeptPrice extends PricePeriod {
  readonly effectiveAt: Date;
  /** Later than that of any version of the deployment made before it. */
  readonly createdAt: Date;
  readonly dataset: DatasetOrigin | null;
}

/** The versions of each deployment named that are in force or to come, as `timelineOf` orders them. */
export async function priceTimelines(tx: TenantTransaction, deployments: readonly DeploymentId[]): Promise<Map<DeploymentId, KeptPrice[]>> {
  if (deployments.length === 0) return new Map();
  const rows = await tx
    .selectFrom("prices")
    .selectAll()
    .where("deployment_id", "in", deployments)
    .where(notReplaced)
    .orderBy("created_at")
    .orderBy("effective_at")
    .execute();
  return timelinesOf(rows);
}

/** No later version was in force when it was made. */
function notReplaced({ not, exists, selectFrom }: ExpressionBuilder<Tables, "prices">) {
  return not(
    exists(
      selectFrom("prices as later")
        .select("later.id")
        .whereRef("later.tenant_id", "=", "prices.tenant_id")
        .whereRef("later.deployment_id", "=", "prices.deployment_id")
        .whereRef("later.created_at", ">", "prices.created_at")
        .whereRef("later.effective_at", "<=", "later.created_at"),
    ),
  );
}

export function timelinesOf(rows: readonly PriceRow[]): Map<DeploymentId, KeptPrice[]> {
  return new Map([...Map.groupBy(rows, (row) => row.deployment_id)].map(([id, versions]) => [id, timelineOf(versions)]));
}

/**
 * Earliest first. Versions come in the order they were made; each replaces those that would begin with it or after it. One that
 * was in force when it was made replaces all, and is in force whatever another process's clock says.
 */
function timelineOf(versions: readonly PriceRow[]): KeptPrice[] {
  let timeline: KeptPrice[] = [];
  for (const row of versions) {
    const from = row.effective_at <= row.created_at ? 0 : row.effective_at.getTime();
    timeline = [...timeline.filter((earlier) => earlier.from < from), keptPrice(row, from)];
  }
  return timeline;
}

function keptPrice(row: PriceRow, from: number): KeptPrice {
  const price: Price = { version: row.id, source: row.source, rates: ratesFromRow(row.rates), ...tiersFromRow(row.tiers) };
  const dataset = row.dataset as DatasetOrigin | null;
  return { from, price, effectiveAt: row.effective_at, createdAt: row.created_at, dataset };
}

export async function insertPrice(tx: TenantTransaction, deployment: DeploymentId, kept: KeptPrice): Promise<void> {
  const { price, effectiveAt, createdAt, dataset } = kept;
  await tx
    .insertInto("prices")
    .values({
      id: price.version,
      deployment_id: deployment,
      effective_at: effectiveAt,
      source: price.source,
      rates: JSON.stringify(ratesToRow(price.rates)),
      tiers: JSON.stringify(tiersToRow(price.tiers)),
      dataset: dataset === null ? null : JSON.stringify(dataset),
      created_at: createdAt,
    })
    .execute();
}

/** The grant's time: the first one's, where it was there. */
export async function insertGrant(tx: TenantTransaction, model: ModelId, at: Date): Promise<{ created_at: Date; isNew: boolean }> {
  const row = await tx
    .insertInto("grants")
    .values({ model_owner_id: PLATFORM_TENANT, model_id: model, created_at: at })
    .onConflict((conflict) => conflict.doNothing())
    .returning("created_at")
    .executeTakeFirst();
  if (row !== undefined) return { created_at: row.created_at, isNew: true };
  const present = await findGrant(tx, model);
  return { created_at: present?.created_at ?? at, isNew: false };
}

export function findGrant(tx: TenantTransaction, model: ModelId): Promise<GrantRow | undefined> {
  return tx.selectFrom("grants").selectAll().where("model_owner_id", "=", PLATFORM_TENANT).where("model_id", "=", model).executeTakeFirst();
}

export function listGrants(tx: TenantTransaction, after: string | null, count: number): Promise<GrantRow[]> {
  const own = tx.selectFrom("grants").selectAll().where("model_owner_id", "=", PLATFORM_TENANT);
  return (after === null ? own : own.where("model_id", ">", after as ModelId)).orderBy("model_id").limit(count).execute();
}

export async function deleteGrant(tx: TenantTransaction, model: ModelId): Promise<void> {
  await tx.deleteFrom("grants").where("model_owner_id", "=", PLATFORM_TENANT).where("model_id", "=", model).execute();
}

export interface CatalogRows {
  readonly models: ModelRow[];
  readonly deployments: DeploymentRow[];
  readonly credentials: CredentialRow[];
  /** In force or to come, in the order they were made. */
  readonly prices: PriceRow[];
  readonly grants: GrantRow[];
}

/** The live rows of many tenants, five queries in all. */
export async function readCatalog(tx: SystemTransaction, tenants: readonly TenantId[]): Promise<CatalogRows> {
  const whose = ofTenants(tenants);
  return {
    models: await tx.selectFrom("models").selectAll().where(whose).where("archived_at", "is", null).orderBy("id").execute(),
    deployments: await tx
      .selectFrom("deployments")
      .selectAll()
      .where(whose)
      .where("archived_at", "is", null)
      .orderBy("position")
      .orderBy("id")
      .execute(),
    credentials: await tx.selectFrom("credentials").selectAll().where(whose).where("archived_at", "is", null).execute(),
    prices: await tx
      .selectFrom("prices")
      .selectAll()
      .where(whose)
      .where(notReplaced)
      .orderBy("created_at")
      .orderBy("effective_at")
      .execute(),
    grants: await tx.selectFrom("grants").selectAll().where(whose).execute(),
  };
}
