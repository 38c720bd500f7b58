import type { Brand } from "../../kernel/brand.ts";
import type { Clock } from "../../kernel/clock.ts";
import { type KeyId, type ModelId, PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import type { ModelRequest } from "../../kernel/request.ts";
import type { TokenBound } from "../../kernel/tokens.ts";
import { type Counter, Counters } from "./counters.ts";
import { refusing } from "./decide.ts";
import { figuresOf, NO_FIGURES } from "./figures.ts";
import { type Level, TICKS_PER_MINUTE, TICKS_PER_SECOND, tickOf } from "./level.ts";
import type { CapacityPart, Limit, LimitFigures, Refusal, Subject } from "./model.ts";
import { type Plan, planOf } from "./plan.ts";
import { type Prefix, PrefixLevel, prefixesOf } from "./prefixes.ts";
import { countedInTime, inputTokens, OutputMeans } from "./tokens.ts";

/** Room under every limit of a call, taken in one step. Minted here alone. */
export type Permit = Brand<
  {
    /** Whether tokens are limited, and so the length of an answer must be. */
    readonly countsTokens: boolean;
    /** Of this moment. */
    figures(): LimitFigures;
    /** Gives back what the call holds and corrects what it was charged. What a second one says is ignored. */
    release(used: Used): void;
  },
  "Permit"
>;

/** What a call's hops used, tokens; `unknown` leaves what was charged. */
export type Used = { readonly input: number; readonly output: number } | "unknown";

export type Verdict = { readonly kind: "permitted"; readonly permit: Permit } | { readonly kind: "refused"; readonly refusal: Refusal };

export interface CallFacts extends Subject {
  readonly request: ModelRequest;
  /** The provider's bound on what the call can use; asked for only where tokens are limited. */
  readonly bound: () => TokenBound | Promise<TokenBound>;
  /** The prompt's tokens as its model's tokenizer counts them; asked for only where tokens are limited by an estimate. Null, or absent, where that is not known. */
  readonly prompt?: () => Promise<number> | null;
}

export interface LimiterNeeds {
  readonly clock: Clock;
  readonly partOf: (tenant: TenantId) => CapacityPart | undefined;
  /** The tenant's secret for digests of its prompts. */
  readonly prefixSecret: (tenant: TenantId) => Buffer;
}

/** The limits of this process. */
export class Limiter {
  readonly #needs: LimiterNeeds;
  readonly #counters = new Counters();
  readonly #means = new OutputMeans();
  /** Of each tenant's part, by key (which is of one project) and model. Gone with the part: a change of limits begins afresh. */
  #plans = new WeakMap<CapacityPart, Map<KeyId | null, Map<ModelId, Counted>>>();
  #plansUntil = 0;

  constructor(needs: LimiterNeeds) {
    this.#needs = needs;
  }

  /**
   * Checks the call against all of its limits, then takes from all or none. A promise only where tokens are limited, and their bound is one or a
   * tokenizer counts them.
   * @throws Problem overloaded, and as `facts.bound` does
   */
  permit(facts: CallFacts): Verdict | Promise<Verdict> {
    if (!this.#anyLimits(facts.tenant)) return UNLIMITED;
    const counted = this.#countedOf(facts);
    if (counted.plan.limits.length === 0) return UNLIMITED;
    if (!counted.plan.countsTokens) return this.#take(facts, counted, NOTHING, null);
    const bound = facts.bound();
    const prompt = counted.plan.estimatesTokens ? (facts.prompt?.() ?? null) : null;
    if (!(bound instanceof Promise) && prompt === null) return this.#take(facts, counted, bound, null);
    const counting = prompt === null ? Promise.resolve(null) : countedInTime(prompt);
    return Promise.all([Promise.resolve(bound), counting]).then(([later, tokens]) =>
      this.#take(facts, this.#countedOf(facts), later, tokens),
    );
  }

  /** Levels in memory, for metrics. */
  get levels(): number {
    return this.#counters.size;
  }

  /** One step, with nothing awaited in it: no other call comes between check and commit. */
  #take(facts: CallFacts, counted: Counted, bound: TokenBound, prompt: number | null): Verdict {
    const { plan } = counted;
    const tick = this.now();
    this.#counters.sweep(tick);
    const counters = this.#countersOf(counted, tick);
    const tokens = plan.countsTokens ? this.#tokensOf(facts.request, plan, bound, prompt) : NO_TOKENS;
    // Counting a prompt's tokens puts it into no cache.
    const isSent = plan.countsPrefixes && facts.request.kind !== "count";
    const prefixes = isSent ? prefixesOf(facts.request, this.#needs.prefixSecret(facts.tenant)) : NO_PREFIXES;
    const charges = plan.limits.map((limit, index) => chargeOf(limit, (counters[index] as Counter).level, tokens, prefixes, tick));
    const refused = refusing(counters, plan.limits, charges, tick);
    if (refused >= 0) return { kind: "refused", refusal: refusalOf(plan, counters, charges, refused, tick) };
    const marks = counters.map((counter, index) => {
      counter.running++;
      return counter.level.take(charges[index] as number, counter.limit, tick);
    });
    if (plan.countsPrefixes) for (const { level } of counters) if (level instanceof PrefixLevel) level.remember(prefixes, tick);
    return { kind: "permitted", permit: new Taken(this, { plan, counters, charges, marks, tick }) as unknown as Permit };
  }

  /** One that was forgotten is begun anew. */
  #countersOf({ plan, counters }: Counted, tick: number): Counter[] {
    return plan.limits.map((limit, index) => {
      let counter = counters[index];
      if (counter?.isKept !== true) counters[index] = counter = this.#counters.of(plan.counters[index] as string, limit, tick);
      counter.limit = limit;
      counter.tick = tick;
      return counter;
    });
  }

  observe(plan: Plan, output: number): void {
    this.#means.observe(plan.mean, output);
  }

  now(): number {
    return tickOf(this.#needs.clock.monotonic());
  }

  #tokensOf(request: ModelRequest, plan: Plan, bound: TokenBound, prompt: number | null): Tokens {
    const estimated = inputTokens(request, bound, prompt) + this.#means.expect(plan.mean, bound.output);
    return { estimated, strict: bound.input + bound.output };
  }

  /** Where neither the platform nor the tenant has any, no plan is made: one takes a kilobyte of each tenant that calls. */
  #anyLimits(tenant: TenantId): boolean {
    const { partOf } = this.#needs;
    return (partOf(tenant)?.limits.length ?? 0) > 0 || (partOf(PLATFORM_TENANT)?.limits.length ?? 0) > 0;
  }

  #countedOf(facts: CallFacts): Counted {
    const tick = this.now();
    if (tick >= this.#plansUntil) {
      this.#plans = new WeakMap();
      this.#plansUntil = tick + PLANS_KEPT_TICKS;
    }
    const own = this.#needs.partOf(facts.tenant);
    const platform = this.#needs.partOf(PLATFORM_TENANT) ?? NO_PART;
    if (own === undefined) return countedAfresh(facts, NO_PART, platform);
    const byKey = remembered(this.#plans, own, newMap<KeyId | null, Map<ModelId, Counted>>);
    if (byKey.size >= MAX_KEYS_KNOWN) byKey.clear();
    const byModel = remembered(byKey, facts.key, newMap<ModelId, Counted>);
    if (byModel.size >= MAX_MODELS_KNOWN) byModel.clear();
    const known = byModel.get(facts.model);
    if (known?.platform === platform && known.deployment === facts.deployment && known.tier === facts.tier) return known;
    const counted = countedAfresh(facts, own, platform);
    byModel.set(facts.model, counted);
    return counted;
  }
}

