import { openaiCompatible } from "../openai-compatible.ts";

/** Refuses fields that it does not know; usage comes in every stream unasked. */
export const mistral = openaiCompatible({
  id: "mistral",
  label: "Mistral",
  nature: "vendor",
  defaultBaseUrl: "https://api.mistral.ai/v1",
  body: { outputField: "max_tokens", streamUsage: "always", saltField: null, takesIdentifiers: false },
  bound: { byteLevelTokenizer: false, image: null },
});
