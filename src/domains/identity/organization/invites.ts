import { z } from "zod";
import { routeBuilder } from "../../../kernel/route.ts";
import type { TenantTransaction } from "../../../storage/database/index.ts";
import { listQuery, NO_QUERY, pathPart, unixSeconds } from "../../../storage/snapshot/index.ts";
import type { InvitationVerbs, InvitationView } from "../invitations.ts";
import type { Proofs } from "../model.ts";
import { organizationRole, organizationRoles, projectRole, projectRoles } from "./roles.ts";
import { deletedResult, listOf, listPage, roleWord } from "./shapes.ts";

/** `/v1/organization/invites`, as OpenAI's Admin API has them. */
export function inviteRoutes(invitations: InvitationVerbs) {
  const path = "/v1/organization/invites";
  return [
    route({
      id: "organization_invites.create",
      method: "POST",
      path,
      summary:
        "Invite somebody by email. The token is in this answer only; a sign-in with this verified address accepts the invitation as well.",
      permission: "members:write",
      reach: "organization",
      params: z.strictObject({}),
      query: NO_QUERY,
      body: creation,
      result: invite.extend({ token: z.string() }),
      example: { params: {}, body: { email: "grace@example.com", role: "reader" } },
      audit: { action: "invitation.create" },
      handler: async ({ allowed, transaction, body }) => {
        const projects = (body.projects ?? []).map(({ id, role }) => ({ project: id, roles: projectRoles(role) }));
        const fields = { email: body.email, roles: organizationRoles(body.role, []), projects };
        const { view, token } = await invitations.create(transaction, allowed, fields);
        return { body: { ...inviteOf(view), token }, change: { target: view.id, before: null, after: view }, shownOnce: ["token"] };
      },
    }),
    route({
      id: "organization_invites.list",
      method: "GET",
      path,
      summary: "List the organization's invitations, oldest first.",
      permission: "members:read",
      reach: "organization",
      params: z.strictObject({}),
      query: listQuery,
      body: null,
      result: listOf(invite),
      example: { params: {} },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({
        body: listPage(await invitations.list(transaction, allowed, query), inviteOf),
      }),
    }),
    route({
      id: "organization_invites.get",
      method: "GET",
      path: `${path}/{id}`,
      summary: "Read an invitation.",
      permission: "members:read",
      reach: "organization",
      params: inviteParams,
      query: NO_QUERY,
      body: null,
      result: invite,
      example: inviteExample,
      audit: null,
      handler: async ({ allowed, transaction, params }) => ({ body: inviteOf(await invitations.get(transaction, allowed, params.id)) }),
    }),
    route({
      id: "organization_invites.delete",
      method: "DELETE",
      path: `${path}/{id}`,
      summary: "Withdraw an invitation that nobody has accepted.",
      permission: "members:write",
      reach: "organization",
      params: inviteParams,
      query: NO_QUERY,
      body: null,
      result: deletedResult("organization.invite.deleted"),
      example: inviteExample,
      audit: { action: "invitation.withdraw" },
      handler: async ({ allowed, transaction, params }) => {
        const before = await invitations.withdraw(transaction, allowed, params.id);
        return {
          body: { id: before.id, object: "organization.invite.deleted", deleted: true },
          change: { target: before.id, before, after: null },
        };
      },
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

const inviteParams = z.strictObject({ id: pathPart });
const inviteExample = { params: { id: "01890000-0000-7000-8000-000000000000" } };

const creation = z.strictObject({
  email: z.string().min(1).max(254),
  role: roleWord,
  projects: z
    .array(z.strictObject({ id: pathPart, role: roleWord }))
    .max(100)
    .optional(),
});

const invite = z.object({
  id: z.string(),
  object: z.literal("organization.invite"),
  email: z.string(),
  role: z.string(),
  status: z.enum(["pending", "accepted", "expired"]),
  projects: z.array(z.object({ id: z.string(), role: z.string() })),
  created_at: unixSeconds,
  expires_at: unixSeconds,
  accepted_at: unixSeconds.nullable(),
});

function inviteOf(view: InvitationView): z.infer<typeof invite> {
  const { id, email, status, created_at, expires_at, accepted_at } = view;
  const projects = view.projects.map(({ project, roles }) => ({ id: project, role: projectRole(roles) }));
  return {
    id,
    object: "organization.invite",
    email,
    role: organizationRole(view.roles),
    status,
    projects,
    created_at,
    expires_at,
    accepted_at,
  };
}
