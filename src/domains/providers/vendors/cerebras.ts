import { openaiCompatible } from "../openai-compatible.ts";

export const cerebras = openaiCompatible({
  id: "cerebras",
  label: "Cerebras",
  nature: "vendor",
  defaultBaseUrl: "https://api.cerebras.ai/v1",
  body: { outputField: "either", streamUsage: "asked", saltField: null, takesIdentifiers: false },
  bound: { byteLevelTokenizer: false, image: null },
});
