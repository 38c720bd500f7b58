import { openaiCompatible } from "../openai-compatible.ts";

/** A service that no file names: its base URL comes with the credential, its prefix cache is its own affair. */
export const openaiCompatibleVendor = openaiCompatible({
  id: "openai_compatible",
  label: "Any OpenAI-compatible service",
  nature: "vendor",
  defaultBaseUrl: null,
  body: { outputField: "either", streamUsage: "asked", saltField: null, takesIdentifiers: true },
  bound: { byteLevelTokenizer: false, image: null },
});
