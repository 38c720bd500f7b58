import { z } from "zod";
import type { ProjectId } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";
import { routeBuilder } from "../../../kernel/route.ts";
import type { TenantTransaction } from "../../../storage/database/index.ts";
import { afterId, listObject, NO_QUERY, pageAmong, pathPart, toListObject, wholeListQuery } from "../../../storage/snapshot/index.ts";
import type { Proofs } from "../../identity/index.ts";
import type { BudgetVerbsNeeds } from "./needs.ts";
import type { SpendVerbs, SpendView } from "./spend.ts";

/**
 * `spend_limit` and `spend_alerts` of `/v1/organization` and of its projects, as OpenAI's Admin API has them
 * (node_modules/openai/resources/admin/organization/spend-limit.d.ts, spend-alerts.d.ts and those of projects). Amounts in cents.
 */
export function spendRoutes(spend: SpendVerbs, projectOf: BudgetVerbsNeeds["projectOf"]) {
  const ofOrganization: Family = {
    above: "/v1/organization",
    routes: "organization",
    object: "organization",
    whose: "the organization",
    parent: z.strictObject({}),
    example: {},
    projectOf: async () => null,
  };
  const ofProject: Family = {
    above: "/v1/organization/projects/{project}",
    routes: "organization_project",
    object: "project",
    whose: "a project",
    parent: z.strictObject({ project: pathPart }),
    example: { project: "example" },
    projectOf: (tx, params) => projectOf(tx, params["project"] as string),
  };
  return [ofOrganization, ofProject].flatMap((family) => [...limitRoutes(spend, family), ...alertRoutes(spend, family)]);
}

interface Family {
  readonly above: string;
  /** What the ids of its routes begin with. */
  readonly routes: string;
  /** What the names of its objects begin with. */
  readonly object: string;
  readonly whose: string;
  readonly parent: z.ZodObject<z.core.$ZodLooseShape, z.core.$strict>;
  readonly example: Readonly<Record<string, string>>;
  readonly projectOf: (tx: TenantTransaction, params: Readonly<Record<string, unknown>>) => Promise<ProjectId | null>;
}

function limitRoutes(spend: SpendVerbs, { above, routes, object, whose, parent, example, projectOf }: Family) {
  const path = `${above}/spend_limit`;
  const result = z.object({
    object: z.literal(`${object}.spend_limit`),
    ...amountFields,
    enforcement: z.object({ status: z.enum(["inactive", "enforcing"]) }).describe("'enforcing' once it is spent: calls are refused."),
  });
  const resultOf = (view: SpendView): z.infer<typeof result> => ({
    object: `${object}.spend_limit`,
    ...amountOf(view),
    enforcement: { status: view.exhausted ? "enforcing" : "inactive" },
  });
  return [
    route({
      id: `${routes}_spend_limit.update`,
      method: "POST",
      path,
      summary: `Set the hard limit of what ${whose} may spend in a month: the budget 'spend-limit', which refuses what does not fit.`,
      permission: "budgets:write",
      reach: "organization",
      params: parent,
      query: NO_QUERY,
      body: z.strictObject(amountFields),
      result,
      example: { params: example, body: { currency: "USD", interval: "month", threshold_amount: 100_000 } },
      audit: { action: "budget.put" },
      handler: async ({ allowed, transaction, params, body }) => {
        const project = await projectOf(transaction, params);
        const { before, after } = await spend.setLimit(transaction, allowed, project, body.threshold_amount);
        return { body: resultOf(after), change: { target: after.id, before, after }, configurationChanged: true };
      },
    }),
    route({
      id: `${routes}_spend_limit.get`,
      method: "GET",
      path,
      summary: `Read the hard limit of what ${whose} may spend in a month.`,
      permission: "budgets:read",
      reach: "organization",
      params: parent,
      query: NO_QUERY,
      body: null,
      result,
      example: { params: example },
      audit: null,
      handler: async ({ allowed, transaction, params }) => ({
        body: resultOf(await spend.limit(transaction, allowed, await projectOf(transaction, params))),
      }),
    }),
    route({
      id: `${routes}_spend_limit.delete`,
      method: "DELETE",
      path,
      summary: `End the hard limit of what ${whose} may spend in a month.`,
      permission: "budgets:write",
      reach: "organization",
      params: parent,
      query: NO_QUERY,
      body: null,
      result: z.object({ object: z.literal(`${object}.spend_limit.deleted`), deleted: z.literal(true) }),
      example: { params: example },
      audit: { action: "budget.archive" },
      handler: async ({ allowed, transaction, params }) => {
        const before = await spend.endLimit(transaction, allowed, await projectOf(transaction, params));
        return {
          body: { object: `${object}.spend_limit.deleted`, deleted: true as const },
          change: { target: before.id, before, after: null },
          configurationChanged: true,
        };
      },
    }),
  ];
}

