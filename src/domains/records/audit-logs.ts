import { z } from "zod";
import { listQuery, type Page, unixSeconds } from "../../storage/snapshot/index.ts";
import type { AuditView } from "./model.ts";
import type { AuditPage } from "./service.ts";
import type { ActionFilter } from "./store.ts";

/** Audit rows as OpenAI's Admin API shows them (openai/resources/admin/organization/audit-logs.d.ts). */
export const auditLogPage = z.object({
  object: z.literal("list"),
  data: z.array(
    z.looseObject({
      id: z.string(),
      type: z.string().describe("OpenAI's word where it has one, else the action as it is called here. Details are under its name."),
      effective_at: unixSeconds,
      actor: z
        .union([
          z.object({ type: z.literal("api_key"), api_key: z.object({ id: z.string(), type: z.literal("service_account").optional() }) }),
          z.object({ type: z.literal("session"), session: z.object({ user: z.object({ id: z.string() }) }) }),
        ])
        .nullable(),
      sequence: z.number().int(),
      count: z.number().int(),
      hash: z.string(),
    }),
  ),
  first_id: z.string().nullable(),
  last_id: z.string().nullable(),
  has_more: z.boolean(),
});

/** PostgreSQL stores no NUL. */
const ids = z
  .array(
    z
      .string()
      .min(1)
      .max(200)
      .regex(/^[^\0]*$/, "must hold no NUL character"),
  )
  .min(1)
  .max(100)
  .optional();
const time = z.coerce.number().int().nonnegative().max(253_402_300_799).optional();

export const auditLogQuery = listQuery.extend({
  actor_ids: ids.describe("Keys' ids."),
  resource_ids: ids.describe("The ids of what was acted on."),
  event_types: ids.describe("As `type` has them."),
  "effective_at[gt]": time,
  "effective_at[gte]": time,
  "effective_at[lt]": time,
  "effective_at[lte]": time,
});

export function toAuditPage(query: z.infer<typeof auditLogQuery>): AuditPage {
  const { limit, after, actor_ids: actor, resource_ids: target, event_types: types } = query;
  const from = [query["effective_at[gte]"], plusOne(query["effective_at[gt]"])].filter((each) => each !== undefined);
  const to = [query["effective_at[lt]"], plusOne(query["effective_at[lte]"])].filter((each) => each !== undefined);
  return {
    limit,
    after,
    actor,
    target,
    action: types?.map((type) => ACTIONS.get(type) ?? { action: type }),
    since: from.length === 0 ? undefined : Math.max(...from) * 1000,
    until: to.length === 0 ? undefined : Math.min(...to) * 1000,
  };
}

/** Times are whole seconds there, and ours have fractions: after second 7 is from second 8 on. */
function plusOne(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : seconds + 1;
}

export function pageOfLogs({ data, has_more, last_id }: Page<AuditView>): z.infer<typeof auditLogPage> {
  return { object: "list", data: data.map(logOf), first_id: data[0]?.id ?? null, last_id, has_more };
}

function logOf(view: AuditView) {
  const { type, details } = eventOf(view);
  const { id, sequence, count, hash } = view;
  return { id, type, effective_at: view.at, actor: actorOf(view), [type]: { id: view.target, ...details }, sequence, count, hash };
}

function actorOf({ actor: id, actor_kind: kind }: AuditView): z.infer<typeof auditLogPage>["data"][number]["actor"] {
  if (kind === "machine") return null;
  if (kind === "user") return { type: "session", session: { user: { id } } };
  return { type: "api_key", api_key: kind === "service_account" ? { id, type: "service_account" } : { id } };
}

/** A rotation changes the old key, which ends after its grace: its successor is another id. */
const EVENTS: readonly (ActionFilter & { readonly type: string; readonly details: (made: Viewed) => object })[] = [
  { type: "api_key.created", action: "key.create", details: ({ permissions }) => ({ data: { scopes: permissions } }) },
  { type: "api_key.updated", action: "key.rotate", details: ({ permissions }) => ({ changes_requested: { scopes: permissions } }) },
  { type: "api_key.deleted", action: "key.revoke", details: () => ({}) },
  {
    type: "project.created",
    action: "project.put",
    made: true,
    details: ({ name, display_name }) => ({ data: { name, title: display_name } }),
  },
  {
    type: "project.updated",
    action: "project.put",
    made: false,
    details: ({ display_name }) => ({ changes_requested: { title: display_name } }),
  },
  { type: "project.archived", action: "project.archive", details: () => ({}) },
];
const ACTIONS = new Map<string, ActionFilter>(EVENTS.map((event) => [event.type, event]));

function eventOf({ action, before, after }: AuditView): { readonly type: string; readonly details?: object } {
  const event = EVENTS.find((each) => each.action === action && (each.made ?? before === null) === (before === null));
  return event === undefined ? { type: action } : { type: event.type, details: event.details(viewed.safeParse(after).data ?? {}) };
}

const viewed = z.object({
  name: z.string().optional(),
  display_name: z.string().nullable().optional(),
  permissions: z.array(z.string()).optional(),
});
type Viewed = z.infer<typeof viewed>;
