import type { Clock } from "../../kernel/clock.ts";
import type { TenantId, Uuid } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import type { RandomBytes } from "../../kernel/random.ts";
import { type Egress, EgressRefused } from "../../egress/index.ts";
import { type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import {
  type Address,
  addressOf,
  afterId,
  existing,
  kept,
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
import type { Allowed, Permission } from "../identity/index.ts";
import type { DeliveryView, EventId, EventView, WebhookId, WebhookView } from "./model.ts";
import { newSecret } from "./signature.ts";
import {
  archiveWebhook,
  countWebhooks,
  findWebhook,
  findWebhookForUpdate,
  type Fresh,
  insertDeliveries,
  insertEvent,
  insertWebhook,
  isFull,
  listDeliveries,
  type ListedDelivery,
  listEvents,
  listWebhooks,
  MAX_PENDING,
  updateWebhook,
  type WebhookRow,
} from "./store.ts";
import { eventRow, payloadOf } from "./write-event.ts";

/** Omitted keeps, null clears. */
export interface WebhookFields {
  readonly display_name?: string | null | undefined;
  readonly url?: string | undefined;
  readonly events?: string[] | undefined;
  readonly status?: "active" | "paused" | undefined;
}

export interface WrittenWebhook extends Written<WebhookView> {
  /** Null where no new one was made. */
  readonly secret: string | null;
}

/** In the transaction of the webhook's owner: a tenant, or the platform. All throw Problem. */
export interface WebhookVerbs<Read extends Permission, Write extends Permission> {
  put(
    tx: TenantTransaction,
    allowed: Allowed<Write>,
    nameOrId: string,
    fields: WebhookFields,
    ifMatch: number | null,
  ): Promise<WrittenWebhook>;
  get(tx: TenantTransaction, allowed: Allowed<Read>, nameOrId: string): Promise<{ view: WebhookView; revision: number }>;
  list(tx: TenantTransaction, allowed: Allowed<Read>, page: ListQuery): Promise<Page<WebhookView>>;
  archive(tx: TenantTransaction, allowed: Allowed<Write>, nameOrId: string, ifMatch: number | null): Promise<WebhookView>;
  /** A new secret; the old one signs too for as long. */
  rotate(
    tx: TenantTransaction,
    allowed: Allowed<Write>,
    nameOrId: string,
    graceSeconds: number,
  ): Promise<Written<WebhookView> & { readonly secret: string; readonly previousUntil: number }>;
  /** Writes an event that goes to this webhook alone. Resolves to the event's id. */
  test(
    tx: TenantTransaction,
    allowed: Allowed<Write>,
    nameOrId: string,
  ): Promise<{ readonly webhook: WebhookView; readonly event: EventId }>;
  deliveries(tx: TenantTransaction, allowed: Allowed<Read>, nameOrId: string, page: ListQuery): Promise<Page<DeliveryView>>;
}

export interface WebhookVerbsNeeds {
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly makeId: <Id extends Uuid>() => Id;
  /** Of a tenant that the snapshot holds. */
  readonly keyring: (tenant: TenantId) => TenantKeyring;
  readonly vet: Egress["vet"];
}

export function createWebhookVerbs<Read extends Permission, Write extends Permission>(needs: WebhookVerbsNeeds): WebhookVerbs<Read, Write> {
  const ringOf = (tx: TenantTransaction): TenantKeyring => needs.keyring(tenantOf(tx));
  const at = (tx: TenantTransaction, text: string): Address<WebhookId> => addressOf(ringOf(tx), TABLE, text);
  return {
    async put(tx, _allowed, nameOrId, fields, ifMatch) {
      const address = at(tx, nameOrId);
      return upsert(tx, address, ifMatch, {
        what: "webhook",
        find: () => findWebhookForUpdate(tx, address),
        change: (row) => change(needs, tx, row, fields),
        make: (name, index) => add(needs, tx, { name, index }, fields),
      });
    },

    async get(tx, _allowed, nameOrId) {
      const row = existing(await findWebhook(tx, at(tx, nameOrId)));
      return { view: viewOf(ringOf(tx), row), revision: row.revision };
    },

    async list(tx, _allowed, page) {
      const rows = await listWebhooks(tx, afterId(page.after), page.limit + 1);
      return toPage(rows, page.limit, (row) => viewOf(ringOf(tx), row));
    },

    async archive(tx, _allowed, nameOrId, ifMatch) {
      const row = existing(await findWebhookForUpdate(tx, at(tx, nameOrId)));
      requireRevision(ifMatch, row.revision);
      await archiveWebhook(tx, row.id, new Date(needs.clock.now()));
      return viewOf(ringOf(tx), row);
    },

    async rotate(tx, _allowed, nameOrId, graceSeconds) {
      const row = existing(await findWebhookForUpdate(tx, at(tx, nameOrId)));
      return rotateSecret(needs, tx, row, graceSeconds);
    },

    async test(tx, _allowed, nameOrId) {
      const row = existing(await findWebhookForUpdate(tx, at(tx, nameOrId)));
      if (row.status !== "active")
        throw new Problem("conflict", { message: `The webhook is ${row.status}: set its 'status' to 'active' first.` });
      if (await isFull(tx, row.id))
        throw new Problem("conflict", { message: `${MAX_PENDING} deliveries wait for the webhook already. See to its endpoint first.` });
      return { webhook: viewOf(ringOf(tx), row), event: await writeTest(needs, tx, row) };
    },

    async deliveries(tx, _allowed, nameOrId, page) {
      const row = existing(await findWebhook(tx, at(tx, nameOrId)));
      const rows = await listDeliveries(tx, row.id, afterId(page.after), page.limit + 1);
      return toPage(rows, page.limit, deliveryView);
    },
  };
}

export interface EventVerbs<Read extends Permission> {
  /** Newest first. */
  list(tx: TenantTransaction, allowed: Allowed<Read>, page: ListQuery & { readonly type?: string | undefined }): Promise<Page<EventView>>;
}

export function createEventVerbs<Read extends Permission>(keyring: (tenant: TenantId) => TenantKeyring): EventVerbs<Read> {
  return {
    async list(tx, _allowed, { type, after, limit }) {
      const ring = keyring(tenantOf(tx));
      const rows = await listEvents(tx, type, afterId(after), limit + 1);
      return toPage(rows, limit, (row) => ({ id: row.id, ...payloadOf(ring, { ...row, at: row.created_at }) }));
    },
  };
}

async function add(
  needs: WebhookVerbsNeeds,
  tx: TenantTransaction,
  named: { readonly name: string; readonly index: Buffer },
  { url, events, status = "active", display_name = null }: WebhookFields,
): Promise<WrittenWebhook> {
  if (url === undefined) throw new Problem("invalid_request", { param: "url", message: "A new webhook needs 'url'." });
  if (events === undefined) throw new Problem("invalid_request", { param: "events", message: "A new webhook needs 'events'." });
  if ((await countWebhooks(tx)) >= MAX_WEBHOOKS)
    throw new Problem("conflict", { message: `There are ${MAX_WEBHOOKS} webhooks, as many as are taken. Delete one first.` });
  await vetted(needs, url);
  const keyring = needs.keyring(tenantOf(tx));
  const id = needs.makeId<WebhookId>();
  const now = new Date(needs.clock.now());
  const secret = newSecret(needs.random);
  const row: Fresh<WebhookRow> = {
    id,
    ...sealName(keyring, TABLE, id, named.name, named.index),
    display_name_sealed: sealDisplayName(keyring, TABLE, id, display_name),
    url_sealed: sealUrl(keyring, id, url),
    events: unique(events),
    status,
    secret_sealed: sealSecret(keyring, "secret_sealed", id, secret),
    previous_secret_sealed: null,
    previous_secret_until: null,
    revision: 1,
    created_at: now,
    updated_at: now,
  };
  await insertWebhook(tx, row);
  return { before: null, after: viewOf(keyring, row), revision: row.revision, secret };
}

async function change(
  needs: WebhookVerbsNeeds,
  tx: TenantTransaction,
  row: WebhookRow,
  { url, events, status, display_name }: WebhookFields,
): Promise<WrittenWebhook> {
  const keyring = needs.keyring(tenantOf(tx));
  if (url !== undefined) await vetted(needs, url);
  const changes = {
    display_name_sealed: display_name === undefined ? row.display_name_sealed : sealDisplayName(keyring, TABLE, row.id, display_name),
    url_sealed: url === undefined ? row.url_sealed : sealUrl(keyring, row.id, url),
    events: events === undefined ? row.events : unique(events),
    status: kept(status, row.status),
    revision: row.revision + 1,
    updated_at: new Date(needs.clock.now()),
  };
  await updateWebhook(tx, row.id, changes);
  return { before: viewOf(keyring, row), after: viewOf(keyring, { ...row, ...changes }), revision: changes.revision, secret: null };
}

async function rotateSecret(needs: WebhookVerbsNeeds, tx: TenantTransaction, row: WebhookRow, graceSeconds: number) {
  const keyring = needs.keyring(tenantOf(tx));
  const secret = newSecret(needs.random);
  const until = new Date(needs.clock.now() + graceSeconds * 1000);
  const previous = openSecret(keyring, "secret_sealed", row.id, row.secret_sealed);
  const changes = {
    secret_sealed: sealSecret(keyring, "secret_sealed", row.id, secret),
    previous_secret_sealed: sealSecret(keyring, "previous_secret_sealed", row.id, previous),
    previous_secret_until: until,
    revision: row.revision + 1,
    updated_at: new Date(needs.clock.now()),
  };
  await updateWebhook(tx, row.id, changes);
  const [before, after] = [viewOf(keyring, row), viewOf(keyring, { ...row, ...changes })];
  return { before, after, revision: changes.revision, secret, previousUntil: toUnixSeconds(until) };
}

async function writeTest({ makeId, clock, keyring }: WebhookVerbsNeeds, tx: TenantTransaction, webhook: WebhookRow): Promise<EventId> {
  const tenant = tenantOf(tx);
  const ring = keyring(tenant);
  const id = makeId<EventId>();
  const data = { webhook_id: webhook.id, webhook: openName(ring, TABLE, webhook) };
  const row = eventRow(ring, id, { tenant, type: "webhook.test", key: `webhook.test:${id}`, data, at: clock.now() });
  await insertEvent(tx, row);
  await insertDeliveries(tx, row, [webhook.id], row.created_at);
  return id;
}

/** Throws Problem at a URL that would not be called. */
async function vetted({ vet }: WebhookVerbsNeeds, url: string): Promise<void> {
  try {
    await vet(url);
  } catch (refusal) {
    if (!(refusal instanceof EgressRefused)) throw refusal;
    throw new Problem("invalid_request", { param: "url", message: `'url' cannot be called. ${refusal.publicReason}` });
  }
}

function viewOf(keyring: TenantKeyring, row: Fresh<WebhookRow>): WebhookView {
  return {
    id: row.id,
    name: openName(keyring, TABLE, row),
    display_name: openDisplayName(keyring, TABLE, row),
    url: openUrl(keyring, row.id, row.url_sealed),
    events: row.events,
    status: row.status,
    created_at: toUnixSeconds(row.created_at),
    updated_at: toUnixSeconds(row.updated_at),
  };
}

function deliveryView(row: ListedDelivery): DeliveryView {
  return {
    event: row.event_id,
    type: row.type,
    status: row.status,
    attempts: row.attempts,
    next_attempt_at: row.status === "pending" ? toUnixSeconds(row.next_attempt_at) : null,
    last_attempt_at: row.last_attempt_at === null ? null : toUnixSeconds(row.last_attempt_at),
    last_status: row.last_status,
    last_error: row.last_error,
    created_at: toUnixSeconds(row.created_at),
  };
}

function unique(events: readonly string[]): string[] {
  return [...new Set(events)];
}

type SecretColumn = "secret_sealed" | "previous_secret_sealed";

function sealSecret(keyring: TenantKeyring, column: SecretColumn, row: WebhookId, secret: string): Buffer {
  return keyring.seal(secret, { table: TABLE, column, row });
}

export function openSecret(keyring: TenantKeyring, column: SecretColumn, row: WebhookId, sealed: Buffer): string {
  return keyring.open(sealed, { table: TABLE, column, row }).toString();
}

function sealUrl(keyring: TenantKeyring, row: WebhookId, url: string): Buffer {
  return keyring.seal(url, { table: TABLE, column: "url_sealed", row });
}

export function openUrl(keyring: TenantKeyring, row: WebhookId, sealed: Buffer): string {
  return keyring.open(sealed, { table: TABLE, column: "url_sealed", row }).toString();
}

const TABLE = "webhooks";
/** Of one tenant: each event becomes a delivery to each of them. */
const MAX_WEBHOOKS = 50;
