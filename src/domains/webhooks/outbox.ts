import type { Clock } from "../../kernel/clock.ts";
import type { TenantId } from "../../kernel/ids.ts";
import { type Egress, EgressFailed, EgressRefused } from "../../egress/index.ts";
import type { Database, DatabaseLog } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { judge, type Outcome, type Verdict } from "./decide.ts";
import type { WebhookId } from "./model.ts";
import { openSecret, openUrl } from "./service.ts";
import { signedHeaders } from "./signature.ts";
import { claimDeliveries, type ClaimedDelivery, deleteOldEvents, endWebhook, recordAttempt } from "./store.ts";
import { payloadOf } from "./write-event.ts";

export interface OutboxNeeds {
  readonly database: Pick<Database, "forSystem" | "forTenant">;
  readonly clock: Clock;
  /** Even in [0, 1). */
  readonly chance: () => number;
  readonly log: DatabaseLog;
  readonly request: Egress["request"];
  readonly keyringOf: (tenant: TenantId) => TenantKeyring | Promise<TenantKeyring | null>;
  /** Whether the tenant is still there. */
  readonly isLive: (tenant: TenantId) => boolean;
}

/**
 * Delivers what is due, at most `MAX_IN_FLIGHT` at once. Any number of processes may do so beside each other; one that dies leaves
 * leases, which end.
 */
export class Outbox {
  readonly #needs: OutboxNeeds;
  readonly #inFlight = new Map<WebhookId, { readonly tenant: TenantId; readonly webhook: WebhookId; readonly done: Promise<void> }>();
  readonly #ending = new AbortController();
  #timer: NodeJS.Timeout | null = null;
  #looking: Promise<number> | null = null;
  #prunedAt = Number.NEGATIVE_INFINITY;
  #isFailing = false;

  constructor(needs: OutboxNeeds) {
    this.#needs = needs;
  }

  /** Looks for what is due every second, and whenever an attempt ends. */
  start(): void {
    this.#timer = setInterval(() => void this.#look(), POLL_MS);
    this.#timer.unref();
  }

  /** Delivers until nothing is due. Resolves to how many attempts that took. */
  async drain(): Promise<number> {
    let attempts = 0;
    for (;;) {
      attempts += await this.#look();
      if (this.#inFlight.size === 0) return attempts;
      await Promise.race([...this.#inFlight.values()].map(({ done }) => done));
    }
  }

  /** What is under way may end in CLOSE_WAIT_MS; after that it is cut, and made again when its lease is over. */
  async close(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    await this.#looking;
    const cut = setTimeout(() => this.#ending.abort(), CLOSE_WAIT_MS);
    await Promise.all([...this.#inFlight.values()].map(({ done }) => done));
    clearTimeout(cut);
  }

  /** One look at a time. Resolves to how many attempts it began. */
  #look(): Promise<number> {
    return (this.#looking ??= this.#claim().finally(() => {
      this.#looking = null;
    }));
  }

  async #claim(): Promise<number> {
    try {
      await this.#prune();
      const claimed = await this.#claimDue();
      for (const delivery of claimed) this.#begin(delivery);
      this.#isFailing = false;
      return claimed.length;
    } catch (error) {
      if (!this.#isFailing) this.#needs.log.warn({ err: error }, "the outbox cannot be read; deliveries wait");
      this.#isFailing = true;
      return 0;
    }
  }

  async #claimDue(): Promise<ClaimedDelivery[]> {
    const most = MAX_IN_FLIGHT - this.#inFlight.size;
    if (most <= 0) return [];
    const now = this.#needs.clock.now();
    return this.#needs.database.forSystem("outbox", (tx) =>
      claimDeliveries(tx, {
        now: new Date(now),
        leaseUntil: new Date(now + LEASE_MS),
        most,
        mostPerTenant: MAX_IN_FLIGHT_PER_TENANT,
        busy: [...this.#inFlight.values()],
      }),
    );
  }

  #begin(delivery: ClaimedDelivery): void {
    const { tenant_id: tenant, webhook_id: webhook } = delivery;
    const done = this.#deliver(delivery)
      .catch((error: unknown) =>
        this.#needs.log.warn({ ...idsOf(delivery), err: error }, "a delivery is made again when its lease is over"),
      )
      .then(() => {
        this.#inFlight.delete(webhook);
        if (this.#timer !== null) void this.#look();
      });
    this.#inFlight.set(webhook, { tenant, webhook, done });
  }

  async #deliver(delivery: ClaimedDelivery): Promise<void> {
    const keyring = await this.#needs.keyringOf(delivery.tenant_id);
    if (keyring === null || !this.#needs.isLive(delivery.tenant_id))
      return this.#record(delivery, { error: "tenant_ended" }, { kind: "failed" });
    const outcome = await this.#attempt(delivery, keyring);
    // Cut by this process's end: nobody knows what came of it.
    if (this.#ending.signal.aborted) return;
    await this.#record(delivery, outcome, judge(outcome, delivery.attempts, this.#needs.chance()));
  }

  async #attempt(delivery: ClaimedDelivery, keyring: TenantKeyring): Promise<Outcome> {
    const { event_id: id, webhook_id: webhook } = delivery;
    const body = JSON.stringify(payloadOf(keyring, { id, type: delivery.type, data_sealed: delivery.data_sealed, at: delivery.event_at }));
    const now = this.#needs.clock.now();
    const message = { id, timestamp: Math.floor(now / 1000), body };
    try {
      const { status } = await this.#needs.request(openUrl(keyring, webhook, delivery.url_sealed), {
        method: "POST",
        headers: {
          "content-type": "application/json",
          "user-agent": "Atrium-Webhooks/1",
          ...signedHeaders(secretsOf(delivery, keyring, now), message),
        },
        body,
        timeoutMs: ATTEMPT_MS,
        statusOnly: true,
        signal: this.#ending.signal,
      });
      return { status };
    } catch (error) {
      return { error: errorOf(error) };
    }
  }

