import { z } from "zod";
import type { Clock } from "../../../kernel/clock.ts";
import type { MemberId, Uuid } from "../../../kernel/ids.ts";
import { routeBuilder } from "../../../kernel/route.ts";
import type { TenantTransaction } from "../../../storage/database/index.ts";
import { listQuery, NO_QUERY, pathPart, unixSeconds } from "../../../storage/snapshot/index.ts";
import type { MemberVerbsNeeds } from "../members.ts";
import type { Proofs } from "../model.ts";
import type { CreatedKey, ServiceAccountKeys } from "../service.ts";
import type { ServiceAccountVerbs, ServiceAccountView } from "../service-accounts.ts";
import { expiryOf } from "./keys.ts";
import { projectRole, projectRoles } from "./roles.ts";
import { deletedResult, expiresInSeconds, freeName, listOf, listPage, roleWord } from "./shapes.ts";

export interface ServiceAccountRoutesNeeds {
  readonly accounts: ServiceAccountVerbs;
  readonly accountKeys: ServiceAccountKeys;
  readonly clock: Clock;
  readonly projectOf: MemberVerbsNeeds["projectOf"];
}

/** `/v1/organization/projects/{project}/service_accounts`, as OpenAI's Admin API has them. */
export function serviceAccountRoutes({ accounts, accountKeys, clock, projectOf }: ServiceAccountRoutesNeeds) {
  const path = "/v1/organization/projects/{project}/service_accounts";
  return [
    route({
      id: "organization_service_accounts.create",
      method: "POST",
      path,
      summary: "Create a service account of the project, with a key unless told otherwise. The key itself is in this answer only.",
      permission: "members:write",
      reach: "organization",
      params: projectParams,
      query: NO_QUERY,
      body: z.strictObject({
        name: freeName,
        create_service_account_only: z.boolean().nullable().optional(),
        expires_in_seconds: expiresInSeconds.optional(),
      }),
      result: account.extend({ api_key: accountKey.nullable() }),
      example: { params: projectExample, body: { name: "example" } },
      audit: { action: "service_account.create" },
      handler: async ({ allowed, transaction: tx, params, body }) => {
        const project = await projectOf(tx, params.project);
        const view = await accounts.create(tx, allowed, project, { name: body.name, roles: DEFAULT_ROLES });
        const expiresAt = expiryOf(clock, body.expires_in_seconds);
        const only = body.create_service_account_only === true;
        const made = only ? null : await accountKeys.createFor(tx, allowed, project, memberOf(view), DEFAULT_ROLES, { expiresAt });
        return {
          body: { ...accountOf(view), api_key: made === null ? null : accountKeyOf(made) },
          change: { target: view.id, before: null, after: { ...view, key: made?.view ?? null } },
          shownOnce: ["api_key"],
          configurationChanged: true,
        };
      },
    }),
    route({
      id: "organization_service_accounts.list",
      method: "GET",
      path,
      summary: "List the service accounts of the project, oldest first.",
      permission: "members:read",
      reach: "organization",
      params: projectParams,
      query: listQuery,
      body: null,
      result: listOf(account),
      example: { params: projectExample },
      audit: null,
      handler: async ({ allowed, transaction: tx, params, query }) => ({
        body: listPage(await accounts.list(tx, allowed, await projectOf(tx, params.project), query), accountOf),
      }),
    }),
    route({
      id: "organization_service_accounts.get",
      method: "GET",
      path: `${path}/{id}`,
      summary: "Read a service account of the project.",
      permission: "members:read",
      reach: "organization",
      params: accountParams,
      query: NO_QUERY,
      body: null,
      result: account,
      example: accountExample,
      audit: null,
      handler: async ({ allowed, transaction: tx, params }) => ({
        body: accountOf(await accounts.get(tx, allowed, await projectOf(tx, params.project), params.id)),
      }),
    }),
    route({
      id: "organization_service_accounts.update",
      method: "POST",
      path: `${path}/{id}`,
      summary: "Change a service account's name or role: 'owner', 'member', or one of ours.",
      permission: "members:write",
      reach: "organization",
      params: accountParams,
      query: NO_QUERY,
      body: z.strictObject({ name: freeName.optional(), role: roleWord.optional() }),
      result: account,
      example: { ...accountExample, body: { name: "example", role: "member" } },
      audit: { action: "service_account.put" },
      handler: async ({ allowed, transaction: tx, params, body }) => {
        const fields = { ...(body.name && { name: body.name }), ...(body.role && { roles: projectRoles(body.role) }) };
        const { before, after } = await accounts.change(tx, allowed, await projectOf(tx, params.project), params.id, fields);
        return { body: accountOf(after), change: { target: after.id, before, after }, configurationChanged: true };
      },
    }),
    route({
      id: "organization_service_accounts.delete",
      method: "DELETE",
      path: `${path}/{id}`,
      summary: "Remove a service account: every process refuses its keys within a second.",
      permission: "members:write",
      reach: "organization",
      params: accountParams,
      query: NO_QUERY,
      body: null,
      result: deletedResult("organization.project.service_account.deleted"),
      example: accountExample,
      audit: { action: "service_account.remove" },
      handler: async ({ allowed, transaction: tx, params }) => {
        const before = await accounts.remove(tx, allowed, await projectOf(tx, params.project), params.id);
        return {
          body: { id: before.id, object: "organization.project.service_account.deleted", deleted: true },
          change: { target: before.id, before, after: null },
          configurationChanged: true,
        };
      },
    }),
    route({
      id: "organization_service_account_keys.create",
      method: "POST",
      path: `${path}/{id}/api_keys`,
      summary: "Create a key that a service account calls with. The key itself is in this answer only.",
      permission: "members:write",
      reach: "organization",
      params: accountParams,
      query: NO_QUERY,
      body: z.strictObject({
        name: freeName.optional(),
        scopes: z
          .array(z.string().min(1).max(100))
          .min(1)
          .max(50)
          .optional()
          .describe("Permission or role names; the account's roles unless given."),
        expires_in_seconds: expiresInSeconds.optional(),
      }),
      result: accountKey,
      example: { ...accountExample, body: { name: "example" } },
      audit: { action: "key.create" },
      handler: async ({ allowed, transaction: tx, params, body }) => {
        const project = await projectOf(tx, params.project);
        const view = await accounts.get(tx, allowed, project, params.id);
        const fields = { name: body.name, expiresAt: expiryOf(clock, body.expires_in_seconds) };
        const made = await accountKeys.createFor(tx, allowed, project, memberOf(view), body.scopes ?? DEFAULT_ROLES, fields);
        return {
          body: accountKeyOf(made),
          change: { target: made.view.id, before: null, after: made.view },
          shownOnce: ["value"],
          configurationChanged: true,
        };
      },
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

const DEFAULT_ROLES = ["developer"];
const projectParams = z.strictObject({ project: pathPart });
const projectExample = { project: "example" };
const accountParams = projectParams.extend({ id: pathPart });
const accountExample = { params: { ...projectExample, id: "01890000-0000-7000-8000-000000000000" } };

const account = z.object({
  id: z.string(),
  object: z.literal("organization.project.service_account"),
  name: z.string(),
  role: z.string(),
  created_at: unixSeconds,
});

const accountKey = z.object({
  id: z.string(),
  object: z.literal("organization.project.service_account.api_key"),
  name: z.string(),
  value: z.string(),
  created_at: unixSeconds,
  expires_at: unixSeconds.nullable(),
});

function accountOf({ id, name, roles, created_at }: ServiceAccountView): z.infer<typeof account> {
  return { id, object: "organization.project.service_account", name, role: projectRole(roles), created_at };
}

function accountKeyOf({ view, key }: CreatedKey): z.infer<typeof accountKey> {
  const { id, name, created_at, expires_at } = view;
  return { id, object: "organization.project.service_account.api_key", name, value: key, created_at, expires_at };
}

function memberOf(view: ServiceAccountView): MemberId {
  return view.id as Uuid as MemberId;
}
