import { z } from "zod";
import { type Answer, routeBuilder } from "../../kernel/route.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import {
  archivedAnswer,
  deletedView,
  displayName,
  listQuery,
  NO_QUERY,
  pageOf,
  pathPart,
  unixSeconds,
  writtenAnswer,
} from "../../storage/snapshot/index.ts";
import type { Permission, Proofs } from "../identity/index.ts";
import { ALL_EVENTS, EVENT_TYPES } from "./events.ts";
import type { WebhookView } from "./model.ts";
import type { EventVerbs, WebhookVerbs, WrittenWebhook } from "./service.ts";

export interface WebhooksRoutesNeeds {
  readonly tenantWebhooks: WebhookVerbs<"webhooks:read", "webhooks:write">;
  readonly platformWebhooks: WebhookVerbs<"platform:webhooks:read", "platform:webhooks:write">;
  readonly tenantEvents: EventVerbs<"events:read">;
  readonly platformEvents: EventVerbs<"platform:events:read">;
}

export function webhooksRoutes(needs: WebhooksRoutesNeeds) {
  const tenant = { above: "/admin/v1/tenants/{tenant}", whose: "of a tenant", reach: "path", example: { tenant: "example" } } as const;
  const platform = { above: "/admin/v1", whose: "of the platform", reach: "platform", example: {} } as const;
  const ofTenant = { ...tenant, parent: z.strictObject({ tenant: pathPart }) };
  const ofPlatform = { ...platform, parent: z.strictObject({}) };
  return [
    ...webhookRoutes({ ...ofTenant, what: "webhook", read: "webhooks:read", write: "webhooks:write", verbs: needs.tenantWebhooks }),
    ...webhookRoutes({
      ...ofPlatform,
      what: "platform_webhook",
      read: "platform:webhooks:read",
      write: "platform:webhooks:write",
      verbs: needs.platformWebhooks,
    }),
    eventsRoute({ ...ofTenant, what: "event", read: "events:read", verbs: needs.tenantEvents }),
    eventsRoute({ ...ofPlatform, what: "platform_event", read: "platform:events:read", verbs: needs.platformEvents }),
  ];
}

interface Family {
  /** The path parameter, the audit action and, in the plural, the routes. */
  readonly what: string;
  readonly above: string;
  readonly whose: string;
  readonly reach: "path" | "platform";
  readonly parent: z.ZodObject<z.core.$ZodLooseShape, z.core.$strict>;
  readonly example: Readonly<Record<string, string>>;
}

function webhookRoutes<Read extends Permission, Write extends Permission>(
  family: Family & { readonly read: Read; readonly write: Write; readonly verbs: WebhookVerbs<Read, Write> },
) {
  const { what, above, whose, reach, parent, verbs, read, write } = family;
  const path = `${above}/webhooks/{${what}}`;
  const params = parent.extend({ [what]: pathPart });
  const example = { ...family.example, [what]: "example" };
  const nameIn = (given: Readonly<Record<string, unknown>>): string => given[what] as string;
  const at = { reach, params, query: NO_QUERY, body: null, audit: null } as const;
  return [
    route({
      ...at,
      id: `${what}s.put`,
      method: "PUT",
      path,
      summary: `Create or change a webhook ${whose}: where its events are sent. Omitted fields keep their value. A new one's secret is shown this once.`,
      permission: write,
      body: webhookBody,
      result: webhookResult.extend({ secret: secret.optional() }),
      example: { params: example, body: { display_name: "Example", url: "https://hooks.example.com/atrium", events: ["*"] } },
      audit: { action: `${what}.put` },
      handler: async ({ allowed, transaction, params: given, body, ifMatch }) =>
        changed(await verbs.put(transaction, allowed, nameIn(given), body, ifMatch)),
    }),
    route({
      ...at,
      id: `${what}s.list`,
      method: "GET",
      path: `${above}/webhooks`,
      summary: `List the webhooks ${whose}, oldest first.`,
      permission: read,
      params: parent,
      query: listQuery,
      result: pageOf(webhookResult),
      example: { params: family.example },
      handler: async ({ allowed, transaction, query }) => ({ body: await verbs.list(transaction, allowed, query) }),
    }),
    route({
      ...at,
      id: `${what}s.get`,
      method: "GET",
      path,
      summary: `Read a webhook ${whose}, without its secret.`,
      permission: read,
      result: webhookResult,
      example: { params: example },
      handler: async ({ allowed, transaction, params: given }) => {
        const { view, revision } = await verbs.get(transaction, allowed, nameIn(given));
        return { body: view, revision };
      },
    }),
    route({
      ...at,
      id: `${what}s.delete`,
      method: "DELETE",
      path,
      summary: `End a webhook ${whose}, and what was still to be sent to it. Its name becomes free.`,
      permission: write,
      result: deletedView,
      example: { params: example },
      audit: { action: `${what}.archive` },
      handler: async ({ allowed, transaction, params: given, ifMatch }) => ({
        ...archivedAnswer(await verbs.archive(transaction, allowed, nameIn(given), ifMatch)),
        configurationChanged: false,
      }),
    }),
    route({
      ...at,
      id: `${what}s.rotate`,
      method: "POST",
      path: `${path}/rotate`,
      summary: `Replace the secret of a webhook ${whose}. The new one is shown this once; the old one signs beside it until its grace ends.`,
      permission: write,
      body: rotation,
      result: webhookResult.extend({ secret, previous_secret_until: unixSeconds }),
      example: { params: example, body: { grace_seconds: 3600 } },
      audit: { action: `${what}.rotate` },
      handler: async ({ allowed, transaction, params: given, body }) => {
        const rotated = await verbs.rotate(transaction, allowed, nameIn(given), body.grace_seconds);
        const answer = changed(rotated);
        return { ...answer, body: { ...rotated.after, secret: rotated.secret, previous_secret_until: rotated.previousUntil } };
      },
    }),
    route({
      ...at,
      id: `${what}s.test`,
      method: "POST",
      path: `${path}/test`,
      summary: `Send an event 'webhook.test' to a webhook ${whose}, and to it alone.`,
      permission: write,
      result: z.object({ event: z.string().describe("Its id: how it fared is among the webhook's deliveries.") }),
      example: { params: example },
      audit: { action: `${what}.test` },
      handler: async ({ allowed, transaction, params: given }) => {
        const { webhook, event } = await verbs.test(transaction, allowed, nameIn(given));
        return { status: 201, body: { event }, change: { target: webhook.id, before: null, after: { event } } };
      },
    }),
    route({
      ...at,
      id: `${what}s.deliveries`,
      method: "GET",
      path: `${path}/deliveries`,
      summary: `How the events fared on their way to a webhook ${whose}, newest first.`,
      permission: read,
      query: listQuery,
      result: pageOf(deliveryResult),
      example: { params: example },
      handler: async ({ allowed, transaction, params: given, query }) => ({
        body: await verbs.deliveries(transaction, allowed, nameIn(given), query),
      }),
    }),
  ];
}

