import { z } from "zod";
import { routeBuilder } from "../../../kernel/route.ts";
import type { TenantTransaction } from "../../../storage/database/index.ts";
import { listQuery, NO_QUERY, notFound, pageAmong, pathPart } from "../../../storage/snapshot/index.ts";
import { type MemberView, type ProjectMemberView, refuseRoles } from "../members.ts";
import type { Proofs } from "../model.ts";
import { isRole, type Role } from "../permissions.ts";
import { roleView, TENANT_ROLES } from "./roles.ts";
import { roleWord } from "./shapes.ts";
import { user, userOf, type UserRoutesNeeds } from "./users.ts";

/**
 * Roles, and which of them a user holds, over the organization and in a project, as OpenAI's Admin API has them
 * (`roles.d.ts` in node_modules/openai/resources/admin/organization and below it); a project's are at `/v1/projects` there.
 */
export function roleRoutes(needs: UserRoutesNeeds) {
  return [...organizationRoles(), ...projectRoles(needs), ...rolesOfUser(needs), ...rolesInProject(needs)];
}

function organizationRoles() {
  const path = "/v1/organization/roles";
  return [
    route({
      id: "organization_roles.list",
      method: "GET",
      path,
      summary: "List the roles that users of the organization may have, and the permissions of each.",
      permission: "members:read",
      reach: "organization",
      params: z.strictObject({}),
      query: roleQuery,
      body: null,
      result: pageOfRoles(role),
      example: { params: {} },
      audit: null,
      handler: async ({ query }) => ({ body: rolePage(TENANT_ROLES, query, (name) => roleOf(name, "tenant")) }),
    }),
    route({
      id: "organization_roles.get",
      method: "GET",
      path: `${path}/{role}`,
      summary: "Read a role. The roles are the installation's: nobody makes, changes or deletes one.",
      permission: "members:read",
      reach: "organization",
      params: z.strictObject({ role: pathPart }),
      query: NO_QUERY,
      body: null,
      result: role,
      example: { params: { role: EXAMPLE_ROLE } },
      audit: null,
      handler: async ({ params }) => ({ body: roleOf(among(TENANT_ROLES, params.role), "tenant") }),
    }),
  ];
}

function projectRoles({ projectOf }: UserRoutesNeeds) {
  const path = "/v1/projects/{project}/roles";
  return [
    route({
      id: "organization_project_roles.list",
      method: "GET",
      path,
      summary: "List the roles that users of the project may have, and the permissions of each, as far as a project goes.",
      permission: "members:read",
      reach: "organization",
      params: projectParams,
      query: roleQuery,
      body: null,
      result: pageOfRoles(role),
      example: { params: projectExample },
      audit: null,
      handler: async ({ transaction, params, query }) => {
        await projectOf(transaction, params.project);
        return { body: rolePage(TENANT_ROLES, query, (name) => roleOf(name, "project")) };
      },
    }),
    route({
      id: "organization_project_roles.get",
      method: "GET",
      path: `${path}/{role}`,
      summary: "Read a role as it is in a project.",
      permission: "members:read",
      reach: "organization",
      params: projectParams.extend({ role: pathPart }),
      query: NO_QUERY,
      body: null,
      result: role,
      example: { params: { ...projectExample, role: EXAMPLE_ROLE } },
      audit: null,
      handler: async ({ transaction, params }) => {
        await projectOf(transaction, params.project);
        return { body: roleOf(among(TENANT_ROLES, params.role), "project") };
      },
    }),
  ];
}

