import { z } from "zod";
import { Problem } from "../../../kernel/problem.ts";
import { routeBuilder } from "../../../kernel/route.ts";
import type { TenantTransaction } from "../../../storage/database/index.ts";
import { listQuery, NO_QUERY, pathPart, unixSeconds } from "../../../storage/snapshot/index.ts";
import type { MemberVerbs, MemberVerbsNeeds, MemberView, ProjectMemberView } from "../members.ts";
import type { Proofs } from "../model.ts";
import { organizationRole, organizationRoles, projectRole, projectRoles } from "./roles.ts";
import { deletedResult, listOf, listPage, roleWord } from "./shapes.ts";

export interface UserRoutesNeeds {
  readonly members: MemberVerbs;
  readonly projectOf: MemberVerbsNeeds["projectOf"];
}

/** `/v1/organization/users` and `…/projects/{project}/users`: a tenant's people, as OpenAI's Admin API has them. */
export function userRoutes(needs: UserRoutesNeeds) {
  return [...organizationUsers(needs), ...projectUsers(needs)];
}

function organizationUsers({ members }: UserRoutesNeeds) {
  const path = "/v1/organization/users";
  return [
    route({
      id: "organization_users.list",
      method: "GET",
      path,
      summary: "List the organization's users, oldest first.",
      permission: "members:read",
      reach: "organization",
      params: z.strictObject({}),
      query: listQuery.extend({ emails: z.array(z.string().min(1).max(254)).min(1).max(100).optional() }),
      body: null,
      result: listOf(user),
      example: { params: {} },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({
        body: listPage(await members.list(transaction, allowed, query, query.emails), userOf),
      }),
    }),
    route({
      id: "organization_users.get",
      method: "GET",
      path: `${path}/{id}`,
      summary: "Read a user of the organization.",
      permission: "members:read",
      reach: "organization",
      params: userParams,
      query: NO_QUERY,
      body: null,
      result: user,
      example: userExample,
      audit: null,
      handler: async ({ allowed, transaction, params }) => ({ body: userOf((await members.get(transaction, allowed, params.id)).view) }),
    }),
    route({
      id: "organization_users.update",
      method: "POST",
      path: `${path}/{id}`,
      summary: "Change a user's role: 'owner', 'reader', or one of the roles that GET /v1/organization/roles lists.",
      permission: "members:write",
      reach: "organization",
      params: userParams,
      query: NO_QUERY,
      body: userChange,
      result: user,
      example: { ...userExample, body: { role: "owner" } },
      audit: { action: "member.put" },
      handler: async ({ allowed, transaction, params, body }) => {
        const view = await members.getToChange(transaction, allowed, params.id);
        const word = body.role ?? body.role_id ?? null;
        const fields = word === null ? {} : { roles: organizationRoles(word, view.roles) };
        const { before, after } = await members.put(transaction, allowed, view.id, fields, null);
        return { body: userOf(after), change: { target: after.id, before, after }, configurationChanged: true };
      },
    }),
    route({
      id: "organization_users.delete",
      method: "DELETE",
      path: `${path}/{id}`,
      summary: "Remove a user from the organization: within a second nothing that it created works any more.",
      permission: "members:write",
      reach: "organization",
      params: userParams,
      query: NO_QUERY,
      body: null,
      result: deletedResult("organization.user.deleted"),
      example: userExample,
      audit: { action: "member.remove" },
      handler: async ({ allowed, transaction, params }) => {
        const before = await members.remove(transaction, allowed, params.id, null);
        return {
          body: { id: before.id, object: "organization.user.deleted", deleted: true },
          change: { target: before.id, before, after: null },
          configurationChanged: true,
        };
      },
    }),
  ];
}

