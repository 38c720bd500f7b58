import { type Path, createSource, type Source, type Unmapped } from "./source.ts";
import { type ProviderMapping, upstreamOf } from "./providers.ts";
import { LAST_RESORT, RULES } from "./reasons.ts";
import { milliseconds, nameFrom, perMillion, reference, unused, variableOf, wholeNumber, windowOf } from "./values.ts";

/** A file for `apply`, as a tree. */
export interface Imported {
  readonly manifest: Readonly<Record<string, unknown>>;
  readonly unmapped: readonly Unmapped[];
  /** What was carried over and still needs a hand. */
  readonly notes: readonly string[];
}

interface Credential {
  readonly provider: string;
  readonly base_url?: string;
  readonly api_key?: string;
}
interface Model {
  visibility: "all";
  context_window?: number;
  max_output_tokens?: number;
  deployments: Record<string, Record<string, unknown>>;
}
interface Draft {
  readonly source: Source;
  readonly credentials: Map<string, Credential>;
  readonly models: Map<string, Model>;
  readonly limits: Map<string, Record<string, unknown>>;
  readonly budgets: Map<string, Record<string, unknown>>;
  readonly notes: string[];
}

/** Carries over what Atrium has a place for, of a LiteLLM proxy configuration as parsed; the rest is in `unmapped`. */
export function importLitellm(config: unknown): Imported {
  const source = createSource(config);
  const draft: Draft = { source, credentials: new Map(), models: new Map(), limits: new Map(), budgets: new Map(), notes: [] };
  const entries = source.at(["model_list"]);
  if (Array.isArray(entries)) for (const index of entries.keys()) mapEntry(draft, ["model_list", index]);
  mapAliases(draft);
  mapTimeout(draft);
  mapBudget(draft);
  const manifest = Object.fromEntries(
    [
      ["credentials", draft.credentials] as const,
      ["models", draft.models] as const,
      ["limits", draft.limits] as const,
      ["budgets", draft.budgets] as const,
    ].flatMap(([name, members]) => (members.size === 0 ? [] : [[name, Object.fromEntries(members)]])),
  );
  return { manifest, unmapped: source.report(RULES, LAST_RESORT), notes: draft.notes };
}

/** One entry of `model_list`: a deployment of the model it names. */
function mapEntry(draft: Draft, path: Path): void {
  const { source } = draft;
  const params: Path = [...path, "litellm_params"];
  const info: Path = [...path, "model_info"];
  const name = source.at([...path, "model_name"]);
  const model = source.at([...params, "model"]);
  const refuse = (reason: string) => source.refuse(path, reason);
  if (typeof name !== "string" || typeof model !== "string") return refuse("an entry needs 'model_name' and 'litellm_params.model'");
  if (name.includes("*") || model.includes("*")) return refuse("a wildcard: Atrium serves models by name, so list each one");
  if (!MODEL_NAME.test(name)) return refuse("a model's name has letters, digits and . _ : @ / + -, 100 at most");
  const mode = source.at([...info, "mode"]);
  if (mode !== undefined && mode !== "chat") return refuse("its 'mode' is another than chat, and Atrium serves chat models");
  const base = textAt(source, [...params, "api_base"]) ?? textAt(source, [...params, "base_url"]);
  const upstream = upstreamOf(model, textAt(source, [...params, "custom_llm_provider"]), base);
  if (typeof upstream === "string") return refuse(upstream);
  for (const each of [
    [...path, "model_name"],
    [...params, "model"],
    [...params, "custom_llm_provider"],
    [...info, "mode"],
  ] as Path[])
    source.take(each);

  const credential = credentialFor(draft, params, upstream.mapping, name);
  const present = draft.models.get(name) ?? { visibility: "all", deployments: {} };
  draft.models.set(name, present);
  const deployment = deploymentName(source, info, credential, present);
  const { deployments } = present;
  deployments[deployment] = {
    provider: upstream.mapping.provider,
    credential,
    upstream_model: upstream.model,
    ...priceFields(draft, path, upstream.mapping, `models/${name}/deployments/${deployment}`),
    ...deploymentFields(source, params),
  };
  mapWindows(source, info, present);
  mapLimits(draft, path, { model: name, deployment });
}

