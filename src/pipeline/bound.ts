import type { Deployment, Model } from "../domains/catalog/index.ts";
import type { Answers, Owner } from "../domains/metering/index.ts";
import type { ModelRequest } from "../kernel/request.ts";
import type { RequestBound, TokenBound } from "../kernel/tokens.ts";
import type { Opened } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/** The most that one dispatch of the request to the deployment can use. The prompt is walked once, however many steps ask. @throws Problem */
export function boundOf(platform: Platform, request: ModelRequest, { provider, model }: Deployment): RequestBound | Promise<RequestBound> {
  const known = bounds.get(request);
  if (known?.provider === provider && known.model === model) return known.bound;
  const bound = platform.bound(platform.provider(provider), request, model);
  bounds.set(request, { provider, model, bound });
  return bound;
}

/** The last one asked for: what a limit asks, the hold of the first attempt asks again. */
const bounds = new WeakMap<ModelRequest, KnownBound>();

interface KnownBound {
  readonly provider: string;
  readonly model: Deployment["model"];
  readonly bound: RequestBound | Promise<RequestBound>;
}

/**
 * How long the answers may be where something counts what they may use at most: as the caller says, else as its project's default says. Without
 * it a model that can write 128,000 tokens would be held for all of them.
 */
export function answersOf(bound: RequestBound, { tenant }: Pick<Opened, "tenant">, model: Model): Answers {
  const usual = tenant.project?.defaultMaxOutputTokens ?? DEFAULT_MAX_OUTPUT_TOKENS;
  const isShortened = !bound.isStated && usual > 0 && usual < bound.each;
  return {
    each: isShortened ? usual : bound.each,
    least: model.capabilities.includes("reasoning") ? LEAST_REASONING_TOKENS : LEAST_TOKENS,
    boundOf: (each) => shortened(bound, each),
    outputBound: isShortened ? usual : null,
  };
}

function shortened({ input, output, certainty, answers, each: whole }: RequestBound, each: number): TokenBound {
  return { input, output: output - answers * (whole - each), certainty };
}

/** Whose budgets and rows a call is counted under. */
export function ownerOf({ tenant, principal, request: { attribution } }: Opened): Owner {
  return {
    tenant: tenant.record.id,
    project: tenant.project?.id ?? null,
    key: principal.key?.id ?? null,
    user: attribution.user,
    feature: attribution.feature ?? "unspecified",
  };
}

/** A project that states 0 has none but the model's. */
const DEFAULT_MAX_OUTPUT_TOKENS = 8_192;
/** What a budget's clamp leaves at least; a reasoning model writes this much before it answers. */
const LEAST_TOKENS = 256;
const LEAST_REASONING_TOKENS = 2_048;
