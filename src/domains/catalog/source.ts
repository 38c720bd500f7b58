import { z } from "zod";
import { BOUNDS } from "../../kernel/bounds.ts";
import type { CredentialId, ModelId, TenantId } from "../../kernel/ids.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import { groupByTenant, openName, type Present, type Source } from "../../storage/snapshot/index.ts";
import { type ProviderFacts, parseOptions } from "./decide.ts";
import type { CatalogPart, Credential, Deployment, DeploymentOptions, Model, PricePeriod } from "./model.ts";
import { type CatalogRows, type CredentialRow, type DeploymentRow, type ModelRow, readCatalog, timelinesOf } from "./store.ts";
import { openTransport } from "./transport.ts";

export interface CatalogSourceNeeds {
  readonly providers: { get(id: string): ProviderFacts | undefined };
}

/** This domain's share of the configuration snapshot. Secrets are opened here, and live in memory only. */
export function createCatalogSource({ providers }: CatalogSourceNeeds): Source<CatalogRows, CatalogPart> {
  return {
    async read(tx, tenants) {
      const rows = await readCatalog(tx, tenants);
      const models = groupByTenant(rows.models);
      const deployments = groupByTenant(rows.deployments);
      const credentials = groupByTenant(rows.credentials);
      const prices = groupByTenant(rows.prices);
      const grants = groupByTenant(rows.grants);
      return new Map(
        tenants.map((id) => [
          id,
          {
            models: models.get(id) ?? [],
            deployments: deployments.get(id) ?? [],
            credentials: credentials.get(id) ?? [],
            prices: prices.get(id) ?? [],
            grants: grants.get(id) ?? [],
          },
        ]),
      );
    },
    build(tenant, rows, keyring, present) {
      const hasModels = rows !== undefined && rows.models.length > 0;
      const hasGrants = rows !== undefined && rows.grants.length > 0;
      if (!hasModels && !hasGrants) return NOTHING;
      return {
        models: hasModels ? buildModels(tenant, rows, keyring, providers, present) : NOTHING.models,
        grants: hasGrants ? new Set(rows.grants.map((grant) => grant.model_id)) : NOTHING.grants,
      };
    },
  };
}

/** One for all tenants that own and were granted nothing, which are most: an empty map and an empty set take 350 bytes. */
const NOTHING: CatalogPart = { models: new Map(), grants: new Set() };

/** A deployment that cannot be built stays as it was, or is left out where it was not: its model and all others go on. */
function buildModels(
  owner: TenantId,
  rows: CatalogRows,
  keyring: TenantKeyring,
  providers: CatalogSourceNeeds["providers"],
  present: Present<CatalogPart>,
): Map<string, Model> {
  const partsOf = partsFinder(rows, keyring, providers);
  const byModel = new Map<ModelId, Deployment[]>();
  const models = rows.models.map((row) => {
    const deployments: Deployment[] = [];
    byModel.set(row.id, deployments);
    return modelOf(owner, keyring, row, deployments);
  });
  const modelById = new Map(models.map((model) => [model.id, model]));
  for (const row of rows.deployments) {
    const model = modelById.get(row.model_id);
    if (model === undefined) throw new Error(`deployment ${row.id} lacks its model`);
    try {
      byModel.get(model.id)?.push(deploymentOf(keyring, row, { model, ...partsOf(row) }));
    } catch (error) {
      present.onFault(`deployment ${row.id}`, error);
      const last = present.part?.models.get(model.name)?.deployments.find((deployment) => deployment.id === row.id);
      if (last !== undefined) byModel.get(model.id)?.push({ ...last, model });
    }
  }
  return new Map(models.map((model) => [model.name, model]));
}

/** Finds what a deployment is made of beside its own row. Throws where a piece is missing, or its credential does not open. */
function partsFinder(
  rows: CatalogRows,
  keyring: TenantKeyring,
  providers: CatalogSourceNeeds["providers"],
): (row: DeploymentRow) => Omit<DeploymentParts, "model"> {
  const timelines = timelinesOf(rows.prices);
  const sealed = new Map(rows.credentials.map((row): [CredentialId, CredentialRow] => [row.id, row]));
  const opened = new Map<CredentialId, Credential>();
  const credentialOf = (id: CredentialId): Credential | undefined => {
    const row = sealed.get(id);
    if (row !== undefined && !opened.has(id)) opened.set(id, openCredential(keyring, row));
    return opened.get(id);
  };
  return (row) => {
    const prices = timelines.get(row.id)?.map(({ from, price }) => ({ from, price }));
    const credential = row.credential_id === null ? null : credentialOf(row.credential_id);
    const provider = providers.get(row.provider);
    if (prices === undefined || credential === undefined || provider === undefined)
      throw new Error(`deployment ${row.id} lacks its price, credential or provider`);
    return { prices, credential, provider };
  };
}

function openCredential(keyring: TenantKeyring, row: CredentialRow): Credential {
  const place = { table: "credentials", column: "secret_sealed", row: row.id };
  return {
    id: row.id,
    name: openName(keyring, "credentials", row),
    provider: row.provider,
    baseUrl: row.base_url,
    secret: row.secret_sealed === null ? null : keyring.open(row.secret_sealed, place).toString(),
    transport: openTransport(keyring, row),
  };
}

function modelOf(owner: TenantId, keyring: TenantKeyring, row: ModelRow, deployments: readonly Deployment[]): Model {
  return {
    id: row.id,
    owner,
    name: openName(keyring, "models", row),
    visibility: row.visibility,
    capabilities: row.capabilities,
    contextWindow: row.context_window ?? BOUNDS.contextWindowTokens,
    maxOutputTokens: row.max_output_tokens,
    createdAt: row.created_at.getTime(),
    deployments,
  };
}

interface DeploymentParts {
  readonly model: Model;
  readonly prices: readonly PricePeriod[];
  readonly credential: Credential | null;
  readonly provider: ProviderFacts;
}

function deploymentOf(keyring: TenantKeyring, row: DeploymentRow, parts: DeploymentParts): Deployment {
  return {
    id: row.id,
    name: openName(keyring, "deployments", row),
    model: parts.model,
    provider: row.provider,
    credential: parts.credential,
    upstreamModel: row.upstream_model,
    region: row.region,
    prices: parts.prices,
    options: effectiveOptions(parts.provider, storedOptions.parse(row.options)),
  };
}

/** What a deployment states of its own, as `deployments.options` keeps it; what it leaves out has the default. */
export const storedOptions = z.strictObject({
  connect_timeout_ms: z.number().optional(),
  first_token_timeout_ms: z.number().optional(),
  idle_timeout_ms: z.number().optional(),
  total_timeout_ms: z.number().optional(),
  unknown_fields: z.enum(["forward", "refuse"]).optional(),
  options: z.record(z.string(), z.unknown()).optional(),
});
export type StoredOptions = z.infer<typeof storedOptions>;

function effectiveOptions(provider: ProviderFacts, stored: StoredOptions): DeploymentOptions {
  const parsed = parseOptions(provider, stored.options ?? {});
  if ("param" in parsed) throw new Error(`options that '${provider.id}' does not accept: ${parsed.message}`);
  return {
    connectTimeoutMs: stored.connect_timeout_ms ?? 3_000,
    // Reasoning models think for minutes before their first token.
    firstTokenTimeoutMs: stored.first_token_timeout_ms ?? 600_000,
    idleTimeoutMs: stored.idle_timeout_ms ?? 120_000,
    totalTimeoutMs: stored.total_timeout_ms ?? 3_600_000,
    unknownFields: stored.unknown_fields ?? null,
    provider: parsed.options,
  };
}
