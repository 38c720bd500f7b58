export {
  DispatchError,
  type Dispatch,
  type DispatchFailure,
  type Provider,
  type ProviderResponse,
  type UpstreamResponse,
} from "./contract.ts";
export { parseChatCompletion } from "./dialects/openai/request.ts";
export { createChunkRenderer, renderWhole, type ChunkRenderer, type RenderOptions } from "./dialects/openai/render.ts";
export { createLocalProvider, type LocalProvider } from "./local/local.ts";
export { createProviders, type Providers } from "./service.ts";
