import { openaiCompatible } from "../openai-compatible.ts";

export const lmstudio = openaiCompatible({
  id: "lmstudio",
  label: "LM Studio",
  nature: "engine",
  defaultBaseUrl: "http://127.0.0.1:1234/v1",
  body: { outputField: "max_tokens", streamUsage: "asked", saltField: null, takesIdentifiers: false },
  bound: { byteLevelTokenizer: false, image: null },
  takes: { topK: true },
});