function alertRoutes(spend: SpendVerbs, { above, routes, object, whose, parent, example, projectOf }: Family) {
  const path = `${above}/spend_alerts`;
  const id = `${routes}_spend_alerts`;
  const one = parent.extend({ id: pathPart });
  const oneExample = { ...example, id: "01890000-0000-7000-8000-000000000001" };
  const body = z.strictObject({ ...amountFields, notification_channel: channel });
  const bodyExample = { currency: "USD", interval: "month", threshold_amount: 80_000, notification_channel: NO_MAIL };
  const result = z.object({ object: z.literal(`${object}.spend_alert`), id: z.string(), ...amountFields, notification_channel: channel });
  const resultOf = (view: SpendView): z.infer<typeof result> => ({
    object: `${object}.spend_alert`,
    id: view.id,
    ...amountOf(view),
    notification_channel: NO_MAIL,
  });
  const idIn = (params: Readonly<Record<string, unknown>>): string => params["id"] as string;
  return [
    route({
      id: `${id}.create`,
      method: "POST",
      path,
      summary: `Have it told when ${whose} has spent an amount in a month, by the event 'budget.exhausted'; calls go on.`,
      permission: "budgets:write",
      reach: "organization",
      params: parent,
      query: NO_QUERY,
      body,
      result,
      example: { params: example, body: bodyExample },
      audit: { action: "budget.put" },
      handler: async ({ allowed, transaction, params, body: given }) => {
        refuseMail(given.notification_channel);
        const project = await projectOf(transaction, params);
        const { before, after } = await spend.createAlert(transaction, allowed, project, given.threshold_amount);
        return { body: resultOf(after), change: { target: after.id, before, after }, configurationChanged: true };
      },
    }),
    route({
      id: `${id}.list`,
      method: "GET",
      path,
      summary: `List the spend alerts of ${whose}, oldest first.`,
      permission: "budgets:read",
      reach: "organization",
      params: parent,
      query: wholeListQuery.extend({ order: z.enum(["asc", "desc"]).default("asc") }),
      body: null,
      result: listObject(result),
      example: { params: example },
      audit: null,
      handler: async ({ allowed, transaction, params, query }) => {
        for (const cursor of [query.after, query.before]) afterId(cursor);
        const alerts = await spend.alerts(transaction, allowed, await projectOf(transaction, params));
        return { body: toListObject(pageAmong(alerts, query, query.order), resultOf) };
      },
    }),
    route({
      id: `${id}.get`,
      method: "GET",
      path: `${path}/{id}`,
      summary: `Read a spend alert of ${whose}.`,
      permission: "budgets:read",
      reach: "organization",
      params: one,
      query: NO_QUERY,
      body: null,
      result,
      example: { params: oneExample },
      audit: null,
      handler: async ({ allowed, transaction, params }) => ({
        body: resultOf(await spend.alert(transaction, allowed, await projectOf(transaction, params), idIn(params))),
      }),
    }),
    route({
      id: `${id}.update`,
      method: "POST",
      path: `${path}/{id}`,
      summary: `Change the amount of a spend alert of ${whose}.`,
      permission: "budgets:write",
      reach: "organization",
      params: one,
      query: NO_QUERY,
      body,
      result,
      example: { params: oneExample, body: bodyExample },
      audit: { action: "budget.put" },
      handler: async ({ allowed, transaction, params, body: given }) => {
        refuseMail(given.notification_channel);
        const project = await projectOf(transaction, params);
        const { before, after } = await spend.changeAlert(transaction, allowed, project, idIn(params), given.threshold_amount);
        return { body: resultOf(after), change: { target: after.id, before, after }, configurationChanged: true };
      },
    }),
    route({
      id: `${id}.delete`,
      method: "DELETE",
      path: `${path}/{id}`,
      summary: `End a spend alert of ${whose}.`,
      permission: "budgets:write",
      reach: "organization",
      params: one,
      query: NO_QUERY,
      body: null,
      result: z.object({ id: z.string(), object: z.literal(`${object}.spend_alert.deleted`), deleted: z.literal(true) }),
      example: { params: oneExample },
      audit: { action: "budget.archive" },
      handler: async ({ allowed, transaction, params }) => {
        const before = await spend.endAlert(transaction, allowed, await projectOf(transaction, params), idIn(params));
        return {
          body: { id: before.id, object: `${object}.spend_alert.deleted`, deleted: true as const },
          change: { target: before.id, before, after: null },
          configurationChanged: true,
        };
      },
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

/** $10 billion. */
const MAX_CENTS = 1_000_000_000_000;

const amountFields = {
  currency: z.literal("USD"),
  interval: z.literal("month").describe("In the tenant's time zone."),
  threshold_amount: z.number().int().min(0).max(MAX_CENTS).describe("In cents."),
};

function amountOf({ cents }: SpendView) {
  return { currency: "USD" as const, interval: "month" as const, threshold_amount: cents };
}

const channel = z.strictObject({
  type: z.literal("email"),
  recipients: z.array(z.string().max(254)).max(100).describe("None: this server sends no mail. Webhooks tell."),
  subject_prefix: z.string().max(200).nullable().optional(),
});
const NO_MAIL: z.infer<typeof channel> = { type: "email", recipients: [] };

/** Who is named here would be believed to be written to. */
function refuseMail({ recipients, subject_prefix: prefix }: z.infer<typeof channel>): void {
  if (recipients.length === 0 && (prefix ?? null) === null) return;
  throw new Problem("invalid_request", {
    param: recipients.length === 0 ? "notification_channel.subject_prefix" : "notification_channel.recipients",
    message: "This server sends no mail: leave 'recipients' empty, and subscribe a webhook to 'budget.exhausted'.",
  });
}
