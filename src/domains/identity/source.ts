import type { KeyId, MemberId, ProjectId, TenantId } from "../../kernel/ids.ts";
import { groupByTenant, type Source } from "../../storage/snapshot/index.ts";
import { type Bounds, bounded, earlier, type KeyPlace, permissionsInPlace, placeOf } from "./decide.ts";
import { type MemberRow, type ProjectMemberRow, readMembers, readProjectMembers } from "./member-store.ts";
import type { IdentityPart, KeyRecord, MemberRecord } from "./model.ts";
import { networksOf, ROUTE_FAMILIES, type RouteFamily } from "./origin.ts";
import type { Permission } from "./permissions.ts";
import { type KeyRow, readLiveKeys } from "./store.ts";

export interface IdentityRows {
  readonly keys: readonly KeyRow[];
  readonly members: readonly MemberRow[];
  readonly projects: readonly ProjectMemberRow[];
}

/** This domain's share of the configuration snapshot: each tenant's live keys and members, and what each holds by what made it. */
export const identitySource: Source<IdentityRows, IdentityPart> = {
  async read(tx, tenants) {
    const keys = groupByTenant(await readLiveKeys(tx, tenants));
    const members = groupByTenant(await readMembers(tx, tenants));
    const projects = groupByTenant(await readProjectMembers(tx, tenants));
    return new Map(
      tenants.map((id) => [id, { keys: keys.get(id) ?? NONE, members: members.get(id) ?? NONE, projects: projects.get(id) ?? NONE }]),
    );
  },
  build(tenant, rows = NO_ROWS) {
    const members = membersOf(tenant, rows);
    return { keys: new Keys(tenant, rows.keys, members).records(), members };
  },
};

const NONE: readonly never[] = [];
const NO_ROWS: IdentityRows = { keys: NONE, members: NONE, projects: NONE };
const NO_MEMBERS: ReadonlyMap<MemberId, MemberRecord> = new Map();
const NO_PROJECTS: MemberRecord["projects"] = new Map();

function membersOf(tenant: TenantId, { members, projects }: IdentityRows): ReadonlyMap<MemberId, MemberRecord> {
  if (members.length === 0) return NO_MEMBERS;
  const inProjects = new Map<MemberId, Map<ProjectId, ReadonlySet<Permission>>>();
  for (const row of projects) {
    const held = inProjects.get(row.member_id) ?? new Map<ProjectId, ReadonlySet<Permission>>();
    held.set(row.project_id, sharedSet([...row.roles, ...row.claimed_roles], "project"));
    inProjects.set(row.member_id, held);
  }
  return new Map(
    members.map((row) => [
      row.id,
      {
        id: row.id,
        tenant,
        kind: row.kind,
        project: row.project_id,
        permissions: sharedSet([...row.roles, ...row.claimed_roles], placeOf(tenant, row.project_id)),
        projects: inProjects.get(row.id) ?? NO_PROJECTS,
      },
    ]),
  );
}

/** What a member may do in the project: what it may do in the whole tenant, and what only there. */
export function permissionsIn(member: MemberRecord, project: ProjectId | null): ReadonlySet<Permission> {
  const more = project === null ? undefined : member.projects.get(project);
  return more === undefined ? member.permissions : new Set([...member.permissions, ...more]);
}

/** One tenant's keys, each bounded by those that made it: one whose creator or service account is gone is gone as well. */
class Keys {
  readonly #tenant: TenantId;
  readonly #rows: ReadonlyMap<string, KeyRow>;
  readonly #members: ReadonlyMap<MemberId, MemberRecord>;
  /** Null for a key that is gone. */
  readonly #known = new Map<KeyId, Bounds | null>();

  constructor(tenant: TenantId, rows: readonly KeyRow[], members: ReadonlyMap<MemberId, MemberRecord>) {
    this.#tenant = tenant;
    this.#rows = new Map(rows.map((row) => [row.id, row]));
    this.#members = members;
  }

  records(): ReadonlyMap<KeyId, KeyRecord> {
    const records = new Map<KeyId, KeyRecord>();
    for (const row of this.#rows.values()) {
      const bounds = this.#bounds(row);
      if (bounds !== null) records.set(row.id, this.#record(row, bounds));
    }
    return records;
  }

  #record(row: KeyRow, bounds: Bounds): KeyRecord {
    return {
      id: row.id,
      tenant: this.#tenant,
      project: row.project_id,
      hash: row.hash.toString("latin1"),
      ...bounds,
      member: row.member_id === null ? null : (this.#members.get(row.member_id) ?? null),
    };
  }

  /** From the last creator that is not known yet back to the key: a chain may be long, and its length makes no deep stack. */
  #bounds(row: KeyRow): Bounds | null {
    const chain: KeyRow[] = [];
    for (let at: KeyRow | undefined = row; at !== undefined && !this.#known.has(at.id);) {
      chain.push(at);
      // Looked at now, so that a circle, which no verb makes, ends here.
      this.#known.set(at.id, null);
      at = at.creator === null ? undefined : this.#rows.get(at.creator);
    }
    for (const each of chain.toReversed()) this.#known.set(each.id, this.#byCreator(each, this.#own(each)));
    return this.#known.get(row.id) ?? null;
  }

  #byCreator(row: KeyRow, own: Bounds | null): Bounds | null {
    if (own === null || row.creator === null) return own;
    if (!this.#rows.has(row.creator)) return this.#byMember(own, row.creator as MemberId, row.project_id);
    const creator = this.#known.get(row.creator as KeyId) ?? null;
    return creator === null ? null : bounded(own, creator);
  }

  /** What the row itself says, and its service account allows; null where that is gone. */
  #own(row: KeyRow): Bounds | null {
    const own: Bounds = {
      permissions: sharedSet(row.permissions, placeOf(this.#tenant, row.project_id)),
      models: row.models === null ? null : new Set(row.models),
      expiresAt: earlier(row.expires_at?.getTime() ?? null, row.grace_until?.getTime() ?? null),
      routes: row.routes === null ? null : new Set(row.routes.filter(isFamily)),
      networks: row.ip_ranges === null ? null : [networksOf(row.ip_ranges)],
    };
    return row.member_id === null ? own : this.#byMember(own, row.member_id, row.project_id);
  }

  #byMember(bounds: Bounds, id: MemberId, project: ProjectId | null): Bounds | null {
    const member = this.#members.get(id);
    return member === undefined ? null : bounded(bounds, { ...UNBOUNDED, permissions: permissionsIn(member, project) });
  }
}

const UNBOUNDED: Omit<Bounds, "permissions"> = { models: null, expiresAt: null, routes: null, networks: null };

function isFamily(name: string): name is RouteFamily {
  return Object.hasOwn(ROUTE_FAMILIES, name);
}

/** Most hold one of a few sets of permissions, and a set takes 250 bytes: equal names in equal places share theirs. */
function sharedSet(names: readonly string[], place: KeyPlace): ReadonlySet<Permission> {
  const key = JSON.stringify([place, names]);
  let permissions = shared.get(key);
  if (permissions === undefined) {
    permissions = permissionsInPlace(names, place);
    if (shared.size >= MAX_SHARED_SETS) shared.clear();
    shared.set(key, permissions);
  }
  return permissions;
}

const shared = new Map<string, ReadonlySet<Permission>>();
const MAX_SHARED_SETS = 1_000;
