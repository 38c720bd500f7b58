import { z } from "zod";
import { routeBuilder } from "../../kernel/route.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import { listQuery, pageOf, pathPart, unixSeconds } from "../../storage/snapshot/index.ts";
import type { Proofs } from "../identity/index.ts";
import type { AuditVerbs } from "./service.ts";

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
      query: listQuery,
      body: null,
      result: pageOf(auditView),
      example: { params: {} },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({ body: await audit.list(transaction, allowed, query) }),
    }),
    route({
      id: "tenant_audit.list",
      method: "GET",
      path: "/admin/v1/tenants/{tenant}/audit",
      summary: "A tenant's audit trail, newest first.",
      permission: "audit:read",
      reach: "path",
      params: z.strictObject({ tenant: pathPart }),
      query: listQuery,
      body: null,
      result: pageOf(auditView),
      example: { params: { tenant: "example" } },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({ body: await audit.list(transaction, allowed, query) }),
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

const auditView = z.object({
  id: z.string(),
  actor: z.string(),
  actor_kind: z.string(),
  action: z.string(),
  target: z.string(),
  before: z.unknown(),
  after: z.unknown(),
  request_id: z.string().nullable(),
  remote_address: z.string().nullable(),
  status: z.number().int(),
  at: unixSeconds,
});
