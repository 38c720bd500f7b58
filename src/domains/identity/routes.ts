import { z } from "zod";
import { BOUNDS } from "../../kernel/bounds.ts";
import type { ProjectId } from "../../kernel/ids.ts";
import { type Answer, routeBuilder } from "../../kernel/route.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import { archivedAnswer, deletedView, listQuery, NO_QUERY, pageOf, pathPart, unixSeconds } from "../../storage/snapshot/index.ts";
import type { InvitationVerbs } from "./invitations.ts";
import { memberRoutes } from "./member-routes.ts";
import type { MemberVerbs } from "./members.ts";
import type { Proofs } from "./model.ts";
import { inviteRoutes } from "./organization/invites.ts";
import { organizationKeyRoutes, type OrganizationKeysNeeds } from "./organization/keys.ts";
import { roleRoutes } from "./organization/role-routes.ts";
import { serviceAccountRoutes, type ServiceAccountRoutesNeeds } from "./organization/service-accounts.ts";
import { userRoutes } from "./organization/users.ts";
import { parseNetwork, ROUTE_FAMILIES, type RouteFamily } from "./origin.ts";
import { PERMISSIONS, ROLES } from "./permissions.ts";
import type { CreatedKey, KeyVerbs, KeyView, NewKey } from "./service.ts";

export interface IdentityRoutesNeeds extends OrganizationKeysNeeds, ServiceAccountRoutesNeeds {
  readonly members: MemberVerbs;
  readonly invitations: InvitationVerbs;
  /** The live project a path names, by name or id. Throws Problem not_found. */
  readonly projectOf: (tx: TenantTransaction, project: string) => Promise<ProjectId>;
}

/** Keys and members below /admin/v1, and a tenant's own below /v1/organization in OpenAI's shapes. */
export function identityRoutes(needs: IdentityRoutesNeeds) {
  return [
    ...allKeyRoutes(needs),
    ...memberRoutes(needs.members),
    ...userRoutes(needs),
    ...roleRoutes(needs),
    ...inviteRoutes(needs.invitations),
    ...organizationKeyRoutes(needs),
    ...serviceAccountRoutes(needs),
  ];
}

/** The same five verbs on keys of a project, keys above projects, and the platform's own. */
function allKeyRoutes(needs: Pick<IdentityRoutesNeeds, "keys" | "projectOf">) {
  const tenant = z.strictObject({ tenant: pathPart });
  const project = tenant.extend({ project: pathPart });
  return [
    ...keyRoutes(needs.keys, {
      id: "project_keys",
      path: "/admin/v1/tenants/{tenant}/projects/{project}/keys",
      whose: "of the project",
      read: "keys:read",
      write: "keys:write",
      reach: "path",
      params: project,
      itemParams: project.extend({ id: pathPart }),
      creation: tenantKeyCreation,
      example: { params: { tenant: "example", project: "example" }, body: { name: "example" } },
      projectOf: (tx, params) => needs.projectOf(tx, params.project),
    }),
    ...keyRoutes(needs.keys, {
      id: "tenant_keys",
      path: "/admin/v1/tenants/{tenant}/keys",
      whose: "above the tenant's projects",
      read: "keys:read",
      write: "keys:write",
      reach: "path",
      params: tenant,
      itemParams: tenant.extend({ id: pathPart }),
      creation: tenantKeyCreation,
      example: { params: { tenant: "example" }, body: { name: "example", permissions: ["tenant_admin"] } },
      projectOf: async () => null,
    }),
    ...keyRoutes<"platform:keys:read", "platform:keys:write", object>(needs.keys, {
      id: "platform_keys",
      path: "/admin/v1/keys",
      whose: "of the platform",
      read: "platform:keys:read",
      write: "platform:keys:write",
      reach: "platform",
      params: z.strictObject({}),
      itemParams: z.strictObject({ id: pathPart }),
      creation: platformKeyCreation,
      example: { params: {}, body: { name: "example", permissions: ["platform:metrics:read"] } },
      projectOf: async () => null,
    }),
  ];
}

