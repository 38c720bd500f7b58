import { z } from "zod";
import { routeBuilder } from "../../kernel/route.ts";
import type { TenantTransaction } from "../../storage/database/index.ts";
import { listObject, NO_QUERY, pathPart, toListObject, wholeListQuery } from "../../storage/snapshot/index.ts";
import type { Proofs } from "../identity/index.ts";
import { MAX_AMOUNT } from "./level.ts";
import type { CapacityVerbsNeeds } from "./needs.ts";
import type { RateLimitVerbs, RateLimitView } from "./rate-limits.ts";

export interface RateLimitRoutesNeeds extends Pick<CapacityVerbsNeeds, "projectOf"> {
  readonly rateLimits: RateLimitVerbs;
}

/** `/v1/organization/projects/{project}/rate_limits`, as OpenAI's Admin API has them (node_modules/openai/resources/admin/organization/projects/rate-limits.d.ts). */
export function rateLimitRoutes({ rateLimits, projectOf }: RateLimitRoutesNeeds) {
  const path = "/v1/organization/projects/{project}/rate_limits";
  return [
    route({
      id: "organization_rate_limits.list",
      method: "GET",
      path,
      summary: `List what the project may ask of each model a minute: the strictest of the limits that are about it, ${MAX_AMOUNT} where there is none.`,
      permission: "projects:read",
      reach: "organization",
      params: projectParams,
      query: wholeListQuery,
      body: null,
      result: listObject(rateLimit),
      example: { params: { project: "example" } },
      audit: null,
      handler: async ({ allowed, transaction, params, query }) => {
        const project = await projectOf(transaction, params.project);
        return { body: toListObject(await rateLimits.list(transaction, allowed, project, query), rateLimitOf) };
      },
    }),
    route({
      id: "organization_rate_limits.update",
      method: "POST",
      path: `${path}/{rate_limit}`,
      summary: `Limit the project's use of a model. What the platform set stays beside it, and the stricter one is felt and shown; ${MAX_AMOUNT} ends the own limit.`,
      permission: "projects:write",
      reach: "organization",
      params: projectParams.extend({ rate_limit: pathPart }),
      query: NO_QUERY,
      body: rateLimitBody,
      result: rateLimit,
      example: { params: { project: "example", rate_limit: "rl_example" }, body: { max_requests_per_1_minute: 600 } },
      audit: { action: "rate_limit.put" },
      handler: async ({ allowed, transaction, params, body }) => {
        const project = await projectOf(transaction, params.project);
        const fields = { requests: body.max_requests_per_1_minute, tokens: body.max_tokens_per_1_minute };
        const { before, after } = await rateLimits.change(transaction, allowed, project, params.rate_limit, fields);
        return { body: rateLimitOf(after), change: { target: after.id, before, after }, configurationChanged: true };
      },
    }),
  ];
}

const route = routeBuilder<Proofs, TenantTransaction>();

const projectParams = z.strictObject({ project: pathPart });
const amount = z.number().int().min(1).max(MAX_AMOUNT);

/** OpenAI's limits by the day, of images and of audio are none that are kept here: they are refused as unknown fields. */
const rateLimitBody = z.strictObject({
  max_requests_per_1_minute: amount.optional().describe("In any 60 seconds."),
  max_tokens_per_1_minute: amount.optional().describe("Of input and output together, in any 60 seconds."),
});

const rateLimit = z.object({
  object: z.literal("project.rate_limit"),
  id: z.string(),
  model: z.string(),
  max_requests_per_1_minute: z.number().int(),
  max_tokens_per_1_minute: z.number().int(),
});

function rateLimitOf({ id, model, requests, tokens }: RateLimitView): z.infer<typeof rateLimit> {
  return { object: "project.rate_limit", id, model, max_requests_per_1_minute: requests, max_tokens_per_1_minute: tokens };
}
