import { type Selectable, sql, type Transaction } from "kysely";
import type { TenantId, Uuid } from "../../kernel/ids.ts";
import type { SystemTransaction, Tables, TenantTransaction } from "../../storage/database/index.ts";
import type { Address } from "../../storage/snapshot/index.ts";
import { ALL_EVENTS } from "./events.ts";
import type { EventId, WebhookId } from "./model.ts";

export type WebhookRow = Selectable<Tables["webhooks"]>;
export type EventRow = Selectable<Tables["events"]>;
type DeliveryRow = Selectable<Tables["event_deliveries"]>;
export type Fresh<Row> = Omit<Row, "tenant_id" | "archived_at">;
type Changes = Partial<Omit<WebhookRow, "tenant_id" | "id" | "name_sealed" | "name_index" | "created_at" | "archived_at">>;

/** Of the transaction's tenant. */
export function findWebhook(tx: TenantTransaction, address: Address<WebhookId>): Promise<WebhookRow | undefined> {
  return webhookAt(tx, address).executeTakeFirst();
}

/** Locked until the transaction ends. */
export function findWebhookForUpdate(tx: TenantTransaction, address: Address<WebhookId>): Promise<WebhookRow | undefined> {
  return webhookAt(tx, address).forUpdate().executeTakeFirst();
}

function webhookAt(tx: TenantTransaction, address: Address<WebhookId>) {
  const live = tx.selectFrom("webhooks").selectAll().where("archived_at", "is", null);
  return address.kind === "id" ? live.where("id", "=", address.id) : live.where("name_index", "=", address.index);
}

export function listWebhooks(tx: TenantTransaction, after: string | null, count: number): Promise<WebhookRow[]> {
  const live = tx.selectFrom("webhooks").selectAll().where("archived_at", "is", null);
  return (after === null ? live : live.where("id", ">", after as WebhookId)).orderBy("id").limit(count).execute();
}

export async function countWebhooks(tx: TenantTransaction): Promise<number> {
  const { count } = await tx
    .selectFrom("webhooks")
    .select(({ fn }) => fn.countAll<number>().as("count"))
    .where("archived_at", "is", null)
    .executeTakeFirstOrThrow();
  return count;
}

export async function insertWebhook(tx: TenantTransaction, row: Fresh<WebhookRow>): Promise<void> {
  await tx.insertInto("webhooks").values(row).execute();
}

export async function updateWebhook(tx: TenantTransaction, id: WebhookId, changes: Changes): Promise<void> {
  await tx.updateTable("webhooks").set(changes).where("id", "=", id).execute();
}

/** What was still to be delivered to it is not. */
export async function archiveWebhook(tx: TenantTransaction, id: WebhookId, at: Date): Promise<void> {
  await tx.updateTable("webhooks").set({ archived_at: at, updated_at: at }).where("id", "=", id).execute();
  await tx
    .updateTable("event_deliveries")
    .set({ status: "canceled" })
    .where("webhook_id", "=", id)
    .where("status", "=", "pending")
    .execute();
}

/** Whether it was not there yet. Names the tenant, since it runs as a tenant and as a job. */
export async function insertEvent(tx: Transaction<Tables>, row: EventRow): Promise<boolean> {
  const result = await tx
    .insertInto("events")
    .values(row)
    .onConflict((conflict) => conflict.doNothing())
    .executeTakeFirst();
  return result.numInsertedOrUpdatedRows === 1n;
}

/** The active webhooks that ask for this type, and for which there is room. */
export async function webhooksFor(tx: Transaction<Tables>, tenant: TenantId, type: string): Promise<WebhookId[]> {
  const rows = await tx
    .selectFrom("webhooks")
    .select("id")
    .where("tenant_id", "=", tenant)
    .where("status", "=", "active")
    .where("archived_at", "is", null)
    .where(sql<boolean>`${sql.ref("events")} && ${[type, ALL_EVENTS]}::text[]`)
    .where(({ not, exists, selectFrom }) =>
      not(
        exists(
          selectFrom("event_deliveries as waiting")
            .select("waiting.event_id")
            .whereRef("waiting.tenant_id", "=", "webhooks.tenant_id")
            .whereRef("waiting.webhook_id", "=", "webhooks.id")
            .where("waiting.status", "=", "pending")
            .offset(MAX_PENDING - 1)
            .limit(1),
        ),
      ),
    )
    .execute();
  return rows.map(({ id }) => id);
}

