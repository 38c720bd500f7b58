import type { Allowed, Origin, Permission, Principal, Session } from "../domains/identity/index.ts";
import type { Deployment, Model, Price } from "../domains/catalog/index.ts";
import type { CallFacts, Verdict } from "../domains/capacity/index.ts";
import type { Answers, AttemptFacts, Hold, MeteredResponse, Owner, Settlement, Turn } from "../domains/metering/index.ts";
import type { CountedText, Dispatch, DispatchFailure, Provider, ProviderResponse } from "../domains/providers/index.ts";
import type { Tenant } from "../domains/tenants/index.ts";
import type { Clock } from "../kernel/clock.ts";
import type { TenantId, Uuid } from "../kernel/ids.ts";
import type { ModelRequest } from "../kernel/request.ts";
import type { RequestBound } from "../kernel/tokens.ts";
import type { CallEvent } from "../telemetry/index.ts";

/** The verbs of the domains that a call needs, supplied by main.ts. */
export interface Platform {
  readonly clock: Clock;
  readonly newId: <Id extends Uuid>() => Id;
  /** @throws Problem invalid_api_key, expired_api_key, permission_denied (not this key's endpoint), overloaded (configuration too stale to trust) */
  authenticate(credential: string | null, from: Origin): Principal | Promise<Principal>;
  /** @throws Problem permission_denied, not_found */
  allow<P extends Permission>(principal: Principal, permission: P, tenant: TenantId): Allowed<P>;
  /** @throws Problem tenant_suspended */
  resolve(principal: Principal): Tenant;
  openSession(principal: Principal, callerSession: string | null): Session;
  /** @throws Problem model_not_found */
  modelFor(tenant: Tenant, principal: Principal, name: string): Model;
  /** Room under every limit of the call, or under none. A promise where `facts.bound` gives one. @throws Problem overloaded, and as `facts.bound` does */
  permit(facts: CallFacts): Verdict | Promise<Verdict>;
  /** The tenant's salt for upstreams that share prefix caches: equal for equal tenants, telling nothing of them. */
  cacheSalt(tenant: TenantId): string;
  provider(id: string): Provider;
  /** A promise where the request is too large to be judged on the event loop. @throws Problem */
  accept(provider: Provider, request: ModelRequest, deployment: Deployment): void | Promise<unknown>;
  /** As `accept`: the most one dispatch of the request can use. */
  bound(provider: Provider, request: ModelRequest, model: Model): RequestBound | Promise<RequestBound>;
  /** The text of a prompt that is all text, in bytes and in the deployment's tokens; null where nobody here can tell, or not soon. Never rejects. */
  countText(request: ModelRequest, deployment: Deployment): Promise<CountedText | null>;
  /** Whether every budget of the call that is known here could pay for one token of an answer. @throws Problem budget_exceeded */
  peek(owner: Owner, price: Price, markupMillionths: number): void;
  /** Whether a hard budget applies, so that an answer's length must be bounded. */
  isBounded(owner: Owner): boolean;
  /** Reserves the worst case of an attempt, durably. @throws Problem budget_exceeded, overloaded (the journal cannot take it, or a balance cannot be read) */
  hold(facts: AttemptFacts, price: Price, answers: Answers | null, turn: Turn | null): Promise<Hold>;
  /** A place in line for a call that a budget bids wait. */
  newTurn(): Turn;
  /** Resolves to whether to try again; false when the wait is over. @throws Problem capacity_exceeded (too many wait) */
  waitTurn(line: string, turn: Turn, signal: AbortSignal): Promise<boolean>;
  leaveLine(turn: Turn): void;
  sent(hold: Hold): void;
  /** @throws DispatchError */
  dispatch(provider: Provider, dispatch: Dispatch): Promise<ProviderResponse>;
  /** Resolves at once for a stream; for a whole body once its charge is durable. @throws Problem overloaded */
  meter(response: ProviderResponse, hold: Hold, prompt: () => Promise<number> | null): Promise<MeteredResponse>;
  /** Tokens of a prompt; null where its model's tokenizer is not known, or a part cannot be counted. Rejects with `overloaded`. */
  countPrompt(request: ModelRequest, deployment: Deployment): Promise<number> | null;
  /** Settles a hold whose dispatch had no response; never rejects. */
  settleFailed(hold: Hold, failure: DispatchFailure): Promise<Settlement>;
  /** Takes the call's one wide event. */
  emit(event: CallEvent): void;
}
