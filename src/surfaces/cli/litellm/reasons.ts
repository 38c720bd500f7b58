/** Why what has no place here has none, by path; the first that matches. */
export const RULES: readonly (readonly [pattern: RegExp, reason: string])[] = [
  [/\.(fallbacks|default_fallbacks|context_window_fallbacks|content_policy_fallbacks)\b/, "a call does not go on to another model"],
  [/^litellm_settings\.(cache|cache_params|disable_copilot_system_to_assistant)\b/, "responses are not cached"],
  [
    /callback|langfuse|^litellm_settings\.(turn_off_message_logging|redact_user_api_key_info)/,
    "Atrium keeps its own record of calls and sends it nowhere",
  ],
  [/\.(num_retries|retry_policy|max_retries|retry_after|model_group_retry_policy)\b/, "retries are Atrium's own"],
  [/\.(allowed_fails|allowed_fails_policy|cooldown_time|disable_cooldowns)\b/, "there is no cooldown to set"],
  [/^router_settings\.(routing_strategy|routing_strategy_args)\b/, "a model's deployments are taken by 'position'"],
  [/^router_settings\.redis_/, "the server is configured by its environment"],
  [
    /\.(drop_params|modify_params|additional_drop_params)\b/,
    "a field is translated, passed on or refused by name; none is dropped in silence",
  ],
  [/^general_settings\.master_key$/, "start Atrium with ATRIUM_BOOTSTRAP_KEY, or mint a key: npm run admin-key"],
  [/^general_settings\.database_/, "start Atrium with DATABASE_URL"],
  [
    /^general_settings\.(enable_jwt_auth|litellm_jwtauth|custom_auth|ui_access_mode)\b/,
    "identity providers are set up with `apply` or /admin/v1",
  ],
  [/^general_settings\b/, "the server is configured by its environment and its own resources"],
  [/^environment_variables\b/, "set it in the environment of Atrium and of `apply`"],
  [/^include\b/, "import each file by itself"],
  [/^(guardrails|litellm_settings\.guardrails)\b/, "there are no guardrails to set"],
  [/^(mcp_servers|mcp_tools|litellm_settings\.mcp_aliases)\b/, "there is no tool gateway"],
  [/^(files_settings|finetune_settings|assistant_settings|vector_store_registry|search_tools)\b/, "that surface is not served"],
  [/^model_list\[\d+\]\.litellm_params\.(stream_timeout)$/, "a stream has 'first_token_timeout_ms' and 'idle_timeout_ms': choose those"],
  [
    /^model_list\[\d+\]\.litellm_params\.(temperature|top_p|max_tokens|seed|stop|n|presence_penalty|frequency_penalty|extra_body|extra_headers|response_format)\b/,
    "fields of a request are the caller's",
  ],
  [
    /^model_list\[\d+\]\.litellm_params\.(max_budget|budget_duration)$/,
    "a budget is of the platform, a tenant, project, key, user or feature, not of a deployment",
  ],
  [/_cost(_|$)|cost_per/, "prices are per token, input and output together, in numbers"],
  [/^model_list\[\d+\]\.model_info\.base_model$/, "a price is stated, or that of the deployment's own model"],
  [/^model_list\[\d+\]\.model_info\b/, "Atrium keeps nothing of that name about a model"],
  [
    /max_end_user_budget|max_user_budget|max_internal_user_budget|default_internal_user_params|default_team_(settings|params)/,
    "it is set for each tenant: make the tenants, then budgets below them",
  ],
];

export const LAST_RESORT = "Atrium has no setting like it";
