import { BudgetExceeded, type Turn } from "../domains/metering/index.ts";
import type { HopId } from "../kernel/ids.ts";
import { checkAgain } from "./ask.ts";
import type { Compiled, Held, Hop } from "./evidence.ts";
import { hold } from "./hold.ts";
import { place } from "./place.ts";
import type { Platform } from "./platform.ts";
import { route } from "./route.ts";

/**
 * route → place → hold. A call that a budget bids wait gives its slot back, holds nothing while it waits, and begins again at route: what it may
 * do may have changed. The caller of this hands the slot back.
 * @throws Problem as the three do; budget_exceeded when the wait was too long
 */
export async function admit(platform: Platform, of: Compiled): Promise<Held> {
  const id = platform.newId<HopId>();
  const position = of.call.hops.length;
  let turn: Turn | null = null;
  try {
    for (;;) {
      const hop: Hop = { hop: id, of };
      of.call.hops[position] = hop;
      const placed = await place(platform, route(platform, hop));
      try {
        return await hold(platform, placed, turn);
      } catch (thrown) {
        placed.slot.release();
        if (!(thrown instanceof BudgetExceeded) || thrown.line === null) throw thrown;
        turn ??= platform.newTurn();
        if (!(await platform.waitTurn(thrown.line, turn, of.caller.signal))) throw thrown;
        await checkAgain(platform, of);
      }
    }
  } finally {
    if (turn !== null) platform.leaveLine(turn);
  }
}
