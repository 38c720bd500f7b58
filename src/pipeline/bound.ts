import type { Deployment } from "../domains/catalog/index.ts";
import type { ModelRequest } from "../kernel/request.ts";
import type { TokenBound } from "../kernel/tokens.ts";
import type { Platform } from "./platform.ts";

/** The most that one dispatch of the request to the deployment can use. The prompt is walked once, however many steps ask. @throws Problem */
export function boundOf(platform: Platform, request: ModelRequest, { provider, model }: Deployment): TokenBound | Promise<TokenBound> {
  const known = bounds.get(request);
  if (known?.provider === provider && known.model === model) return known.bound;
  const bound = platform.bound(platform.provider(provider), request, model);
  bounds.set(request, { provider, model, bound });
  return bound;
}

/** The last one asked for: what a limit asks, the hold of the first attempt asks again. */
const bounds = new WeakMap<ModelRequest, KnownBound>();

interface KnownBound {
  readonly provider: string;
  readonly model: Deployment["model"];
  readonly bound: TokenBound | Promise<TokenBound>;
}
