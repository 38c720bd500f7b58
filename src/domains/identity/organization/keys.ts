import { z } from "zod";
import type { Clock } from "../../../kernel/clock.ts";
import { isUuid, type MemberId, type TenantId, type Uuid } from "../../../kernel/ids.ts";
import { routeBuilder } from "../../../kernel/route.ts";
import { type TenantTransaction, tenantOf } from "../../../storage/database/index.ts";
import type { TenantKeyring } from "../../../storage/secrets/index.ts";
import { listQuery, NO_QUERY, pathPart, toUnixSeconds, unixSeconds } from "../../../storage/snapshot/index.ts";
import { findMembers, type MemberRow } from "../member-store.ts";
import { type MemberVerbsNeeds, openText } from "../members.ts";
import type { Proofs } from "../model.ts";
import type { CreatedKey, KeyVerbs, KeyView } from "../service.ts";
import { organizationRole, projectRole } from "./roles.ts";
import { deletedResult, expiresInSeconds, freeName, listOf, listPage, type Owner, owner } from "./shapes.ts";

export interface OrganizationKeysNeeds {
  readonly keys: KeyVerbs;
  readonly clock: Clock;
  readonly keyring: (tenant: TenantId) => TenantKeyring;
  readonly projectOf: MemberVerbsNeeds["projectOf"];
}

/** `/v1/organization/projects/{project}/api_keys` and `/v1/organization/admin_api_keys`, as OpenAI's Admin API has them. */
export function organizationKeyRoutes(needs: OrganizationKeysNeeds) {
  return [...projectKeys(needs), ...adminKeys(needs)];
}

function projectKeys({ keys, projectOf, keyring }: OrganizationKeysNeeds) {
  const path = "/v1/organization/projects/{project}/api_keys";
  return [
    route({
      id: "organization_project_keys.list",
      method: "GET",
      path,
      summary: "List the API keys of the project, never their secrets.",
      permission: "keys:read",
      reach: "organization",
      params: projectParams,
      query: listQuery.extend({ owner_project_access: z.enum(["active", "inactive", "any"]).default("any") }),
      body: null,
      result: listOf(projectKey),
      example: { params: projectExample },
      audit: null,
      handler: async ({ allowed, transaction: tx, params, query }) => {
        const page = await keys.list(tx, allowed, await projectOf(tx, params.project), query);
        // A key whose owner has lost its access is revoked with it, so none is ever inactive.
        const shown = query.owner_project_access === "inactive" ? { data: [], has_more: false, last_id: null } : page;
        const owners = await ownersOf(tx, keyring(tenantOf(tx)), shown.data);
        return { body: listPage(shown, (view) => projectKeyOf(view, owners.get(view.id) ?? {})) };
      },
    }),
    route({
      id: "organization_project_keys.get",
      method: "GET",
      path: `${path}/{id}`,
      summary: "Read an API key of the project, never its secret.",
      permission: "keys:read",
      reach: "organization",
      params: projectParams.extend({ id: pathPart }),
      query: NO_QUERY,
      body: null,
      result: projectKey,
      example: { params: { ...projectExample, id: EXAMPLE_ID } },
      audit: null,
      handler: async ({ allowed, transaction: tx, params }) => {
        const view = await keys.get(tx, allowed, await projectOf(tx, params.project), params.id);
        const owners = await ownersOf(tx, keyring(tenantOf(tx)), [view]);
        return { body: projectKeyOf(view, owners.get(view.id) ?? {}) };
      },
    }),
    route({
      id: "organization_project_keys.delete",
      method: "DELETE",
      path: `${path}/{id}`,
      summary: "Revoke an API key of the project: every process refuses it within a second, and what it made with it.",
      permission: "keys:write",
      reach: "organization",
      params: projectParams.extend({ id: pathPart }),
      query: NO_QUERY,
      body: null,
      result: deletedResult("organization.project.api_key.deleted"),
      example: { params: { ...projectExample, id: EXAMPLE_ID } },
      audit: { action: "key.revoke" },
      handler: async ({ allowed, transaction: tx, params }) => {
        const before = await keys.revoke(tx, allowed, await projectOf(tx, params.project), params.id);
        return {
          body: { id: before.id, object: "organization.project.api_key.deleted", deleted: true },
          change: { target: before.id, before, after: null },
          configurationChanged: true,
        };
      },
    }),
  ];
}

