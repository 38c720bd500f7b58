import { openaiCompatible } from "../openai-compatible.ts";

export const deepseek = openaiCompatible({
  id: "deepseek",
  label: "DeepSeek",
  nature: "vendor",
  defaultBaseUrl: "https://api.deepseek.com/v1",
  body: { outputField: "max_tokens", streamUsage: "asked", saltField: null, takesIdentifiers: false },
  bound: { byteLevelTokenizer: true, image: null },
  takes: { earlierReasoning: "content" },
});