interface KeyCollection<Read extends keyof Proofs, Write extends keyof Proofs, Params> {
  readonly id: string;
  readonly path: string;
  readonly whose: string;
  readonly read: Read;
  readonly write: Write;
  readonly reach: "path" | "platform";
  readonly params: z.ZodType<Params>;
  readonly itemParams: z.ZodType<Params & { id: string }>;
  readonly creation: z.ZodType<KeyCreation>;
  readonly example: { readonly params: Readonly<Record<string, string>>; readonly body: unknown };
  /** Null for keys above projects. */
  readonly projectOf: (tx: TenantTransaction, params: Params) => Promise<ProjectId | null>;
}

type ReadPermission = "keys:read" | "platform:keys:read";
type WritePermission = "keys:write" | "platform:keys:write";

function keyRoutes<Read extends ReadPermission, Write extends WritePermission, Params>(
  keys: KeyVerbs,
  at: KeyCollection<Read, Write, Params>,
) {
  const { reach, projectOf } = at;
  const itemExample = { params: { ...at.example.params, id: "0123456789" } };
  return [
    route({
      id: `${at.id}.create`,
      method: "POST",
      path: at.path,
      summary: `Create an API key ${at.whose}. The key itself is in this answer only.`,
      permission: at.write,
      reach,
      params: at.params,
      query: NO_QUERY,
      body: at.creation,
      result: createdKey,
      example: at.example,
      audit: { action: "key.create" },
      handler: async ({ allowed, transaction: tx, params, body }) =>
        created(await keys.create(tx, allowed, await projectOf(tx, params), fieldsOf(body))),
    }),
    route({
      id: `${at.id}.list`,
      method: "GET",
      path: at.path,
      summary: `List the API keys ${at.whose}, never their secrets.`,
      permission: at.read,
      reach,
      params: at.params,
      query: listQuery,
      body: null,
      result: pageOf(keyView),
      example: { params: at.example.params },
      audit: null,
      handler: async ({ allowed, transaction: tx, params, query }) => ({
        body: await keys.list(tx, allowed, await projectOf(tx, params), query),
      }),
    }),
    route({
      id: `${at.id}.get`,
      method: "GET",
      path: `${at.path}/{id}`,
      summary: `Read an API key ${at.whose}, never its secret.`,
      permission: at.read,
      reach,
      params: at.itemParams,
      query: NO_QUERY,
      body: null,
      result: keyView,
      example: itemExample,
      audit: null,
      handler: async ({ allowed, transaction: tx, params }) => ({
        body: await keys.get(tx, allowed, await projectOf(tx, params), params.id),
      }),
    }),
    route({
      id: `${at.id}.delete`,
      method: "DELETE",
      path: `${at.path}/{id}`,
      summary: `Revoke an API key ${at.whose}: every process refuses it within a second.`,
      permission: at.write,
      reach,
      params: at.itemParams,
      query: NO_QUERY,
      body: null,
      result: deletedView,
      example: itemExample,
      audit: { action: "key.revoke" },
      handler: async ({ allowed, transaction: tx, params }) =>
        archivedAnswer(await keys.revoke(tx, allowed, await projectOf(tx, params), params.id)),
    }),
    route({
      id: `${at.id}.rotate`,
      method: "POST",
      path: `${at.path}/{id}/rotate`,
      summary: `Replace an API key ${at.whose} by one of the same name and rights; the old one works until its grace ends.`,
      permission: at.write,
      reach,
      params: at.itemParams,
      query: NO_QUERY,
      body: rotation,
      result: createdKey,
      example: { ...itemExample, body: { grace_seconds: 3600 } },
      audit: { action: "key.rotate" },
      handler: async ({ allowed, transaction: tx, params, body }) =>
        rotated(await keys.rotate(tx, allowed, await projectOf(tx, params), params.id, body.grace_seconds * 1000)),
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

/** The last second of the year 9999, beyond which times have no ISO form. */
const LAST_SECOND = 253_402_300_799;

const permissionNames = z
  .array(z.enum([...Object.keys(PERMISSIONS), ...Object.keys(ROLES)]))
  .min(1)
  .max(50);
const modelNames = z.array(z.string().min(1).max(BOUNDS.nameLength)).min(1).max(200);
const expiry = z
  .union([unixSeconds.max(LAST_SECOND), z.iso.datetime({ offset: true })])
  .describe("Unix seconds, or an ISO 8601 time; null never.");

const routeFamilies = z
  .array(z.enum(Object.keys(ROUTE_FAMILIES) as RouteFamily[]))
  .min(1)
  .max(Object.keys(ROUTE_FAMILIES).length)
  .describe(
    `The endpoints it may call, null for all that its permissions open. ${Object.entries(ROUTE_FAMILIES)
      .map(([name, paths]) => `${name}: ${paths}`)
      .join("; ")}.`,
  );
const ipRanges = z
  .array(
    z
      .string()
      .max(64)
      .refine((text) => parseNetwork(text) !== null, "must be an address or a CIDR such as 203.0.113.0/24"),
  )
  .min(1)
  .max(100)
  .describe("Where it may be used from: addresses and CIDRs, null for anywhere. From elsewhere it is answered as an unknown key is.");

interface KeyCreation {
  name?: string | undefined;
  permissions: string[];
  models?: string[] | null | undefined;
  expires_at?: string | number | null | undefined;
  routes?: RouteFamily[] | null | undefined;
  ip_ranges?: string[] | null | undefined;
}

const tenantKeyCreation = z.strictObject({
  name: z.string().min(1).max(BOUNDS.nameLength).optional(),
  permissions: permissionNames.default(["developer"]),
  models: modelNames.nullable().optional(),
  expires_at: expiry.nullable().optional(),
  routes: routeFamilies.nullable().optional(),
  ip_ranges: ipRanges.nullable().optional(),
});

const platformKeyCreation = z.strictObject({
  name: z.string().min(1).max(BOUNDS.nameLength).optional(),
  permissions: permissionNames,
  expires_at: expiry.nullable().optional(),
  routes: routeFamilies.nullable().optional(),
  ip_ranges: ipRanges.nullable().optional(),
});

const rotation = z.strictObject({
  grace_seconds: z
    .number()
    .int()
    .min(0)
    .max(30 * 86_400)
    .default(3600)
    .describe("How long the old key goes on working."),
});

const keyView = z.object({
  id: z.string(),
  name: z.string(),
  permissions: z.array(z.string()),
  models: z.array(z.string()).nullable(),
  routes: z.array(z.string()).nullable(),
  ip_ranges: z.array(z.string()).nullable(),
  service_account: z.string().nullable().describe("The service account that calls with it."),
  expires_at: unixSeconds.nullable(),
  grace_until: unixSeconds.nullable(),
  created_by: z.string(),
  created_at: unixSeconds,
});
const createdKey = keyView.extend({ key: z.string() });

function fieldsOf(body: KeyCreation): NewKey {
  const { name, permissions, models, routes, ip_ranges: ranges } = body;
  return { name, permissions, models: models ?? null, expiresAt: toMs(body.expires_at), routes, ipRanges: ranges };
}

function toMs(time: string | number | null | undefined): number | null | undefined {
  if (typeof time === "string") return Date.parse(time);
  return typeof time === "number" ? time * 1000 : time;
}

function created({ view, key }: CreatedKey): Answer<z.infer<typeof createdKey>> {
  return {
    status: 201,
    body: { ...view, key },
    change: { target: view.id, before: null, after: view },
    shownOnce: ["key"],
    configurationChanged: true,
  };
}

function rotated({ before, created: { view, key } }: { before: KeyView; created: CreatedKey }): Answer<z.infer<typeof createdKey>> {
  return {
    status: 201,
    body: { ...view, key },
    change: { target: before.id, before, after: view },
    shownOnce: ["key"],
    configurationChanged: true,
  };
}
