import { type Price, priceAt } from "../domains/catalog/index.ts";
import { type Answers, type AttemptFacts, BudgetExceeded, type Hold, type Owner, type Turn } from "../domains/metering/index.ts";
import type { AttemptId } from "../kernel/ids.ts";
import type { RequestBound, TokenBound } from "../kernel/tokens.ts";
import { answersOf, boundOf, ownerOf } from "./bound.ts";
import { advance, type Held, type Placed } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/**
 * Reserves the attempt's worst case, durably, before an upstream sees a byte. A prompt that a budget cannot pay for by its bytes is counted, and
 * tried again by its tokens.
 * @throws Problem budget_exceeded, overloaded
 */
export async function hold(platform: Platform, placed: Placed, turn: Turn | null): Promise<Held> {
  const bounding = boundOf(platform, placed.of.compiled, placed.slot.deployment);
  const bound = bounding instanceof Promise ? await bounding : bounding;
  try {
    return advance(placed, { hold: await reserve(platform, placed, bound, turn) });
  } catch (thrown) {
    const counted = thrown instanceof BudgetExceeded ? await countedBound(platform, placed, bound) : null;
    if (counted === null) throw thrown;
    return advance(placed, { hold: await reserve(platform, placed, counted, turn) });
  }
}

/** Where the bytes of its text prove the bound, so do its tokens; null where that tells nothing better. */
async function countedBound(platform: Platform, { of: call, slot }: Placed, bound: RequestBound): Promise<RequestBound | null> {
  if (bound.certainty !== "proof") return null;
  const text = await platform.countText(call.compiled, slot.deployment);
  if (text === null || text.tokens >= text.bytes) return null;
  const { output, certainty, answers, each, isStated } = bound;
  return { input: bound.input - text.bytes + text.tokens, output, certainty, answers, each, isStated };
}

function reserve(platform: Platform, placed: Placed, bound: RequestBound, turn: Turn | null): Promise<Hold> {
  const { of: call, slot } = placed;
  const startedAt = platform.clock.now();
  const price = priceAt(slot.deployment.prices, startedAt);
  const owner = ownerOf(call);
  const mustBound = call.compiled.kind === "generate" && (call.permit.countsTokens || platform.isBounded(owner));
  const answers: Answers | null = mustBound ? answersOf(bound, call, slot.deployment.model) : null;
  const held = answers === null ? bound : answers.boundOf(answers.each);
  return platform.hold(facts(platform, placed, owner, { price, bound: held, startedAt }), price, answers, turn);
}

function facts(
  platform: Platform,
  { hop, of: call, slot: { deployment } }: Placed,
  { tenant, project, key, user, feature }: Owner,
  { price, bound, startedAt }: { readonly price: Price; readonly bound: TokenBound; readonly startedAt: number },
): AttemptFacts {
  const { model: modelRequested, stream } = call.compiled;
  const { input, output, certainty } = bound;
  return {
    attempt: platform.newId<AttemptId>(),
    hop,
    call: call.call.id,
    tenant,
    project,
    key,
    user,
    feature,
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
    bound: { input, output, certainty },
    startedAt,
    markupMillionths: call.tenant.record.markupMillionths,
  };
}
