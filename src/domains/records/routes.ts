import { z } from "zod";
import { routeBuilder } from "../../kernel/route.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import { listQuery, NO_QUERY, pageOf, pathPart, unixSeconds } from "../../storage/snapshot/index.ts";
import type { Proofs } from "../identity/index.ts";
import { checkpointSchema } from "./checkpoint.ts";
import { auditLogPage, auditLogQuery, pageOfLogs, toAuditPage } from "./audit-logs.ts";
import type { AuditPage, AuditVerbs } from "./service.ts";

export function recordsRoutes(audit: AuditVerbs) {
  return [
    route({
      id: "audit.list",
      method: "GET",
      path: "/admin/v1/audit",
      summary: "The platform's own audit trail, newest first.",
      permission: "platform:audit:read",
      reach: "platform",
      params: z.strictObject({}),
      query: auditQuery,
      body: null,
      result: pageOf(auditView),
      example: { params: {} },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({ body: await audit.list(transaction, allowed, pageFor(query)) }),
    }),
    route({
      id: "audit.checkpoint",
      method: "GET",
      path: "/admin/v1/audit/checkpoint",
      summary: "The head of the platform's audit trail, signed now. Kept elsewhere, it shows later that nothing was taken from the trail.",
      permission: "platform:audit:read",
      reach: "platform",
      params: z.strictObject({}),
      query: NO_QUERY,
      body: null,
      result: checkpointSchema,
      example: { params: {} },
      audit: null,
      handler: async ({ allowed, transaction }) => ({ body: await audit.checkpoint(transaction, allowed) }),
    }),
    route({
      id: "tenant_audit.list",
      method: "GET",
      path: "/admin/v1/tenants/{tenant}/audit",
      summary: "A tenant's audit trail, newest first.",
      permission: "audit:read",
      reach: "path",
      params: z.strictObject({ tenant: pathPart }),
      query: auditQuery,
      body: null,
      result: pageOf(auditView),
      example: { params: { tenant: "example" } },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({ body: await audit.list(transaction, allowed, pageFor(query)) }),
    }),
    route({
      id: "tenant_audit.checkpoint",
      method: "GET",
      path: "/admin/v1/tenants/{tenant}/audit/checkpoint",
      summary: "The head of a tenant's audit trail, signed now. Kept elsewhere, it shows later that nothing was taken from the trail.",
      permission: "audit:read",
      reach: "path",
      params: z.strictObject({ tenant: pathPart }),
      query: NO_QUERY,
      body: null,
      result: checkpointSchema,
      example: { params: { tenant: "example" } },
      audit: null,
      handler: async ({ allowed, transaction }) => ({ body: await audit.checkpoint(transaction, allowed) }),
    }),
    route({
      id: "organization_audit_logs.list",
      method: "GET",
      path: "/v1/organization/audit_logs",
      summary: "The caller's own tenant's audit trail, newest first, in the shape of OpenAI's Admin API.",
      permission: "audit:read",
      reach: "own",
      params: z.strictObject({}),
      query: auditLogQuery,
      body: null,
      result: auditLogPage,
      example: { params: {} },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({
        body: pageOfLogs(await audit.list(transaction, allowed, toAuditPage(query))),
      }),
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

/** PostgreSQL stores no NUL. */
const text = z
  .string()
  .min(1)
  .max(200)
  .regex(/^[^\0]*$/, "must hold no NUL character");
/** Up to the year 9999, beyond which times have no ISO form. */
const second = z.coerce.number().int().nonnegative().max(253_402_300_799);

const auditQuery = listQuery.extend({
  actor: text.optional().describe("A key's id, `bootstrap`, or what was run on the machine."),
  action: text.optional().describe("Such as `project.put` or `refused.permission_denied`."),
  target: text.optional().describe("The id of what was acted on; of a refusal, the route."),
  start_time: second.optional().describe("Unix seconds."),
  end_time: second.optional().describe("Unix seconds, not included."),
});

function pageFor({ actor, action, target, start_time, end_time, ...page }: z.infer<typeof auditQuery>): AuditPage {
  const one = (value: string | undefined) => (value === undefined ? undefined : [value]);
  const ms = (seconds: number | undefined) => (seconds === undefined ? undefined : seconds * 1000);
  return {
    ...page,
    actor: one(actor),
    action: one(action)?.map((each) => ({ action: each })),
    target: one(target),
    since: ms(start_time),
    until: ms(end_time),
  };
}

const auditView = z.object({
  id: z.string(),
  sequence: z.number().int(),
  actor: z.string(),
  actor_kind: z.string(),
  action: z.string(),
  target: z.string(),
  before: z.unknown(),
  after: z.unknown(),
  request_id: z.string().nullable(),
  remote_address: z.string().nullable(),
  status: z.number().int(),
  count: z.number().int().describe("How many times: more than one where refusals of one minute are one row."),
  at: unixSeconds,
  hash: z.string().describe("SHA-256 over the row and the hash of the row before it, hexadecimal."),
});