/** Whether as many deliveries wait for the webhook as may. */
export async function isFull(tx: TenantTransaction, webhook: WebhookId): Promise<boolean> {
  const waiting = tx.selectFrom("event_deliveries").select("event_id").where("webhook_id", "=", webhook).where("status", "=", "pending");
  const last = await waiting
    .offset(MAX_PENDING - 1)
    .limit(1)
    .executeTakeFirst();
  return last !== undefined;
}

export async function insertDeliveries(
  tx: Transaction<Tables>,
  { tenant_id, id: event_id }: Pick<EventRow, "tenant_id" | "id">,
  webhooks: readonly WebhookId[],
  at: Date,
): Promise<void> {
  if (webhooks.length === 0) return;
  const due = { status: "pending", next_attempt_at: at, created_at: at } as const;
  await tx
    .insertInto("event_deliveries")
    .values(webhooks.map((webhook_id) => ({ tenant_id, webhook_id, event_id, ...due })))
    .execute();
}

/** Newest first; `after` is the last id of the page before. */
export function listEvents(tx: TenantTransaction, type: string | undefined, after: string | null, count: number): Promise<EventRow[]> {
  let rows = tx.selectFrom("events").selectAll();
  if (type !== undefined) rows = rows.where("type", "=", type);
  if (after !== null) rows = rows.where("id", "<", after as EventId);
  return rows.orderBy("id", "desc").limit(count).execute();
}

export type ListedDelivery = DeliveryRow & { readonly id: EventId; readonly type: string };

/** Those to one webhook, of the newest event first; `after` is an event's id. */
export function listDeliveries(tx: TenantTransaction, webhook: WebhookId, after: string | null, count: number): Promise<ListedDelivery[]> {
  const rows = tx
    .selectFrom("event_deliveries as d")
    .innerJoin("events as e", "e.id", "d.event_id")
    .selectAll("d")
    .select(["e.id", "e.type"])
    .where("d.webhook_id", "=", webhook);
  return (after === null ? rows : rows.where("d.event_id", "<", after as EventId)).orderBy("d.event_id", "desc").limit(count).execute();
}

/** A delivery that this process has leased, with all that an attempt needs. */
export interface ClaimedDelivery {
  readonly tenant_id: TenantId;
  readonly webhook_id: WebhookId;
  readonly event_id: EventId;
  /** This attempt's number, from 1. */
  readonly attempts: number;
  readonly url_sealed: Buffer;
  readonly secret_sealed: Buffer;
  readonly previous_secret_sealed: Buffer | null;
  readonly previous_secret_until: Date | null;
  readonly revision: number;
  readonly type: string;
  readonly data_sealed: Buffer;
  readonly event_at: Date;
}

export interface Claim {
  readonly now: Date;
  readonly leaseUntil: Date;
  readonly most: number;
  readonly mostPerTenant: number;
  /** What this process has under way. */
  readonly busy: readonly { readonly tenant: TenantId; readonly webhook: WebhookId }[];
}

/**
 * Leases what is due: the oldest delivery of each webhook that has none under way here, of so many webhooks a tenant. A tenant that has
 * fewer under way comes first, so that a backlog delays its owner. Processes that claim at the same time get different ones.
 *
 * `heads` steps from webhook to webhook through the index of what is pending: with 200,000 deliveries waiting for webhooks that are not
 * active it took 3 to 4 ms, where grouping all that was pending took about 100.
 */
