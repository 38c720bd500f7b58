import { z } from "zod";
import { PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import { routeBuilder } from "../../kernel/route.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import {
  archivedAnswer,
  deletedView,
  displayName,
  listQuery,
  NO_QUERY,
  notFound,
  pageOf,
  pathPart,
  unixSeconds,
  writtenAnswer,
} from "../../storage/snapshot/index.ts";
import type { Proofs } from "../identity/index.ts";
import type { TenantRecord } from "./model.ts";
import { organizationProjectRoutes } from "./organization.ts";
import { ownTenantView, type ProjectVerbs, type TenantVerbs, tenantView } from "./service.ts";

export interface TenantsRoutesNeeds {
  readonly tenants: TenantVerbs;
  readonly projects: ProjectVerbs;
  /** From the snapshot. */
  readonly recordOf: (tenant: TenantId) => TenantRecord | undefined;
}

export function tenantsRoutes(needs: TenantsRoutesNeeds) {
  return [...tenantRoutes(needs), ...projectRoutes(needs.projects), ...organizationProjectRoutes(needs.projects)];
}

function tenantRoutes({ tenants, recordOf }: TenantsRoutesNeeds) {
  return [
    route({
      id: "tenants.put",
      method: "PUT",
      path: "/admin/v1/tenants/{tenant}",
      summary: "Create or change a tenant. Omitted fields keep their value, null clears.",
      permission: "platform:tenants:write",
      reach: "platform",
      params: tenantParams,
      query: NO_QUERY,
      body: tenantBody,
      result: tenantResult,
      example: { params: { tenant: "example" }, body: { display_name: "Example", time_zone: "Europe/Paris" } },
      audit: { action: "tenant.put" },
      handler: async ({ allowed, transaction, params, body, ifMatch }) =>
        writtenAnswer(await tenants.put(transaction, allowed, params.tenant, body, ifMatch)),
    }),
    route({
      id: "tenants.list",
      method: "GET",
      path: "/admin/v1/tenants",
      summary: "List the tenants, oldest first.",
      permission: "platform:tenants:read",
      reach: "platform",
      params: z.strictObject({}),
      query: listQuery,
      body: null,
      result: pageOf(tenantResult),
      example: { params: {} },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({ body: await tenants.list(transaction, allowed, query) }),
    }),
    route({
      id: "tenants.get",
      method: "GET",
      path: "/admin/v1/tenants/{tenant}",
      summary: "Read a tenant.",
      permission: "tenant:read",
      reach: "path",
      params: tenantParams,
      query: NO_QUERY,
      body: null,
      result: tenantResult,
      example: { params: { tenant: "example" } },
      audit: null,
      handler: async ({ allowed }) => {
        const record = recordOf(allowed.tenant);
        if (record === undefined) throw notFound();
        const view = allowed.principal.tenant === PLATFORM_TENANT ? tenantView : ownTenantView;
        return { body: view(record), revision: record.revision };
      },
    }),
    route({
      id: "tenants.delete",
      method: "DELETE",
      path: "/admin/v1/tenants/{tenant}",
      summary: "Archive a tenant: its keys stop within a second, its name becomes free, its usage and ledger stay.",
      permission: "platform:tenants:write",
      reach: "platform",
      params: tenantParams,
      query: NO_QUERY,
      body: null,
      result: deletedView,
      example: { params: { tenant: "example" } },
      audit: { action: "tenant.archive" },
      handler: async ({ allowed, transaction, params, ifMatch }) =>
        archivedAnswer(await tenants.archive(transaction, allowed, params.tenant, ifMatch)),
    }),
  ];
}

