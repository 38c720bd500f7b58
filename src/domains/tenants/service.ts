import type { Clock } from "../../kernel/clock.ts";
import { isUuid, type ProjectId, type TenantId, type Uuid } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import { asTenant, type TenantTransaction, tenantOf } from "../../storage/database/index.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import {
  type Address,
  addressOf,
  afterId,
  kept,
  type ListQuery,
  existing,
  upsert,
  openDisplayName,
  openName,
  type Page,
  requireRevision,
  sealDisplayName,
  sealName,
  toPage,
  toUnixSeconds,
  type Written,
} from "../../storage/snapshot/index.ts";
import type { Allowed } from "../identity/index.ts";
import { formatMarkup, parseMarkup } from "./markup.ts";
import type { TenantRecord } from "./model.ts";
import { PLATFORM_NAME, tenantRecord } from "./source.ts";
import {
  archiveProject,
  archiveTenant,
  findProject,
  findProjectForUpdate,
  findProjectToUse,
  findTenantForUpdate,
  insertProject,
  insertTenant,
  listProjects,
  listTenants,
  type ProjectRow,
  type TenantRow,
  updateProject,
  updateTenant,
} from "./store.ts";

export interface TenantVerbsNeeds {
  readonly clock: Clock;
  readonly makeId: <Id extends Uuid>() => Id;
  /** Of a tenant that the snapshot holds. */
  readonly keyring: (tenant: TenantId) => TenantKeyring;
  /** The same, of a tenant that this process may not have heard of yet. Rejects when the database is away. */
  readonly awaitKeyring: (tenant: TenantId) => Promise<TenantKeyring>;
  /** Gives the transaction's tenant its key. */
  readonly makeTenantKey: (tx: TenantTransaction) => Promise<TenantKeyring>;
  /** Revokes every key of the project, in the transaction. */
  readonly revokeProjectKeys: (tx: TenantTransaction, project: ProjectId) => Promise<void>;
}

/** An upsert's fields: omitted keeps, null clears. */
export interface TenantFields {
  readonly display_name?: string | null | undefined;
  readonly tier?: string | null | undefined;
  readonly home_region?: string | null | undefined;
  readonly time_zone?: string | null | undefined;
  /** A decimal. */
  readonly markup?: string | null | undefined;
  readonly status?: "active" | "suspended" | undefined;
}

export interface TenantView {
  readonly id: string;
  readonly name: string;
  readonly display_name: string | null;
  readonly status: "active" | "suspended";
  readonly tier: string | null;
  readonly home_region: string | null;
  readonly time_zone: string;
  /** A decimal. Absent in what the tenant itself reads. */
  readonly markup?: string;
  readonly created_at: number;
  readonly updated_at: number;
}

export type Attribution = "feature" | "user" | "session";

export interface ProjectFields {
  readonly display_name?: string | null | undefined;
  readonly default_max_output_tokens?: number | null | undefined;
  readonly require?: readonly Attribution[] | null | undefined;
}

export interface ProjectView {
  readonly id: string;
  readonly name: string;
  readonly display_name: string | null;
  readonly default_max_output_tokens: number | null;
  readonly require: string[];
  readonly created_at: number;
  readonly updated_at: number;
  /** Of one that is archived. */
  readonly archived_at?: number;
}

/** In the platform's transaction. All throw Problem. */
export interface TenantVerbs {
  put(
    tx: TenantTransaction,
    allowed: Allowed<"platform:tenants:write">,
    nameOrId: string,
    fields: TenantFields,
    ifMatch: number | null,
  ): Promise<Written<TenantView>>;
  list(tx: TenantTransaction, allowed: Allowed<"platform:tenants:read">, page: ListQuery): Promise<Page<TenantView>>;
  archive(tx: TenantTransaction, allowed: Allowed<"platform:tenants:write">, nameOrId: string, ifMatch: number | null): Promise<TenantView>;
}

