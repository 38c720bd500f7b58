import { z } from "zod";
import { routeBuilder } from "../../kernel/route.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import { listObject, listQuery, NO_QUERY, pathPart, toListObject, unixSeconds } from "../../storage/snapshot/index.ts";
import type { Proofs } from "../identity/index.ts";
import type { ProjectVerbs, ProjectView } from "./service.ts";

/** `/v1/organization/projects`, as OpenAI's Admin API has them (node_modules/openai/resources/admin/organization/projects). */
export function organizationProjectRoutes(projects: ProjectVerbs) {
  const path = "/v1/organization/projects";
  return [
    route({
      id: "organization_projects.create",
      method: "POST",
      path,
      summary: "Create a project. 'name' may be any text: what names it in paths is made of it.",
      permission: "projects:write",
      reach: "organization",
      params: z.strictObject({}),
      query: NO_QUERY,
      body: z.strictObject({ name: projectName, ...UNOFFERED, residency: z.null().optional() }),
      result: project,
      example: { params: {}, body: { name: "Example project" } },
      audit: { action: "project.put" },
      handler: async ({ allowed, transaction, body }) => {
        const after = await projects.create(transaction, allowed, body.name);
        return { body: projectOf(after), change: { target: after.id, before: null, after }, configurationChanged: true };
      },
    }),
    route({
      id: "organization_projects.list",
      method: "GET",
      path,
      summary: "List the organization's projects, oldest first.",
      permission: "projects:read",
      reach: "organization",
      params: z.strictObject({}),
      query: listQuery.extend({ include_archived: z.enum(["true", "false"]).default("false") }),
      body: null,
      result: listObject(project),
      example: { params: {} },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({
        body: toListObject(await projects.list(transaction, allowed, query, query.include_archived === "true"), projectOf),
      }),
    }),
    route({
      id: "organization_projects.get",
      method: "GET",
      path: `${path}/{project}`,
      summary: "Read a project.",
      permission: "projects:read",
      reach: "organization",
      params: projectParams,
      query: NO_QUERY,
      body: null,
      result: project,
      example: projectExample,
      audit: null,
      handler: async ({ allowed, transaction, params }) => ({
        body: projectOf((await projects.get(transaction, allowed, params.project)).view),
      }),
    }),
    route({
      id: "organization_projects.update",
      method: "POST",
      path: `${path}/{project}`,
      summary: "Change the name that a project is shown by; what names it in paths stays.",
      permission: "projects:write",
      reach: "organization",
      params: projectParams,
      query: NO_QUERY,
      body: z.strictObject({ name: projectName.nullable().optional(), ...UNOFFERED }),
      result: project,
      example: { ...projectExample, body: { name: "Example project" } },
      audit: { action: "project.put" },
      handler: async ({ allowed, transaction, params, body }) => {
        const { before, after } = await projects.change(transaction, allowed, params.project, { display_name: body.name ?? undefined });
        return { body: projectOf(after), change: { target: after.id, before, after }, configurationChanged: true };
      },
    }),
    route({
      id: "organization_projects.archive",
      method: "POST",
      path: `${path}/{project}/archive`,
      summary: "Archive a project: its keys and service accounts end with it, its usage and ledger stay.",
      permission: "projects:write",
      reach: "organization",
      params: projectParams,
      query: NO_QUERY,
      body: z.strictObject({}),
      result: project,
      example: projectExample,
      audit: { action: "project.archive" },
      handler: async ({ allowed, transaction, params }) => {
        const { before, archivedAt } = await projects.archive(transaction, allowed, params.project, null);
        return {
          body: projectOf({ ...before, archived_at: archivedAt }),
          change: { target: before.id, before, after: null },
          configurationChanged: true,
        };
      },
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

const projectParams = z.strictObject({ project: pathPart });
const projectExample = { params: { project: "example" } };
const projectName = z.string().trim().min(1).max(200);
/** Taken where they ask for nothing: keys of one's own and places of storage are the platform's to offer. */
const UNOFFERED = { external_key_id: z.null().optional(), geography: z.null().optional() };

const project = z.object({
  id: z.string(),
  object: z.literal("organization.project"),
  name: z.string(),
  status: z.enum(["active", "archived"]),
  created_at: unixSeconds,
  archived_at: unixSeconds.nullable(),
  external_key_id: z.null(),
});

function projectOf(view: ProjectView): z.infer<typeof project> {
  return {
    id: view.id,
    object: "organization.project",
    name: view.display_name ?? view.name,
    status: view.archived_at === undefined ? "active" : "archived",
    created_at: view.created_at,
    archived_at: view.archived_at ?? null,
    external_key_id: null,
  };
}
