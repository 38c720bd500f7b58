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
import type { Permission, Proofs } from "../identity/index.ts";
import { MAX_AMOUNT } from "./level.ts";
import type { LimitVerbs } from "./limits.ts";
import { DIMENSIONS, SCOPES, type TierId } from "./model.ts";
import { rateLimitRoutes, type RateLimitRoutesNeeds } from "./organization.ts";
import type { TierVerbs } from "./tiers.ts";

export interface CapacityRoutesNeeds extends RateLimitRoutesNeeds {
  readonly tiers: TierVerbs;
  readonly tenantLimits: LimitVerbs<"tenant:read", "platform:tenants:write">;
  readonly platformLimits: LimitVerbs<"platform:tenants:read", "platform:tenants:write">;
}

export function capacityRoutes({ tiers, tenantLimits, platformLimits, ...ofOrganizations }: CapacityRoutesNeeds) {
  return [
    ...rateLimitRoutes(ofOrganizations),
    ...limitRoutes({
      what: "tenant_limit",
      above: "/admin/v1/tenants/{tenant}",
      whose: "of a tenant",
      read: "tenant:read",
      write: "platform:tenants:write",
      reach: "path",
      parent: z.strictObject({ tenant: pathPart }),
      example: { tenant: "example" },
      verbs: tenantLimits,
      tierOf: async () => null,
    }),
    ...tierRoutes(tiers),
    ...limitRoutes({
      what: "tier_limit",
      above: "/admin/v1/tiers/{tier}",
      whose: "of every tenant of a tier",
      read: "platform:tenants:read",
      write: "platform:tenants:write",
      reach: "platform",
      parent: z.strictObject({ tier: pathPart }),
      example: { tier: "example" },
      verbs: platformLimits,
      tierOf: (tx, params, isWrite) => (isWrite ? tiers.lock : tiers.idOf)(tx, params["tier"] as string),
    }),
    ...limitRoutes({
      what: "platform_limit",
      above: "/admin/v1",
      whose: "of every tenant, or of a model or deployment that all share",
      read: "platform:tenants:read",
      write: "platform:tenants:write",
      reach: "platform",
      parent: z.strictObject({}),
      example: {},
      verbs: platformLimits,
      tierOf: async () => null,
    }),
  ];
}

/** The four routes of the limits below one kind of parent. */
function limitRoutes<Read extends Permission, Write extends Permission>(family: {
  /** The path parameter, the audit action and, in the plural, the routes. */
  readonly what: string;
  readonly above: string;
  readonly whose: string;
  readonly read: Read;
  readonly write: Write;
  readonly reach: "path" | "platform";
  readonly parent: z.ZodObject<z.core.$ZodLooseShape, z.core.$strict>;
  readonly example: Readonly<Record<string, string>>;
  readonly verbs: LimitVerbs<Read, Write>;
  readonly tierOf: (tx: TenantTransaction, params: Readonly<Record<string, unknown>>, isWrite: boolean) => Promise<TierId | null>;
}) {
  const { what, above, whose, reach, parent, verbs, tierOf } = family;
  const params = parent.extend({ [what]: pathPart });
  const example = { ...family.example, [what]: "example" };
  const path = `${above}/limits/{${what}}`;
  const nameIn = (given: Readonly<Record<string, unknown>>): string => given[what] as string;
  return [
    route({
      id: `${what}s.put`,
      method: "PUT",
      path,
      summary: `Create or change a limit ${whose}. Omitted fields keep their value, null clears; what was counted stays counted.`,
      permission: family.write,
      reach,
      params,
      query: NO_QUERY,
      body: limitBody,
      result: limitResult,
      example: { params: example, body: { display_name: "Example", scope: { kind: "tenant" }, dimension: "requests", limit: 600 } },
      audit: { action: `${what}.put` },
      handler: async ({ allowed, transaction, params: given, body, ifMatch }) =>
        writtenAnswer(await verbs.put(transaction, allowed, await tierOf(transaction, given, true), nameIn(given), body, ifMatch)),
    }),
    route({
      id: `${what}s.list`,
      method: "GET",
      path: `${above}/limits`,
      summary: `List the limits ${whose}, oldest first.`,
      permission: family.read,
      reach,
      params: parent,
      query: listQuery,
      body: null,
      result: pageOf(limitResult),
      example: { params: family.example },
      audit: null,
      handler: async ({ allowed, transaction, params: given, query }) => ({
        body: await verbs.list(transaction, allowed, await tierOf(transaction, given, false), query),
      }),
    }),
    route({
      id: `${what}s.get`,
      method: "GET",
      path,
      summary: `Read a limit ${whose}.`,
      permission: family.read,
      reach,
      params,
      query: NO_QUERY,
      body: null,
      result: limitResult,
      example: { params: example },
      audit: null,
      handler: async ({ allowed, transaction, params: given }) => {
        const { view, revision } = await verbs.get(transaction, allowed, await tierOf(transaction, given, false), nameIn(given));
        return { body: view, revision };
      },
    }),
    route({
      id: `${what}s.delete`,
      method: "DELETE",
      path,
      summary: `End a limit ${whose}. Its name becomes free.`,
      permission: family.write,
      reach,
      params,
      query: NO_QUERY,
      body: null,
      result: deletedView,
      example: { params: example },
      audit: { action: `${what}.archive` },
      handler: async ({ allowed, transaction, params: given, ifMatch }) =>
        archivedAnswer(await verbs.archive(transaction, allowed, await tierOf(transaction, given, true), nameIn(given), ifMatch)),
    }),
  ];
}

