import { openaiCompatible } from "../openai-compatible.ts";

export const vllm = openaiCompatible({
  id: "vllm",
  label: "vLLM",
  nature: "engine",
  defaultBaseUrl: null,
  body: { outputField: "either", streamUsage: "asked", saltField: "cache_salt", takesIdentifiers: false },
  bound: { byteLevelTokenizer: false, image: null },
  takes: { earlierReasoning: "content", topK: true },
});