/** In the tenant's transaction. All throw Problem. */
export interface ProjectVerbs {
  put(
    tx: TenantTransaction,
    allowed: Allowed<"projects:write">,
    nameOrId: string,
    fields: ProjectFields,
    ifMatch: number | null,
  ): Promise<Written<ProjectView>>;
  get(tx: TenantTransaction, allowed: Allowed<"projects:read">, nameOrId: string): Promise<{ view: ProjectView; revision: number }>;
  list(tx: TenantTransaction, allowed: Allowed<"projects:read">, page: ListQuery, archived?: boolean): Promise<Page<ProjectView>>;
  /** A new project that is shown by this name, any text; the one that is unique is made of it. */
  create(tx: TenantTransaction, allowed: Allowed<"projects:write">, displayName: string): Promise<ProjectView>;
  /** Changes one that exists. */
  change(
    tx: TenantTransaction,
    allowed: Allowed<"projects:write">,
    nameOrId: string,
    fields: ProjectFields,
  ): Promise<{ before: ProjectView; after: ProjectView }>;
  /** Returns the project as it was. `archivedAt` in Unix seconds. */
  archive(
    tx: TenantTransaction,
    allowed: Allowed<"projects:write">,
    nameOrId: string,
    ifMatch: number | null,
  ): Promise<{ before: ProjectView; archivedAt: number }>;
  /**
   * The live project of this name or id, which lives on until the transaction ends: archiving waits for a key that is being
   * made, and revokes it. Throws not_found.
   */
  idOf(tx: TenantTransaction, nameOrId: string): Promise<ProjectId>;
}

export function createTenantVerbs(needs: TenantVerbsNeeds): TenantVerbs {
  const at = (tx: TenantTransaction, text: string): Address<TenantId> => addressOf(needs.keyring(tenantOf(tx)), "tenants", text);
  return {
    async put(tx, _allowed, nameOrId, fields, ifMatch) {
      const address = at(tx, nameOrId);
      if (nameOrId === PLATFORM_NAME)
        throw new Problem("invalid_request", { param: "tenant", message: `'${nameOrId}' is the platform itself. Choose another name.` });
      return upsert(tx, address, ifMatch, {
        what: "tenant",
        find: () => findTenantForUpdate(tx, address),
        change: (row) => changeTenant(needs, tx, row, fields),
        make: (name, index) => addTenant(needs, tx, name, index, fields),
      });
    },

    async list(tx, _allowed, page) {
      const rows = await listTenants(tx, afterId(page.after), page.limit + 1);
      const keyrings = new Map<TenantId, TenantKeyring>();
      for (const { id } of rows) keyrings.set(id, await needs.awaitKeyring(id));
      return toPage(rows, page.limit, (row) => tenantView(tenantRecord(keyrings.get(row.id) as TenantKeyring, row)));
    },

    async archive(tx, _allowed, nameOrId, ifMatch) {
      const row = existing(await findTenantForUpdate(tx, at(tx, nameOrId)));
      requireRevision(ifMatch, row.revision);
      await archiveTenant(tx, row.id, new Date(needs.clock.now()));
      return tenantView(tenantRecord(await needs.awaitKeyring(row.id), row));
    },
  };
}

/** The tenant's key first: the names of the row are sealed with it. */
async function addTenant(
  needs: TenantVerbsNeeds,
  tx: TenantTransaction,
  name: string,
  index: Buffer,
  fields: TenantFields,
): Promise<Written<TenantView>> {
  const id = needs.makeId<TenantId>();
  const keyring = await asTenant(tx, id, (inside) => needs.makeTenantKey(inside));
  const now = new Date(needs.clock.now());
  const row = {
    id,
    ...sealName(keyring, "tenants", id, name, index),
    display_name_sealed: sealDisplayName(keyring, "tenants", id, fields.display_name ?? null),
    status: fields.status ?? "active",
    tier: fields.tier ?? null,
    home_region: fields.home_region ?? null,
    time_zone: fields.time_zone ?? DEFAULT_TIME_ZONE,
    markup_millionths: markupOf(fields.markup ?? null),
    revision: 1,
    created_at: now,
    updated_at: now,
  } as const;
  await insertTenant(tx, row);
  return { before: null, after: tenantView(tenantRecord(keyring, row)), revision: row.revision };
}

