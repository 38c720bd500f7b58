import type { CallFacts, Refusal } from "../domains/capacity/index.ts";
import { type Deployment, type Model, priceAt } from "../domains/catalog/index.ts";
import { Problem } from "../kernel/problem.ts";
import type { RequestBound, TokenBound } from "../kernel/tokens.ts";
import { answersOf, boundOf, ownerOf } from "./bound.ts";
import { advance, type Opened, type Permitted } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/**
 * Takes the call's place under its limits, all or none, unless a budget could not pay for one token of an answer.
 * @throws Problem budget_exceeded, rate_limit_exceeded, request_exceeds_limit, capacity_exceeded, model_not_found
 */
export async function permit(platform: Platform, call: Opened): Promise<Permitted> {
  const model = platform.modelFor(call.tenant, call.principal, call.request.model);
  peek(platform, call, model);
  const deciding = platform.permit(facts(platform, call, model));
  const verdict = deciding instanceof Promise ? await deciding : deciding;
  if (verdict.kind === "permitted") {
    const { permit } = verdict;
    call.caller.tellLimits(() => permit.figures());
    return advance(call, { permit });
  }
  const { refusal } = advance(call, { refusal: verdict.refusal });
  if (!refusal.isShared) call.caller.tellLimits(() => refusal.figures);
  throw problemOf(refusal);
}

/** A spent budget is refused before any further work; it reserves nothing. */
function peek(platform: Platform, call: Opened, { deployments: [deployment] }: Model): void {
  if (call.request.kind === "count" || deployment === undefined) return;
  const price = priceAt(deployment.prices, platform.clock.now());
  platform.peek(ownerOf(call), price, call.tenant.record.markupMillionths);
}

function facts(platform: Platform, call: Opened, model: Model): CallFacts {
  const { request, tenant, principal } = call;
  const [deployment] = model.deployments;
  return {
    tenant: tenant.record.id,
    tier: tenant.record.tier,
    project: tenant.project?.id ?? null,
    key: principal.key?.id ?? null,
    model: model.id,
    deployment: deployment?.id ?? null,
    request,
    bound: () => (deployment === undefined ? NOTHING : limitedBound(platform, call, deployment)),
    prompt: () => (deployment === undefined ? null : platform.countPrompt(request, deployment)),
  };
}

/** With the answers as long as the hold will let them be. */
function limitedBound(platform: Platform, call: Opened, deployment: Deployment): TokenBound | Promise<TokenBound> {
  const limit = (bound: RequestBound): TokenBound => {
    const { boundOf: bounded, each } = answersOf(bound, call, deployment.model);
    return bounded(each);
  };
  const bounding = boundOf(platform, call.request, deployment);
  return bounding instanceof Promise ? bounding.then(limit) : limit(bounding);
}

/** A model without a deployment is refused by `route`. */
const NOTHING = { input: 0, output: 0, certainty: "proof" } as const;

/** A limit that others are counted under says nothing of itself: its numbers would tell what they do. */
function problemOf({ limit, charge, retryAfterSeconds, isShared }: Refusal): Problem {
  if (retryAfterSeconds === null)
    return new Problem(isShared ? "capacity_exceeded" : "request_exceeds_limit", {
      message: isShared
        ? "The request is larger than this model's capacity for one request. Make it smaller."
        : `The request counts ${charge} ${COUNTED[limit.dimension]}, and the limit '${limit.name}' lets at most ${limit.burst} pass at once. ${SMALLER[limit.dimension]}`,
      headers: { "x-should-retry": "false" },
    });
  if (isShared) return new Problem("capacity_exceeded", { retryAfterSeconds });
  const rate =
    limit.dimension === "concurrency" ? `${limit.amount} ${COUNTED.concurrency}` : `${limit.amount} ${COUNTED[limit.dimension]} a minute`;
  return new Problem("rate_limit_exceeded", {
    message: `The limit '${limit.name}' of ${rate} for this ${limit.scope} is reached. Retry after the time in 'retry-after'.`,
    retryAfterSeconds,
  });
}

const COUNTED = {
  requests: "requests",
  tokens: "tokens",
  concurrency: "calls at once",
  prefix_tokens: "tokens of new prompt prefixes",
} as const;
const SMALLER = {
  requests: "Ask your administrator for a larger burst.",
  tokens: "Shorten it, or ask for fewer output tokens with 'max_tokens'.",
  concurrency: "Ask your administrator for a larger limit.",
  prefix_tokens: "Shorten it.",
} as const;
