import assert from "node:assert/strict";
import { test } from "node:test";
import { permissionsInPlace } from "./decide.ts";
import { PERMISSIONS, type Permission, type Role, ROLES } from "./permissions.ts";

const all = Object.keys(PERMISSIONS) as Permission[];
const held = (role: Role): readonly Permission[] => ROLES[role];

test("an auditor and a reviewer read, and hold nothing else, wherever they stand", () => {
  for (const role of ["auditor", "reviewer"] as const)
    for (const place of ["platform", "tenant", "project"] as const) {
      const beyond = [...permissionsInPlace([role], place)].filter((permission) => !permission.endsWith(":read"));
      // A project's only other permission is to call models, which these do not have either.
      assert.deepEqual(beyond, [], `${role} of a ${place}`);
    }
});

test("only the platform's roles hold what is the platform's, and no role of the platform calls models", () => {
  for (const role of Object.keys(ROLES) as Role[]) {
    const ofPlatform = held(role).some((permission) => permission.startsWith("platform:"));
    assert.equal(ofPlatform, role.startsWith("platform_"), role);
    if (ofPlatform) assert.ok(!held(role).includes("models:call"), role);
  }
});

test("an administrator holds all there is of its own, an auditor of a tenant all that can be read there", () => {
  assert.deepEqual(held("platform_admin").toSorted(), all.filter((permission) => permission !== "models:call").toSorted());
  const ofTenant = all.filter((permission) => !permission.startsWith("platform:"));
  assert.deepEqual(held("tenant_admin").toSorted(), ofTenant.toSorted());
  assert.deepEqual(held("auditor").toSorted(), ofTenant.filter((permission) => permission.endsWith(":read")).toSorted());
});

test("an engineer of the platform decides what models there are, and neither who may use them nor who administers", () => {
  assert.deepEqual(
    held("platform_engineer").filter((permission) => permission.endsWith(":write")),
    ["platform:catalog:write"],
  );
});
