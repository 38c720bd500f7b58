export { DispatchError, type Dispatch, type DispatchFailure, type Provider, type ProviderResponse } from "./contract.ts";
export { createMessageRenderer, renderMessage } from "./dialects/anthropic/render.ts";
export { createChunkRenderer, renderWhole } from "./dialects/openai/render.ts";
export { isLarge } from "./large/large-bodies.ts";
export { PARSERS, type ParserName } from "./large/parsers.ts";
export { createLocalProvider } from "./local/local.ts";
export { type CountedText, createProviders, type Providers } from "./service.ts";