const MODEL_NAME = /^[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,99}$/;

/** The credential of this key and address, made where there is none yet. */
function credentialFor(draft: Draft, params: Path, mapping: ProviderMapping, model: string): string {
  const { source, credentials } = draft;
  const base = textAt(source, [...params, "api_base"]) ?? textAt(source, [...params, "base_url"]);
  for (const field of ["api_base", "base_url"]) if (textAt(source, [...params, field]) !== null) source.take([...params, field]);
  const key = keyFor(draft, params, mapping, model);
  const credential: Credential = {
    provider: mapping.provider,
    ...(base === null ? {} : { base_url: withSuffix(reference(base), mapping.suffix) }),
    ...(key === null ? {} : { api_key: key }),
  };
  const known = [...credentials].find(([, each]) => JSON.stringify(each) === JSON.stringify(credential))?.[0];
  if (known !== undefined) return known;
  const name = unused(mapping.provider.replaceAll("_", "-"), credentials);
  credentials.set(name, credential);
  return name;
}

function withSuffix(base: string, suffix: string): string {
  const trimmed = base.replace(/\/+$/, "");
  return suffix === "" || trimmed.endsWith(suffix) ? trimmed : trimmed + suffix;
}

/** Always a reference: a key that stands in the file itself is not written into another. */
function keyFor(draft: Draft, params: Path, mapping: ProviderMapping, model: string): string | null {
  const { source, notes } = draft;
  const written = textAt(source, [...params, "api_key"]);
  if (written === null) return mapping.keyVariable === null ? null : `\${${mapping.keyVariable}}`;
  source.take([...params, "api_key"]);
  if (variableOf(written) !== null) return reference(written);
  const variable = `${nameFrom(model)
    .toUpperCase()
    .replaceAll(/[^A-Z0-9]+/g, "_")
    .replace(/^(\d)/, "_$1")}_API_KEY`;
  notes.push(`The key of '${model}' stands in the file itself and was not copied: set ${variable} to it.`);
  return `\${${variable}}`;
}

function deploymentName(source: Source, info: Path, credential: string, model: Model): string {
  const id = source.at([...info, "id"]);
  const isName = typeof id === "string" && /^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$/.test(id) && !UUID.test(id);
  if (isName) source.take([...info, "id"]);
  return unused(isName ? id : credential, { has: (name) => Object.hasOwn(model.deployments, name) });
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** LiteLLM's cost per token of a class, and the class here. */
const COSTS = [
  ["input_cost_per_token", "input"],
  ["output_cost_per_token", "output"],
  ["cache_read_input_token_cost", "cache_read"],
  ["cache_creation_input_token_cost", "cache_write_5m"],
  ["output_cost_per_reasoning_token", "reasoning"],
] as const;

/** Costs of the entry, which LiteLLM takes from either of two places. Input and output belong together. */
function priceFields(draft: Draft, path: Path, mapping: ProviderMapping, address: string): Record<string, unknown> {
  const { source } = draft;
  const found = COSTS.flatMap(([field, name]) =>
    ["litellm_params", "model_info"].map((part) => ({ at: [...path, part, field] as Path, name })),
  ).filter(({ at }) => perMillion(source.at(at)) !== null);
  const rates = Object.fromEntries(found.toReversed().map(({ at, name }) => [name, perMillion(source.at(at))]));
  if ("input" in rates && "output" in rates) {
    for (const { at } of found) source.take(at);
    return { price: rates };
  }
  if (mapping.price === "stated")
    draft.notes.push(`${address} needs a 'price': "free", or {"input":…,"output":…} in USD per million tokens.`);
  return mapping.price === "stated" ? {} : { price: mapping.price };
}

function deploymentFields(source: Source, params: Path): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  const region = source.at([...params, "region_name"]);
  if (typeof region === "string" && /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(region))
    fields["region"] = source.take([...params, "region_name"]);
  const timeout = milliseconds(source.at([...params, "timeout"]));
  if (timeout !== null && source.take([...params, "timeout"]) !== undefined) fields["total_timeout_ms"] = timeout;
  const position = source.at([...params, "order"]);
  if (typeof position === "number" && Number.isInteger(position) && position >= 0 && position <= 10_000)
    fields["position"] = source.take([...params, "order"]);
  return fields;
}

