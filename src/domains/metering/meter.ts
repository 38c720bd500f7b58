import type { Dialect, Ending, ResponseBody, WholeBody } from "../../kernel/frame.ts";
import { NO_TOKENS } from "../../kernel/tokens.ts";
import type { ProviderResponse } from "../providers/index.ts";
import { countUsage } from "./decide.ts";
import { type Held, heldOf, overloaded } from "./hold.ts";
import type { Hold, MeteredResponse, Settlement } from "./model.ts";
import { Tally } from "./passed.ts";
import type { Outcome } from "./settle.ts";
import { type MeterNeeds, MeteredStream } from "./stream.ts";

/**
 * Puts a provider's response behind its meter: the only place a MeteredResponse is minted. A stream is metered as it flows; a
 * whole body, or a count, is handed on once its SETTLE is durable, and the promise rejects with the problem `overloaded` when the journal cannot keep it.
 */
export async function meter(response: ProviderResponse, hold: Hold, needs: MeterNeeds): Promise<MeteredResponse> {
  const { wire, body } = response;
  if (body.kind === "stream") {
    const { promise: settled, resolve } = Promise.withResolvers<Settled>();
    const stream = new MeteredStream(body.stream, wire, heldOf(hold), needs, (settlement, ending) => resolve({ settlement, ending }));
    return mint({ wire, body: { kind: "stream", stream }, settled });
  }
  const settlement = body.kind === "count" ? await settleCount(hold, needs) : await settleWhole(body.whole, hold, needs);
  return mint({ wire, body, settled: Promise.resolve({ settlement, ending: COMPLETE }) });
}

function mint(response: { wire: Dialect | null; body: ResponseBody; settled: Promise<Settled> }): MeteredResponse {
  return response as MeteredResponse;
}

type Settled = Awaited<MeteredResponse["settled"]>;
const COMPLETE: Ending = { kind: "complete" };

function settleWhole(whole: WholeBody, hold: Hold, needs: MeterNeeds): Promise<Settlement> {
  const held = heldOf(hold);
  return settleNow(held, wholeOutcome(whole, hold, Math.round(needs.clock.monotonic() - held.heldAt)), needs);
}

/** Counting tokens uses none. */
function settleCount(hold: Hold, needs: MeterNeeds): Promise<Settlement> {
  const usage: Outcome["usage"] = { tokens: NO_TOKENS, source: "reported" };
  return settleNow(heldOf(hold), { status: "completed", usage, modelServed: null, firstTokenMs: null }, needs);
}

function settleNow(held: Held, outcome: Outcome, { settler }: MeterNeeds): Promise<Settlement> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const settlement = settler.settle(held, outcome, (fault) => (fault === null ? resolve() : reject(overloaded(fault))));
  return promise.then(() => settlement);
}

/** What one piece says of itself. Its first token came with its last. */
function wholeOutcome(whole: WholeBody, hold: Hold, firstTokenMs: number): Outcome {
  let usage: Outcome["usage"] | null = null;
  let modelServed: string | null = null;
  for (const event of whole.events()) {
    if (event.type === "usage") usage = event.usage;
    else if (event.type === "response-start") modelServed = event.model;
  }
  return { status: "completed", usage: usage ?? countWhole(whole, hold), modelServed, firstTokenMs };
}

function countWhole(whole: WholeBody, hold: Hold): Outcome["usage"] {
  const tally = new Tally();
  tally.addEvents(whole.events());
  return countUsage({ outputFrames: 0, outputBytes: tally.outputBytes }, hold.facts.bound);
}
