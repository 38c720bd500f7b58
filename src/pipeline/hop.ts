import { abandonHop } from "./abandon.ts";
import { admit } from "./admit.ts";
import { check } from "./check.ts";
import { dispatch } from "./dispatch.ts";
import type { Compiled } from "./evidence.ts";
import { meter } from "./meter.ts";
import type { Outcome } from "./outcome.ts";
import type { Platform } from "./platform.ts";
import { settle } from "./settle.ts";

/** The life of a hop, the billable step of a call: route → place → hold (in `admit`) → dispatch → meter → check → send → settle. */
export async function runHop(platform: Platform, of: Compiled): Promise<Outcome> {
  const held = await admit(platform, of);
  try {
    const dispatched = await dispatch(platform, held).catch((thrown: unknown) => abandonHop(platform, held, thrown));
    const metered = await meter(platform, dispatched);
    const delivery = await of.caller.send(check(metered), dispatched);
    return await settle(metered, delivery);
  } finally {
    held.slot.release();
  }
}
