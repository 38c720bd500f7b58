import { PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import { type Networks, networksWithin, type RouteFamily } from "./origin.ts";
import { isRole, PERMISSIONS, type Permission, ROLES } from "./permissions.ts";

/** What the rules read of a principal. */
export interface Authority {
  readonly tenant: TenantId;
  readonly permissions: ReadonlySet<Permission>;
  readonly models: ReadonlySet<string> | null;
  /** ms since the epoch; null never. */
  readonly expiresAt: number | null;
  /** Null for every endpoint. */
  readonly routes: ReadonlySet<RouteFamily> | null;
  /** Null for any address. */
  readonly networks: readonly Networks[] | null;
}

export type Verdict = "allowed" | "foreign" | "lacking" | "suspended";

/**
 * The one authorization rule. `status` is the target tenant's, undefined where there is none: for those who may not know,
 * that is the same as somebody else's.
 */
export function authorize(
  principal: Pick<Authority, "tenant" | "permissions">,
  permission: Permission,
  target: { readonly id: TenantId; readonly status: "active" | "suspended" | undefined },
): Verdict {
  const ofPlatform = principal.tenant === PLATFORM_TENANT;
  if (target.status === undefined) return "foreign";
  if (!ofPlatform && target.id === PLATFORM_TENANT) return "lacking";
  if (!ofPlatform && target.id !== principal.tenant) return "foreign";
  if (!ofPlatform && target.status === "suspended") return "suspended";
  return principal.permissions.has(permission) ? "allowed" : "lacking";
}

/** Where a key stands, which bounds what it may hold whatever its row says. */
export type KeyPlace = "platform" | "tenant" | "project";

export function placeOf(tenant: TenantId, project: string | null): KeyPlace {
  if (tenant === PLATFORM_TENANT) return "platform";
  return project === null ? "tenant" : "project";
}

/** The permissions a key with these role and permission names has in its place. Names that mean nothing give nothing. */
export function permissionsInPlace(names: readonly string[], place: KeyPlace): Set<Permission> {
  return new Set(expand(names).filter((permission) => fitsPlace(permission, place)));
}

/** What a principal holds at use: never more than who made it still holds. A bound of null bounds nothing. */
export function bounded(own: Bounds, by: Bounds): Bounds {
  return {
    permissions: common(own.permissions, by.permissions),
    models: both(own.models, by.models),
    expiresAt: earlier(own.expiresAt, by.expiresAt),
    routes: both(own.routes, by.routes),
    networks: own.networks === null ? by.networks : [...own.networks, ...(by.networks ?? [])],
  };
}

export type Bounds = Omit<Authority, "tenant">;

function both<Name>(one: ReadonlySet<Name> | null, other: ReadonlySet<Name> | null): ReadonlySet<Name> | null {
  return one === null || other === null ? (one ?? other) : common(one, other);
}

/** Most lose nothing, and go on sharing their set. */
function common<Name>(one: ReadonlySet<Name>, other: ReadonlySet<Name>): ReadonlySet<Name> {
  const left = [...one].filter((name) => other.has(name));
  return left.length === one.size ? one : new Set(left);
}

export function earlier(one: number | null, other: number | null): number | null {
  return one === null || other === null ? (one ?? other) : Math.min(one, other);
}

export interface KeyRequest {
  readonly place: KeyPlace;
  readonly permissions: readonly string[];
  readonly models: readonly string[] | null;
  readonly expiresAt: number | null;
  readonly routes: readonly RouteFamily[] | null;
  readonly ipRanges: readonly string[] | null;
}

export type KeyDecision =
  | { readonly kind: "granted" }
  | { readonly kind: "unknown_name"; readonly name: string }
  | { readonly kind: "wrong_place"; readonly permission: Permission }
  | {
      readonly kind: "beyond_creator";
      readonly what: "permissions" | "models" | "expires_at" | "routes" | "ip_ranges";
      readonly bound: string;
    };

/** What a key may hold is never more than what its creator holds: rights, models, time, endpoints and addresses. */
export function decideKey(creator: Authority, request: KeyRequest, means: MeansToHandOn = "keys:write"): KeyDecision {
  const unknown = request.permissions.find((name) => !Object.hasOwn(PERMISSIONS, name) && !isRole(name));
  if (unknown !== undefined) return { kind: "unknown_name", name: unknown };
  const wanted = expand(request.permissions);
  const misplaced = wanted.find((permission) => !fitsPlace(permission, request.place));
  if (misplaced !== undefined) return { kind: "wrong_place", permission: misplaced };
  const beyond = beyondCreator(creator, wanted, means);
  if (beyond !== undefined) return { kind: "beyond_creator", what: "permissions", bound: `it lacks '${beyond}'` };
  if (!subsetOf(creator.models, request.models))
    return { kind: "beyond_creator", what: "models", bound: `'models' must be among ${[...(creator.models ?? [])].join(", ")}` };
  if (!endsWithin(creator.expiresAt, request.expiresAt))
    return {
      kind: "beyond_creator",
      what: "expires_at",
      bound: `'expires_at' must be at most ${Math.floor((creator.expiresAt ?? 0) / 1000)}`,
    };
  if (!subsetOf(creator.routes, request.routes))
    return { kind: "beyond_creator", what: "routes", bound: `'routes' must be among ${[...(creator.routes ?? [])].join(", ")}` };
  if (!addressesWithin(creator.networks, request.ipRanges))
    return {
      kind: "beyond_creator",
      what: "ip_ranges",
      bound: `'ip_ranges' must lie in ${(creator.networks?.[0]?.ranges ?? []).join(", ")}`,
    };
  return { kind: "granted" };
}

export type RoleDecision =
  | { readonly kind: "granted" }
  | { readonly kind: "unknown_role"; readonly name: string }
  | { readonly kind: "wrong_place"; readonly name: string }
  | { readonly kind: "beyond_granter"; readonly permission: Permission };

/** What roles a member may be given: none that holds more, in its place, than who gives it. */
export function decideRoles(granter: Pick<Authority, "tenant" | "permissions">, place: KeyPlace, roles: readonly string[]): RoleDecision {
  const unknown = roles.find((name) => !isRole(name));
  if (unknown !== undefined) return { kind: "unknown_role", name: unknown };
  const misplaced = roles.find((name) => !roleFits(name, place));
  if (misplaced !== undefined) return { kind: "wrong_place", name: misplaced };
  const beyond = beyondCreator(granter, [...permissionsInPlace(roles, place)], "members:write");
  return beyond === undefined ? { kind: "granted" } : { kind: "beyond_granter", permission: beyond };
}

/** A project takes any role of a tenant's, as far as a project goes. */
function roleFits(role: string, place: KeyPlace): boolean {
  const wanted = expand([role]);
  return place === "project"
    ? wanted.every((permission) => fitsPlace(permission, "tenant"))
    : wanted.every((permission) => fitsPlace(permission, place));
}

type MeansToHandOn = "keys:write" | "members:write";

/** The first of the permissions that this principal cannot give to others by these means; undefined where it may give them all. */
export function beyondCreator(
  creator: Pick<Authority, "tenant" | "permissions">,
  wanted: readonly Permission[],
  means: MeansToHandOn = "members:write",
): Permission | undefined {
  return wanted.find((permission) => !mayHandOn(creator, permission, means));
}

/** The platform calls no models itself, since no tenant would pay; who may make tenants' keys and members may let those call. */
function mayHandOn(creator: Pick<Authority, "tenant" | "permissions">, permission: Permission, means: MeansToHandOn): boolean {
  if (creator.permissions.has(permission)) return true;
  return permission === "models:call" && creator.tenant === PLATFORM_TENANT && creator.permissions.has(means);
}

function subsetOf<Name>(mine: ReadonlySet<Name> | null, wanted: readonly Name[] | null): boolean {
  if (mine === null) return true;
  return wanted !== null && wanted.every((name) => mine.has(name));
}

function addressesWithin(mine: readonly Networks[] | null, wanted: readonly string[] | null): boolean {
  if (mine === null) return true;
  return wanted !== null && mine.every(({ ranges }) => networksWithin(ranges, wanted));
}

function endsWithin(mine: number | null, wanted: number | null): boolean {
  if (mine === null) return true;
  return wanted !== null && wanted <= mine;
}

function fitsPlace(permission: Permission, place: KeyPlace): boolean {
  switch (place) {
    case "platform":
      return permission !== "models:call";
    case "tenant":
      return !permission.startsWith("platform:");
    case "project":
      return permission === "models:call" || permission === "usage:read";
    default:
      return place satisfies never;
  }
}

/** The permissions that role and permission names stand for. */
function expand(names: readonly string[]): Permission[] {
  return names.flatMap((name) => {
    if (isRole(name)) return [...ROLES[name]];
    return Object.hasOwn(PERMISSIONS, name) ? [name as Permission] : [];
  });
}
