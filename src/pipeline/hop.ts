import type { HopId } from "../kernel/ids.ts";
import { abandonHop } from "./abandon.ts";
import { check } from "./check.ts";
import { dispatch } from "./dispatch.ts";
import type { Compiled } from "./evidence.ts";
import { hold } from "./hold.ts";
import { meter } from "./meter.ts";
import type { Outcome } from "./outcome.ts";
import { place } from "./place.ts";
import type { Platform } from "./platform.ts";
import { route } from "./route.ts";
import { settle } from "./settle.ts";

/** The life of a hop, the billable step of a call: route → place → hold → dispatch → meter → check → send → settle. */
export async function runHop(platform: Platform, of: Compiled): Promise<Outcome> {
  const hop = { hop: platform.newId<HopId>(), of };
  of.call.hops.push(hop);
  const routed = route(platform, hop);
  const placed = await place(platform, routed);
  try {
    const held = await hold(platform, placed);
    const dispatched = await dispatch(platform, held).catch((thrown: unknown) => abandonHop(platform, held, thrown));
    const metered = await meter(platform, dispatched);
    const delivery = await of.caller.send(check(metered), dispatched);
    return await settle(metered, delivery);
  } finally {
    placed.slot.release();
  }
}
