import { setTimeout as sleep } from "node:timers/promises";
import { permissionsInPlace } from "../../src/domains/identity/decide.ts";
import { type Permission, type Role, ROLES } from "../../src/domains/identity/index.ts";
import { handleOf, type MatrixWorld, type Stage, TENANT } from "./stage.ts";

export interface Caller {
  readonly name: string;
  readonly key: string | null;
  /** The code it is refused with whatever it asks for; null for a key that is valid. */
  readonly refusedWith: string | null;
  /** `nothing`: a key of a tenant that is suspended. */
  readonly reaches: "A" | "B" | "everything" | "nothing";
  readonly permissions: ReadonlySet<string>;
  /** The one family of endpoints where it is not refused so. */
  readonly isFor?: "models";
}

/** Everybody who calls: of A, of B, of the platform, and who is nobody, or no longer somebody. */
export async function engage(stage: Stage): Promise<Caller[]> {
  const { world } = stage;
  const tenant = (owner: "A" | "B") => handleOf(stage.thing(TENANT, owner));
  const admin = async (owner: "A" | "B", expiresInMs?: number) => {
    const minted = await world.mint(tenant(owner), "tenant_admin", "tenant", expiresInMs);
    if (minted === null) throw new Error("no tenant admin could be made");
    return minted;
  };
  const expired = await admin("A", world.shortLifeMs);
  const expires = Date.now() + world.shortLifeMs;
  const revoked = await admin("A");
  await world.revoke(tenant("A"), revoked.id);
  const outcasts = (await world.outcasts?.()) ?? [];
  const callers = [
    refused("no key", null),
    refused("malformed key", "atr_malformed"),
    refused("unknown key", world.unknownKey),
    refused("revoked key", revoked.key),
    refused("expired key", expired.key, "expired_api_key"),
    ...outcasts.map(({ name, key, refusedWith, isFor }) => ({
      ...(refusedWith === null ? held(name, key, "nothing", ROLES.tenant_admin) : refused(name, key, refusedWith)),
      ...(isFor !== undefined && { isFor }),
    })),
    ...(await membersOf(world, "A", tenant("A"), ["developer", "tenant_admin"])),
    ...(await membersOf(world, "B", tenant("B"), Object.keys(ROLES) as Role[])),
    ...((await world.platformKeys?.()) ?? []).map(({ name, key, permissions }) => held(name, key, "everything", permissions)),
    held("platform admin", world.adminKey, "everything", ROLES.platform_admin),
  ];
  await sleep(Math.max(0, expires - Date.now()) + 50);
  return callers;
}

function refused(name: string, key: string | null, refusedWith = "invalid_api_key"): Caller {
  return { name, key, refusedWith, reaches: "nothing", permissions: new Set() };
}

function held(name: string, key: string, reaches: Caller["reaches"], permissions: Iterable<Permission>): Caller {
  return { name, key, refusedWith: null, reaches, permissions: new Set(permissions) };
}

/** A key of each role that can stand above the tenant's projects, and of each that can stand in one. */
async function membersOf(world: MatrixWorld, owner: "A" | "B", tenant: string, roles: readonly Role[]): Promise<Caller[]> {
  const members: Caller[] = [];
  for (const role of roles) {
    for (const place of ["tenant", "project"] as const) {
      const minted = await world.mint(tenant, role, place);
      const name = `${role.replaceAll("_", " ")} of ${place === "project" ? "a project of " : ""}${owner}`;
      if (minted !== null) members.push(held(name, minted.key, owner, permissionsInPlace([role], place)));
    }
  }
  return members;
}

/** Everybody who must learn nothing of A. */
export function isOutsider(caller: Caller): boolean {
  return caller.reaches === "B" || caller.reaches === "nothing";
}
