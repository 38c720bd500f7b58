import { PLATFORM_TENANT, type TenantId } from "../../kernel/ids.ts";
import type { Provider } from "../providers/index.ts";
import type { CatalogPart, Model, Price, PricePeriod } from "./model.ts";

/** What the catalog must know of a provider. */
export type ProviderFacts = Pick<Provider, "id" | "nature" | "defaultBaseUrl" | "secretField" | "freeByDefault" | "options">;

/** What is wrong with a write: the field at fault, and what to do. */
export interface Fault {
  readonly param: string;
  readonly message: string;
}

/** The URL as it is kept, without a trailing slash; null when it is not one that may be kept. */
export function parseBaseUrl(text: string): string | null {
  if (!URL.canParse(text)) return null;
  const url = new URL(text);
  const plain =
    (url.protocol === "http:" || url.protocol === "https:") && url.username === "" && url.password === "" && !/[?#\s]/.test(text);
  return plain && url.hostname !== "" ? url.href.replace(/\/+$/, "") : null;
}

export function faultOfCredential(
  provider: ProviderFacts,
  credential: {
    readonly baseUrl: string | null;
    readonly hasSecret: boolean;
    /** A field it has that only TLS makes use of. */
    readonly tlsField: "ca" | "client_cert" | null;
  },
): Fault | null {
  if (provider.nature === "inside")
    return { param: "provider", message: `'${provider.id}' runs inside this server and takes no credential.` };
  if (credential.baseUrl === null && provider.defaultBaseUrl === null) {
    return { param: "base_url", message: `'${provider.id}' has no address of its own: 'base_url' must say where it is, '/v1' included.` };
  }
  if (credential.tlsField !== null && (credential.baseUrl ?? provider.defaultBaseUrl)?.startsWith("http:") === true) {
    return {
      param: credential.tlsField,
      message: `'${credential.tlsField}' needs a 'base_url' with https: over http nobody shows a certificate.`,
    };
  }
  const ownAddress = credential.baseUrl === null || credential.baseUrl === provider.defaultBaseUrl;
  if (provider.secretField !== null && provider.nature === "vendor" && ownAddress && !credential.hasSecret) {
    return { param: provider.secretField, message: `'${provider.id}' asks for a secret: send it as '${provider.secretField}'.` };
  }
  return null;
}

export function faultOfDeployment(
  provider: ProviderFacts,
  deployment: {
    readonly owner: TenantId;
    readonly credentialProvider: string | null;
    readonly upstreamModel: string;
    readonly priced: boolean;
  },
): Fault | null {
  if (deployment.upstreamModel === "")
    return { param: "upstream_model", message: "'upstream_model' is required: the provider's own name of the model." };
  if (provider.id === "local" && deployment.owner !== PLATFORM_TENANT)
    return { param: "provider", message: "Only the platform's models run on this machine." };
  if (provider.nature === "inside" && deployment.credentialProvider !== null)
    return { param: "credential", message: `'${provider.id}' runs inside this server and takes no credential.` };
  if (provider.nature !== "inside" && deployment.credentialProvider === null)
    return { param: "credential", message: `'${provider.id}' needs a credential: name one, made with PUT credentials/{credential}.` };
  if (deployment.credentialProvider !== null && deployment.credentialProvider !== provider.id) {
    return {
      param: "credential",
      message: `The credential is one of '${deployment.credentialProvider}', the deployment one of '${provider.id}'.`,
    };
  }
  if (!deployment.priced)
    return {
      param: "price",
      message:
        "'price' is required: \"dataset\" (what the provider publishes), USD per million tokens as decimal strings such as " +
        '{"input":"0.15","output":"0.60"}, or "free".',
    };
  return null;
}

/** A deployment that becomes another's keeps a price that was stated, and none that came of what it was: the dataset's, or free by default. */
export function faultOfKeptPrice(
  before: { readonly provider: string; readonly upstream_model: string },
  after: { readonly provider: Pick<ProviderFacts, "id" | "freeByDefault">; readonly upstreamModel: string },
  prices: readonly PricePeriod[],
): Fault | null {
  const sources = prices.map(({ price }) => price.source);
  const elsewhere = after.provider.id !== before.provider;
  const outdated = sources.includes("dataset") && (elsewhere || after.upstreamModel !== before.upstream_model);
  const unsaid = sources.includes("free") && elsewhere && !after.provider.freeByDefault;
  if (!outdated && !unsaid) return null;
  return {
    param: "price",
    message: "The price is that of another model. Send 'price' again, with the new 'upstream_model' or 'provider'.",
  };
}

/** The options the provider's own schema makes of these, or its first objection. */
export function parseOptions(
  provider: ProviderFacts,
  options: Readonly<Record<string, unknown>>,
): { readonly options: Readonly<Record<string, unknown>> } | Fault {
  if (provider.options === undefined) {
    const name = Object.keys(options)[0];
    return name === undefined ? { options } : { param: `options.${name}`, message: `'${provider.id}' takes no options.` };
  }
  const outcome = provider.options.safeParse(options);
  if (outcome.success) return { options: outcome.data };
  const issue = outcome.error.issues[0];
  const path = issue?.code === "unrecognized_keys" ? [...issue.path, issue.keys[0] ?? ""] : (issue?.path ?? []);
  const param = ["options", ...path.map(String)].join(".");
  return { param, message: `'${param}': ${issue?.message ?? "not valid"}.` };
}

/** The price in force at `time`, ms since the epoch. */
export function priceAt(prices: readonly PricePeriod[], time: number): Price {
  return periodAt(prices, time).price;
}

/** The period that `time` is in. The first one stands for all time before it. */
export function periodAt<Period extends PricePeriod>(periods: readonly Period[], time: number): Period {
  const period = periods.findLast(({ from }) => from <= time) ?? periods[0];
  if (period === undefined) throw new Error("a deployment without a price");
  return period;
}

/** What the caller may call by this name: own rows first, then the platform's that it may see. Undefined: nothing. */
export function findModel(
  own: CatalogPart | undefined,
  platform: CatalogPart | undefined,
  mayCall: ReadonlySet<string> | null,
  name: string,
): Model | undefined {
  if (mayCall !== null && !mayCall.has(name)) return undefined;
  const mine = own?.models.get(name);
  if (mine !== undefined) return mine;
  const shared = platform?.models.get(name);
  return shared !== undefined && isVisible(shared, own) ? shared : undefined;
}

/** Everything the caller may call, oldest first. */
export function listModels(own: CatalogPart | undefined, platform: CatalogPart | undefined, mayCall: ReadonlySet<string> | null): Model[] {
  const names = new Set([...(own?.models.keys() ?? []), ...(platform?.models.keys() ?? [])]);
  const models = [...names].flatMap((name) => findModel(own, platform, mayCall, name) ?? []);
  return models.toSorted((one, other) => one.createdAt - other.createdAt || (one.id < other.id ? -1 : 1));
}

function isVisible(model: Model, grantee: CatalogPart | undefined): boolean {
  return model.visibility === "all" || grantee?.grants.has(model.id) === true;
}