function rolesOfUser({ members }: UserRoutesNeeds) {
  const path = "/v1/organization/users/{id}/roles";
  return [
    route({
      id: "organization_user_roles.create",
      method: "POST",
      path,
      summary: "Give a user of the organization a role over all of it, beside those there are: none that holds more than who gives it.",
      permission: "members:write",
      reach: "organization",
      params: userParams,
      query: NO_QUERY,
      body: assignment,
      result: assigned,
      example: { ...userExample, body: { role_id: EXAMPLE_ROLE } },
      audit: { action: "member.put" },
      handler: async ({ allowed, transaction, params, body }) => {
        const view = await members.getToChange(transaction, allowed, params.id);
        refuseRoles(allowed.principal, "tenant", [body.role_id], "role_id");
        const roles = [...new Set([...view.roles, body.role_id])];
        const { before, after } = await members.put(transaction, allowed, view.id, { roles }, null);
        return assignedAnswer(roleOf(body.role_id as Role, "tenant"), after, { target: after.id, before, after });
      },
    }),
    route({
      id: "organization_user_roles.list",
      method: "GET",
      path,
      summary: "List the roles that a user holds over the organization.",
      permission: "members:read",
      reach: "organization",
      params: userParams,
      query: roleQuery,
      body: null,
      result: pageOfRoles(heldRole),
      example: userExample,
      audit: null,
      handler: async ({ allowed, transaction, params, query }) => {
        const { view } = await members.get(transaction, allowed, params.id);
        return { body: rolePage(heldBy(view), query, (name) => heldRoleOf(name, "tenant", view)) };
      },
    }),
    route({
      id: "organization_user_roles.get",
      method: "GET",
      path: `${path}/{role}`,
      summary: "Read a role that a user holds over the organization.",
      permission: "members:read",
      reach: "organization",
      params: userParams.extend({ role: pathPart }),
      query: NO_QUERY,
      body: null,
      result: heldRole,
      example: { params: { ...userExample.params, role: EXAMPLE_ROLE } },
      audit: null,
      handler: async ({ allowed, transaction, params }) => {
        const { view } = await members.get(transaction, allowed, params.id);
        return { body: heldRoleOf(among(heldBy(view), params.role), "tenant", view) };
      },
    }),
    route({
      id: "organization_user_roles.delete",
      method: "DELETE",
      path: `${path}/{role}`,
      summary:
        "Take a role over the organization from a user: within a second it counts no more. One that the identity provider gives stays.",
      permission: "members:write",
      reach: "organization",
      params: userParams.extend({ role: pathPart }),
      query: NO_QUERY,
      body: null,
      result: unassigned,
      example: { params: { ...userExample.params, role: EXAMPLE_ROLE } },
      audit: { action: "member.put" },
      handler: async ({ allowed, transaction, params }) => {
        const view = await members.getToChange(transaction, allowed, params.id);
        const roles = without(view.roles, params.role);
        const { before, after } = await members.put(transaction, allowed, view.id, { roles }, null);
        return unassignedAnswer({ target: after.id, before, after });
      },
    }),
  ];
}

