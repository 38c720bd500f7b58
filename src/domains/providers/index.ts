export { DispatchError, type Dispatch, type DispatchFailure, type Provider, type ProviderResponse } from "./contract.ts";
export { createChunkRenderer, renderWhole } from "./dialects/openai/render.ts";
export { parseChatCompletion } from "./dialects/openai/request.ts";
export { createLocalProvider } from "./local/local.ts";
export { createProviders } from "./service.ts";
