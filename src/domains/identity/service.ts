import type { Clock } from "../../kernel/clock.ts";
import { type KeyId, type MemberId, PLATFORM_TENANT, type ProjectId, type TenantId, type Uuid } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import type { RandomBytes } from "../../kernel/random.ts";
import { bumpConfig, type Database, type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import type { MasterKey, TenantKeyring } from "../../storage/secrets/index.ts";
import { makeTenantKey, existing, openName, type Page, sealName, toPage, toUnixSeconds } from "../../storage/snapshot/index.ts";
import type { AuditRow } from "../records/index.ts";
import { hashKey } from "./authenticate.ts";
import { type Authority, decideKey, type KeyDecision, type KeyRequest, placeOf } from "./decide.ts";
import { isKeyId, newKeyId, newKeySecret, renderKey } from "./key-format.ts";
import type { Allowed, Principal } from "./model.ts";
import { removeServiceAccountsOf } from "./member-store.ts";
import type { WriteMembers } from "./members.ts";
import type { RouteFamily } from "./origin.ts";
import {
  creatorOf,
  findKey,
  findKeyForUpdate,
  handOver,
  insertKey,
  type KeyRow,
  listKeys,
  setGrace,
  setMemberRevoked,
  setProjectRevoked,
  setRevoked,
} from "./store.ts";

export interface KeyVerbsNeeds {
  readonly pepper: Buffer;
  readonly clock: Clock;
  readonly random: RandomBytes;
  /** Of a tenant that the snapshot holds. */
  readonly keyring: (tenant: TenantId) => TenantKeyring;
}

/** A tenant's keys, or the platform's own: the proof names the tenant. */
export type ReadKeys = Allowed<"keys:read"> | Allowed<"platform:keys:read">;
export type WriteKeys = Allowed<"keys:write"> | Allowed<"platform:keys:write">;

export interface NewKey {
  /** Absent: made from the id. */
  readonly name?: string | undefined;
  /** Role and permission names. */
  readonly permissions: readonly string[];
  readonly models: readonly string[] | null;
  /** ms since the epoch; absent: as long as its creator's key. */
  readonly expiresAt?: number | null | undefined;
  /** Absent: as its creator's key. */
  readonly routes?: readonly RouteFamily[] | null | undefined;
  /** CIDRs; absent: as its creator's key. */
  readonly ipRanges?: readonly string[] | null | undefined;
}

/** Everything but the secret. Times in Unix seconds. */
export interface KeyView {
  readonly id: string;
  readonly name: string;
  readonly permissions: string[];
  readonly models: string[] | null;
  readonly routes: string[] | null;
  readonly ip_ranges: string[] | null;
  readonly service_account: string | null;
  readonly expires_at: number | null;
  readonly grace_until: number | null;
  readonly created_by: string;
  readonly created_at: number;
}

export interface CreatedKey {
  readonly view: KeyView;
  /** Shown this once. */
  readonly key: string;
}

export interface KeyVerbs {
  /** Throws Problem: invalid_request, permission_denied (more than the creator holds), conflict (the name is taken). */
  create(tx: TenantTransaction, allowed: WriteKeys, project: ProjectId | null, fields: NewKey): Promise<CreatedKey>;
  get(tx: TenantTransaction, allowed: ReadKeys, project: ProjectId | null, id: string): Promise<KeyView>;
  list(
    tx: TenantTransaction,
    allowed: ReadKeys,
    project: ProjectId | null,
    page: { limit: number; after?: string | undefined; order?: "asc" | "desc" },
  ): Promise<Page<KeyView>>;
  /** Returns the key as it was. */
  revoke(tx: TenantTransaction, allowed: WriteKeys, project: ProjectId | null, id: string): Promise<KeyView>;
  /** A new key of the same name and rights; the old one ends after the grace, ms. Rights beyond the caller's are refused: its secret would be theirs. */
  rotate(
    tx: TenantTransaction,
    allowed: WriteKeys,
    project: ProjectId | null,
    id: string,
    graceMs: number,
  ): Promise<{ before: KeyView; created: CreatedKey }>;
  /** For the archiving of a project: its keys and service accounts end with it. */
  revokeProject(tx: TenantTransaction, project: ProjectId): Promise<void>;
  /** For the removal of a service account. */
  revokeMember(tx: TenantTransaction, member: MemberId): Promise<void>;
}

/** Keys that a service account calls with: the proof is that of whoever manages the account. */
export interface ServiceAccountKeys {
  /** `names`: role and permission names, which count as far as the account's roles go. Throws Problem. */
  createFor(
    tx: TenantTransaction,
    allowed: WriteMembers,
    project: ProjectId,
    account: MemberId,
    names: readonly string[],
    fields: Pick<NewKey, "name" | "expiresAt">,
  ): Promise<CreatedKey>;
}

export function createServiceAccountKeys(needs: KeyVerbsNeeds): ServiceAccountKeys {
  return {
    createFor: (tx, allowed, project, account, names, fields) =>
      makeKey(needs, tx, allowed.principal, { project, member: account }, { ...fields, permissions: names, models: null }),
  };
}

export function createKeyVerbs(needs: KeyVerbsNeeds): KeyVerbs {
  const ringOf = (tx: TenantTransaction): TenantKeyring => needs.keyring(tenantOf(tx));
  return {
    create: (tx, allowed, project, fields) => makeKey(needs, tx, allowed.principal, { project, member: null }, fields),

    async get(tx, _allowed, project, id) {
      return viewOf(ringOf(tx), existing(isKeyId(id) ? await findKey(tx, project, id) : undefined));
    },

    async list(tx, _allowed, project, page) {
      const rows = await listKeys(tx, project, cursor(page.after), page.limit + 1, page.order ?? "asc");
      return toPage(rows, page.limit, (row) => viewOf(ringOf(tx), row));
    },

    async revoke(tx, _allowed, project, id) {
      const row = existing(isKeyId(id) ? await findKeyForUpdate(tx, project, id) : undefined);
      await setRevoked(tx, row.id, new Date(needs.clock.now()));
      return viewOf(ringOf(tx), row);
    },

    async rotate(tx, allowed, project, id, graceMs) {
      const row = existing(isKeyId(id) ? await findKeyForUpdate(tx, project, id) : undefined);
      if (row.grace_until !== null) throw new Problem("conflict", { message: "This key has been rotated already. Rotate its successor." });
      const before = viewOf(ringOf(tx), row);
      const request: KeyRequest = {
        place: placeOf(tenantOf(tx), project),
        permissions: row.permissions,
        models: row.models,
        expiresAt: row.expires_at?.getTime() ?? null,
        routes: row.routes as RouteFamily[] | null,
        ipRanges: row.ip_ranges,
      };
      refuse(decideKey(authorityOf(allowed.principal), request), request);
      await setGrace(tx, row.id, new Date(needs.clock.now() + graceMs));
      const by = creatorIn(tx, allowed.principal, row.member_id);
      const creator = (await descendsFrom(tx, by, row.id)) ? row.creator : by;
      const createdBy = allowed.principal.id;
      const addition = { ...request, project, member: row.member_id, name: before.name, createdBy, creator };
      const created = await addKey(needs, tx, ringOf(tx), addition);
      await handOver(tx, row.id, created.view.id as KeyId);
      return { before, created };
    },

    async revokeProject(tx, project) {
      const now = new Date(needs.clock.now());
      await setProjectRevoked(tx, project, now);
      await removeServiceAccountsOf(tx, project, now);
    },

    revokeMember: (tx, member) => setMemberRevoked(tx, member, new Date(needs.clock.now())),
  };
}

async function makeKey(
  needs: KeyVerbsNeeds,
  tx: TenantTransaction,
  principal: Principal,
  { project, member }: Pick<Addition, "project" | "member">,
  fields: NewKey,
): Promise<CreatedKey> {
  const creator = authorityOf(principal);
  const expiresAt = fields.expiresAt === undefined ? creator.expiresAt : fields.expiresAt;
  if (expiresAt !== null && expiresAt <= needs.clock.now())
    throw invalid("expires_at", "'expires_at' has passed. Choose a time to come, or null.");
  const request: KeyRequest = {
    place: placeOf(tenantOf(tx), project),
    permissions: fields.permissions,
    models: fields.models,
    expiresAt,
    routes: fields.routes === undefined ? listOf(creator.routes) : fields.routes,
    ipRanges: fields.ipRanges === undefined ? (creator.networks?.[0]?.ranges ?? null) : fields.ipRanges,
  };
  refuse(decideKey(creator, request, member === null ? "keys:write" : "members:write"), request);
  const made = { project, member, name: fields.name, createdBy: principal.id, creator: creatorIn(tx, principal, member) };
  return addKey(needs, tx, needs.keyring(tenantOf(tx)), { ...request, ...made });
}

/**
 * Who bounds a key at every use: who made it, where that is a key or a member of the key's own tenant. A service account's keys are
 * bounded by the account, which stays when the person leaves who set it up.
 */
function creatorIn(tx: TenantTransaction, { tenant, key, member }: Principal, account: MemberId | null): KeyId | MemberId | null {
  return account === null && tenant === tenantOf(tx) ? (key?.id ?? member?.id ?? null) : null;
}

/** Whether the creator is this key, or one that it made, at any remove: a successor is bounded by neither, but by what bounded it. */
async function descendsFrom(tx: TenantTransaction, creator: string | null, key: KeyId): Promise<boolean> {
  const seen = new Set<string>();
  for (let at = creator; at !== null && !seen.has(at); at = await creatorOf(tx, at)) {
    if (at === key) return true;
    if (seen.size === MAX_CHAIN) throw new Problem("conflict", { message: "Too many keys made each other. Rotate it with another key." });
    seen.add(at);
  }
  return false;
}

const MAX_CHAIN = 100;

function listOf<Name>(names: ReadonlySet<Name> | null): Name[] | null {
  return names === null ? null : [...names];
}

export interface MintNeeds {
  readonly database: Database;
  readonly makeId: <Id extends Uuid>() => Id;
  /** In the transaction that makes the key. */
  readonly writeAudit: (tx: TenantTransaction, keyring: TenantKeyring, row: AuditRow) => Promise<void>;
  readonly masterKey: MasterKey;
  readonly pepper: Buffer;
  readonly clock: Clock;
  readonly random: RandomBytes;
}

/**
 * A new platform-admin key, by whoever holds the machine: the first start, and the command for a lost key. Needs no running
 * server; running ones know the key within the poll interval, and at once when it is presented.
 */
export function mintAdminKey(needs: MintNeeds, createdBy: string): Promise<CreatedKey> {
  return needs.database.forTenant(PLATFORM_TENANT, async (tx) => {
    const keyring = await makeTenantKey(needs, tx);
    const created = await addKey(needs, tx, keyring, {
      permissions: ["platform_admin"],
      models: null,
      expiresAt: null,
      routes: null,
      ipRanges: null,
      project: null,
      member: null,
      name: undefined,
      createdBy,
      creator: null,
    });
    await needs.writeAudit(tx, keyring, {
      id: needs.makeId(),
      actor: createdBy,
      actorKind: "machine",
      action: "platform_keys.create",
      target: created.view.id,
      before: null,
      after: created.view,
      requestId: null,
      remoteAddress: null,
      status: 201,
      at: needs.clock.now(),
    });
    await bumpConfig(tx);
    return created;
  });
}

interface Addition {
  readonly project: ProjectId | null;
  readonly name: string | undefined;
  readonly permissions: readonly string[];
  readonly models: readonly string[] | null;
  readonly expiresAt: number | null;
  readonly routes: readonly string[] | null;
  readonly ipRanges: readonly string[] | null;
  readonly member: MemberId | null;
  readonly createdBy: string;
  readonly creator: KeyId | MemberId | null;
}

async function addKey(
  needs: Omit<KeyVerbsNeeds, "keyring">,
  tx: TenantTransaction,
  keyring: TenantKeyring,
  addition: Addition,
): Promise<CreatedKey> {
  const id = newKeyId(needs.random);
  const key = renderKey(id, newKeySecret(needs.random));
  const name = addition.name ?? `key-${id}`;
  const row = {
    id,
    project_id: addition.project,
    ...sealName(keyring, "api_keys", id, name, keyring.blindIndex("api_keys.name", name)),
    hash: hashKey(needs.pepper, key),
    permissions: [...addition.permissions],
    models: addition.models === null ? null : [...addition.models],
    expires_at: addition.expiresAt === null ? null : new Date(addition.expiresAt),
    routes: addition.routes === null ? null : [...addition.routes],
    ip_ranges: addition.ipRanges === null ? null : [...addition.ipRanges],
    member_id: addition.member,
    creator: addition.creator,
    created_by: addition.createdBy,
    created_at: new Date(needs.clock.now()),
  };
  if (!(await insertKey(tx, row)))
    throw new Problem("conflict", { param: "name", message: "A key of this name exists. Choose another name, or revoke that key." });
  return { view: viewOf(keyring, { ...row, grace_until: null }), key };
}

function authorityOf(principal: Principal): Authority {
  return {
    tenant: principal.tenant,
    permissions: principal.permissions,
    models: principal.models,
    expiresAt: principal.key?.expiresAt ?? null,
    routes: principal.key?.routes ?? null,
    networks: principal.key?.networks ?? null,
  };
}

function refuse(decision: KeyDecision, request: KeyRequest): void {
  switch (decision.kind) {
    case "granted":
      return;
    case "unknown_name":
      throw invalid("permissions", `'${decision.name}' is neither a permission nor a role.`);
    case "wrong_place":
      throw invalid("permissions", `A key of a ${request.place} cannot hold '${decision.permission}'.`);
    case "beyond_creator":
      throw new Problem("permission_denied", {
        param: decision.what,
        message: `A key cannot hold more than its creator: ${decision.bound}.`,
      });
    default:
      return decision satisfies never;
  }
}

function viewOf(keyring: TenantKeyring, row: Omit<KeyRow, "tenant_id" | "hash" | "revoked_at" | "project_id">): KeyView {
  return {
    id: row.id,
    name: openName(keyring, "api_keys", row),
    permissions: row.permissions,
    models: row.models,
    routes: row.routes,
    ip_ranges: row.ip_ranges,
    service_account: row.member_id,
    expires_at: row.expires_at === null ? null : toUnixSeconds(row.expires_at),
    grace_until: row.grace_until === null ? null : toUnixSeconds(row.grace_until),
    created_by: row.created_by,
    created_at: toUnixSeconds(row.created_at),
  };
}

function cursor(after: string | undefined): KeyId | null {
  if (after === undefined) return null;
  if (!isKeyId(after)) throw invalid("after", "'after' must be the last_id of the page before.");
  return after;
}

function invalid(param: string, message: string): Problem {
  return new Problem("invalid_request", { param, message });
}
