/**
 * What a principal may do, one string each. A role is a named set of them; a key's `permissions` name either.
 * `platform:*` permissions exist only for principals of the platform tenant.
 */
export const PERMISSIONS = {
  "models:call": "Call models, and list those the key may use.",
  "usage:read": "Read usage and costs of the key's own project (keys above projects: of the tenant).",
  "projects:read": "Read the tenant's projects.",
  "projects:write": "Create, change and archive the tenant's projects.",
  "keys:read": "Read the tenant's API keys, never their secrets.",
  "keys:write": "Create, rotate and revoke the tenant's API keys.",
  "tenant:read": "Read the tenant itself and the models granted to it.",
  "audit:read": "Read the tenant's audit trail.",
  "platform:tenants:read": "Read every tenant.",
  "platform:tenants:write": "Create, change, suspend and archive tenants.",
  "platform:catalog:read": "Read the platform's credentials (never secrets), models, deployments, prices and grants.",
  "platform:catalog:write": "Change the platform's credentials, models, deployments, prices and grants.",
  "platform:keys:read": "Read the platform's own keys, never their secrets.",
  "platform:keys:write": "Create, rotate and revoke the platform's own keys.",
  "platform:audit:read": "Read the platform's own audit trail.",
  "platform:usage:read": "Read usage and costs of every tenant.",
  "platform:metrics:read": "Scrape /metrics.",
} as const satisfies Record<string, string>;

export type Permission = keyof typeof PERMISSIONS;

export const ROLES = {
  platform_admin: Object.keys(PERMISSIONS).filter((permission) => permission !== "models:call") as readonly Permission[],
  tenant_admin: ["models:call", "usage:read", "projects:read", "projects:write", "keys:read", "keys:write", "tenant:read", "audit:read"],
  developer: ["models:call", "usage:read"],
} as const satisfies Record<string, readonly Permission[]>;

export type Role = keyof typeof ROLES;