function projectUsers({ members, projectOf }: UserRoutesNeeds) {
  const path = "/v1/organization/projects/{project}/users";
  return [
    route({
      id: "organization_project_users.create",
      method: "POST",
      path,
      summary: "Give a user of the organization, by 'user_id' or 'email', a role in the project: 'owner', 'member', or one of ours.",
      permission: "members:write",
      reach: "organization",
      params: projectParams,
      query: NO_QUERY,
      body: z.strictObject({ role: roleWord, user_id: pathPart.nullable().optional(), email: pathPart.nullable().optional() }),
      result: projectUser,
      example: { params: projectExample, body: { email: EXAMPLE_EMAIL, role: "member" } },
      audit: { action: "project_member.put" },
      handler: async ({ allowed, transaction, params, body }) => {
        const named = body.user_id ?? body.email ?? null;
        if (named === null) throw new Problem("invalid_request", { param: "user_id", message: "Name the user by 'user_id' or 'email'." });
        const project = await projectOf(transaction, params.project);
        return putAnswer(await members.putInProject(transaction, allowed, project, named, projectRoles(body.role)));
      },
    }),
    route({
      id: "organization_project_users.list",
      method: "GET",
      path,
      summary: "List the users of the project.",
      permission: "members:read",
      reach: "organization",
      params: projectParams,
      query: listQuery,
      body: null,
      result: listOf(projectUser),
      example: { params: projectExample },
      audit: null,
      handler: async ({ allowed, transaction, params, query }) => ({
        body: listPage(
          await members.listInProject(transaction, allowed, await projectOf(transaction, params.project), query),
          projectUserOf,
        ),
      }),
    }),
    route({
      id: "organization_project_users.get",
      method: "GET",
      path: `${path}/{id}`,
      summary: "Read a user of the project.",
      permission: "members:read",
      reach: "organization",
      params: projectUserParams,
      query: NO_QUERY,
      body: null,
      result: projectUser,
      example: projectUserExample,
      audit: null,
      handler: async ({ allowed, transaction, params }) => ({
        body: projectUserOf(await members.getInProject(transaction, allowed, await projectOf(transaction, params.project), params.id)),
      }),
    }),
    route({
      id: "organization_project_users.update",
      method: "POST",
      path: `${path}/{id}`,
      summary: "Change a user's role in the project: 'owner', 'member', or one of ours.",
      permission: "members:write",
      reach: "organization",
      params: projectUserParams,
      query: NO_QUERY,
      body: z.strictObject({ role: roleWord }),
      result: projectUser,
      example: { ...projectUserExample, body: { role: "owner" } },
      audit: { action: "project_member.put" },
      handler: async ({ allowed, transaction, params, body }) => {
        const project = await projectOf(transaction, params.project);
        const present = await members.getInProject(transaction, allowed, project, params.id);
        return putAnswer(await members.putInProject(transaction, allowed, project, present.member.id, projectRoles(body.role)));
      },
    }),
    route({
      id: "organization_project_users.delete",
      method: "DELETE",
      path: `${path}/{id}`,
      summary: "Take a user out of the project.",
      permission: "members:write",
      reach: "organization",
      params: projectUserParams,
      query: NO_QUERY,
      body: null,
      result: deletedResult("organization.project.user.deleted"),
      example: projectUserExample,
      audit: { action: "project_member.remove" },
      handler: async ({ allowed, transaction, params }) => {
        const project = await projectOf(transaction, params.project);
        const before = await members.removeFromProject(transaction, allowed, project, params.id);
        return {
          body: { id: before.member.id, object: "organization.project.user.deleted", deleted: true },
          change: { target: before.member.id, before, after: null },
          configurationChanged: true,
        };
      },
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

const EXAMPLE_EMAIL = "ada@example.com";
const userParams = z.strictObject({ id: pathPart });
const userExample = { params: { id: EXAMPLE_EMAIL } };
const projectParams = z.strictObject({ project: pathPart });
const projectExample = { project: "example" };
const projectUserParams = projectParams.extend({ id: pathPart });
const projectUserExample = { params: { ...projectExample, id: EXAMPLE_EMAIL } };

export const user = z.object({
  id: z.string(),
  object: z.literal("organization.user"),
  name: z.string().nullable(),
  email: z.string().nullable(),
  role: z.string(),
  roles: z.array(z.string()).describe("Ours, with those the identity provider gives."),
  projects: z.object({
    object: z.literal("list"),
    data: z.array(z.object({ id: z.string(), name: z.string().nullable(), role: z.string() })),
  }),
  added_at: unixSeconds,
});

/** The fields of OpenAI's that are about a person's taste are taken where they say nothing. */
const userChange = z.strictObject({
  role: roleWord.nullable().optional(),
  role_id: roleWord.nullable().optional(),
  developer_persona: z.null().optional(),
  technical_level: z.null().optional(),
});

const projectUser = z.object({
  id: z.string(),
  object: z.literal("organization.project.user"),
  name: z.string().nullable(),
  email: z.string().nullable(),
  role: z.string(),
  roles: z.array(z.string()).describe("Ours, with those the identity provider gives."),
  added_at: unixSeconds,
});

export function userOf(view: MemberView): z.infer<typeof user> {
  const roles = [...new Set([...view.roles, ...view.claimed_roles])];
  const data = view.projects.map((held) => ({
    id: held.project,
    name: held.name,
    role: projectRole([...held.roles, ...held.claimed_roles]),
  }));
  return {
    id: view.id,
    object: "organization.user",
    name: view.display_name,
    email: view.email,
    role: organizationRole(roles),
    roles,
    projects: { object: "list", data },
    added_at: view.created_at,
  };
}

function projectUserOf(view: ProjectMemberView): z.infer<typeof projectUser> {
  const roles = [...new Set([...view.roles, ...view.claimed_roles])];
  const { id, display_name: name, email } = view.member;
  return { id, object: "organization.project.user", name, email, role: projectRole(roles), roles, added_at: view.added_at };
}

function putAnswer({ before, after }: { before: ProjectMemberView | null; after: ProjectMemberView }) {
  return { body: projectUserOf(after), change: { target: after.member.id, before, after }, configurationChanged: true };
}
