import { openaiCompatible } from "../openai-compatible.ts";

export const trtllm = openaiCompatible({
  id: "trtllm",
  label: "TensorRT-LLM",
  nature: "engine",
  defaultBaseUrl: null,
  body: { outputField: "either", streamUsage: "asked", saltField: "cache_salt", takesIdentifiers: false },
  bound: { byteLevelTokenizer: false, image: null },
  takes: { topK: true },
});