async function changeTenant(
  needs: TenantVerbsNeeds,
  tx: TenantTransaction,
  row: TenantRow,
  fields: TenantFields,
): Promise<Written<TenantView>> {
  const keyring = await needs.awaitKeyring(row.id);
  const changes = {
    display_name_sealed:
      fields.display_name === undefined ? row.display_name_sealed : sealDisplayName(keyring, "tenants", row.id, fields.display_name),
    status: kept(fields.status, row.status),
    tier: kept(fields.tier, row.tier),
    home_region: kept(fields.home_region, row.home_region),
    time_zone: fields.time_zone === undefined ? row.time_zone : (fields.time_zone ?? DEFAULT_TIME_ZONE),
    markup_millionths: fields.markup === undefined ? row.markup_millionths : markupOf(fields.markup),
    revision: row.revision + 1,
    updated_at: new Date(needs.clock.now()),
  };
  await updateTenant(tx, row.id, changes);
  const before = tenantView(tenantRecord(keyring, row));
  return { before, after: tenantView(tenantRecord(keyring, { ...row, ...changes })), revision: changes.revision };
}

/** As the tenant itself sees it: what it pays is its charge, and what the platform makes of that is not its affair. */
export function ownTenantView(record: TenantRecord): TenantView {
  const { markup: _, ...view } = tenantView(record);
  return view;
}

export function tenantView(record: TenantRecord): TenantView {
  return {
    id: record.id,
    name: record.name,
    display_name: record.displayName,
    status: record.status,
    tier: record.tier,
    home_region: record.homeRegion,
    time_zone: record.timeZone,
    markup: formatMarkup(record.markupMillionths),
    created_at: record.createdAt,
    updated_at: record.updatedAt,
  };
}

function markupOf(text: string | null): number {
  const markup = parseMarkup(text ?? "1");
  if (markup !== null) return markup;
  throw new Problem("invalid_request", {
    param: "markup",
    message:
      '\'markup\' must be a decimal string from "0.01" to "100" of at most 6 decimals, such as "1.2": what the tenant pays of each price.',
  });
}

export function createProjectVerbs(needs: TenantVerbsNeeds): ProjectVerbs {
  const ringOf = (tx: TenantTransaction): TenantKeyring => needs.keyring(tenantOf(tx));
  const at = (tx: TenantTransaction, text: string): Address<ProjectId> => addressOf(ringOf(tx), "projects", text);
  return {
    async put(tx, _allowed, nameOrId, fields, ifMatch) {
      const address = at(tx, nameOrId);
      return upsert(tx, address, ifMatch, {
        what: "project",
        find: () => findProjectForUpdate(tx, address),
        change: (row) => changeProject(needs, tx, row, fields),
        make: (name, index) => addProject(needs, tx, name, index, fields),
      });
    },

    async get(tx, _allowed, nameOrId) {
      const row = existing(await findProject(tx, at(tx, nameOrId)));
      return { view: projectView(ringOf(tx), row), revision: row.revision };
    },

    async list(tx, _allowed, page, archived = false) {
      const rows = await listProjects(tx, afterId(page.after), page.limit + 1, archived);
      return toPage(rows, page.limit, (row) => projectView(ringOf(tx), row));
    },

    async create(tx, _allowed, displayName) {
      const name = slugOf(displayName);
      const taken = await findProject(tx, at(tx, name));
      const free = taken === undefined ? name : `${name}-${needs.makeId<ProjectId>().slice(-SUFFIX)}`;
      const index = ringOf(tx).blindIndex("projects.name", free);
      return (await addProject(needs, tx, free, index, { display_name: displayName })).after;
    },

    async change(tx, _allowed, nameOrId, fields) {
      const row = existing(await findProjectForUpdate(tx, at(tx, nameOrId)));
      const { before, after } = await changeProject(needs, tx, row, fields);
      return { before: before ?? after, after };
    },

    async archive(tx, _allowed, nameOrId, ifMatch) {
      const row = existing(await findProjectForUpdate(tx, at(tx, nameOrId)));
      requireRevision(ifMatch, row.revision);
      const now = new Date(needs.clock.now());
      await archiveProject(tx, row.id, now);
      await needs.revokeProjectKeys(tx, row.id);
      return { before: projectView(ringOf(tx), row), archivedAt: toUnixSeconds(now) };
    },

    async idOf(tx, nameOrId) {
      return existing(await findProjectToUse(tx, at(tx, nameOrId))).id;
    },
  };
}