export async function claimDeliveries(
  tx: SystemTransaction,
  { now, leaseUntil, most, mostPerTenant, busy }: Claim,
): Promise<ClaimedDelivery[]> {
  const { rows } = await sql<ClaimedDelivery>`
    WITH RECURSIVE busy (tenant_id, webhook_id) AS (
      SELECT * FROM unnest(${busy.map(({ tenant }) => tenant)}::uuid[], ${busy.map(({ webhook }) => webhook)}::uuid[])
    ), heads AS (
      (SELECT tenant_id, webhook_id, next_attempt_at AS since FROM event_deliveries
       WHERE status = 'pending' ORDER BY tenant_id, webhook_id, next_attempt_at LIMIT 1)
      UNION ALL
      SELECT next.* FROM heads CROSS JOIN LATERAL (
        SELECT d.tenant_id, d.webhook_id, d.next_attempt_at FROM event_deliveries d
        WHERE d.status = 'pending' AND (d.tenant_id, d.webhook_id) > (heads.tenant_id, heads.webhook_id)
        ORDER BY d.tenant_id, d.webhook_id, d.next_attempt_at LIMIT 1
      ) next
    ), ranked AS (
      SELECT heads.*, row_number() OVER (PARTITION BY heads.tenant_id ORDER BY heads.since)
        + (SELECT count(*) FROM busy WHERE busy.tenant_id = heads.tenant_id) AS place
      FROM heads JOIN webhooks w ON w.tenant_id = heads.tenant_id AND w.id = heads.webhook_id
      WHERE heads.since <= ${now} AND w.status = 'active' AND w.archived_at IS NULL AND w.id NOT IN (SELECT webhook_id FROM busy)
    ), picked AS (
      SELECT * FROM ranked WHERE place <= ${mostPerTenant} ORDER BY place, since LIMIT ${most}
    ), claimed AS (
      SELECT oldest.* FROM picked CROSS JOIN LATERAL (
        SELECT tenant_id, webhook_id, event_id FROM event_deliveries d
        WHERE d.tenant_id = picked.tenant_id AND d.webhook_id = picked.webhook_id AND d.status = 'pending' AND d.next_attempt_at <= ${now}
        ORDER BY d.next_attempt_at, d.event_id LIMIT 1 FOR UPDATE SKIP LOCKED
      ) oldest
    )
    UPDATE event_deliveries d SET attempts = d.attempts + 1, next_attempt_at = ${leaseUntil}, last_attempt_at = ${now}
    FROM claimed
    JOIN webhooks w ON w.tenant_id = claimed.tenant_id AND w.id = claimed.webhook_id
    JOIN events e ON e.tenant_id = claimed.tenant_id AND e.id = claimed.event_id
    WHERE d.tenant_id = claimed.tenant_id AND d.webhook_id = claimed.webhook_id AND d.event_id = claimed.event_id
    RETURNING d.tenant_id, d.webhook_id, d.event_id, d.attempts, w.url_sealed, w.secret_sealed, w.previous_secret_sealed,
      w.previous_secret_until, w.revision, e.type, e.data_sealed, e.created_at AS event_at`.execute(tx);
  return rows;
}

type Ended = Pick<DeliveryRow, "status" | "next_attempt_at" | "last_status" | "last_error">;

/** Nothing where the lease has passed to another attempt, or the webhook was ended meanwhile. */
export async function recordAttempt(
  tx: TenantTransaction,
  { webhook_id, event_id, attempts }: ClaimedDelivery,
  ended: Ended,
): Promise<void> {
  await tx
    .updateTable("event_deliveries")
    .set(ended)
    .where("webhook_id", "=", webhook_id)
    .where("event_id", "=", event_id)
    .where("attempts", "=", attempts)
    .where("status", "=", "pending")
    .execute();
}

/** Unless it was changed since the delivery was claimed: then something else answered. */
export async function endWebhook(tx: TenantTransaction, { webhook_id, revision }: ClaimedDelivery, at: Date): Promise<void> {
  await tx
    .updateTable("webhooks")
    .set({ status: "gone", revision: revision + 1, updated_at: at })
    .where("id", "=", webhook_id)
    .where("revision", "=", revision)
    .execute();
}

/** Lets go of events from before then, and of their deliveries. Resolves to how many events those were, at most `most`. */
export async function deleteOldEvents(tx: SystemTransaction, before: Date, most: number): Promise<number> {
  const old = await tx.selectFrom("events").select(["tenant_id", "id"]).where("created_at", "<", before).limit(most).execute();
  if (old.length === 0) return 0;
  const keys = sql`SELECT * FROM unnest(${old.map((row) => row.tenant_id)}::uuid[], ${old.map((row): Uuid => row.id)}::uuid[])`;
  await sql`DELETE FROM event_deliveries WHERE (tenant_id, event_id) IN (${keys})`.execute(tx);
  await sql`DELETE FROM events WHERE (tenant_id, id) IN (${keys})`.execute(tx);
  return old.length;
}

/** For one webhook: callers choose the users and features whose budgets are told of, so that a dead endpoint's backlog would grow with every call. */
export const MAX_PENDING = 1_000;
