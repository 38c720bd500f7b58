import { openaiCompatible } from "../openai-compatible.ts";

export const openrouter = openaiCompatible({
  id: "openrouter",
  label: "OpenRouter",
  nature: "vendor",
  defaultBaseUrl: "https://openrouter.ai/api/v1",
  body: { outputField: "either", streamUsage: "asked", saltField: null, takesIdentifiers: true },
  bound: { byteLevelTokenizer: false, image: null },
  takes: { earlierReasoning: "details", cacheBreakpoints: "cache_control", topK: true },
});
