import type { ProviderResponse, UpstreamResponse } from "./contract.ts";

/** Mints the proof that an upstream answered. Called by a provider when its first frame, or whole body, has come. */
export function accepted(response: UpstreamResponse): ProviderResponse {
  return response as ProviderResponse;
}
