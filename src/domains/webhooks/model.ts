import type { TenantId, Uuid } from "../../kernel/ids.ts";
import type { EventData, EventType } from "./events.ts";

export type WebhookId = Uuid;
export type EventId = Uuid;

/** A fact as whoever notices it says it. */
export interface NewEvent<Type extends EventType = EventType> {
  readonly tenant: TenantId;
  readonly type: Type;
  /** At most 200 characters, the same for the same fact; stored as it is, so ids and numbers only. */
  readonly key: string;
  readonly data: EventData[Type];
  /** When it happened, ms since the epoch. */
  readonly at: number;
}

export interface EventView {
  readonly id: string;
  readonly type: string;
  /** ISO 8601, as in the payload of a delivery. */
  readonly timestamp: string;
  readonly data: unknown;
}

export interface WebhookView {
  readonly id: string;
  readonly name: string;
  readonly display_name: string | null;
  readonly url: string;
  readonly events: readonly string[];
  readonly status: WebhookStatus;
  readonly created_at: number;
  readonly updated_at: number;
}

export type WebhookStatus = "active" | "paused" | "gone";
export type DeliveryStatus = "pending" | "delivered" | "failed" | "canceled";

/** How an event fares on its way to one webhook. Unix seconds. */
export interface DeliveryView {
  readonly event: string;
  readonly type: string;
  readonly status: DeliveryStatus;
  readonly attempts: number;
  readonly next_attempt_at: number | null;
  readonly last_attempt_at: number | null;
  readonly last_status: number | null;
  readonly last_error: string | null;
  readonly created_at: number;
}
