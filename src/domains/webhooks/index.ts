import type { Clock } from "../../kernel/clock.ts";
import type { TenantId, Uuid } from "../../kernel/ids.ts";
import type { RandomBytes } from "../../kernel/random.ts";
import type { Egress } from "../../egress/index.ts";
import type { Database, DatabaseLog } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { notFound, type SnapshotStore } from "../../storage/snapshot/index.ts";
import { Outbox } from "./outbox.ts";
import { webhooksRoutes } from "./routes.ts";
import { createEventVerbs, createWebhookVerbs } from "./service.ts";
import { createWriteEvent, type WriteEvent } from "./write-event.ts";

export type { WriteEvent } from "./write-event.ts";

export interface WebhooksNeeds {
  readonly database: Pick<Database, "forSystem" | "forTenant">;
  readonly snapshot: SnapshotStore<{ readonly keyring: TenantKeyring }>;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly makeId: <Id extends Uuid>() => Id;
  readonly egress: Pick<Egress, "vet" | "request">;
  readonly log: DatabaseLog;
}

export interface Webhooks {
  readonly writeEvent: WriteEvent;
  /** Not started. */
  readonly outbox: Outbox;
  readonly routes: ReturnType<typeof webhooksRoutes>;
}

export function createWebhooks(needs: WebhooksNeeds): Webhooks {
  const { snapshot, egress } = needs;
  const keyring = (tenant: TenantId): TenantKeyring => {
    const parts = snapshot.current.tenants.get(tenant);
    if (parts === undefined) throw notFound();
    return parts.keyring;
  };
  const verbsNeeds = { ...needs, keyring, vet: egress.vet };
  return {
    writeEvent: createWriteEvent({ ...needs, keyringOf: snapshot.keyringOf }),
    outbox: new Outbox({
      ...needs,
      chance: () => Buffer.from(needs.random(new Uint8Array(4))).readUInt32BE() / 2 ** 32,
      request: egress.request,
      keyringOf: snapshot.keyringOf,
      isLive: (tenant) => snapshot.current.tenants.has(tenant),
    }),
    routes: webhooksRoutes({
      tenantWebhooks: createWebhookVerbs(verbsNeeds),
      platformWebhooks: createWebhookVerbs(verbsNeeds),
      tenantEvents: createEventVerbs(keyring),
      platformEvents: createEventVerbs(keyring),
    }),
  };
}
