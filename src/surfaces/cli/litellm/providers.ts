/** How LiteLLM's name for a provider is written here, and what differs. */
export interface ProviderMapping {
  readonly provider: string;
  /** What LiteLLM reads the key from where the file names none; null where no key is needed. */
  readonly keyVariable: string | null;
  /** What LiteLLM's `api_base` leaves out and a base URL here has. */
  readonly suffix: string;
  /** Whether a model without a price of its own costs what is published, nothing, or must be priced by hand. */
  readonly price: "dataset" | "free" | "stated";
}

const vendor = (provider: string, keyVariable: string): ProviderMapping => ({ provider, keyVariable, suffix: "", price: "dataset" });
const engine = (provider: string, suffix = ""): ProviderMapping => ({ provider, keyVariable: null, suffix, price: "free" });

/** LiteLLM's prefixes of `model` (`groq/llama3-8b`). One line a provider. */
const BY_PREFIX: Readonly<Record<string, ProviderMapping>> = {
  openai: vendor("openai", "OPENAI_API_KEY"),
  anthropic: { ...vendor("anthropic", "ANTHROPIC_API_KEY"), suffix: "/v1" },
  openrouter: vendor("openrouter", "OPENROUTER_API_KEY"),
  groq: vendor("groq", "GROQ_API_KEY"),
  mistral: vendor("mistral", "MISTRAL_API_KEY"),
  xai: vendor("xai", "XAI_API_KEY"),
  deepseek: vendor("deepseek", "DEEPSEEK_API_KEY"),
  together_ai: vendor("together", "TOGETHERAI_API_KEY"),
  fireworks_ai: vendor("fireworks", "FIREWORKS_AI_API_KEY"),
  cerebras: vendor("cerebras", "CEREBRAS_API_KEY"),
  deepinfra: vendor("deepinfra", "DEEPINFRA_API_KEY"),
  ollama: engine("ollama", "/v1"),
  ollama_chat: engine("ollama", "/v1"),
  hosted_vllm: engine("vllm"),
  vllm: engine("vllm"),
  lm_studio: engine("lmstudio"),
  llamafile: engine("llamacpp"),
  custom_openai: { provider: "openai_compatible", keyVariable: null, suffix: "", price: "stated" },
  openai_like: { provider: "openai_compatible", keyVariable: null, suffix: "", price: "stated" },
};

/** Models that LiteLLM knows the vendor of by their name alone. */
const BY_NAME: readonly (readonly [RegExp, string])[] = [
  [/^(gpt-|chatgpt-|o[134](-|$))/, "openai"],
  [/^claude-/, "anthropic"],
];

export interface Upstream {
  readonly mapping: ProviderMapping;
  /** The model as the provider calls it. */
  readonly model: string;
}

/** Whose model it is; a sentence where nothing here serves it. */
export function upstreamOf(model: string, customProvider: string | null, baseUrl: string | null): Upstream | string {
  const slash = model.indexOf("/");
  const prefix = customProvider ?? (slash > 0 && Object.hasOwn(BY_PREFIX, model.slice(0, slash)) ? model.slice(0, slash) : null);
  const byName = BY_NAME.find(([pattern]) => pattern.test(model))?.[1] ?? null;
  const name = prefix ?? (slash > 0 ? model.slice(0, slash) : byName);
  if (name === null) return `no provider is named in '${model}', and none is known by that name`;
  const mapping = Object.hasOwn(BY_PREFIX, name) ? BY_PREFIX[name] : undefined;
  if (mapping === undefined) return `Atrium has no provider for '${name}'`;
  const isPrefixed = slash > 0 && model.slice(0, slash) === name;
  const upstream = { mapping, model: isPrefixed ? model.slice(slash + 1) : model };
  return mapping.provider === "openai" && baseUrl !== null && !isOpenAi(baseUrl)
    ? { ...upstream, mapping: { ...mapping, provider: "openai_compatible", keyVariable: null, price: "stated" } }
    : upstream;
}

function isOpenAi(baseUrl: string): boolean {
  return /^https:\/\/([a-z]+\.)?api\.openai\.com(\/|$)/.test(baseUrl);
}
