import { anthropic } from "./anthropic.ts";
import type { Provider } from "./contract.ts";
import { llamacpp } from "./engines/llamacpp.ts";
import { lmstudio } from "./engines/lmstudio.ts";
import { ollama } from "./engines/ollama.ts";
import { sglang } from "./engines/sglang.ts";
import { trtllm } from "./engines/trtllm.ts";
import { vllm } from "./engines/vllm.ts";
import type { ProviderNeeds } from "./openai-compatible.ts";
import { simulated } from "./simulated/simulated.ts";
import { cerebras } from "./vendors/cerebras.ts";
import { deepinfra } from "./vendors/deepinfra.ts";
import { deepseek } from "./vendors/deepseek.ts";
import { fireworks } from "./vendors/fireworks.ts";
import { groq } from "./vendors/groq.ts";
import { mistral } from "./vendors/mistral.ts";
import { openaiCompatibleVendor } from "./vendors/openai-compatible.ts";
import { openai } from "./vendors/openai.ts";
import { openrouter } from "./vendors/openrouter.ts";
import { together } from "./vendors/together.ts";
import { xai } from "./vendors/xai.ts";

/** Every provider that needs nothing but the upstream client; `local` is made with its models' folder and added in main.ts. */
export const TABLE: readonly ((needs: ProviderNeeds) => Provider)[] = [
  anthropic,
  cerebras,
  deepinfra,
  deepseek,
  fireworks,
  groq,
  llamacpp,
  lmstudio,
  mistral,
  ollama,
  openai,
  openaiCompatibleVendor,
  openrouter,
  sglang,
  simulated,
  together,
  trtllm,
  vllm,
  xai,
];