/** A plan, what it was made of, and the counters of its limits as far as they are known. */
interface Counted extends Pick<Subject, "deployment" | "tier"> {
  readonly plan: Plan;
  readonly platform: CapacityPart;
  readonly counters: Counter[];
}

function countedAfresh(facts: CallFacts, own: CapacityPart, platform: CapacityPart): Counted {
  return { plan: planOf(facts, own, platform), platform, deployment: facts.deployment, tier: facts.tier, counters: [] };
}

/** What a permitted call took: of each limit of its plan, from which counter, how much, and with which mark. */
interface Holding {
  readonly plan: Plan;
  readonly counters: readonly Counter[];
  readonly charges: readonly number[];
  readonly marks: readonly number[];
  readonly tick: number;
}

/** What a permitted call took, until it is given back. */
class Taken {
  readonly #limiter: Limiter;
  readonly #holding: Holding;
  #released = false;

  constructor(limiter: Limiter, holding: Holding) {
    this.#limiter = limiter;
    this.#holding = holding;
  }

  get countsTokens(): boolean {
    return this.#holding.plan.countsTokens;
  }

  figures(): LimitFigures {
    return figuresOf(this.#holding.plan, this.#holding.counters, this.#limiter.now());
  }

  release(used: Used): void {
    if (this.#released) return;
    this.#released = true;
    const { plan, counters, charges, marks, tick: taken } = this.#holding;
    const tick = this.#limiter.now();
    for (let index = 0; index < counters.length; index++) {
      const counter = counters[index] as Counter;
      // As it is now, not as it was when the call began: a change holds for what is running too.
      const { limit } = counter;
      counter.running--;
      counter.tick = tick;
      if (limit.dimension !== "tokens" && limit.dimension !== "concurrency") continue;
      const charge = charges[index] as number;
      const tokens = used === "unknown" ? charge : used.input + used.output;
      counter.level.settle({ charge, used: tokens, taken, mark: marks[index] as number }, limit, tick);
    }
    if (plan.countsTokens && used !== "unknown" && used.output > 0) this.#limiter.observe(plan, used.output);
  }
}

interface Tokens {
  readonly estimated: number;
  readonly strict: number;
}

function chargeOf(limit: Limit, level: Level, tokens: Tokens, prefixes: readonly Prefix[], tick: number): number {
  switch (limit.dimension) {
    case "requests":
    case "concurrency":
      return 1;
    case "tokens":
      return limit.strict ? tokens.strict : tokens.estimated;
    case "prefix_tokens":
      return level instanceof PrefixLevel ? level.newTokens(prefixes, tick) : 0;
    default:
      return limit.dimension satisfies never;
  }
}

function refusalOf(plan: Plan, counters: readonly Counter[], charges: readonly number[], refused: number, tick: number): Refusal {
  const limit = plan.limits[refused] as Limit;
  const charge = charges[refused] as number;
  const ticks = (counters[refused] as Counter).level.wait(charge, limit, tick);
  const retryAfterSeconds = Number.isFinite(ticks) ? ticks / TICKS_PER_SECOND : null;
  return { limit, charge, retryAfterSeconds, isShared: plan.isShared[refused] === true, figures: figuresOf(plan, counters, tick) };
}

function remembered<Key, Value>(
  known: { get(key: Key): Value | undefined; set(key: Key, value: Value): unknown },
  key: Key,
  make: () => Value,
): Value {
  let value = known.get(key);
  if (value === undefined) known.set(key, (value = make()));
  return value;
}

function newMap<Key, Value>(): Map<Key, Value> {
  return new Map();
}

const UNLIMITED: Verdict = {
  kind: "permitted",
  permit: { countsTokens: false, figures: () => NO_FIGURES, release() {} } satisfies Record<
    keyof Permit & string,
    unknown
  > as unknown as Permit,
};
export const NO_PART: CapacityPart = { limits: [], tiers: new Map() };
const NOTHING: TokenBound = { input: 0, output: 0, certainty: "proof" };
const NO_TOKENS: Tokens = { estimated: 0, strict: 0 };
const NO_PREFIXES: readonly Prefix[] = [];
/** Plans are made again after this time, so that those of keys that call no more go. */
const PLANS_KEPT_TICKS = 10 * TICKS_PER_MINUTE;
/** Of one tenant, and of one of its keys. */
const MAX_KEYS_KNOWN = 10_000;
const MAX_MODELS_KNOWN = 100;