async function addProject(
  needs: TenantVerbsNeeds,
  tx: TenantTransaction,
  name: string,
  index: Buffer,
  fields: ProjectFields,
): Promise<Written<ProjectView>> {
  const keyring = needs.keyring(tenantOf(tx));
  const id = needs.makeId<ProjectId>();
  const now = new Date(needs.clock.now());
  const row = {
    id,
    ...sealName(keyring, "projects", id, name, index),
    display_name_sealed: sealDisplayName(keyring, "projects", id, fields.display_name ?? null),
    default_max_output_tokens: fields.default_max_output_tokens ?? null,
    require: [...(fields.require ?? [])],
    revision: 1,
    created_at: now,
    updated_at: now,
  };
  await insertProject(tx, row);
  return { before: null, after: projectView(keyring, row), revision: row.revision };
}

async function changeProject(
  needs: TenantVerbsNeeds,
  tx: TenantTransaction,
  row: ProjectRow,
  fields: ProjectFields,
): Promise<Written<ProjectView>> {
  const keyring = needs.keyring(tenantOf(tx));
  const changes = {
    display_name_sealed:
      fields.display_name === undefined ? row.display_name_sealed : sealDisplayName(keyring, "projects", row.id, fields.display_name),
    default_max_output_tokens: kept(fields.default_max_output_tokens, row.default_max_output_tokens),
    require: fields.require === undefined ? row.require : [...(fields.require ?? [])],
    revision: row.revision + 1,
    updated_at: new Date(needs.clock.now()),
  };
  await updateProject(tx, row.id, changes);
  return { before: projectView(keyring, row), after: projectView(keyring, { ...row, ...changes }), revision: changes.revision };
}

function projectView(
  keyring: TenantKeyring,
  row: Omit<ProjectRow, "tenant_id" | "archived_at"> & Partial<Pick<ProjectRow, "archived_at">>,
): ProjectView {
  return {
    id: row.id,
    name: openName(keyring, "projects", row),
    display_name: openDisplayName(keyring, "projects", row),
    default_max_output_tokens: row.default_max_output_tokens,
    require: row.require,
    created_at: toUnixSeconds(row.created_at),
    updated_at: toUnixSeconds(row.updated_at),
    ...(row.archived_at instanceof Date && { archived_at: toUnixSeconds(row.archived_at) }),
  };
}

/** What a path can name of a name as people write it. */
function slugOf(text: string): string {
  const slug = text
    .normalize("NFKD")
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, "-")
    .replace(/^[^a-z0-9]+|-+$/g, "")
    .slice(0, MAX_SLUG);
  return slug === "" || isUuid(slug) ? "project" : slug;
}

const MAX_SLUG = 48;
/** Hexadecimal digits that tell a project from others of its name. */
const SUFFIX = 8;

const DEFAULT_TIME_ZONE = "UTC";
