import { openaiCompatible } from "../openai-compatible.ts";

export const ollama = openaiCompatible({
  id: "ollama",
  label: "Ollama",
  nature: "engine",
  defaultBaseUrl: "http://127.0.0.1:11434/v1",
  body: { outputField: "max_tokens", streamUsage: "asked", saltField: null, takesIdentifiers: false },
  bound: { byteLevelTokenizer: false, image: null },
});
