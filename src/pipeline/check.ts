import type { MeteredResponse } from "../domains/metering/index.ts";
import type { Brand } from "../kernel/brand.ts";

/** A metered response that the tenant's outbound guardrails have seen: all that a socket takes. */
export type CheckedResponse = Brand<MeteredResponse, "CheckedResponse">;

/** No tenant has outbound guardrails: everything passes. */
export function check(response: MeteredResponse): CheckedResponse {
  return response as CheckedResponse;
}
