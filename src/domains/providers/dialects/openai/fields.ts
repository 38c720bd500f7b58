/**
 * What becomes of a field of `/v1/chat/completions`. `ours`: set, namespaced or refused by policy, never taken from the
 * caller. `priced`: has a term in the worst case (bound.ts). `plain`: forwarded as it came.
 */
export type FieldRule =
  | { readonly class: "plain" }
  | { readonly class: "priced"; /** The term. */ readonly why: string }
  | { readonly class: "ours"; readonly policy: OursPolicy; readonly why: string };

/**
 * `set`: we write the value. `consume`: we read it and do not send it on. `namespace`: sent on as an HMAC under a key of the tenant's
 * (vendors), or not at all (engines). `salt`: replaced by the tenant's cache salt (engines), else dropped.
 * `refuse`: a value other than null and other than those listed as `harmless`, is refused by name; harmless ones are dropped.
 */
export type OursPolicy =
  | { readonly kind: "set" | "consume" | "namespace" | "salt" }
  | { readonly kind: "refuse"; readonly harmless: readonly (string | boolean)[] };

const plain: FieldRule = { class: "plain" };
const priced = (why: string): FieldRule => ({ class: "priced", why });
const ours = (kind: "set" | "consume" | "namespace" | "salt", why: string): FieldRule => ({ class: "ours", policy: { kind }, why });
const refused = (why: string, harmless: readonly (string | boolean)[] = []): FieldRule => ({
  class: "ours",
  policy: { kind: "refuse", harmless },
  why,
});

/** The fields of the official SDK's ChatCompletionCreateParams; a test in this folder fails to compile when one is missing. */
export const SDK_FIELDS = {
  audio: priced("Audio answers are output tokens; the output bound covers them."),
  frequency_penalty: plain,
  function_call: plain,
  functions: priced("4 tokens a byte, like tools."),
  logit_bias: plain,
  logprobs: plain,
  max_completion_tokens: priced("Bounds the output."),
  max_tokens: priced("Bounds the output."),
  messages: priced("Text by bytes, media by the vendor's rule."),
  metadata: ours("consume", "Attribution: feature, user, session and tags go to the usage row, not to the provider."),
  modalities: priced("Audio answers are output tokens; the output bound covers them."),
  model: ours("set", "The upstream's name of the model that the deployment serves."),
  moderation: refused("Runs a further model on the provider's side that has no price here."),
  n: priced("Multiplies the output."),
  parallel_tool_calls: plain,
  prediction: priced("Rejected predicted tokens are billed as output: its bytes."),
  presence_penalty: plain,
  prompt_cache_key: ours("namespace", "Two tenants must never share a prefix cache by choosing the same key."),
  prompt_cache_options: priced("Cache writes: the dearest input price of the deployment applies to the whole prompt."),
  prompt_cache_retention: refused("Keeps a tenant's prompt on the provider's side beyond the call.", ["in_memory", "in-memory"]),
  reasoning_effort: plain,
  response_format: priced("A schema is 4 tokens a byte, like tools."),
  safety_identifier: ours("namespace", "An end user's identifier leaves only as an HMAC under the tenant's key."),
  seed: plain,
  service_tier: refused("Another tier has another price; the deployment's price is for the standard one.", ["auto", "default"]),
  stop: plain,
  store: refused("Stored completions lie in the platform's account, where tenants are not kept apart.", [false]),
  stream: plain,
  stream_options: ours(
    "set",
    "include_usage is always asked for, because usage is what is charged; the usage frame is dropped again for a caller who did not ask.",
  ),
  temperature: plain,
  tool_choice: plain,
  tools: priced("4 tokens a byte: templates re-indent them."),
  top_logprobs: plain,
  top_p: plain,
  user: ours("namespace", "An end user's identifier leaves only as an HMAC under the tenant's key."),
  verbosity: plain,
  web_search_options: refused("Searches are billed per call and run on the provider's side, outside the tenant's residency."),
} as const satisfies Readonly<Record<string, FieldRule>>;

