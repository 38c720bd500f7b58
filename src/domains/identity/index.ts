import type { Clock } from "../../kernel/clock.ts";
import type { TenantId } from "../../kernel/ids.ts";
import type { RandomBytes } from "../../kernel/random.ts";
import type { Database } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import type { SnapshotStore } from "../../storage/snapshot/index.ts";
import { type Allow, createAllow } from "./allow.ts";
import { type Authenticate, createAuthenticate } from "./authenticate.ts";
import type { IdentityPart } from "./model.ts";
import { createPresentedKeys, type PresentedKeys } from "./presented.ts";
import { type IdentityRoutesNeeds, identityRoutes } from "./routes.ts";
import { createKeyVerbs, type KeyVerbs } from "./service.ts";
import { openSession } from "./session.ts";
import { ownerInDirectory } from "./store.ts";

export type { Allow } from "./allow.ts";
export type { Authenticate } from "./authenticate.ts";
export type { Allowed, IdentityPart, Principal, Proofs, Session } from "./model.ts";
export type { PresentedKey } from "./presented.ts";
export { pepperOf } from "./pepper.ts";
export { PERMISSIONS, ROLES, type Permission, type Role } from "./permissions.ts";
export { type KeyVerbs, mintAdminKey } from "./service.ts";
export { identitySource } from "./source.ts";

/** What this domain reads of the configuration snapshot. */
export interface IdentityParts {
  readonly identity: IdentityPart;
  readonly tenants: { readonly tenant: { readonly status: "active" | "suspended" } };
  readonly keyring: TenantKeyring;
}

/** The snapshot's index of key ids. */
export const KEY_INDEX = "keys";

export interface IdentityNeeds {
  readonly database: Database;
  readonly snapshot: SnapshotStore<IdentityParts>;
  /** As `pepperOf` derives it. */
  readonly pepper: Buffer;
  readonly bootstrapKey: string | null;
  readonly clock: Clock;
  readonly random: RandomBytes;
  /** Configuration older than this is not trusted, ms. */
  readonly stalenessBoundMs: number;
  readonly projectOf: IdentityRoutesNeeds["projectOf"];
}

export interface Identity {
  readonly authenticate: Authenticate;
  readonly allow: Allow;
  readonly openSession: typeof openSession;
  readonly keys: KeyVerbs;
  readonly presented: PresentedKeys;
  readonly routes: ReturnType<typeof identityRoutes>;
}

export function createIdentity(needs: IdentityNeeds): Identity {
  const partsOf = (tenant: TenantId): IdentityParts | undefined => needs.snapshot.current.tenants.get(tenant);
  const keys = createKeyVerbs({ ...needs, keyring: (tenant) => keyringOf(partsOf(tenant)) });
  return {
    authenticate: createAuthenticate({
      ...needs,
      knownKey(id) {
        const owner = needs.snapshot.ownerOf(KEY_INDEX, id);
        return owner === undefined ? undefined : partsOf(owner)?.identity.keys.get(id);
      },
      ownerInDirectory: (id) => ownerInDirectory(needs.database, id),
      refresh: () => needs.snapshot.refresh(),
      stalenessMs: () => needs.snapshot.stalenessMs(),
    }),
    allow: createAllow((tenant) => partsOf(tenant)?.tenants.tenant.status),
    openSession,
    keys,
    presented: createPresentedKeys(needs.pepper, needs.database),
    routes: identityRoutes({ keys, projectOf: needs.projectOf }),
  };
}

function keyringOf(parts: IdentityParts | undefined): TenantKeyring {
  if (parts === undefined) throw new Error("a verb runs for a tenant that the snapshot does not hold");
  return parts.keyring;
}
