import type { Allowed, Permission, Principal, Session } from "../domains/identity/index.ts";
import type { Deployment, Model, Price } from "../domains/catalog/index.ts";
import type { CallFacts, Verdict } from "../domains/capacity/index.ts";
import type { AttemptFacts, Hold, MeteredResponse, Settlement } from "../domains/metering/index.ts";
import type { Dispatch, DispatchFailure, Provider, ProviderResponse } from "../domains/providers/index.ts";
import type { Tenant } from "../domains/tenants/index.ts";
import type { Clock } from "../kernel/clock.ts";
import type { TenantId, Uuid } from "../kernel/ids.ts";
import type { ModelRequest } from "../kernel/request.ts";
import type { TokenBound } from "../kernel/tokens.ts";
import type { CallEvent } from "../telemetry/index.ts";

/** The verbs of the domains that a call needs, supplied by main.ts. */
export interface Platform {
  readonly clock: Clock;
  readonly newId: <Id extends Uuid>() => Id;
  /** @throws Problem invalid_api_key, expired_api_key, overloaded (configuration too stale to trust) */
  authenticate(credential: string | null): Principal | Promise<Principal>;
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
  bound(provider: Provider, request: ModelRequest, model: Model): TokenBound | Promise<TokenBound>;
  /** Reserves the worst case of an attempt, durably. @throws Problem overloaded (the journal cannot take it) */
  hold(facts: AttemptFacts, price: Price): Promise<Hold>;
  sent(hold: Hold): void;
  /** @throws DispatchError */
  dispatch(provider: Provider, dispatch: Dispatch): Promise<ProviderResponse>;
  /** Resolves at once for a stream; for a whole body once its charge is durable. @throws Problem overloaded */
  meter(response: ProviderResponse, hold: Hold): Promise<MeteredResponse>;
  /** Settles a hold whose dispatch had no response; never rejects. */
  settleFailed(hold: Hold, failure: DispatchFailure): Promise<Settlement>;
  /** Takes the call's one wide event. */
  emit(event: CallEvent): void;
}
