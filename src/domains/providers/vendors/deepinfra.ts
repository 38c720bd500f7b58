import { openaiCompatible } from "../openai-compatible.ts";

export const deepinfra = openaiCompatible({
  id: "deepinfra",
  label: "DeepInfra",
  nature: "vendor",
  defaultBaseUrl: "https://api.deepinfra.com/v1/openai",
  body: { outputField: "max_tokens", streamUsage: "asked", saltField: null, takesIdentifiers: false },
  bound: { byteLevelTokenizer: false, image: null },
  takes: { topK: true },
});
