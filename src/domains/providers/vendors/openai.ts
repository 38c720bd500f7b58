import { openaiCompatible } from "../openai-compatible.ts";

/** Image figures are the dearest published, those of gpt-4o-mini: 2,833, and 5,667 more for each of at most 8 tiles. */
export const openai = openaiCompatible({
  id: "openai",
  label: "OpenAI",
  nature: "vendor",
  defaultBaseUrl: "https://api.openai.com/v1",
  body: { outputField: "either", streamUsage: "asked", saltField: null, takesIdentifiers: true },
  bound: { byteLevelTokenizer: true, image: { low: 2833, high: 48_169 } },
  takes: { cacheBreakpoints: "prompt_cache_breakpoint" },
});
