import { z } from "zod";
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
import type { Permission, Proofs } from "../../identity/index.ts";
import { type AdjustmentVerbs, createAdjustmentVerbs } from "./adjustments.ts";
import { MAX_THRESHOLDS, MODES, SCOPES, UNITS } from "./model.ts";
import type { BudgetVerbsNeeds } from "./needs.ts";
import { spendRoutes } from "./organization.ts";
import { type BudgetVerbs, createBudgetVerbs } from "./service.ts";
import { createSpendVerbs } from "./spend.ts";

/** Budgets of a tenant and of the platform, and adjustments of what tenants were charged. */
export function budgetRoutes(needs: BudgetVerbsNeeds) {
  return [
    ...spendRoutes(createSpendVerbs(createBudgetVerbs(needs), needs.makeId), needs.projectOf),
    ...routesBelow<"budgets:read", "budgets:write">({
      what: "budget",
      above: "/admin/v1/tenants/{tenant}",
      whose: "of a tenant",
      read: "budgets:read",
      write: "budgets:write",
      reach: "path",
      parent: z.strictObject({ tenant: pathPart }),
      example: { tenant: "example" },
      scope: "tenant",
      verbs: createBudgetVerbs(needs),
    }),
    ...routesBelow<"platform:budgets:read", "platform:budgets:write">({
      what: "platform_budget",
      above: "/admin/v1",
      whose: "of the platform: over all tenants together",
      read: "platform:budgets:read",
      write: "platform:budgets:write",
      reach: "platform",
      parent: z.strictObject({}),
      example: {},
      scope: "platform",
      verbs: createBudgetVerbs(needs),
    }),
    ...adjustmentRoutes(createAdjustmentVerbs(needs)),
  ];
}

function routesBelow<Read extends Permission, Write extends Permission>(family: {
  /** The path parameter and, in the plural, the routes. */
  readonly what: string;
  readonly above: string;
  readonly whose: string;
  readonly read: Read;
  readonly write: Write;
  readonly reach: "path" | "platform";
  readonly parent: z.ZodObject<z.core.$ZodLooseShape, z.core.$strict>;
  readonly example: Readonly<Record<string, string>>;
  readonly scope: "tenant" | "platform";
  readonly verbs: BudgetVerbs<Read, Write>;
}) {
  const { what, above, whose, reach, parent, verbs } = family;
  const params = parent.extend({ [what]: pathPart });
  const example = { ...family.example, [what]: "example" };
  const path = `${above}/budgets/{${what}}`;
  const nameIn = (given: Readonly<Record<string, unknown>>): string => given[what] as string;
  return [
    route({
      id: `${what}s.put`,
      method: "PUT",
      path,
      summary: `Create or change a budget ${whose}. Omitted fields keep their value, null clears. What is spent is counted anew where scope, unit or window change.`,
      permission: family.write,
      reach,
      params,
      query: NO_QUERY,
      body: budgetBody,
      result: budgetResult,
      example: {
        params: example,
        body: { display_name: "Example", scope: { kind: family.scope }, unit: "usd", window: "month", cap: "1000" },
      },
      audit: { action: `${what}.put` },
      handler: async ({ allowed, transaction, params: given, body, ifMatch }) =>
        writtenAnswer(await verbs.put(transaction, allowed, nameIn(given), body, ifMatch)),
    }),
    route({
      id: `${what}s.list`,
      method: "GET",
      path: `${above}/budgets`,
      summary: `List the budgets ${whose}, oldest first, each with what is spent.`,
      permission: family.read,
      reach,
      params: parent,
      query: listQuery,
      body: null,
      result: pageOf(budgetResult),
      example: { params: family.example },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({ body: await verbs.list(transaction, allowed, query) }),
    }),
    route({
      id: `${what}s.get`,
      method: "GET",
      path,
      summary: `Read a budget ${whose}, and what is spent of it.`,
      permission: family.read,
      reach,
      params,
      query: NO_QUERY,
      body: null,
      result: budgetResult,
      example: { params: example },
      audit: null,
      handler: async ({ allowed, transaction, params: given }) => {
        const { view, revision } = await verbs.get(transaction, allowed, nameIn(given));
        return { body: view, revision };
      },
    }),
    route({
      id: `${what}s.balances`,
      method: "GET",
      path: `${path}/balances`,
      summary: `List what is spent of a budget ${whose} in the window in force, for each project, key, user or feature that it counts apart.`,
      permission: family.read,
      reach,
      params,
      query: listQuery,
      body: null,
      result: pageOf(balanceResult),
      example: { params: example },
      audit: null,
      handler: async ({ allowed, transaction, params: given, query }) => ({
        body: await verbs.balances(transaction, allowed, nameIn(given), query),
      }),
    }),
    route({
      id: `${what}s.delete`,
      method: "DELETE",
      path,
      summary: `End a budget ${whose}. Its name becomes free.`,
      permission: family.write,
      reach,
      params,
      query: NO_QUERY,
      body: null,
      result: deletedView,
      example: { params: example },
      audit: { action: `${what}.archive` },
      handler: async ({ allowed, transaction, params: given, ifMatch }) =>
        archivedAnswer(await verbs.archive(transaction, allowed, nameIn(given), ifMatch)),
    }),
  ];
}

