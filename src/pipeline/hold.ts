import type { AttemptFacts } from "../domains/metering/index.ts";
import type { AttemptId } from "../kernel/ids.ts";
import { advance, type Held, type Placed } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/** Reserves the attempt's worst case, durably, before an upstream sees a byte. @throws Problem overloaded */
export async function hold(platform: Platform, placed: Placed): Promise<Held> {
  return advance(placed, { hold: await platform.hold(facts(platform, placed), placed.slot.deployment.price) });
}

function facts(platform: Platform, { hop, of: call, slot: { deployment } }: Placed): AttemptFacts {
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
    priceVersion: deployment.price.version,
    stream,
    bound: platform.provider(deployment.provider).bound(call.compiled, deployment.model),
    startedAt: platform.clock.now(),
  };
}