function adminKeys({ keys, clock, keyring }: OrganizationKeysNeeds) {
  const path = "/v1/organization/admin_api_keys";
  return [
    route({
      id: "organization_admin_keys.create",
      method: "POST",
      path,
      summary: "Create a key that administers the organization. The key itself is in this answer only.",
      permission: "keys:write",
      reach: "organization",
      params: z.strictObject({}),
      query: NO_QUERY,
      body: z.strictObject({ name: freeName, expires_in_seconds: expiresInSeconds.optional() }),
      result: adminKey.extend({ value: z.string() }),
      example: { params: {}, body: { name: "example" } },
      audit: { action: "key.create" },
      handler: async ({ allowed, transaction: tx, body }) => {
        const made = await keys.create(tx, allowed, null, {
          name: body.name,
          permissions: ["tenant_admin"],
          models: null,
          expiresAt: expiryOf(clock, body.expires_in_seconds),
        });
        const owners = await ownersOf(tx, keyring(tenantOf(tx)), [made.view]);
        return createdAnswer(made, { ...adminKeyOf(made.view, owners.get(made.view.id) ?? {}), value: made.key });
      },
    }),
    route({
      id: "organization_admin_keys.list",
      method: "GET",
      path,
      summary: "List the keys above the organization's projects, never their secrets.",
      permission: "keys:read",
      reach: "organization",
      params: z.strictObject({}),
      query: listQuery.extend({ order: z.enum(["asc", "desc"]).default("asc") }),
      body: null,
      result: listOf(adminKey),
      example: { params: {} },
      audit: null,
      handler: async ({ allowed, transaction: tx, query }) => {
        const page = await keys.list(tx, allowed, null, query);
        const owners = await ownersOf(tx, keyring(tenantOf(tx)), page.data);
        return { body: listPage(page, (view) => adminKeyOf(view, owners.get(view.id) ?? {})) };
      },
    }),
    route({
      id: "organization_admin_keys.get",
      method: "GET",
      path: `${path}/{id}`,
      summary: "Read a key above the organization's projects, never its secret.",
      permission: "keys:read",
      reach: "organization",
      params: z.strictObject({ id: pathPart }),
      query: NO_QUERY,
      body: null,
      result: adminKey,
      example: { params: { id: EXAMPLE_ID } },
      audit: null,
      handler: async ({ allowed, transaction: tx, params }) => {
        const view = await keys.get(tx, allowed, null, params.id);
        const owners = await ownersOf(tx, keyring(tenantOf(tx)), [view]);
        return { body: adminKeyOf(view, owners.get(view.id) ?? {}) };
      },
    }),
    route({
      id: "organization_admin_keys.delete",
      method: "DELETE",
      path: `${path}/{id}`,
      summary: "Revoke a key above the organization's projects: every process refuses it within a second, and what it made with it.",
      permission: "keys:write",
      reach: "organization",
      params: z.strictObject({ id: pathPart }),
      query: NO_QUERY,
      body: null,
      result: deletedResult("organization.admin_api_key.deleted"),
      example: { params: { id: EXAMPLE_ID } },
      audit: { action: "key.revoke" },
      handler: async ({ allowed, transaction: tx, params }) => {
        const before = await keys.revoke(tx, allowed, null, params.id);
        return {
          body: { id: before.id, object: "organization.admin_api_key.deleted", deleted: true },
          change: { target: before.id, before, after: null },
          configurationChanged: true,
        };
      },
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

const EXAMPLE_ID = "0123456789";
const projectParams = z.strictObject({ project: pathPart });
const projectExample = { project: "example" };

const projectKey = z.object({
  id: z.string(),
  object: z.literal("organization.project.api_key"),
  name: z.string(),
  redacted_value: z.string(),
  created_at: unixSeconds,
  expires_at: unixSeconds.nullable(),
  last_used_at: z.null().describe("Not kept for a key; usage has it."),
  owner,
  owner_project_access: z.enum(["active", "inactive"]),
});

const adminKey = z.object({
  id: z.string(),
  object: z.literal("organization.admin_api_key"),
  name: z.string(),
  redacted_value: z.string(),
  created_at: unixSeconds,
  expires_at: unixSeconds.nullable(),
  last_used_at: z.null().describe("Not kept for a key; usage has it."),
  owner: z.object({
    type: z.string().optional(),
    object: z.string().optional(),
    id: z.string().optional(),
    name: z.string().optional(),
    created_at: unixSeconds.optional(),
    role: z.string().optional(),
  }),
});

function projectKeyOf(view: KeyView, whose: Owner): z.infer<typeof projectKey> {
  const { id, name, created_at } = view;
  return {
    id,
    object: "organization.project.api_key",
    name,
    redacted_value: redacted(id),
    created_at,
    expires_at: endOf(view),
    last_used_at: null,
    owner: whose,
    owner_project_access: "active",
  };
}

function adminKeyOf(view: KeyView, { type, user }: Owner): z.infer<typeof adminKey> {
  const { id, name, created_at } = view;
  const person = user === undefined ? {} : { type, object: "organization.user", ...user };
  return {
    id,
    object: "organization.admin_api_key",
    name,
    redacted_value: redacted(id),
    created_at,
    expires_at: endOf(view),
    last_used_at: null,
    owner: person,
  };
}

/** The public half; the secret one is not kept. */
function redacted(id: string): string {
  return `atr_${id}_****`;
}

/** A key that was rotated ends with its grace. */
function endOf({ expires_at, grace_until }: KeyView): number | null {
  if (expires_at === null || grace_until === null) return expires_at ?? grace_until;
  return Math.min(expires_at, grace_until);
}

export function expiryOf(clock: Clock, seconds: number | null | undefined): number | null | undefined {
  return typeof seconds === "number" ? clock.now() + seconds * 1000 : seconds;
}

function createdAnswer<Body>({ view }: CreatedKey, body: Body) {
  return { body, change: { target: view.id, before: null, after: view }, shownOnce: ["value"], configurationChanged: true };
}

/** Whose each key is: its service account's, or that of the person who made it; nobody's where the platform or another key did. */
async function ownersOf(tx: TenantTransaction, keyring: TenantKeyring, views: readonly KeyView[]): Promise<ReadonlyMap<string, Owner>> {
  const ids = views.map((view) => view.service_account ?? view.created_by).filter((id): id is Uuid & string => isUuid(id));
  const members = await findMembers(tx, [...new Set(ids)] as Uuid[] as MemberId[]);
  const owners = new Map<string, Owner>();
  for (const view of views) {
    const member = members.get((view.service_account ?? view.created_by) as MemberId);
    if (member !== undefined) owners.set(view.id, ownerOf(keyring, member));
  }
  return owners;
}

function ownerOf(keyring: TenantKeyring, row: MemberRow): Owner {
  const { id } = row;
  const name = openText(keyring, id, "name_sealed", row.name_sealed) ?? "";
  const created_at = toUnixSeconds(row.created_at);
  const roles = [...row.roles, ...row.claimed_roles];
  if (row.kind === "service_account")
    return { type: "service_account", service_account: { id, name, created_at, role: projectRole(roles) } };
  const email = openText(keyring, id, "email_sealed", row.email_sealed) ?? "";
  return { type: "user", user: { id, email, name, created_at, role: organizationRole(roles) } };
}
