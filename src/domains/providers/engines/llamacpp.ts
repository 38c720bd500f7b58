import { openaiCompatible } from "../openai-compatible.ts";

export const llamacpp = openaiCompatible({
  id: "llamacpp",
  label: "llama.cpp server",
  nature: "engine",
  defaultBaseUrl: "http://127.0.0.1:8080/v1",
  body: { outputField: "max_tokens", streamUsage: "asked", saltField: null, takesIdentifiers: false },
  bound: { byteLevelTokenizer: false, image: null },
  takes: { earlierReasoning: "content", topK: true },
});
