import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { KeyId, MemberId, ProjectId, TenantId } from "../../kernel/ids.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { permissionsInPlace } from "./decide.ts";
import type { MemberRow } from "./member-store.ts";
import type { KeyRecord } from "./model.ts";
import { PERMISSIONS, type Permission, ROLES } from "./permissions.ts";
import { type IdentityRows, identitySource } from "./source.ts";
import type { KeyRow } from "./store.ts";

const TENANT = "01890000-0000-7000-8000-00000000000a" as TenantId;
const PROJECT = "01890000-0000-7000-8000-00000000000b" as ProjectId;
const NOW = new Date("2026-11-22T00:00:00Z");

function keyRow(fields: Partial<KeyRow> & { readonly id: KeyId }): KeyRow {
  return {
    tenant_id: TENANT,
    project_id: null,
    name_sealed: Buffer.alloc(0),
    name_index: Buffer.alloc(0),
    hash: Buffer.alloc(32),
    permissions: ["tenant_admin"],
    models: null,
    expires_at: null,
    revoked_at: null,
    grace_until: null,
    member_id: null,
    creator: null,
    routes: null,
    ip_ranges: null,
    created_by: "somebody",
    created_at: NOW,
    ...fields,
  };
}

function memberRow(fields: Partial<MemberRow> & { readonly id: MemberId }): MemberRow {
  return {
    tenant_id: TENANT,
    kind: "user",
    project_id: null,
    name_sealed: null,
    email_sealed: null,
    email_index: null,
    subject_index: null,
    roles: [],
    claimed_roles: [],
    claimed_at: null,
    revision: 1,
    created_by: "somebody",
    created_at: NOW,
    removed_at: null,
    ...fields,
  };
}

function build(rows: Partial<IdentityRows>) {
  const present = { part: undefined, onFault: () => assert.fail("nothing here is damaged") };
  return identitySource.build(TENANT, { keys: [], members: [], projects: [], ...rows }, {} as TenantKeyring, present);
}

const keyId = (position: number) => `key000000${position}` as KeyId;
const memberId = (position: number) => `01890000-0000-7000-8000-0000000000f${position}` as MemberId;
const names = fc.subarray([...(Object.keys(PERMISSIONS) as string[]), ...Object.keys(ROLES)], { maxLength: 8 });
const KEYS = 8;
const MEMBERS = 3;
/** Of these some are not there: they were revoked or removed. */
const creators = fc.option(fc.oneof(fc.nat(KEYS).map(keyId), fc.nat(MEMBERS).map(memberId)), { nil: null });
const world = fc.record({
  keys: fc.array(
    fc.record({
      permissions: names,
      creator: creators,
      account: fc.option(fc.nat(MEMBERS), { nil: null, freq: 6 }),
      inProject: fc.boolean(),
      models: fc.option(fc.subarray(["a", "b", "c"]), { nil: null }),
      expires: fc.option(fc.nat(9), { nil: null }),
      grace: fc.option(fc.nat(9), { nil: null }),
      routes: fc.option(fc.subarray(["messages", "models", "admin"]), { nil: null }),
      ranges: fc.option(
        fc.constantFrom("10.0.0.0/8", "10.1.0.0/16", "::/0").map((each) => [each]),
        { nil: null },
      ),
    }),
    { maxLength: KEYS },
  ),
  members: fc.array(fc.record({ roles: names, claimed: names, inProject: names }), { maxLength: MEMBERS }),
});
type World = typeof world extends fc.Arbitrary<infer Value> ? Value : never;

function rowsOf({ keys, members }: World): IdentityRows {
  const time = (hours: number | null) => (hours === null ? null : new Date(NOW.getTime() + hours * 3_600_000));
  return {
    keys: keys.map((key, position) =>
      keyRow({
        id: keyId(position),
        permissions: key.permissions,
        creator: key.creator,
        member_id: key.account === null ? null : memberId(key.account),
        project_id: key.inProject ? PROJECT : null,
        models: key.models,
        expires_at: time(key.expires),
        grace_until: time(key.grace),
        routes: key.routes,
        ip_ranges: key.ranges,
      }),
    ),
    members: members.map(({ roles, claimed }, position) => memberRow({ id: memberId(position), roles, claimed_roles: claimed })),
    projects: members.map(({ inProject }, position) => ({
      tenant_id: TENANT,
      project_id: PROJECT,
      member_id: memberId(position),
      roles: inProject,
      claimed_roles: [],
      created_at: NOW,
    })),
  };
}

