import { advance, type Dispatched, type Held } from "./evidence.ts";
import type { Platform } from "./platform.ts";

/** Sends the attempt to its deployment; resolves once the upstream has begun to answer. @throws DispatchError */
export async function dispatch(platform: Platform, held: Held): Promise<Dispatched> {
  const { of: call, slot, hold } = held;
  const response = await platform.dispatch(platform.provider(slot.deployment.provider), {
    attempt: hold.facts.attempt,
    request: call.compiled,
    deployment: slot.deployment,
    outputBound: hold.outputBound,
    cacheSalt: platform.cacheSalt(call.tenant.record.id),
    signal: call.caller.signal,
    onSent: () => platform.sent(hold),
  });
  return advance(held, { response });
}
