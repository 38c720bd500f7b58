import type { Clock } from "../../kernel/clock.ts";
import type { ModelId, TenantId, Uuid } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import type { Fault, ProviderFacts } from "./decide.ts";
import type { Model } from "./model.ts";

/** What this domain's verbs ask of the rest of the house. */
export interface CatalogVerbsNeeds {
  readonly clock: Clock;
  readonly makeId: <Id extends Uuid>() => Id;
  /** Of a tenant that the snapshot holds. */
  readonly keyring: (tenant: TenantId) => TenantKeyring;
  readonly providers: { get(id: string): ProviderFacts | undefined; list(): readonly ProviderFacts[] };
  /** The platform's live models, as this process knows them. */
  readonly platformModels: () => ReadonlyMap<string, Model>;
  /** Brings the snapshot up to now. */
  readonly refresh: () => Promise<void>;
}

export function refuse(fault: Fault | null): void {
  if (fault !== null) throw new Problem("invalid_request", fault);
}

export function providerNamed(needs: CatalogVerbsNeeds, id: string | undefined): ProviderFacts {
  if (id === undefined) throw new Problem("invalid_request", { param: "provider", message: "'provider' is required." });
  const provider = needs.providers.get(id);
  if (provider !== undefined) return provider;
  const known = needs.providers.list().map((each) => each.id);
  throw new Problem("invalid_request", { param: "provider", message: `'provider' must be one of ${known.join(", ")}.` });
}

/**
 * The platform's live model of this name or id, as the database has it now: another process may have made it, or made it
 * anew, a moment ago. A name that is known takes the same time as one that is not: a tenant may ask, and learns nothing by it.
 */
export async function platformModel(needs: CatalogVerbsNeeds, nameOrId: string): Promise<Model | undefined> {
  await needs.refresh();
  return platformModelKnown(needs, nameOrId);
}

export function platformModelKnown(needs: Pick<CatalogVerbsNeeds, "platformModels">, nameOrId: string): Model | undefined {
  const models = needs.platformModels();
  return models.get(nameOrId) ?? models.values().find((model) => model.id === (nameOrId as ModelId));
}
