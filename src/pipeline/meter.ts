import type { MeteredResponse } from "../domains/metering/index.ts";
import type { Dispatched } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/** Before guardrails, so that a response which is then blocked has still been paid for. */
export function meter(platform: Platform, { response, hold, slot, of: call }: Dispatched): Promise<MeteredResponse> {
  if (hold.facts.tenant !== call.tenant.record.id) throw new Error("a hold of another tenant");
  return platform.meter(response, hold, () => platform.countPrompt(call.compiled, slot.deployment));
}
