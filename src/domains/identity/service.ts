import type { Clock } from "../../kernel/clock.ts";
import { type KeyId, PLATFORM_TENANT, type ProjectId, type TenantId, type Uuid } from "../../kernel/ids.ts";
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
import { findKey, findKeyForUpdate, insertKey, type KeyRow, listKeys, setGrace, setProjectRevoked, setRevoked } from "./store.ts";

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
}

/** Everything but the secret. Times in Unix seconds. */
export interface KeyView {
  readonly id: string;
  readonly name: string;
  readonly permissions: string[];
  readonly models: string[] | null;
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
    page: { limit: number; after?: string | undefined },
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
  /** For the archiving of a project: its keys end with it. */
  revokeProject(tx: TenantTransaction, project: ProjectId): Promise<void>;
}

export function createKeyVerbs(needs: KeyVerbsNeeds): KeyVerbs {
  const ringOf = (tx: TenantTransaction): TenantKeyring => needs.keyring(tenantOf(tx));
  return {
    async create(tx, allowed, project, fields) {
      const creator = authorityOf(allowed.principal);
      const expiresAt = fields.expiresAt === undefined ? creator.expiresAt : fields.expiresAt;
      if (expiresAt !== null && expiresAt <= needs.clock.now())
        throw invalid("expires_at", "'expires_at' has passed. Choose a time to come, or null.");
      const request: KeyRequest = {
        place: placeOf(tenantOf(tx), project),
        permissions: fields.permissions,
        models: fields.models,
        expiresAt,
      };
      refuse(decideKey(creator, request), request);
      return addKey(needs, tx, ringOf(tx), { ...request, project, name: fields.name, createdBy: allowed.principal.id });
    },

    async get(tx, _allowed, project, id) {
      return viewOf(ringOf(tx), existing(isKeyId(id) ? await findKey(tx, project, id) : undefined));
    },

    async list(tx, _allowed, project, page) {
      const rows = await listKeys(tx, project, cursor(page.after), page.limit + 1);
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
      };
      refuse(decideKey(authorityOf(allowed.principal), request), request);
      await setGrace(tx, row.id, new Date(needs.clock.now() + graceMs));
      return {
        before,
        created: await addKey(needs, tx, ringOf(tx), { ...request, project, name: before.name, createdBy: allowed.principal.id }),
      };
    },

    revokeProject: (tx, project) => setProjectRevoked(tx, project, new Date(needs.clock.now())),
  };
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
      project: null,
      name: undefined,
      createdBy,
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
  readonly createdBy: string;
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