const MAX_WINDOW = 100_000_000;

function mapWindows(source: Source, info: Path, model: Model): void {
  const input = wholeNumber(source.at([...info, "max_input_tokens"]), MAX_WINDOW);
  const output = wholeNumber(source.at([...info, "max_output_tokens"]), MAX_WINDOW);
  if (input !== null && model.context_window === undefined) {
    model.context_window = input;
    source.take([...info, "max_input_tokens"]);
  }
  if (output !== null && model.max_output_tokens === undefined) {
    model.max_output_tokens = output;
    source.take([...info, "max_output_tokens"]);
  }
}

/** What LiteLLM counts of each deployment. */
const LIMITS = [
  ["rpm", "requests"],
  ["tpm", "tokens"],
  ["max_parallel_requests", "concurrency"],
] as const;
const MAX_LIMIT = 500_000_000;

function mapLimits(draft: Draft, path: Path, at: { readonly model: string; readonly deployment: string }): void {
  for (const [field, dimension] of LIMITS) {
    const place = [
      [...path, "litellm_params", field],
      [...path, field],
    ].find((each) => wholeNumber(draft.source.at(each), MAX_LIMIT) !== null);
    if (place === undefined) continue;
    const name = unused(nameFrom(`${at.model}-${at.deployment}-${dimension}`), draft.limits);
    draft.limits.set(name, { scope: { kind: "deployment", ...at }, dimension, limit: draft.source.take(place) });
  }
}

/** An alias is a model of its own with the same deployments. */
function mapAliases({ source, models, notes }: Draft): void {
  const path: Path = ["router_settings", "model_group_alias"];
  const aliases = source.at(path);
  if (typeof aliases !== "object" || aliases === null) return;
  for (const [alias, target] of Object.entries(aliases)) {
    const model = typeof target === "string" ? models.get(target) : undefined;
    if (model === undefined || models.has(alias) || !MODEL_NAME.test(alias)) continue;
    models.set(alias, structuredClone(model));
    source.take([...path, alias]);
    notes.push(
      `'${alias}' is a model of its own, with the deployments of '${String(target)}'; limits of those deployments do not count its calls.`,
    );
  }
}

/** The proxy's timeout holds where a deployment has none of its own. */
function mapTimeout({ source, models }: Draft): void {
  const paths: Path[] = [
    ["router_settings", "timeout"],
    ["litellm_settings", "request_timeout"],
  ];
  const path = paths.find((each) => milliseconds(source.at(each)) !== null);
  if (path === undefined) return;
  const deployments = [...models.values()].flatMap((model) => Object.values(model.deployments));
  const without = deployments.filter((deployment) => !("total_timeout_ms" in deployment));
  if (without.length === 0) return source.refuse(path, "no deployment is without a timeout of its own");
  const total = milliseconds(source.take(path));
  for (const deployment of without) deployment["total_timeout_ms"] = total;
}

function mapBudget({ source, budgets }: Draft): void {
  const settings: Path = ["litellm_settings"];
  const cap = source.at([...settings, "max_budget"]);
  const window = windowOf(source.at([...settings, "budget_duration"]));
  if (typeof cap !== "number" || !/^\d{1,12}(\.\d{1,12})?$/.test(String(cap)) || window === null) return;
  budgets.set("everything", { scope: { kind: "platform" }, unit: "usd", window, cap: String(source.take([...settings, "max_budget"])) });
  source.take([...settings, "budget_duration"]);
}

function textAt(source: Source, path: Path): string | null {
  const value = source.at(path);
  return typeof value === "string" && value !== "" ? value : null;
}