function eventsRoute<Read extends Permission>(family: Family & { readonly read: Read; readonly verbs: EventVerbs<Read> }) {
  const { what, above, whose, reach, parent, verbs, read } = family;
  return route({
    id: `${what}s.list`,
    method: "GET",
    path: `${above}/events`,
    summary: `The events ${whose}, newest first: what its webhooks deliver, whether it has any or not. Kept for 90 days.`,
    permission: read,
    reach,
    params: parent,
    query: listQuery.extend({ type: z.enum(EVENT_TYPES).optional() }),
    body: null,
    result: pageOf(eventResult),
    example: { params: family.example },
    audit: null,
    handler: async ({ allowed, transaction, query }) => ({ body: await verbs.list(transaction, allowed, query) }),
  });
}

/** Webhooks are no part of the configuration that calls are served from. */
function changed(written: WrittenWebhook): Answer<WebhookView & { secret?: string | undefined }> {
  const answer = { ...writtenAnswer<WebhookView>(written), configurationChanged: false };
  return written.secret === null ? answer : { ...answer, body: { ...written.after, secret: written.secret }, shownOnce: ["secret"] };
}

const route = routeBuilder<Proofs, TenantTransaction>();

const DAY_SECONDS = 86_400;
const secret = z.string().describe("`whsec_…`, by which the receiver verifies signatures (Standard Webhooks). Shown this once.");

const webhookBody = z.strictObject({
  display_name: displayName.optional(),
  url: z.string().min(1).max(2_048).optional().describe("https, at a public address; others only as ATRIUM_EGRESS_ALLOW names them."),
  events: z
    .array(z.enum([ALL_EVENTS, ...EVENT_TYPES]))
    .min(1)
    .max(50)
    .optional()
    .describe("Types of events; '*' is all of them, those of later releases too."),
  status: z.enum(["active", "paused"]).optional().describe("A paused webhook is told of nothing that happens meanwhile."),
});

const rotation = z.strictObject({
  grace_seconds: z
    .number()
    .int()
    .min(0)
    .max(7 * DAY_SECONDS)
    .default(DAY_SECONDS)
    .describe("How long the old secret signs beside the new one."),
});

const webhookResult = z.object({
  id: z.string(),
  name: z.string(),
  display_name: z.string().nullable(),
  url: z.string(),
  events: z.array(z.string()).readonly(),
  status: z.enum(["active", "paused", "gone"]).describe("'gone': it answered 410. Set it to 'active' to have it called again."),
  created_at: unixSeconds,
  updated_at: unixSeconds,
});

const deliveryResult = z.object({
  event: z.string(),
  type: z.string(),
  status: z.enum(["pending", "delivered", "failed", "canceled"]).describe("'failed': given up. 'canceled': the webhook was ended first."),
  attempts: z.number().int(),
  next_attempt_at: unixSeconds.nullable(),
  last_attempt_at: unixSeconds.nullable(),
  last_status: z.number().int().nullable().describe("The HTTP status of the last answer; null where there was none."),
  last_error: z.string().nullable().describe("Why there was none: 'unreachable', 'timeout', 'tls', 'not_public', …"),
  created_at: unixSeconds,
});

const eventResult = z.object({ id: z.string(), type: z.string(), timestamp: z.string(), data: z.unknown() });
