import { z } from "zod";
import type { ProjectId, TenantId } from "../../../kernel/ids.ts";
import type { TenantKeyring } from "../../../storage/secrets/index.ts";
import { groupByTenant, openDisplayName, openName, type Source } from "../../../storage/snapshot/index.ts";
import type { Role } from "../permissions.ts";
import { ALGORITHMS, audienceKey, type ProviderRecord, type ProviderRules, type SsoPart } from "./model.ts";
import { type FreshProvider, type ProviderRow, readProviders } from "./store.ts";

/** The identity providers' share of the configuration snapshot. */
export const ssoSource: Source<readonly ProviderRow[], SsoPart> = {
  read: async (tx, tenants) => groupByTenant(await readProviders(tx, tenants)),
  build(tenant, rows = [], keyring) {
    if (rows.length === 0) return NONE;
    const providers = rows.map((row) => recordOf(tenant, keyring, row));
    return {
      byName: new Map(providers.map((provider) => [provider.name, provider])),
      byAudience: new Map(
        providers.flatMap((provider) =>
          provider.rules.audiences.map((audience): [string, ProviderRecord] => [audienceKey(provider.issuer, audience), provider]),
        ),
      ),
    };
  },
};

/** Most tenants have none. */
const NONE: SsoPart = { byName: new Map(), byAudience: new Map() };

function recordOf(tenant: TenantId, keyring: TenantKeyring, row: ProviderRow): ProviderRecord {
  return {
    id: row.id,
    tenant,
    name: openName(keyring, "identity_providers", row),
    displayName: openDisplayName(keyring, "identity_providers", row),
    issuer: row.issuer,
    clientId: row.client_id,
    clientSecretSealed: row.client_secret_sealed,
    rules: openRules(keyring, row),
    revision: row.revision,
  };
}

export function sealRules(keyring: TenantKeyring, id: string, rules: ProviderRules): Buffer {
  return keyring.seal(JSON.stringify(rules), { table: "identity_providers", column: "rules_sealed", row: id });
}

export function openRules(keyring: TenantKeyring, row: Pick<FreshProvider, "id" | "rules_sealed">): ProviderRules {
  const text = keyring.open(row.rules_sealed, { table: "identity_providers", column: "rules_sealed", row: row.id }).toString();
  return storedRules.parse(JSON.parse(text));
}

const storedRules = z.object({
  audiences: z.array(z.string()),
  algorithms: z.array(z.enum(ALGORITHMS)),
  scopes: z.array(z.string()),
  groupsClaim: z.string(),
  projectClaim: z.string().nullable(),
  groupRoles: z.array(
    z.object({
      group: z.string(),
      role: z.string().transform((name) => name as Role),
      project: z
        .string()
        .nullable()
        .transform((id) => id as ProjectId | null),
    }),
  ),
  emailDomains: z.array(z.string()),
  trustEmail: z.boolean(),
  autoProvision: z.boolean(),
});
