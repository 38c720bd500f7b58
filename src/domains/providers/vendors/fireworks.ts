import { openaiCompatible } from "../openai-compatible.ts";

export const fireworks = openaiCompatible({
  id: "fireworks",
  label: "Fireworks AI",
  nature: "vendor",
  defaultBaseUrl: "https://api.fireworks.ai/inference/v1",
  body: { outputField: "max_tokens", streamUsage: "asked", saltField: null, takesIdentifiers: true },
  bound: { byteLevelTokenizer: false, image: null },
  takes: { earlierReasoning: "content", topK: true },
});