function adjustmentRoutes(adjustments: AdjustmentVerbs) {
  return [
    route({
      id: "adjustments.create",
      method: "POST",
      path: "/admin/v1/tenants/{tenant}/adjustments",
      summary:
        "Charge a tenant, or give back to it, beside its calls: counted in budgets of money, in the windows in force. Never changed or deleted.",
      permission: "platform:budgets:write",
      reach: "platform",
      params: tenantParams,
      query: NO_QUERY,
      body: adjustmentBody,
      result: adjustmentResult,
      example: { params: { tenant: "example" }, body: { amount: "-5.25", reason: "Outage of 2026-11-03" } },
      audit: { action: "adjustment.create" },
      handler: async ({ allowed, transaction, params, body }) => {
        const { tenant, view } = await adjustments.create(transaction, allowed, params.tenant, body);
        const change = { target: view.id, before: null, after: view };
        return { status: 201, body: view, change, configurationChanged: true, tenantsChanged: [tenant] };
      },
    }),
    route({
      id: "adjustments.list",
      method: "GET",
      path: "/admin/v1/tenants/{tenant}/adjustments",
      summary: "List a tenant's adjustments, oldest first.",
      permission: "budgets:read",
      reach: "path",
      params: tenantParams,
      query: listQuery,
      body: null,
      result: pageOf(adjustmentResult),
      example: { params: { tenant: "example" } },
      audit: null,
      handler: async ({ allowed, transaction, query }) => ({ body: await adjustments.list(transaction, allowed, query) }),
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

const tenantParams = z.strictObject({ tenant: pathPart });
const tag = z.string().min(1).max(200);

const scopeBody = z
  .strictObject({
    kind: z.enum(SCOPES),
    project: pathPart.optional(),
    key: pathPart.optional(),
    user: tag.optional(),
    feature: tag.optional(),
  })
  .describe(
    "Whose calls are counted together. A kind without the name of a project, key, user or feature is each one of them, with a balance of its own.",
  );

const budgetBody = z.strictObject({
  display_name: displayName.optional(),
  scope: scopeBody.optional(),
  unit: z
    .enum(UNITS)
    .optional()
    .describe("'usd' (what the tenant is charged), 'tokens' (input and output) or 'requests' (attempts to call a model)."),
  window: z
    .string()
    .max(20)
    .optional()
    .describe(
      "'day', 'week' (from Monday) or 'month' in the tenant's time zone; 'total' since ever; 'rolling' (24 hours), 'rolling_<n>h' or 'rolling_<n>d'.",
    ),
  cap: z.string().max(40).optional().describe("A decimal string: USD with at most 12 decimals, or a whole number of tokens or requests."),
  mode: z
    .enum(MODES)
    .nullable()
    .optional()
    .describe(
      "What happens to a call that does not fit: 'reject' (the default), 'wait', 'clamp' (a shorter answer is asked for), or 'soft' (it passes; thresholds only alert).",
    ),
  thresholds: z
    .array(z.number().int().min(1).max(1000))
    .max(MAX_THRESHOLDS)
    .nullable()
    .optional()
    .describe("Percents of the cap that are told of when they are reached, each once a window: 50, 80 and 100 unless told otherwise."),
});

const standing = {
  spent: z.string(),
  held: z.string().describe("By calls in flight."),
  remaining: z.string(),
  exhausted: z.boolean(),
  window_start: unixSeconds,
  resets_at: unixSeconds.nullable(),
};

const budgetResult = z.object({
  id: z.string(),
  name: z.string(),
  display_name: z.string().nullable(),
  set_by: z.enum(["platform", "tenant"]).describe("What the platform set for a tenant, the tenant reads and cannot change."),
  scope: z.object({
    kind: z.enum(SCOPES),
    project: z.string().optional(),
    key: z.string().optional(),
    user: z.string().optional(),
    feature: z.string().optional(),
  }),
  unit: z.enum(UNITS),
  window: z.string(),
  cap: z.string(),
  mode: z.enum(MODES),
  thresholds: z.array(z.number().int()),
  spent: standing.spent
    .nullable()
    .describe("In the window in force. Null where each project, key, user or feature has a balance: list those."),
  held: standing.held.nullable(),
  remaining: standing.remaining.nullable(),
  exhausted: standing.exhausted.nullable(),
  window_start: standing.window_start.nullable(),
  resets_at: standing.resets_at.describe("Of a rolling window, when its oldest part leaves."),
  created_at: unixSeconds,
  updated_at: unixSeconds,
});

const balanceResult = z.object({
  id: z.string(),
  subject: z.string().nullable().describe("The project, key, user or feature; null for calls that name none."),
  ...standing,
});

const adjustmentBody = z.strictObject({
  amount: z.string().max(40).describe("USD as a decimal string: negative gives back."),
  project: pathPart.optional(),
  key: pathPart.optional(),
  user: tag.optional(),
  feature: tag.optional(),
  reason: z.string().min(1).max(500),
});

const adjustmentResult = z.object({
  id: z.string(),
  amount: z.string(),
  project: z.string().nullable(),
  key: z.string().nullable(),
  user: z.string().nullable(),
  feature: z.string().nullable(),
  reason: z.string(),
  created_by: z.string(),
  created_at: unixSeconds,
});