  async #record(delivery: ClaimedDelivery, outcome: Outcome, verdict: Verdict): Promise<void> {
    const { clock, database, log } = this.#needs;
    const now = clock.now();
    if (verdict.kind === "failed" || verdict.kind === "gone")
      log.warn({ ...idsOf(delivery), ...outcome, attempts: delivery.attempts }, "a webhook delivery was given up");
    await database.forTenant(delivery.tenant_id, async (tx) => {
      await recordAttempt(tx, delivery, {
        status: verdict.kind === "retry" ? "pending" : verdict.kind === "delivered" ? "delivered" : "failed",
        next_attempt_at: new Date(verdict.kind === "retry" ? now + verdict.afterMs : now),
        last_status: "status" in outcome ? outcome.status : null,
        last_error: "error" in outcome ? outcome.error : null,
      });
      if (verdict.kind === "gone") await endWebhook(tx, delivery, new Date(now));
    });
  }

  async #prune(): Promise<void> {
    const { clock, database } = this.#needs;
    if (clock.monotonic() - this.#prunedAt < PRUNE_EVERY_MS) return;
    this.#prunedAt = clock.monotonic();
    const before = new Date(clock.now() - KEPT_DAYS * 24 * 60 * 60 * 1000);
    while ((await database.forSystem("outbox", (tx) => deleteOldEvents(tx, before, PRUNED_AT_ONCE))) === PRUNED_AT_ONCE);
  }
}

/** The new secret first. */
function secretsOf(delivery: ClaimedDelivery, keyring: TenantKeyring, now: number): string[] {
  const { webhook_id: id, previous_secret_sealed: previous, previous_secret_until: until } = delivery;
  const secret = openSecret(keyring, "secret_sealed", id, delivery.secret_sealed);
  const isInGrace = previous !== null && until !== null && until.getTime() > now;
  return isInGrace ? [secret, openSecret(keyring, "previous_secret_sealed", id, previous)] : [secret];
}

/** What the tenant is shown. A name that has no address and one that has a private address look alike. */
function errorOf(error: unknown): string {
  if (error instanceof EgressRefused) return "not_public";
  if (!(error instanceof EgressFailed)) throw error;
  return error.reason === "name_unknown" ? "not_public" : error.reason;
}

function idsOf({ tenant_id: tenant, webhook_id: webhook, event_id: event }: ClaimedDelivery): object {
  return { tenant, webhook, event };
}

const POLL_MS = 1_000;
const MAX_IN_FLIGHT = 32;
/** Endpoints of one tenant that are called at once. */
const MAX_IN_FLIGHT_PER_TENANT = 4;
/** For the look-up, the connection and the answer. */
const ATTEMPT_MS = 15_000;
/** Above what an attempt and its recording can take. */
const LEASE_MS = 60_000;
const CLOSE_WAIT_MS = 2_000;
const KEPT_DAYS = 90;
const PRUNE_EVERY_MS = 60 * 60 * 1000;
const PRUNED_AT_ONCE = 1_000;