/** What engines (vLLM, SGLang, llama.cpp, …) and vendors add to the dialect. */
const EXTENSIONS: Readonly<Record<string, FieldRule>> = {
  add_generation_prompt: plain,
  add_special_tokens: plain,
  background: refused("A background response outlives the call that pays for it.", [false]),
  best_of: priced("Multiplies the output."),
  bootstrap_host: refused("Names a machine inside the engine's cluster."),
  bootstrap_port: refused("Names a machine inside the engine's cluster."),
  bootstrap_room: refused("Names a transfer inside the engine's cluster."),
  cache_salt: ours("salt", "Prefix caches of engines are kept apart by the tenant's salt."),
  chat_template: refused("Replaces the deployment's template, from which the input is bounded."),
  chat_template_kwargs: priced("4 tokens a byte: values may be rendered into the prompt."),
  continue_final_message: plain,
  custom_logit_processor: refused("Code that would run inside the engine."),
  custom_params: refused("Parameters of code inside the engine."),
  data_parallel_rank: refused("Placement inside the engine's cluster is the platform's."),
  documents: priced("4 tokens a byte: rendered into the prompt."),
  enable_thinking: plain,
  extra_key: ours("salt", "A cache key of SGLang: the tenant's salt stands in for it."),
  grammar: plain,
  guided_choice: plain,
  guided_grammar: plain,
  guided_json: priced("4 tokens a byte, like a schema."),
  guided_regex: plain,
  ignore_eos: plain,
  include_reasoning: plain,
  include_stop_str_in_output: plain,
  json_schema: priced("4 tokens a byte, like a schema."),
  keep_alive: refused("Loads and unloads models of every tenant."),
  kv_transfer_params: refused("Names cache blocks of the engine, anybody's."),
  length_penalty: plain,
  lora: refused("Adapters are chosen by the deployment."),
  lora_adapter: refused("Adapters are chosen by the deployment."),
  lora_name: refused("Adapters are chosen by the deployment."),
  lora_path: refused("Adapters are chosen by the deployment."),
  lora_request: refused("Adapters are chosen by the deployment."),
  mcp_servers: refused("Servers that a provider would call with the platform's credentials."),
  min_p: plain,
  min_tokens: plain,
  mirostat: plain,
  mm_processor_kwargs: refused("Changes how many tokens an image takes."),
  models: refused("Fallbacks are the platform's: each is re-authorised and held for."),
  nvext: refused("Holds cache and placement controls of the engine."),
  plugins: refused("Run on the provider's side and are billed apart."),
  priority: refused("Order among tenants is the fair queue's."),
  provider: refused("Routing and residency are the platform's."),
  reasoning: plain,
  reasoning_format: plain,
  repetition_penalty: plain,
  rid: refused("Request ids of an engine are shared by all its callers."),
  request_id: refused("Request ids of an engine are shared by all its callers."),
  route: refused("Routing and residency are the platform's."),
  search_parameters: refused("Searches are billed per source and run on the provider's side."),
  separate_reasoning: plain,
  session_params: refused("Sessions of an engine are shared by all its callers."),
  skip_special_tokens: plain,
  slot_id: refused("Slots of an engine are shared by all its callers."),
  id_slot: refused("Slots of an engine are shared by all its callers."),
  spaces_between_special_tokens: plain,
  stop_token_ids: plain,
  structured_outputs: priced("4 tokens a byte, like a schema."),
  thinking: plain,
  thinking_budget: plain,
  top_a: plain,
  top_k: plain,
  transforms: refused("Cuts the prompt on the provider's side, unseen."),
  typical_p: plain,
  use_beam_search: refused("Beams multiply the work without a term in the worst case.", [false]),
};

/** Every field that the dialect names. A field that is not here is unknown: forwarded and recorded, or refused. */
export const FIELDS: ReadonlyMap<string, FieldRule> = new Map<string, FieldRule>([
  ...Object.entries(SDK_FIELDS),
  ...Object.entries(EXTENSIONS),
]);
