import { PLATFORM_TENANT, type ProjectId } from "../../kernel/ids.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { groupByTenant, openDisplayName, openName, type Source, toUnixSeconds } from "../../storage/snapshot/index.ts";
import type { ProjectRecord, TenantPart, TenantRecord } from "./model.ts";
import { type ProjectRow, readProjects, readTenants, type TenantRow } from "./store.ts";

export interface TenantsRows {
  readonly tenant: TenantRow | undefined;
  readonly projects: readonly ProjectRow[];
}

/** This domain's share of the configuration snapshot: each tenant and its live projects. */
export const tenantsSource: Source<TenantsRows, TenantPart> = {
  async read(tx, tenants) {
    const described = new Map((await readTenants(tx, tenants)).map((row) => [row.id, row]));
    const projects = groupByTenant(await readProjects(tx, tenants));
    return new Map(tenants.map((id) => [id, { tenant: described.get(id), projects: projects.get(id) ?? [] }]));
  },
  build(id, rows, keyring) {
    if (id === PLATFORM_TENANT) return PLATFORM_PART;
    if (rows?.tenant === undefined) throw new Error("a tenant without a row");
    const projects = rows.projects.map((row): [ProjectId, ProjectRecord] => [row.id, projectRecord(keyring, row)]);
    return { tenant: tenantRecord(keyring, { ...rows.tenant, id }), projects: new Map(projects) };
  },
};

/** A tenant's names are sealed with its own key, so that they end with it. */
export function tenantRecord(keyring: TenantKeyring, row: Omit<TenantRow, "tenant_id" | "archived_at">): TenantRecord {
  return {
    id: row.id,
    name: openName(keyring, "tenants", row),
    displayName: openDisplayName(keyring, "tenants", row),
    status: row.status,
    tier: row.tier,
    homeRegion: row.home_region,
    timeZone: row.time_zone === PLATFORM_PART.tenant.timeZone ? PLATFORM_PART.tenant.timeZone : row.time_zone,
    markupMillionths: row.markup_millionths,
    revision: row.revision,
    createdAt: toUnixSeconds(row.created_at),
    updatedAt: toUnixSeconds(row.updated_at),
  };
}

function projectRecord(keyring: TenantKeyring, row: ProjectRow): ProjectRecord {
  return {
    id: row.id,
    name: openName(keyring, "projects", row),
    displayName: openDisplayName(keyring, "projects", row),
    defaultMaxOutputTokens: row.default_max_output_tokens,
    require: row.require.length === 0 ? NOTHING_REQUIRED : row.require,
  };
}

const NOTHING_REQUIRED: ProjectRecord["require"] = [];

/** Reserved, so that no tenant is mistaken for it. */
export const PLATFORM_NAME = "platform";

/** The platform is a tenant without a row: it owns rows, and nothing owns it. */
const PLATFORM_PART: TenantPart = {
  tenant: {
    id: PLATFORM_TENANT,
    name: PLATFORM_NAME,
    displayName: null,
    status: "active",
    tier: null,
    homeRegion: null,
    timeZone: "UTC",
    markupMillionths: 1_000_000,
    revision: 0,
    createdAt: 0,
    updatedAt: 0,
  },
  projects: new Map(),
};