function projectRoutes(projects: ProjectVerbs) {
  return [
    route({
      id: "projects.put",
      method: "PUT",
      path: "/admin/v1/tenants/{tenant}/projects/{project}",
      summary: "Create or change a project. Omitted fields keep their value, null clears.",
      permission: "projects:write",
      reach: "path",
      params: projectParams,
      query: NO_QUERY,
      body: projectBody,
      result: projectResult,
      example: { params: projectExample, body: { display_name: "Example", default_max_output_tokens: 1024 } },
      audit: { action: "project.put" },
      handler: async ({ allowed, transaction, params, body, ifMatch }) =>
        writtenAnswer(await projects.put(transaction, allowed, params.project, body, ifMatch)),
    }),
    route({
      id: "projects.list",
      method: "GET",
      path: "/admin/v1/tenants/{tenant}/projects",
      summary: "List the tenant's projects, oldest first.",
      permission: "projects:read",
      reach: "path",
      params: tenantParams,
      query: listQuery,
      body: null,
      result: pageOf(projectResult),
      example: { params: { tenant: "example" } },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({ body: await projects.list(transaction, allowed, query) }),
    }),
    route({
      id: "projects.get",
      method: "GET",
      path: "/admin/v1/tenants/{tenant}/projects/{project}",
      summary: "Read a project.",
      permission: "projects:read",
      reach: "path",
      params: projectParams,
      query: NO_QUERY,
      body: null,
      result: projectResult,
      example: { params: projectExample },
      audit: null,
      handler: async ({ allowed, transaction, params }) => {
        const { view, revision } = await projects.get(transaction, allowed, params.project);
        return { body: view, revision };
      },
    }),
    route({
      id: "projects.delete",
      method: "DELETE",
      path: "/admin/v1/tenants/{tenant}/projects/{project}",
      summary: "Archive a project and revoke its keys; its name becomes free, its usage and ledger stay.",
      permission: "projects:write",
      reach: "path",
      params: projectParams,
      query: NO_QUERY,
      body: null,
      result: deletedView,
      example: { params: projectExample },
      audit: { action: "project.archive" },
      handler: async ({ allowed, transaction, params, ifMatch }) =>
        archivedAnswer((await projects.archive(transaction, allowed, params.project, ifMatch)).before),
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

const tenantParams = z.strictObject({ tenant: pathPart });
const projectParams = z.strictObject({ tenant: pathPart, project: pathPart });
const projectExample = { tenant: "example", project: "example" };

const label = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/);
const timeZone = z.string().max(64).refine(isTimeZone, "must be an IANA time zone such as Europe/Paris");

function isTimeZone(zone: string): boolean {
  if (!/^[A-Za-z]/.test(zone)) return false;
  try {
    return new Intl.DateTimeFormat("en", { timeZone: zone }).resolvedOptions().timeZone !== "";
  } catch {
    return false;
  }
}

const tenantBody = z.strictObject({
  display_name: displayName.optional(),
  tier: label.nullable().optional(),
  home_region: label.nullable().optional(),
  time_zone: timeZone.nullable().optional(),
  markup: z
    .string()
    .max(32)
    .nullable()
    .optional()
    .describe(
      "What the tenant pays of each price, a decimal from 0.01 to 100: 1.2 adds a fifth, less than 1 is a rebate. 1 unless told otherwise.",
    ),
  status: z.enum(["active", "suspended"]).optional(),
});

const tenantResult = z.object({
  id: z.string(),
  name: z.string(),
  display_name: z.string().nullable(),
  status: z.enum(["active", "suspended"]),
  tier: z.string().nullable(),
  home_region: z.string().nullable(),
  time_zone: z.string(),
  markup: z.string().optional().describe("What the tenant pays of each price. Only the platform's keys are told."),
  created_at: unixSeconds,
  updated_at: unixSeconds,
});

const projectBody = z.strictObject({
  display_name: displayName.optional(),
  default_max_output_tokens: z.number().int().min(0).max(2_000_000).nullable().optional(),
  require: z
    .array(z.enum(["feature", "user", "session"]))
    .max(3)
    .nullable()
    .optional(),
});

const projectResult = z.object({
  id: z.string(),
  name: z.string(),
  display_name: z.string().nullable(),
  default_max_output_tokens: z.number().int().nullable(),
  require: z.array(z.string()),
  created_at: unixSeconds,
  updated_at: unixSeconds,
});
