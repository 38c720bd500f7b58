import { openaiCompatible } from "../openai-compatible.ts";

export const groq = openaiCompatible({
  id: "groq",
  label: "Groq",
  nature: "vendor",
  defaultBaseUrl: "https://api.groq.com/openai/v1",
  body: { outputField: "either", streamUsage: "asked", saltField: null, takesIdentifiers: true },
  bound: { byteLevelTokenizer: false, image: null },
});
