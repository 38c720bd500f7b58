import { PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import { PERMISSIONS, type Permission, ROLES } from "./permissions.ts";

/** What the rules read of a principal. */
export interface Authority {
  readonly tenant: TenantId;
  readonly permissions: ReadonlySet<Permission>;
  readonly models: ReadonlySet<string> | null;
  /** ms since the epoch; null never. */
  readonly expiresAt: number | null;
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

export interface KeyRequest {
  readonly place: KeyPlace;
  readonly permissions: readonly string[];
  readonly models: readonly string[] | null;
  readonly expiresAt: number | null;
}

export type KeyDecision =
  | { readonly kind: "granted" }
  | { readonly kind: "unknown_name"; readonly name: string }
  | { readonly kind: "wrong_place"; readonly permission: Permission }
  | { readonly kind: "beyond_creator"; readonly what: "permissions" | "models" | "expires_at"; readonly bound: string };

/** What a key may hold is never more than what its creator holds: rights, models and time. */
export function decideKey(creator: Authority, request: KeyRequest): KeyDecision {
  const unknown = request.permissions.find((name) => !Object.hasOwn(PERMISSIONS, name) && !Object.hasOwn(ROLES, name));
  if (unknown !== undefined) return { kind: "unknown_name", name: unknown };
  const wanted = expand(request.permissions);
  const misplaced = wanted.find((permission) => !fitsPlace(permission, request.place));
  if (misplaced !== undefined) return { kind: "wrong_place", permission: misplaced };
  const beyond = wanted.find((permission) => !mayHandOn(creator, permission));
  if (beyond !== undefined) return { kind: "beyond_creator", what: "permissions", bound: `it lacks '${beyond}'` };
  if (!modelsWithin(creator.models, request.models))
    return { kind: "beyond_creator", what: "models", bound: `'models' must be among ${[...(creator.models ?? [])].join(", ")}` };
  if (!endsWithin(creator.expiresAt, request.expiresAt))
    return {
      kind: "beyond_creator",
      what: "expires_at",
      bound: `'expires_at' must be at most ${Math.floor((creator.expiresAt ?? 0) / 1000)}`,
    };
  return { kind: "granted" };
}

/** The platform calls no models itself, since no tenant would pay; who may make tenants' keys may let those call. */
function mayHandOn(creator: Authority, permission: Permission): boolean {
  if (creator.permissions.has(permission)) return true;
  return permission === "models:call" && creator.tenant === PLATFORM_TENANT && creator.permissions.has("keys:write");
}

function modelsWithin(mine: ReadonlySet<string> | null, wanted: readonly string[] | null): boolean {
  if (mine === null) return true;
  return wanted !== null && wanted.every((model) => mine.has(model));
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

function expand(names: readonly string[]): Permission[] {
  return names.flatMap((name) => {
    if (Object.hasOwn(ROLES, name)) return [...ROLES[name as keyof typeof ROLES]];
    return Object.hasOwn(PERMISSIONS, name) ? [name as Permission] : [];
  });
}
