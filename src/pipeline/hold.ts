import { type Price, priceAt } from "../domains/catalog/index.ts";
import type { AttemptFacts } from "../domains/metering/index.ts";
import type { AttemptId } from "../kernel/ids.ts";
import type { TokenBound } from "../kernel/tokens.ts";
import { boundOf } from "./bound.ts";
import { advance, type Held, type Placed } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/** Reserves the attempt's worst case, durably, before an upstream sees a byte. @throws Problem overloaded */
export async function hold(platform: Platform, placed: Placed): Promise<Held> {
  const startedAt = platform.clock.now();
  const { deployment } = placed.slot;
  const price = priceAt(deployment.prices, startedAt);
  const bounding = boundOf(platform, placed.of.compiled, deployment);
  const bound = bounding instanceof Promise ? await bounding : bounding;
  return advance(placed, { hold: await platform.hold(facts(platform, placed, { price, bound, startedAt }), price) });
}

function facts(
  platform: Platform,
  { hop, of: call, slot: { deployment } }: Placed,
  { price, bound, startedAt }: { readonly price: Price; readonly bound: TokenBound; readonly startedAt: number },
): AttemptFacts {
  const { attribution, model: modelRequested, stream } = call.compiled;
  return {
    attempt: platform.newId<AttemptId>(),
    hop,
    call: call.call.id,
    tenant: call.tenant.record.id,
    project: call.tenant.project?.id ?? null,
    key: call.principal.key?.id ?? null,
    user: attribution.user,
    feature: attribution.feature ?? "unspecified",
    trace: call.call.trace,
    kind: call.compiled.kind,
    provider: deployment.provider,
    modelRequested,
    model: deployment.model.id,
    upstreamModel: deployment.upstreamModel,
    deployment: deployment.id,
    region: deployment.region,
    priceVersion: price.version,
    stream,
    bound,
    startedAt,
    markupMillionths: call.tenant.record.markupMillionths,
  };
}