function tierRoutes(tiers: TierVerbs) {
  return [
    route({
      id: "tiers.put",
      method: "PUT",
      path: "/admin/v1/tiers/{tier}",
      summary: "Create or change a tier: limits for all tenants whose 'tier' is its name.",
      permission: "platform:tenants:write",
      reach: "platform",
      params: tierParams,
      query: NO_QUERY,
      body: tierBody,
      result: tierResult,
      example: { params: { tier: "example" }, body: { display_name: "Example" } },
      audit: { action: "tier.put" },
      handler: async ({ allowed, transaction, params, body, ifMatch }) =>
        writtenAnswer(await tiers.put(transaction, allowed, params.tier, body, ifMatch)),
    }),
    route({
      id: "tiers.list",
      method: "GET",
      path: "/admin/v1/tiers",
      summary: "List the tiers, oldest first.",
      permission: "platform:tenants:read",
      reach: "platform",
      params: z.strictObject({}),
      query: listQuery,
      body: null,
      result: pageOf(tierResult),
      example: { params: {} },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({ body: await tiers.list(transaction, allowed, query) }),
    }),
    route({
      id: "tiers.get",
      method: "GET",
      path: "/admin/v1/tiers/{tier}",
      summary: "Read a tier.",
      permission: "platform:tenants:read",
      reach: "platform",
      params: tierParams,
      query: NO_QUERY,
      body: null,
      result: tierResult,
      example: { params: { tier: "example" } },
      audit: null,
      handler: async ({ allowed, transaction, params }) => {
        const { view, revision } = await tiers.get(transaction, allowed, params.tier);
        return { body: view, revision };
      },
    }),
    route({
      id: "tiers.delete",
      method: "DELETE",
      path: "/admin/v1/tiers/{tier}",
      summary: "End a tier and its limits. Its name becomes free; tenants keep it, and it means nothing until a tier of that name is made.",
      permission: "platform:tenants:write",
      reach: "platform",
      params: tierParams,
      query: NO_QUERY,
      body: null,
      result: deletedView,
      example: { params: { tier: "example" } },
      audit: { action: "tier.archive" },
      handler: async ({ allowed, transaction, params, ifMatch }) =>
        archivedAnswer(await tiers.archive(transaction, allowed, params.tier, ifMatch)),
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

const tierParams = z.strictObject({ tier: pathPart });
const tierBody = z.strictObject({ display_name: displayName.optional() });
const tierResult = z.object({
  id: z.string(),
  name: z.string(),
  display_name: z.string().nullable(),
  created_at: unixSeconds,
  updated_at: unixSeconds,
});

const scopeBody = z
  .strictObject({
    kind: z.enum(SCOPES),
    key: pathPart.optional(),
    project: pathPart.optional(),
    model: pathPart.optional(),
    deployment: pathPart.optional(),
  })
  .describe(
    "What is counted together. A kind without the name of a key, project or model is each one of them; 'model' beside any kind counts its calls only.",
  );

const amount = z.number().int().min(1).max(MAX_AMOUNT);

const limitBody = z.strictObject({
  display_name: displayName.optional(),
  scope: scopeBody.optional(),
  dimension: z
    .enum(DIMENSIONS)
    .optional()
    .describe(
      "'requests', 'tokens' (input and output), 'concurrency' (calls at once) or 'prefix_tokens' (of prompt prefixes not seen in ten minutes).",
    ),
  limit: amount.optional().describe("Per minute; of 'concurrency', at once."),
  per: z.literal("minute").nullable().optional().describe("The only unit of time: what resets daily is a budget."),
  burst: amount
    .nullable()
    .optional()
    .describe("The most that one moment can take. A sixth of the limit for requests, all of it for tokens, unless told otherwise."),
  window: z
    .enum(["gcra", "sliding"])
    .nullable()
    .optional()
    .describe("'gcra': in any t seconds at most burst + limit × t / 60. 'sliding': in any 60 seconds at most the limit."),
  mode: z
    .enum(["estimated", "strict"])
    .nullable()
    .optional()
    .describe(
      "Of tokens. 'estimated': an estimate is charged, and corrected when the call has ended. 'strict': the most it can use is held until then.",
    ),
});

const limitResult = z.object({
  id: z.string(),
  name: z.string(),
  display_name: z.string().nullable(),
  set_by: z.enum(["platform", "tenant"]).describe("What a tenant set itself, for a project of its own, is beside what the platform set."),
  scope: z.object({
    kind: z.enum(SCOPES),
    key: z.string().optional(),
    project: z.string().optional(),
    model: z.string().optional(),
    deployment: z.string().optional(),
  }),
  dimension: z.enum(DIMENSIONS),
  limit: z.number().int(),
  per: z.literal("minute").nullable(),
  burst: z.number().int().nullable(),
  window: z.enum(["gcra", "sliding"]).nullable(),
  mode: z.enum(["estimated", "strict"]).nullable(),
  created_at: unixSeconds,
  updated_at: unixSeconds,
});
