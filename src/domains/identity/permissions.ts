/**
 * What a principal may do, one string each. A role is a named set of them; a key's `permissions` name either.
 * `platform:*` permissions exist only for principals of the platform tenant.
 */
export const PERMISSIONS = {
  "models:call": "Call models, and list those that may be called.",
  "usage:read": "Read usage and costs: in a project its own, above projects the tenant's.",
  "projects:read": "Read the tenant's projects.",
  "projects:write": "Create, change and archive the tenant's projects.",
  "keys:read": "Read the tenant's API keys, never their secrets.",
  "keys:write": "Create, rotate and revoke the tenant's API keys.",
  "members:read": "Read the tenant's members, service accounts, invitations and roles.",
  "members:write": "Invite, change and remove the tenant's members and service accounts, within one's own rights.",
  "identity_providers:read": "Read the tenant's identity providers, never their secrets.",
  "identity_providers:write":
    "Change the tenant's identity providers, and what their groups may do; only with all that a tenant admin holds.",
  "webhooks:read": "Read the tenant's webhooks, never their secrets, and how their deliveries went.",
  "webhooks:write": "Create, change, rotate and end the tenant's webhooks.",
  "events:read": "Read what the tenant is told of: the events that webhooks deliver.",
  "budgets:read": "Read the tenant's budgets, what is spent of them, and adjustments.",
  "budgets:write": "Create, change and end the tenant's budgets, but for those that the platform set.",
  "tenant:read": "Read the tenant itself and the models granted to it.",
  "audit:read": "Read the tenant's audit trail.",
  "platform:tenants:read": "Read every tenant.",
  "platform:tenants:write": "Create, change, suspend and archive tenants.",
  "platform:catalog:read": "Read the platform's credentials (never secrets), models, deployments, prices and grants.",
  "platform:catalog:write": "Change the platform's credentials, models, deployments, prices and grants.",
  "platform:keys:read": "Read the platform's own keys, never their secrets.",
  "platform:keys:write": "Create, rotate and revoke the platform's own keys.",
  "platform:members:read": "Read the platform's own members and invitations.",
  "platform:members:write": "Invite, change and remove the platform's own members, within one's own rights.",
  "platform:identity_providers:read": "Read the platform's own identity providers, never their secrets.",
  "platform:identity_providers:write": "Change the platform's own identity providers; only with all that a platform admin holds.",
  "platform:webhooks:read": "Read the platform's own webhooks, never their secrets, and how their deliveries went.",
  "platform:webhooks:write": "Create, change, rotate and end the platform's own webhooks.",
  "platform:events:read": "Read what the platform is told of: the events that its webhooks deliver.",
  "platform:budgets:read": "Read the platform's own budgets: over all tenants together.",
  "platform:budgets:write": "Change the platform's own budgets, and adjust what tenants are charged.",
  "platform:audit:read": "Read the platform's own audit trail.",
  "platform:usage:read": "Read usage and costs of every tenant.",
  "platform:metrics:read": "Scrape /metrics.",
} as const satisfies Record<string, string>;

export type Permission = keyof typeof PERMISSIONS;

/** What each may do, wherever it stands: of a project's members and keys only what a project has counts, of a tenant's nothing of the platform's. */
export const ROLES = {
  /** All there is, of the platform and of every tenant; the platform itself calls no models, since no tenant would pay. */
  platform_admin: Object.keys(PERMISSIONS).filter((permission) => permission !== "models:call") as readonly Permission[],
  /** Providers and models, and whatever shows how they do; not who may use them. */
  platform_engineer: [
    "platform:catalog:read",
    "platform:catalog:write",
    "platform:tenants:read",
    "platform:usage:read",
    "platform:metrics:read",
    "tenant:read",
    "projects:read",
    "usage:read",
  ],
  /** All there is of one tenant. */
  tenant_admin: Object.keys(PERMISSIONS).filter((permission) => !permission.startsWith("platform:")) as readonly Permission[],
  developer: ["models:call", "usage:read"],
  data_scientist: ["models:call", "usage:read", "projects:read", "tenant:read"],
  /** The manager of a line of business: what it spends. */
  finance: ["usage:read", "projects:read", "tenant:read", "budgets:read", "budgets:write"],
  /** Reads all that can be read of a tenant, and calls nothing. */
  auditor: Object.keys(PERMISSIONS).filter(
    (permission) => permission.endsWith(":read") && !permission.startsWith("platform:"),
  ) as readonly Permission[],
  /** Rates answers; sees which projects there are. */
  reviewer: ["projects:read"],
} as const satisfies Record<string, readonly Permission[]>;

export type Role = keyof typeof ROLES;

export function isRole(name: string): name is Role {
  return Object.hasOwn(ROLES, name);
}
