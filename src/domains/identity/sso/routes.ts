import { z } from "zod";
import { BOUNDS } from "../../../kernel/bounds.ts";
import { routeBuilder } from "../../../kernel/route.ts";
import type { TenantTransaction } from "../../../storage/database/index.ts";
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
} from "../../../storage/snapshot/index.ts";
import type { Proofs } from "../model.ts";
import { ROLES } from "../permissions.ts";
import { ALGORITHMS } from "./model.ts";
import type { ProviderVerbs } from "./providers.ts";

/** The same four verbs on a tenant's identity providers and on the platform's own. */
export function ssoRoutes(providers: ProviderVerbs) {
  return [
    ...providerRoutes(providers, {
      id: "identity_providers",
      leaf: "identity_provider",
      above: "/admin/v1/tenants/{tenant}",
      whose: "of a tenant",
      read: "identity_providers:read",
      write: "identity_providers:write",
      reach: "path",
      parent: z.strictObject({ tenant: pathPart }),
      example: { params: { tenant: "example" }, role: "developer" },
    }),
    ...providerRoutes(providers, {
      id: "platform_identity_providers",
      leaf: "platform_identity_provider",
      above: "/admin/v1",
      whose: "of the platform, for its own people",
      read: "platform:identity_providers:read",
      write: "platform:identity_providers:write",
      reach: "platform",
      parent: z.strictObject({}),
      example: { params: {}, role: "platform_engineer" },
    }),
  ];
}

interface ProviderCollection<Read extends keyof Proofs, Write extends keyof Proofs> {
  readonly id: string;
  /** The path parameter. */
  readonly leaf: string;
  readonly above: string;
  readonly whose: string;
  readonly read: Read;
  readonly write: Write;
  readonly reach: "path" | "platform";
  readonly parent: z.ZodObject<Record<string, typeof pathPart>, z.core.$strict>;
  readonly example: { readonly params: Readonly<Record<string, string>>; readonly role: string };
}

type ReadPermission = "identity_providers:read" | "platform:identity_providers:read";
type WritePermission = "identity_providers:write" | "platform:identity_providers:write";

