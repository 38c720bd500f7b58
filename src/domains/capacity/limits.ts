import { type DeploymentId, type KeyId, type ModelId, PLATFORM_TENANT, type ProjectId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import {
  type Address,
  addressOf,
  afterId,
  existing,
  kept,
  type ListQuery,
  openDisplayName,
  type Page,
  requireRevision,
  sealDisplayName,
  sealName,
  toPage,
  toUnixSeconds,
  upsert,
  type Written,
} from "../../storage/snapshot/index.ts";
import type { Allowed, Permission } from "../identity/index.ts";
import type { Dimension, LimitId, ScopeKind, TierId } from "./model.ts";
import type { CapacityVerbsNeeds } from "./needs.ts";
import { limitOf } from "./source.ts";
import {
  archiveLimit,
  countOwnLimits,
  findLimit,
  findLimitForUpdate,
  type Fresh,
  insertLimit,
  type LimitRow,
  listLimits,
  updateLimit,
} from "./store.ts";

/** Names or ids; what is left out is each one. */
export interface ScopeFields {
  readonly kind: ScopeKind;
  readonly key?: string | undefined;
  readonly project?: string | undefined;
  readonly model?: string | undefined;
  readonly deployment?: string | undefined;
}

/** Omitted keeps, null clears. */
export interface LimitFields {
  readonly display_name?: string | null | undefined;
  readonly scope?: ScopeFields | undefined;
  readonly dimension?: Dimension | undefined;
  readonly limit?: number | undefined;
  readonly per?: "minute" | null | undefined;
  readonly burst?: number | null | undefined;
  readonly window?: "gcra" | "sliding" | null | undefined;
  readonly mode?: "estimated" | "strict" | null | undefined;
}

export interface LimitView {
  readonly id: string;
  readonly name: string;
  readonly display_name: string | null;
  readonly set_by: "platform" | "tenant";
  readonly scope: ScopeFields;
  readonly dimension: Dimension;
  readonly limit: number;
  readonly per: "minute" | null;
  readonly burst: number | null;
  readonly window: "gcra" | "sliding" | null;
  readonly mode: "estimated" | "strict" | null;
  readonly created_at: number;
  readonly updated_at: number;
}

/** In the transaction of the limit's owner: a tenant, or the platform. Proof of `Read` and `Write`; all throw Problem. */
export interface LimitVerbs<Read extends Permission, Write extends Permission> {
  put(
    tx: TenantTransaction,
    allowed: Allowed<Write>,
    tier: TierId | null,
    nameOrId: string,
    fields: LimitFields,
    ifMatch: number | null,
  ): Promise<Written<LimitView>>;
  get(tx: TenantTransaction, allowed: Allowed<Read>, tier: TierId | null, nameOrId: string): Promise<{ view: LimitView; revision: number }>;
  list(tx: TenantTransaction, allowed: Allowed<Read>, tier: TierId | null, page: ListQuery): Promise<Page<LimitView>>;
  archive(
    tx: TenantTransaction,
    allowed: Allowed<Write>,
    tier: TierId | null,
    nameOrId: string,
    ifMatch: number | null,
  ): Promise<LimitView>;
}

export function createLimitVerbs<Read extends Permission, Write extends Permission>(needs: CapacityVerbsNeeds): LimitVerbs<Read, Write> {
  const ringOf = (tx: TenantTransaction): TenantKeyring => needs.keyring(tenantOf(tx));
  const at = (tx: TenantTransaction, text: string): Address<LimitId> => addressOf(ringOf(tx), "limits", text);
  return {
    async put(tx, allowed, tier, nameOrId, fields, ifMatch) {
      const address = at(tx, nameOrId);
      const byPlatform = isByPlatform(allowed);
      return upsert(tx, address, ifMatch, {
        what: "limit",
        find: () => findLimitForUpdate(tx, tier, address),
        change(row) {
          refuseForeign(row, byPlatform);
          return change(needs, tx, row, fields);
        },
        make: (name, index) => add(needs, tx, tier, { name, index, byPlatform }, fields),
      });
    },

    async get(tx, _allowed, tier, nameOrId) {
      const row = existing(await findLimit(tx, tier, at(tx, nameOrId)));
      return { view: viewOf(needs, tx, row), revision: row.revision };
    },

    async list(tx, _allowed, tier, page) {
      const rows = await listLimits(tx, tier, afterId(page.after), page.limit + 1);
      return toPage(rows, page.limit, (row) => viewOf(needs, tx, row));
    },

    async archive(tx, allowed, tier, nameOrId, ifMatch) {
      const row = existing(await findLimitForUpdate(tx, tier, at(tx, nameOrId)));
      requireRevision(ifMatch, row.revision);
      refuseForeign(row, isByPlatform(allowed));
      await archiveLimit(tx, row.id, new Date(needs.clock.now()));
      return viewOf(needs, tx, row);
    },
  };
}

function isByPlatform<Write extends Permission>(allowed: Allowed<Write>): boolean {
  return allowed.principal.tenant === PLATFORM_TENANT;
}

/** A tenant may not loosen what the platform set for it. */
function refuseForeign(row: LimitRow, byPlatform: boolean): void {
  if (row.set_by_platform && !byPlatform)
    throw new Problem("permission_denied", { message: "This limit was set by the platform: only the platform changes or ends it." });
}

interface Made {
  readonly name: string;
  readonly index: Buffer;
  readonly byPlatform: boolean;
}

async function add(
  needs: CapacityVerbsNeeds,
  tx: TenantTransaction,
  tier: TierId | null,
  named: Made,
  fields: LimitFields,
): Promise<Written<LimitView>> {
  if (!named.byPlatform && (await countOwnLimits(tx)) >= MAX_OWN_LIMITS)
    throw new Problem("invalid_request", { message: `There are ${MAX_OWN_LIMITS} limits of your own here, and no more can be.` });
  const keyring = needs.keyring(tenantOf(tx));
  const id = needs.makeId<LimitId>();
  const now = new Date(needs.clock.now());
  const row: Fresh<LimitRow> = {
    id,
    tier_id: tier,
    ...sealName(keyring, "limits", id, named.name, named.index),
    display_name_sealed: sealDisplayName(keyring, "limits", id, fields.display_name ?? null),
    ...(await columnsOf(needs, tx, required(fields.scope, "scope"), tier)),
    dimension: required(fields.dimension, "dimension"),
    amount: required(fields.limit, "limit"),
    burst: fields.burst ?? null,
    rate_window: fields.window ?? "gcra",
    token_mode: fields.mode ?? "estimated",
    set_by_platform: named.byPlatform,
    revision: 1,
    created_at: now,
    updated_at: now,
  };
  refuseMisfits(row, fields);
  await insertLimit(tx, row);
  return { before: null, after: viewOf(needs, tx, row), revision: row.revision };
}

async function change(needs: CapacityVerbsNeeds, tx: TenantTransaction, row: LimitRow, fields: LimitFields): Promise<Written<LimitView>> {
  const keyring = needs.keyring(tenantOf(tx));
  const { scope, key_id, project_id, model_id, deployment_id } = row;
  const changes = {
    display_name_sealed:
      fields.display_name === undefined ? row.display_name_sealed : sealDisplayName(keyring, "limits", row.id, fields.display_name),
    ...(fields.scope === undefined
      ? { scope, key_id, project_id, model_id, deployment_id }
      : await columnsOf(needs, tx, fields.scope, row.tier_id)),
    dimension: kept(fields.dimension, row.dimension),
    amount: kept(fields.limit, row.amount),
    burst: kept(fields.burst, row.burst),
    rate_window: fields.window === undefined ? row.rate_window : (fields.window ?? "gcra"),
    token_mode: fields.mode === undefined ? row.token_mode : (fields.mode ?? "estimated"),
    revision: row.revision + 1,
    updated_at: new Date(needs.clock.now()),
  };
  refuseMisfits(changes, fields);
  await updateLimit(tx, row.id, changes);
  return { before: viewOf(needs, tx, row), after: viewOf(needs, tx, { ...row, ...changes }), revision: changes.revision };
}

/** Of a tenant, set by itself: all are looked through when one of its keys first calls a model. */
const MAX_OWN_LIMITS = 1_000;

function required<T>(given: T | undefined, param: string): T {
  if (given === undefined) throw new Problem("invalid_request", { param, message: `A new limit needs '${param}'.` });
  return given;
}

/** What the dimension or the window has no use for would be believed to hold, so it is refused. */
function refuseMisfits(row: Pick<LimitRow, "dimension" | "burst" | "rate_window" | "token_mode">, fields: LimitFields): void {
  const isRate = row.dimension !== "concurrency";
  const given = (value: unknown): boolean => value !== undefined && value !== null;
  if (!isRate && given(fields.per)) refuse("per", "'concurrency' is of calls at once: leave 'per' out.");
  if (!isRate && row.rate_window !== "gcra") refuse("window", "'concurrency' is of calls at once: leave 'window' out.");
  if (row.burst !== null && (!isRate || row.rate_window === "sliding"))
    refuse("burst", "Only a rate with 'window':\"gcra\" has a burst: clear 'burst' with null.");
  if (row.token_mode === "strict" && row.dimension !== "tokens") refuse("mode", "Only 'tokens' can be strict: leave 'mode' out.");
}

function refuse(param: string, message: string): never {
  throw new Problem("invalid_request", { param, message });
}

type ScopeColumns = Pick<LimitRow, "scope" | "key_id" | "project_id" | "model_id" | "deployment_id">;

/** The ids of what the scope names, which must be there and the transaction's tenant's to limit. */
async function columnsOf(
  needs: CapacityVerbsNeeds,
  tx: TenantTransaction,
  fields: ScopeFields,
  tier: TierId | null,
): Promise<ScopeColumns> {
  const { kind: scope, key, project, model, deployment } = fields;
  const isForAll = tenantOf(tx) === PLATFORM_TENANT;
  if (key !== undefined && (scope !== "key" || isForAll)) refuse("scope.key", "Only a tenant's own limit of scope 'key' names a key.");
  if (project !== undefined && (scope !== "project" || isForAll))
    refuse("scope.project", "Only a tenant's own limit of scope 'project' names a project.");
  if (scope === "deployment" && (!isForAll || tier !== null))
    refuse("scope.kind", "A deployment is everybody's: limit it with PUT limits/{limit}.");
  if (deployment !== undefined && (scope !== "deployment" || model === undefined))
    refuse("scope.deployment", "A deployment is named beside its model, in a limit of scope 'deployment'.");
  const named = model === undefined ? null : await needs.model(tenantOf(tx), model);
  if (named === undefined) refuse("scope.model", "There is no model of this name.");
  return {
    scope,
    key_id: key === undefined ? null : await keyOf(needs, tx, key),
    project_id: project === undefined ? null : await projectOf(needs, tx, project),
    model_id: named?.id ?? null,
    deployment_id: deployment === undefined ? null : deploymentOf(named?.deployments ?? [], deployment),
  };
}

async function keyOf(needs: CapacityVerbsNeeds, tx: TenantTransaction, id: string): Promise<KeyId> {
  if (!(await needs.hasKey(tenantOf(tx), id as KeyId))) refuse("scope.key", "There is no key of this id.");
  return id as KeyId;
}

async function projectOf(needs: CapacityVerbsNeeds, tx: TenantTransaction, nameOrId: string): Promise<ProjectId> {
  try {
    return await needs.projectOf(tx, nameOrId);
  } catch (thrown) {
    if (!(thrown instanceof Problem) || thrown.code !== "not_found") throw thrown;
    return refuse("scope.project", "There is no project of this name.");
  }
}

function deploymentOf(deployments: readonly { readonly id: DeploymentId; readonly name: string }[], nameOrId: string): DeploymentId {
  const found = deployments.find(({ id, name }) => name === nameOrId || id === (nameOrId as DeploymentId));
  return found === undefined ? refuse("scope.deployment", "The model has no deployment of this name.") : found.id;
}

function viewOf(needs: CapacityVerbsNeeds, tx: TenantTransaction, row: Fresh<LimitRow>): LimitView {
  const keyring = needs.keyring(tenantOf(tx));
  const limit = limitOf(keyring, row);
  const isRate = row.dimension !== "concurrency";
  return {
    id: row.id,
    name: limit.name,
    display_name: openDisplayName(keyring, "limits", row),
    set_by: row.set_by_platform ? "platform" : "tenant",
    scope: scopeView(needs, tx, row),
    dimension: row.dimension,
    limit: row.amount,
    per: isRate ? "minute" : null,
    burst: isRate && row.rate_window === "gcra" ? limit.burst : null,
    window: isRate ? row.rate_window : null,
    mode: row.dimension === "tokens" ? row.token_mode : null,
    created_at: toUnixSeconds(row.created_at),
    updated_at: toUnixSeconds(row.updated_at),
  };
}

/** By name; what has been archived since, by id. */
function scopeView({ names }: CapacityVerbsNeeds, tx: TenantTransaction, row: Fresh<LimitRow>): ScopeFields {
  const { scope: kind, key_id, project_id, model_id, deployment_id } = row;
  const named = model_id === null ? null : names.model(tenantOf(tx), model_id as ModelId);
  return {
    kind,
    ...(key_id === null ? {} : { key: key_id }),
    ...(project_id === null ? {} : { project: names.project(tenantOf(tx), project_id) ?? project_id }),
    ...(model_id === null ? {} : { model: named?.name ?? model_id }),
    ...(deployment_id === null ? {} : { deployment: named?.deployments.find((each) => each.id === deployment_id)?.name ?? deployment_id }),
  };
}
