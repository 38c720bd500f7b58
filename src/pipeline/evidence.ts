import type { Permit, Refusal } from "../domains/capacity/index.ts";
import type { Principal, Session, Allowed } from "../domains/identity/index.ts";
import type { Hold, Settlement } from "../domains/metering/index.ts";
import type { ProviderResponse } from "../domains/providers/index.ts";
import type { Tenant } from "../domains/tenants/index.ts";
import type { HopId } from "../kernel/ids.ts";
import type { ModelRequest } from "../kernel/request.ts";
import type { Caller, CallContext } from "./caller.ts";
import type { CompiledRequest } from "./compile.ts";
import type { Slot } from "./place.ts";
import type { Route } from "./route.ts";

// What is known of a call after each step. Each step adds one noun that only one file can mint, so a skipped, reordered
// or forged step does not compile (evidence.test.ts).

export interface Received {
  readonly call: CallContext;
  readonly caller: Caller;
}
export interface Authenticated extends Received {
  readonly principal: Principal;
  readonly allowed: Allowed<"models:call">;
}
/** One configuration snapshot for the whole call: what `tenant` says now holds to the end. */
export interface Resolved extends Authenticated {
  readonly tenant: Tenant;
}
/** The body is read only once the caller is known: strangers cannot make us buffer, and tenants have bounds of their own. */
export interface Asked extends Resolved {
  readonly request: ModelRequest;
}
export interface Opened extends Asked {
  readonly session: Session;
}
export interface Permitted extends Opened {
  readonly permit: Permit;
}
/** A call that a limit refused. */
export interface Limited extends Opened {
  readonly refusal: Refusal;
}
export interface Compiled extends Permitted {
  readonly compiled: CompiledRequest;
}

// The hop: one billable step of a call. A retry or fallback is the same hop, next attempt, with its own hold.

export interface Hop {
  readonly hop: HopId;
  readonly of: Compiled;
}
export interface Routed extends Hop {
  readonly route: Route;
}
export interface Placed extends Routed {
  readonly slot: Slot;
}
export interface Held extends Placed {
  readonly hold: Hold;
}
export interface Dispatched extends Held {
  readonly response: ProviderResponse;
}
/** A hop that ended without a response; one with a response carries its settlement in the outcome. */
export interface Abandoned extends Held {
  readonly settlement: Settlement;
}

type Fresh<Known, Added> = { readonly [Key in keyof Added]: Key extends keyof Known ? "this evidence is already present" : Added[Key] };

/** Adds evidence to a call or hop, in place. Evidence that is already there cannot be replaced: it does not compile. */
export function advance<Known extends object, Added extends object>(known: Known, added: Added & Fresh<Known, Added>): Known & Added {
  return Object.assign(known, added);
}
