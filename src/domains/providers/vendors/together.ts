import { openaiCompatible } from "../openai-compatible.ts";

export const together = openaiCompatible({
  id: "together",
  label: "Together AI",
  nature: "vendor",
  defaultBaseUrl: "https://api.together.xyz/v1",
  body: { outputField: "max_tokens", streamUsage: "asked", saltField: null, takesIdentifiers: false },
  bound: { byteLevelTokenizer: false, image: null },
  takes: { topK: true },
});
