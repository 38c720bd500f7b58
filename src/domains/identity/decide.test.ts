import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import { type Authority, authorize, decideKey, decideRoles, type KeyPlace, permissionsInPlace } from "./decide.ts";
import { networksOf, type RouteFamily } from "./origin.ts";
import { PERMISSIONS, type Permission, ROLES } from "./permissions.ts";

const A = "01890000-0000-7000-8000-00000000000a" as TenantId;
const B = "01890000-0000-7000-8000-00000000000b" as TenantId;
const all = Object.keys(PERMISSIONS) as Permission[];
const active = (id: TenantId) => ({ id, status: "active" as const });
const holder = (tenant: TenantId, permissions: readonly Permission[], rest: Partial<Authority> = {}): Authority => ({
  tenant,
  permissions: new Set(permissions),
  models: null,
  expiresAt: null,
  routes: null,
  networks: null,
  ...rest,
});
const admin = holder(PLATFORM_TENANT, ROLES.platform_admin);
const tenantAdmin = holder(A, ROLES.tenant_admin);

test("authority is the permission on one's own tenant; what another owns is refused like what does not exist", () => {
  assert.equal(authorize(tenantAdmin, "keys:write", active(A)), "allowed");
  assert.equal(authorize(tenantAdmin, "keys:write", active(B)), "foreign");
  assert.equal(authorize(tenantAdmin, "keys:write", { id: B, status: undefined }), "foreign");
  assert.equal(authorize(tenantAdmin, "platform:tenants:read", active(A)), "lacking");
  assert.equal(authorize(tenantAdmin, "keys:write", active(PLATFORM_TENANT)), "lacking");
  assert.equal(authorize(tenantAdmin, "keys:write", { id: A, status: "suspended" }), "suspended");
  assert.equal(authorize(holder(A, ROLES.developer), "keys:write", active(A)), "lacking");
});

test("the platform reaches every tenant as far as its permissions go, suspended ones included, and none that does not exist", () => {
  assert.equal(authorize(admin, "keys:write", active(B)), "allowed");
  assert.equal(authorize(admin, "keys:write", { id: B, status: "suspended" }), "allowed");
  assert.equal(authorize(admin, "keys:write", { id: B, status: undefined }), "foreign");
  assert.equal(authorize(admin, "models:call", active(B)), "lacking");
  assert.equal(authorize(holder(PLATFORM_TENANT, ["platform:metrics:read"]), "keys:read", active(B)), "lacking");
});

const request = (place: KeyPlace, permissions: readonly string[], rest: { models?: string[] | null; expiresAt?: number | null } = {}) => ({
  place,
  permissions,
  models: rest.models ?? null,
  expiresAt: rest.expiresAt ?? null,
  routes: null,
  ipRanges: null,
});

test("who may make which key", () => {
  const cases: readonly [string, Authority, ReturnType<typeof request>, string][] = [
    ["an admin makes a developer's key", admin, request("project", ["developer"]), "granted"],
    ["an admin makes a tenant admin's key", admin, request("tenant", ["tenant_admin"]), "granted"],
    ["an admin makes another admin's key", admin, request("platform", ["platform_admin"]), "granted"],
    ["a tenant admin makes another", tenantAdmin, request("tenant", ["tenant_admin"]), "granted"],
    ["no tenant's key holds platform permissions", admin, request("tenant", ["platform:tenants:read"]), "wrong_place"],
    ["no tenant's key is a platform admin's", tenantAdmin, request("tenant", ["platform_admin"]), "wrong_place"],
    ["no project's key manages keys", admin, request("project", ["keys:write"]), "wrong_place"],
    ["no key of the platform calls models", admin, request("platform", ["models:call"]), "wrong_place"],
    ["no unknown name", admin, request("tenant", ["models:cal"]), "unknown_name"],
    ["no name inherited from Object", admin, request("tenant", ["constructor"]), "unknown_name"],
    ["not more than one's own", holder(A, ["keys:write", "keys:read"]), request("tenant", ["tenant_admin"]), "beyond_creator"],
    [
      "a tenant's key manager without models:call cannot hand it on",
      holder(A, ["keys:write"]),
      request("project", ["developer"]),
      "beyond_creator",
    ],
    [
      "a platform key without keys:write cannot hand on models:call",
      holder(PLATFORM_TENANT, ["usage:read"]),
      request("project", ["developer"]),
      "beyond_creator",
    ],
    ["not more models", { ...tenantAdmin, models: new Set(["small"]) }, request("project", ["developer"]), "beyond_creator"],
    [
      "not other models",
      { ...tenantAdmin, models: new Set(["small"]) },
      request("project", ["developer"], { models: ["large"] }),
      "beyond_creator",
    ],
    [
      "the same models",
      { ...tenantAdmin, models: new Set(["small"]) },
      request("project", ["developer"], { models: ["small"] }),
      "granted",
    ],
    ["not longer", { ...tenantAdmin, expiresAt: 100 }, request("project", ["developer"]), "beyond_creator"],
    ["as long", { ...tenantAdmin, expiresAt: 100 }, request("project", ["developer"], { expiresAt: 100 }), "granted"],
  ];
  for (const [name, creator, asked, kind] of cases) assert.equal(decideKey(creator, asked).kind, kind, name);
});