/** Everybody who stands behind a key: itself, its creator, the creator's creator …; null where one of them is gone. */
function standingBehind(rows: IdentityRows, row: KeyRow): KeyRow[] | null {
  const chain = [row];
  for (let at = row; at.creator !== null;) {
    const { creator } = at;
    const next = rows.keys.find((each) => each.id === creator);
    if (next === undefined) return rows.members.some((each) => each.id === creator) ? chain : null;
    // In a circle nobody ever began: it is nobody's.
    if (chain.includes(next)) return null;
    chain.push(next);
    at = next;
  }
  return chain;
}

function memberHolds(rows: IdentityRows, id: string, project: ProjectId | null, permission: Permission): boolean {
  const member = rows.members.find((each) => each.id === id);
  if (member === undefined) return false;
  const above = permissionsInPlace([...member.roles, ...member.claimed_roles], "tenant");
  const there = rows.projects.filter((each) => each.member_id === id && each.project_id === project);
  return above.has(permission) || there.some((each) => permissionsInPlace(each.roles, "project").has(permission));
}

/** What the permission asks of a row by itself. */
function allows(rows: IdentityRows, row: KeyRow, permission: Permission): boolean {
  if (!permissionsInPlace(row.permissions, row.project_id === null ? "tenant" : "project").has(permission)) return false;
  if (row.member_id !== null && !memberHolds(rows, row.member_id, row.project_id, permission)) return false;
  const byMember = row.creator !== null && !rows.keys.some((each) => each.id === row.creator);
  return !byMember || memberHolds(rows, row.creator as string, row.project_id, permission);
}

test("at every use a key holds exactly what its row says and everybody behind it still holds; with one of them gone it is no key", () => {
  fc.assert(
    fc.property(world, (drawn) => {
      const rows = rowsOf(drawn);
      const { keys } = build(rows);
      for (const row of rows.keys) {
        const chain = standingBehind(rows, row);
        const accountGone = chain?.some((each) => each.member_id !== null && !rows.members.some((member) => member.id === each.member_id));
        const record = keys.get(row.id);
        if (chain === null || accountGone === true) {
          assert.equal(record, undefined);
          continue;
        }
        assert.ok(record !== undefined);
        for (const permission of Object.keys(PERMISSIONS) as Permission[])
          assert.equal(
            record.permissions.has(permission),
            chain.every((each) => allows(rows, each, permission)),
            permission,
          );
        assertBounds(record, chain);
      }
    }),
    { numRuns: 500 },
  );
});

function assertBounds(record: KeyRecord, chain: readonly KeyRow[]): void {
  for (const model of ["a", "b", "c"])
    assert.equal(
      record.models === null || record.models.has(model),
      chain.every((row) => row.models?.includes(model) ?? true),
    );
  for (const family of ["messages", "models", "admin"] as const)
    assert.equal(
      record.routes === null || record.routes.has(family),
      chain.every((row) => row.routes?.includes(family) ?? true),
    );
  const ends = chain.flatMap((row) => [row.expires_at, row.grace_until]).filter((end) => end !== null);
  assert.equal(record.expiresAt, ends.length === 0 ? null : Math.min(...ends.map((end) => end.getTime())));
  for (const address of ["10.1.2.3", "10.200.0.1"])
    assert.equal(
      (record.networks ?? []).every((networks) => networks.holds(address)),
      chain.every(
        (row) => row.ip_ranges === null || (row.ip_ranges[0] !== "::/0" && (row.ip_ranges[0] === "10.0.0.0/8" || address === "10.1.2.3")),
      ),
    );
}

test("a chain of ten thousand keys is built without a deep stack, and all of it ends with its first", () => {
  const chain = Array.from({ length: 10_000 }, (_, position) =>
    keyRow({
      id: String(position).padStart(10, "0") as KeyId,
      creator: position === 0 ? null : (String(position - 1).padStart(10, "0") as KeyId),
    }),
  ).toReversed();
  assert.equal(build({ keys: chain }).keys.size, 10_000);
  assert.equal(build({ keys: chain.slice(0, -1) }).keys.size, 0);
});

test("keys that lose nothing to their creators share one set of permissions", () => {
  const made = build({ keys: [keyRow({ id: keyId(0) }), keyRow({ id: keyId(1), creator: keyId(0) })] }).keys;
  assert.equal(made.get(keyId(0))?.permissions, made.get(keyId(1))?.permissions);
});