function providerRoutes<Read extends ReadPermission, Write extends WritePermission>(
  providers: ProviderVerbs,
  { id, leaf, above, whose, read, write, reach, parent, example }: ProviderCollection<Read, Write>,
) {
  const collection = `${above}/identity_providers`;
  const item = { path: `${collection}/{${leaf}}`, params: parent.extend({ [leaf]: pathPart }) };
  const itemExample = { params: { ...example.params, [leaf]: "example" } };
  const nameOf = (params: Readonly<Record<string, unknown>>): string => params[leaf] as string;
  return [
    route({
      id: `${id}.put`,
      method: "PUT",
      ...item,
      summary: `Create or change an OpenID provider ${whose}: for sign-in to the console, and for bearer tokens. The secret is never shown again.`,
      permission: write,
      reach,
      query: NO_QUERY,
      body: providerFields,
      result: providerView,
      example: {
        ...itemExample,
        body: {
          display_name: "Example",
          issuer: "https://id.example.com",
          client_id: "atrium",
          client_secret: "the provider's",
          group_roles: [{ group: "ml-engineers", role: example.role }],
          auto_provision: true,
        },
      },
      audit: { action: "identity_provider.put" },
      handler: async ({ allowed, transaction, params, body, ifMatch }) =>
        writtenAnswer(await providers.put(transaction, allowed, nameOf(params), body, ifMatch)),
    }),
    route({
      id: `${id}.list`,
      method: "GET",
      path: collection,
      summary: `List the identity providers ${whose}, never their secrets.`,
      permission: read,
      reach,
      params: parent,
      query: listQuery,
      body: null,
      result: pageOf(providerView),
      example: { params: example.params },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({ body: await providers.list(transaction, allowed, query) }),
    }),
    route({
      id: `${id}.get`,
      method: "GET",
      ...item,
      summary: `Read an identity provider ${whose}, never its secret.`,
      permission: read,
      reach,
      query: NO_QUERY,
      body: null,
      result: providerView,
      example: itemExample,
      audit: null,
      handler: async ({ allowed, transaction, params }) => {
        const { view, revision } = await providers.get(transaction, allowed, nameOf(params));
        return { body: view, revision };
      },
    }),
    route({
      id: `${id}.delete`,
      method: "DELETE",
      ...item,
      summary: `Delete an identity provider ${whose}: nobody signs in with it any more, and its tokens are refused.`,
      permission: write,
      reach,
      query: NO_QUERY,
      body: null,
      result: deletedView,
      example: itemExample,
      audit: { action: "identity_provider.delete" },
      handler: async ({ allowed, transaction, params, ifMatch }) =>
        archivedAnswer(await providers.archive(transaction, allowed, nameOf(params), ifMatch)),
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

const word = z
  .string()
  .min(1)
  .max(200)
  .regex(/^[\x21-\x7e]+$/);
const claimName = z.string().min(1).max(200);
const role = z.enum(Object.keys(ROLES));

const providerFields = z.strictObject({
  display_name: displayName.optional(),
  issuer: z.string().min(1).max(500).optional().describe("Exactly as the provider's tokens have it in `iss`. Needed for a new provider."),
  client_id: word.nullable().optional().describe("For sign-in to the console. Null: nobody signs in with it."),
  client_secret: z.string().min(1).max(1_000).nullable().optional().describe("Write-only. Null: a public client, with PKCE alone."),
  audiences: z
    .array(word)
    .max(20)
    .optional()
    .describe("`aud` of bearer tokens that are meant for this installation. Empty: none are accepted."),
  algorithms: z.array(z.enum(ALGORITHMS)).min(1).max(ALGORITHMS.length).optional(),
  scopes: z
    .array(word)
    .min(1)
    .max(20)
    .refine((scopes) => scopes.includes("openid"), "must hold 'openid'")
    .optional(),
  groups_claim: claimName.optional().describe("The claim that lists groups: its name, or a path with dots."),
  project_claim: claimName
    .nullable()
    .optional()
    .describe("The claim of bearer tokens that names their project. Null: the subject's only project."),
  group_roles: z
    .array(
      z.strictObject({
        group: z.string().min(1).max(256),
        role,
        project: z.string().min(1).max(BOUNDS.nameLength).nullable().optional(),
      }),
    )
    .max(200)
    .optional()
    .describe("What each group may do, in the whole tenant or in one project. The group `*` is everybody of the `email_domains`."),
  email_domains: z
    .array(
      z
        .string()
        .max(253)
        .regex(/^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$/),
    )
    .max(50)
    .optional()
    .describe("Only verified emails of these may sign in. Empty: any."),
  trust_email: z.boolean().optional().describe("Whether an email counts as verified where the provider does not say (`email_verified`)."),
  auto_provision: z.boolean().optional().describe("Whether somebody unknown, with a role of a group, becomes a member by signing in."),
});

const providerView = z.object({
  id: z.string(),
  name: z.string(),
  display_name: z.string().nullable(),
  issuer: z.string(),
  client_id: z.string().nullable(),
  has_client_secret: z.boolean(),
  redirect_path: z.string().describe("Below the console's URL: what the provider must know as redirect URI."),
  audiences: z.array(z.string()),
  algorithms: z.array(z.enum(ALGORITHMS)),
  scopes: z.array(z.string()),
  groups_claim: z.string(),
  project_claim: z.string().nullable(),
  group_roles: z.array(z.object({ group: z.string(), role: z.string(), project: z.string().nullable() })),
  email_domains: z.array(z.string()),
  trust_email: z.boolean(),
  auto_provision: z.boolean(),
  created_at: unixSeconds,
  updated_at: unixSeconds,
});
