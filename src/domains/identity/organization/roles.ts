import { isRole, PERMISSIONS, ROLES, type Role } from "../permissions.ts";

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

/** As `GET /v1/organization/roles` lists them; a tenant cannot change them. */
export function roleList() {
  return Object.keys(ROLES)
    .filter(isRole)
    .filter((role) => (ROLES[role] as readonly string[]).every((permission) => !permission.startsWith("platform:")))
    .map((role) => ({
      id: role,
      object: "role" as const,
      name: role,
      description: (ROLES[role] as readonly (keyof typeof PERMISSIONS)[]).map((permission) => PERMISSIONS[permission]).join(" "),
      permissions: [...ROLES[role]],
      predefined_role: true,
      resource_type: "api.organization",
    }));
}
