import type { Brand } from "../../kernel/brand.ts";
import type { KeyId, MemberId, ProjectId, TenantId } from "../../kernel/ids.ts";
import type { RouteFamily, Networks } from "./origin.ts";
import type { Permission } from "./permissions.ts";

/** An API key as the configuration snapshot holds it. */
export interface KeyRecord {
  readonly id: KeyId;
  readonly tenant: TenantId;
  /** Null for keys above projects: tenant admins', and the platform's. */
  readonly project: ProjectId | null;
  /** HMAC-SHA256 of the whole key under the server's pepper: 32 bytes in latin1, 50 in memory where a Buffer is 250 with what it keeps alive. */
  readonly hash: string;
  /** As all below: what its row says, and its creator and its service account still hold. */
  readonly permissions: ReadonlySet<Permission>;
  /** Model names the key may call; null for every model its tenant may use. */
  readonly models: ReadonlySet<string> | null;
  /** ms since the epoch; null never. */
  readonly expiresAt: number | null;
  /** Null for every endpoint that its permissions open. */
  readonly routes: ReadonlySet<RouteFamily> | null;
  /** Each must hold the caller's address; null for any address. */
  readonly networks: readonly Networks[] | null;
  /** The service account that calls with it. */
  readonly member: MemberRecord | null;
}

/** A person or a service account, as the configuration snapshot holds it: names and addresses stay in its row. */
export interface MemberRecord {
  readonly id: MemberId;
  readonly tenant: TenantId;
  readonly kind: "user" | "service_account";
  /** A service account's; null for people. */
  readonly project: ProjectId | null;
  /** Over the whole tenant. */
  readonly permissions: ReadonlySet<Permission>;
  /** In one project, beside those. */
  readonly projects: ReadonlyMap<ProjectId, ReadonlySet<Permission>>;
}

/** The identity domain's part of one tenant's snapshot: its live keys and members. */
export interface IdentityPart {
  readonly keys: ReadonlyMap<KeyId, KeyRecord>;
  readonly members: ReadonlyMap<MemberId, MemberRecord>;
}

/** Who is calling. Minted only by this domain's `authenticate`. */
export type Principal = Brand<
  {
    readonly kind: "key" | "bootstrap" | "user" | "service_account";
    /** The id of the key or of the member, or `bootstrap`. For rows and logs. */
    readonly id: string;
    /** What it came with; null for a session or a token. */
    readonly key: KeyRecord | null;
    readonly member: MemberRecord | null;
    readonly tenant: TenantId;
    readonly project: ProjectId | null;
    readonly permissions: ReadonlySet<Permission>;
    readonly models: ReadonlySet<string> | null;
  },
  "Principal"
>;

/**
 * Proof that the principal may do `P` on the tenant named: what an admin verb takes instead of an id.
 * Minted only by this domain's `allow`.
 */
export type Allowed<P extends Permission> = Brand<
  {
    readonly permission: P;
    readonly principal: Principal;
    /** The tenant whose rows the verb touches; PLATFORM_TENANT for the platform's own. */
    readonly tenant: TenantId;
    /** Set where the principal reaches only its own project. */
    readonly project: ProjectId | null;
  },
  `Allowed<${P}>`
>;

/** Derived from tenant and principal, and the caller's session id as HMAC input only; history is loaded through it. */
export type Session = Brand<{ readonly id: string }, "Session">;

/** Which proof each permission yields: what `routeBuilder` types handlers with. */
export type Proofs = { readonly [P in Permission]: Allowed<P> };
