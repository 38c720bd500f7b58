import { ours, plain, priced, refused, type FieldRule } from "../field-rules.ts";

/**
 * The fields of the official SDK's MessageCreateParams (@anthropic-ai/sdk, resources/messages/messages.d.ts); a test in this folder
 * fails to compile when one is missing.
 */
export const SDK_FIELDS = {
  cache_control: priced("Cache writes: the dearest input price of the deployment applies to the whole prompt."),
  container: refused("Containers run code on the provider's side, in the platform's account, where tenants are not kept apart."),
  diagnostics: refused("Compares prompts with an earlier message of the platform's account, anybody's."),
  inference_geo: refused("Where a model runs is the deployment's, and has a price of its own."),
  max_tokens: priced("Bounds the output, thinking included; written where the caller's dialect had no maximum."),
  messages: priced("Text by bytes, media by the vendor's rule."),
  metadata: ours("namespace", "Its user_id leaves only as an HMAC under the tenant's key; the rest is attribution and stays here."),
  model: ours("set", "The upstream's name of the model that the deployment serves."),
  output_config: priced("A schema is 4 tokens a byte, like tools."),
  service_tier: refused("Another tier has another price; which one applies is the platform's account's.", ["auto", "standard_only"]),
  speed: refused("The fast mode has another price; the deployment's price is for the standard one.", ["standard"]),
  stop_sequences: plain,
  stream: plain,
  system: priced("Text by bytes."),
  thinking: priced("Part of the output; its budget is lowered with the output bound."),
  tool_choice: plain,
  tools: priced("4 tokens a byte, and the system prompt that tools bring."),
  user_profile_id: refused("Names a party of the platform's account."),
  workspace_id: refused("Names a workspace of the platform's account."),
} as const satisfies Readonly<Record<string, FieldRule>>;

/**
 * What API version 2023-06-01 has beyond the SDK's newer one, and what betas add (resources/beta/messages/messages.d.ts). A beta needs
 * its header, and no caller's `anthropic-beta` is sent on: each opens a feature that has no term in the worst case here.
 */
const EXTENSIONS: Readonly<Record<string, FieldRule>> = {
  betas: refused("Beta features are not available here."),
  billing_policy: refused("Who pays is the platform's."),
  compaction: refused("Runs the model once more on the provider's side, without a term in the worst case."),
  context_management: refused("Cuts the prompt on the provider's side, unseen."),
  fallback_credit_token: refused("A credit of the platform's account."),
  fallbacks: refused("Fallbacks are the platform's: each is re-authorised and held for."),
  mcp_servers: refused("Servers that a provider would call with the platform's credentials."),
  output_format: refused("Use output_config.format."),
  temperature: plain,
  thread: refused("Threads lie in the platform's account, where tenants are not kept apart."),
  top_k: plain,
  top_p: plain,
};

/** Every field that the dialect names. A field that is not here is unknown: forwarded and recorded, or refused. */
export const FIELDS: ReadonlyMap<string, FieldRule> = new Map<string, FieldRule>([
  ...Object.entries(SDK_FIELDS),
  ...Object.entries(EXTENSIONS),
]);
