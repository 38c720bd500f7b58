import { openaiCompatible } from "../openai-compatible.ts";

export const xai = openaiCompatible({
  id: "xai",
  label: "xAI",
  nature: "vendor",
  defaultBaseUrl: "https://api.x.ai/v1",
  body: { outputField: "either", streamUsage: "asked", saltField: null, takesIdentifiers: true },
  bound: { byteLevelTokenizer: false, image: null },
});