test("a key is for no more endpoints and from no more addresses than its creator", () => {
  const bounded = holder(A, ROLES.tenant_admin, { routes: new Set(["admin", "models"]), networks: [networksOf(["10.0.0.0/8"])] });
  const ask = (routes: RouteFamily[] | null, ipRanges: string[] | null) => {
    const decision = decideKey(bounded, { ...request("tenant", ["tenant_admin"]), routes, ipRanges });
    return decision.kind === "beyond_creator" ? decision.what : decision.kind;
  };
  assert.equal(ask(["models"], ["10.1.0.0/16", "10.2.3.4"]), "granted");
  assert.equal(ask(null, ["10.1.0.0/16"]), "routes", "every endpoint is more");
  assert.equal(ask(["messages"], ["10.1.0.0/16"]), "routes");
  assert.equal(ask(["models"], null), "ip_ranges", "anywhere is more");
  assert.equal(ask(["models"], ["10.1.0.0/16", "192.0.2.1"]), "ip_ranges");
  assert.equal(ask(["models"], ["0.0.0.0/0"]), "ip_ranges");
});

test("a role is given where it belongs, and by whoever holds all that it gives there", () => {
  const cases: readonly [Parameters<typeof decideRoles>[0], KeyPlace, string, string][] = [
    [tenantAdmin, "tenant", "tenant_admin", "granted"],
    [tenantAdmin, "project", "tenant_admin", "granted"],
    [tenantAdmin, "tenant", "platform_engineer", "wrong_place"],
    [admin, "project", "platform_admin", "wrong_place"],
    [admin, "platform", "developer", "wrong_place"],
    [admin, "platform", "platform_engineer", "granted"],
    [admin, "platform", "auditor", "granted"],
    [admin, "tenant", "developer", "granted"],
    [holder(A, ["members:write"]), "tenant", "reviewer", "beyond_granter"],
    [holder(A, ["members:write", "projects:read"]), "tenant", "reviewer", "granted"],
    // As far as a project goes, an administrator calls models and reads usage.
    [holder(A, ["members:write", "models:call", "usage:read"]), "project", "tenant_admin", "granted"],
    [holder(A, ["members:write"]), "tenant", "owner", "unknown_role"],
  ];
  for (const [granter, place, role, kind] of cases) assert.equal(decideRoles(granter, place, [role]).kind, kind, `${role} of a ${place}`);
});

const permissionSets = fc.subarray(all);
const names = fc.array(fc.constantFrom(...all, ...Object.keys(ROLES), "nonsense"), { maxLength: 6 });
const places = fc.constantFrom<KeyPlace>("platform", "tenant", "project");

test("whatever is asked, a granted key holds nothing its creator does not, but models:call from the platform's key managers", () => {
  fc.assert(
    fc.property(permissionSets, fc.boolean(), names, places, (held, ofPlatform, asked, place) => {
      const creator = holder(ofPlatform ? PLATFORM_TENANT : A, held);
      if (decideKey(creator, request(place, asked)).kind !== "granted") return true;
      const extra = [...permissionsInPlace(asked, place)].filter((permission) => !creator.permissions.has(permission));
      return extra.every((permission) => permission === "models:call" && ofPlatform && creator.permissions.has("keys:write"));
    }),
    { numRuns: 2000 },
  );
});

test("at use, a key holds only what its place allows, whatever its row says", () => {
  assert.deepEqual([...permissionsInPlace([...all, "platform_admin"], "project")].toSorted(), ["models:call", "usage:read"]);
  assert.ok([...permissionsInPlace([...all, "platform_admin"], "tenant")].every((permission) => !permission.startsWith("platform:")));
  assert.equal(permissionsInPlace(["nonsense", "__proto__"], "tenant").size, 0);
});
