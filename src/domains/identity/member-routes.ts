import { z } from "zod";
import { routeBuilder } from "../../kernel/route.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import {
  archivedAnswer,
  deletedView,
  displayName,
  listQuery,
  NO_QUERY,
  pageOf,
  pathPart,
  unixSeconds,
  writtenAnswer,
} from "../../storage/snapshot/index.ts";
import type { MemberVerbs } from "./members.ts";
import type { Proofs } from "./model.ts";
import { isRole, ROLES } from "./permissions.ts";

/** The same four verbs on the members of a tenant and on the platform's own. */
export function memberRoutes(members: MemberVerbs) {
  return [
    ...collection<"members:read", "members:write">(members, {
      id: "members",
      path: "/admin/v1/tenants/{tenant}/members",
      whose: "of the tenant",
      read: "members:read",
      write: "members:write",
      reach: "path",
      params: z.strictObject({ tenant: pathPart }),
      itemParams: z.strictObject({ tenant: pathPart, member: pathPart }),
      example: { params: { tenant: "example" }, body: { roles: ["auditor"], projects: [{ project: "example", roles: ["developer"] }] } },
    }),
    ...collection<"platform:members:read", "platform:members:write">(members, {
      id: "platform_members",
      path: "/admin/v1/members",
      whose: "of the platform",
      read: "platform:members:read",
      write: "platform:members:write",
      reach: "platform",
      params: z.strictObject({}),
      itemParams: z.strictObject({ member: pathPart }),
      example: { params: {}, body: { roles: ["platform_engineer"] } },
    }),
  ];
}

interface MemberCollection<Read extends keyof Proofs, Write extends keyof Proofs> {
  readonly id: string;
  readonly path: string;
  readonly whose: string;
  readonly read: Read;
  readonly write: Write;
  readonly reach: "path" | "platform";
  readonly params: z.ZodType<object>;
  readonly itemParams: z.ZodType<{ member: string }>;
  readonly example: { readonly params: Readonly<Record<string, string>>; readonly body: unknown };
}

type ReadPermission = "members:read" | "platform:members:read";
type WritePermission = "members:write" | "platform:members:write";

function collection<Read extends ReadPermission, Write extends WritePermission>(members: MemberVerbs, at: MemberCollection<Read, Write>) {
  const { reach } = at;
  const item = { params: { ...at.example.params, member: "ada@example.com" } };
  return [
    route({
      id: `${at.id}.put`,
      method: "PUT",
      path: `${at.path}/{member}`,
      summary: `Add or change a member ${at.whose}, by email or id: whoever signs in with this verified address is this member. Omitted fields keep their value.`,
      permission: at.write,
      reach,
      params: at.itemParams,
      query: NO_QUERY,
      body: memberBody,
      result: memberResult,
      example: { ...item, body: at.example.body },
      audit: { action: "member.put" },
      handler: async ({ allowed, transaction, params, body, ifMatch }) =>
        writtenAnswer(await members.put(transaction, allowed, params.member, body, ifMatch)),
    }),
    route({
      id: `${at.id}.list`,
      method: "GET",
      path: at.path,
      summary: `List the members ${at.whose}, oldest first.`,
      permission: at.read,
      reach,
      params: at.params,
      query: listQuery,
      body: null,
      result: pageOf(memberResult),
      example: { params: at.example.params },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({ body: await members.list(transaction, allowed, query) }),
    }),
    route({
      id: `${at.id}.get`,
      method: "GET",
      path: `${at.path}/{member}`,
      summary: `Read a member ${at.whose}.`,
      permission: at.read,
      reach,
      params: at.itemParams,
      query: NO_QUERY,
      body: null,
      result: memberResult,
      example: item,
      audit: null,
      handler: async ({ allowed, transaction, params }) => {
        const { view, revision } = await members.get(transaction, allowed, params.member);
        return { body: view, revision };
      },
    }),
    route({
      id: `${at.id}.delete`,
      method: "DELETE",
      path: `${at.path}/{member}`,
      summary: `Remove a member ${at.whose}: within a second nothing that it created works any more.`,
      permission: at.write,
      reach,
      params: at.itemParams,
      query: NO_QUERY,
      body: null,
      result: deletedView,
      example: item,
      audit: { action: "member.remove" },
      handler: async ({ allowed, transaction, params, ifMatch }) =>
        archivedAnswer(await members.remove(transaction, allowed, params.member, ifMatch)),
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

const roleNames = z
  .array(z.string().refine(isRole, "must be one of the roles"))
  .max(Object.keys(ROLES).length)
  .describe(`Names of roles: ${Object.keys(ROLES).join(", ")}.`);

const memberBody = z.strictObject({
  display_name: displayName.optional(),
  roles: roleNames.optional(),
  projects: z
    .array(z.strictObject({ project: pathPart, roles: roleNames }))
    .max(100)
    .optional()
    .describe("All of the member's projects: one that is not named is left."),
});

const memberResult = z.object({
  id: z.string(),
  email: z.string().nullable(),
  display_name: z.string().nullable(),
  roles: z.array(z.string()),
  claimed_roles: z.array(z.string()).describe("As the identity provider had them at the last sign-in."),
  projects: z.array(
    z.object({ project: z.string(), name: z.string().nullable(), roles: z.array(z.string()), claimed_roles: z.array(z.string()) }),
  ),
  created_by: z.string(),
  created_at: unixSeconds,
});
