import type { PriceVersion } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { datasetPrice } from "./dataset.ts";
import { periodAt, type ProviderFacts } from "./decide.ts";
import type { DatasetOrigin } from "./model.ts";
import type { CatalogVerbsNeeds } from "./needs.ts";
import { type ClassPrices, classPrices, decidePrice, samePrice, type StatedPrice, type Terms } from "./price.ts";
import type { KeptPrice } from "./store.ts";

/** What is priced. */
export interface PricedTarget {
  readonly provider: ProviderFacts;
  readonly upstreamModel: string;
}

/**
 * The timeline that the stated price leaves of the present one: the same versions where it changes nothing, else with one new
 * version in place of those that would begin with it or after it. Undefined keeps, null is the provider's default. Empty: the
 * provider has no default. Throws Problem.
 */
export async function timelineAfter(
  needs: Pick<CatalogVerbsNeeds, "clock" | "makeId">,
  target: PricedTarget,
  stated: StatedPrice | null | undefined,
  timeline: readonly KeptPrice[],
): Promise<readonly KeptPrice[]> {
  const now = needs.clock.now();
  if (stated === undefined && timeline.length > 0) return timeline;
  if ((stated ?? null) === null && !target.provider.freeByDefault) return [];
  const { terms, dataset } = await termsOf(target, stated ?? "free", now);
  const from = startOf(stated ?? null);
  if (isSaid(timeline, terms, dataset, from, now)) return timeline;
  const createdAt = Math.max(now, (timeline.at(-1)?.createdAt.getTime() ?? 0) + 1);
  if (from !== null) refuseStart(timeline, from, createdAt);
  const version: KeptPrice = {
    from: from ?? 0,
    price: { version: needs.makeId<PriceVersion>(), ...terms },
    effectiveAt: new Date(from ?? createdAt),
    createdAt: new Date(createdAt),
    dataset,
  };
  return [...timeline.filter((kept) => kept.from < version.from), version];
}

async function termsOf(
  { provider, upstreamModel }: PricedTarget,
  stated: StatedPrice,
  now: number,
): Promise<{ readonly terms: Terms; readonly dataset: DatasetOrigin | null }> {
  if (stated !== "dataset") {
    const decision = decidePrice(stated);
    if (decision.kind === "fault") throw new Problem("invalid_request", decision);
    const { kind: _, ...terms } = decision;
    return { terms, dataset: null };
  }
  const found = await datasetPrice(provider.id, upstreamModel, now);
  if ("param" in found) throw new Problem("invalid_request", found);
  const { rates, tiers, origin } = found;
  return { terms: { source: "dataset", rates, ...(tiers.length === 0 ? {} : { tiers }) }, dataset: origin };
}

/** ms since the epoch; null: at once. */
function startOf(stated: StatedPrice | null): number | null {
  return stated === null || typeof stated === "string" || stated.effective_from === undefined ? null : Date.parse(stated.effective_from);
}

/** Whether the timeline says so already, and nothing that this would replace. */
function isSaid(timeline: readonly KeptPrice[], terms: Terms, dataset: DatasetOrigin | null, from: number | null, now: number): boolean {
  const last = timeline.at(-1);
  if (last === undefined || !samePrice(last.price, terms) || !sameSource(last.dataset, dataset)) return false;
  return from === null ? last.from <= now : last.effectiveAt.getTime() === from;
}

/** Models of two providers can have one name and one price. */
function sameSource(one: DatasetOrigin | null, other: DatasetOrigin | null): boolean {
  return one?.provider === other?.provider && one?.model === other?.model;
}

function refuseStart(timeline: readonly KeptPrice[], from: number, createdAt: number): void {
  const refuse = (message: string): never => {
    throw new Problem("invalid_request", { param: "price.effective_from", message: `'price.effective_from' ${message}` });
  };
  if (timeline.length === 0) refuse("leaves the deployment without a price until then. State today's price first, then the one to come.");
  if (from <= createdAt) refuse("is past. What was used is not priced again: leave it out for a price that holds from now on.");
  if (from >= YEAR_10000) refuse("is after the year 9999.");
  if (timeline.filter((kept) => kept.from > createdAt && kept.from < from).length >= MAX_SCHEDULED)
    refuse(`comes after ${MAX_SCHEDULED} other changes to come; at most so many can be scheduled.`);
}

const MAX_SCHEDULED = 8;
/** From then on ISO 8601 writes a year in another way, which few read. */
const YEAR_10000 = Date.UTC(10_000, 0, 1);

/** A version, as an administrator reads it. */
export interface PriceView {
  readonly version: string;
  readonly source: Terms["source"];
  /** ISO 8601. */
  readonly effective_from: string;
  readonly rates: ClassPrices;
  readonly tiers: { readonly above_input_tokens: number; readonly rates: ClassPrices }[];
  readonly dataset: DatasetOrigin | null;
}

export function priceView({ price, effectiveAt, dataset }: KeptPrice): PriceView {
  return {
    version: price.version,
    source: price.source,
    effective_from: effectiveAt.toISOString(),
    rates: classPrices(price.rates),
    tiers: (price.tiers ?? []).map(({ above, rates }) => ({ above_input_tokens: above, rates: classPrices(rates) })),
    dataset,
  };
}

/** The version in force, and those to come. */
export function atTime(
  timeline: readonly KeptPrice[],
  now: number,
): { readonly present: KeptPrice; readonly pending: readonly KeptPrice[] } {
  const present = periodAt(timeline, now);
  return { present, pending: timeline.slice(timeline.indexOf(present) + 1) };
}
