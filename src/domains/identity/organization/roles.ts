import { permissionsInPlace } from "../decide.ts";
import { isRole, type Permission, PERMISSIONS, ROLES, type Role } from "../permissions.ts";

// OpenAI's words for roles and ours. `owner` of an organization is our tenant_admin, `reader` is whoever is not; in a project
// `owner` is tenant_admin as far as a project goes, `member` a developer. Where a role may be given, our own names are taken as well.

export type OrganizationRole = "owner" | "reader";
export type ProjectRole = "owner" | "member";

export function organizationRole(roles: readonly string[]): OrganizationRole {
  return roles.includes(ADMIN) ? "owner" : "reader";
}

export function projectRole(roles: readonly string[]): ProjectRole {
  return roles.includes(ADMIN) ? "owner" : "member";
}

/** The roles over the whole tenant that the word stands for, given those there are: `reader` takes away what `owner` gives. */
export function organizationRoles(word: string, present: readonly string[]): string[] {
  if (word === "owner") return [...new Set([...present, ADMIN])];
  return word === "reader" ? present.filter((role) => role !== ADMIN) : [word];
}

export function projectRoles(word: string): string[] {
  if (word === "owner") return [ADMIN];
  return word === "member" ? ["developer"] : [word];
}

const ADMIN = "tenant_admin" satisfies Role;

/** The roles of the installation that a tenant can give, by name; the platform's own are none of them. */
export const TENANT_ROLES = Object.keys(ROLES)
  .filter(isRole)
  .filter((role) => !permissionsOf(role).some((permission) => permission.startsWith("platform:")))
  .toSorted();

/** A role as OpenAI's Admin API shows it, with what it permits where it is held. */
export function roleView(role: Role, place: "tenant" | "project") {
  const permissions = [...permissionsInPlace([role], place)];
  return {
    id: role,
    name: role,
    description: permissions.map((permission) => PERMISSIONS[permission]).join(" "),
    permissions,
    predefined_role: true,
    resource_type: place === "tenant" ? "api.organization" : "api.project",
  };
}

function permissionsOf(role: Role): readonly Permission[] {
  return ROLES[role];
}