function rolesInProject({ members, projectOf }: UserRoutesNeeds) {
  const path = "/v1/projects/{project}/users/{id}/roles";
  return [
    route({
      id: "organization_project_user_roles.create",
      method: "POST",
      path,
      summary: "Give a user of the project a role in it, beside those there are: none that holds more than who gives it.",
      permission: "members:write",
      reach: "organization",
      params: projectUserParams,
      query: NO_QUERY,
      body: assignment,
      result: assigned,
      example: { ...projectUserExample, body: { role_id: EXAMPLE_ROLE } },
      audit: { action: "project_member.put" },
      handler: async ({ allowed, transaction, params, body }) => {
        const project = await projectOf(transaction, params.project);
        const { id } = await members.getToChange(transaction, allowed, params.id);
        const held = await members.getInProject(transaction, allowed, project, id);
        refuseRoles(allowed.principal, "project", [body.role_id], "role_id");
        const roles = [...new Set([...held.roles, body.role_id])];
        const { before, after } = await members.putInProject(transaction, allowed, project, id, roles);
        const { view } = await members.get(transaction, allowed, id);
        return assignedAnswer(roleOf(body.role_id as Role, "project"), view, { target: id, before, after });
      },
    }),
    route({
      id: "organization_project_user_roles.list",
      method: "GET",
      path,
      summary: "List the roles that a user holds in the project, beside those over the organization.",
      permission: "members:read",
      reach: "organization",
      params: projectUserParams,
      query: roleQuery,
      body: null,
      result: pageOfRoles(heldRole),
      example: projectUserExample,
      audit: null,
      handler: async ({ allowed, transaction, params, query }) => {
        const held = await members.getInProject(transaction, allowed, await projectOf(transaction, params.project), params.id);
        return { body: rolePage(heldBy(held), query, (name) => heldRoleOf(name, "project", held)) };
      },
    }),
    route({
      id: "organization_project_user_roles.get",
      method: "GET",
      path: `${path}/{role}`,
      summary: "Read a role that a user holds in the project.",
      permission: "members:read",
      reach: "organization",
      params: projectUserParams.extend({ role: pathPart }),
      query: NO_QUERY,
      body: null,
      result: heldRole,
      example: { params: { ...projectUserExample.params, role: EXAMPLE_ROLE } },
      audit: null,
      handler: async ({ allowed, transaction, params }) => {
        const held = await members.getInProject(transaction, allowed, await projectOf(transaction, params.project), params.id);
        return { body: heldRoleOf(among(heldBy(held), params.role), "project", held) };
      },
    }),
    route({
      id: "organization_project_user_roles.delete",
      method: "DELETE",
      path: `${path}/{role}`,
      summary: "Take a role in the project from a user, who stays in the project. One that the identity provider gives stays.",
      permission: "members:write",
      reach: "organization",
      params: projectUserParams.extend({ role: pathPart }),
      query: NO_QUERY,
      body: null,
      result: unassigned,
      example: { params: { ...projectUserExample.params, role: EXAMPLE_ROLE } },
      audit: { action: "project_member.put" },
      handler: async ({ allowed, transaction, params }) => {
        const project = await projectOf(transaction, params.project);
        const { id } = await members.getToChange(transaction, allowed, params.id);
        const held = await members.getInProject(transaction, allowed, project, id);
        const { before, after } = await members.putInProject(transaction, allowed, project, id, without(held.roles, params.role));
        return unassignedAnswer({ target: id, before, after });
      },
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

const EXAMPLE_ROLE = "auditor" satisfies Role;
const userParams = z.strictObject({ id: pathPart });
const userExample = { params: { id: "ada@example.com" } };
const projectParams = z.strictObject({ project: pathPart });
const projectExample = { project: "example" };
const projectUserParams = projectParams.extend({ id: pathPart });
const projectUserExample = { params: { ...projectExample, ...userExample.params } };

const roleQuery = listQuery.extend({
  after: z.enum(TENANT_ROLES).optional().describe("The 'next' of the page before."),
  order: z.enum(["asc", "desc"]).default("asc"),
});

const assignment = z.strictObject({ role_id: roleWord.describe("One of those that GET /v1/organization/roles lists.") });

const roleFields = {
  id: z.string(),
  name: z.string(),
  description: z.string().nullable(),
  permissions: z.array(z.string()),
  predefined_role: z.boolean(),
  resource_type: z.string(),
};

const role = z.object({ object: z.literal("role"), ...roleFields });

/** Roles are the installation's, so nobody made or changed them. */
const heldRole = z.object({
  ...roleFields,
  assignment_sources: z
    .array(z.object({ principal_id: z.string(), principal_type: z.string() }))
    .nullable()
    .describe("`identity_provider` where it gives the role by the user's groups; null for a role that was given here."),
  created_at: z.null(),
  created_by: z.null(),
  created_by_user_obj: z.null(),
  metadata: z.null(),
  updated_at: z.null(),
});

const assigned = z.object({ object: z.literal("user.role"), role, user });
const unassigned = z.object({ object: z.literal("user.role.deleted"), deleted: z.literal(true) });

function pageOfRoles<Item extends z.ZodType>(item: Item) {
  return z.object({ object: z.literal("list"), data: z.array(item), has_more: z.boolean(), next: z.string().nullable() });
}

function rolePage<Item>(names: readonly Role[], query: z.infer<typeof roleQuery>, render: (name: Role) => Item) {
  const among = names.map((id) => ({ id }));
  const { data, has_more, last_id } = pageAmong(among, { limit: query.limit, after: query.after }, query.order);
  return { object: "list" as const, data: data.map(({ id }) => render(id)), has_more, next: has_more ? last_id : null };
}

type Holder = Pick<MemberView | ProjectMemberView, "roles" | "claimed_roles">;

function heldBy({ roles, claimed_roles }: Holder): Role[] {
  return [...new Set([...roles, ...claimed_roles])].filter(isRole);
}

function among(names: readonly Role[], wanted: string): Role {
  const found = names.find((name) => name === wanted);
  if (found === undefined) throw notFound();
  return found;
}

function without(given: readonly string[], role: string): string[] {
  if (!given.includes(role)) throw notFound();
  return given.filter((each) => each !== role);
}

function roleOf(name: Role, place: "tenant" | "project"): z.infer<typeof role> {
  return { object: "role", ...roleView(name, place) };
}

function heldRoleOf(name: Role, place: "tenant" | "project", { roles }: Holder): z.infer<typeof heldRole> {
  const nobody = { created_at: null, created_by: null, created_by_user_obj: null, metadata: null, updated_at: null };
  const sources = roles.includes(name) ? null : [{ principal_id: "groups", principal_type: "identity_provider" }];
  return { ...roleView(name, place), assignment_sources: sources, ...nobody };
}

interface Change {
  readonly target: string;
  readonly before: unknown;
  readonly after: unknown;
}

function assignedAnswer(given: z.infer<typeof role>, view: MemberView, change: Change) {
  return { body: { object: "user.role" as const, role: given, user: userOf(view) }, change, configurationChanged: true };
}

function unassignedAnswer(change: Change) {
  return { body: { object: "user.role.deleted" as const, deleted: true as const }, change, configurationChanged: true };
}
