import type { Dialect, Ending, FrameStream, ResponseBody, WholeBody } from "../../kernel/frame.ts";
import { NO_TOKENS } from "../../kernel/tokens.ts";
import type { ProviderResponse } from "../providers/index.ts";
import { countUsage } from "./decide.ts";
import { type Held, heldOf, overloaded } from "./hold.ts";
import type { Hold, MeteredResponse } from "./model.ts";
import { Tally } from "./passed.ts";
import type { Outcome } from "./settle.ts";
import { type MeterNeeds, MeteredStream } from "./stream.ts";

/**
 * Puts a provider's response behind its meter: the only place a MeteredResponse is minted. A stream is metered as it flows; a
 * whole body, or a count, is handed on once its SETTLE is durable, and the promise rejects with the problem `overloaded` when the journal cannot keep it.
 */
export function meter(response: ProviderResponse, hold: Hold, needs: MeterNeeds): Promise<MeteredResponse> {
  const { body } = response;
  switch (body.kind) {
    case "stream":
      return Promise.resolve(meterStream(response, body.stream, hold, needs));
    case "whole":
      return settleNow(response, hold, needs, (held) => wholeOutcome(body.whole, hold, Math.round(needs.clock.monotonic() - held.heldAt)));
    case "count":
      return settleNow(response, hold, needs, () => COUNTED);
    default:
      return body satisfies never;
  }
}

function mint(response: { wire: Dialect | null; body: ResponseBody; settled: Promise<Settled> }): MeteredResponse {
  return response as MeteredResponse;
}

type Settled = Awaited<MeteredResponse["settled"]>;
const COMPLETE: Ending = { kind: "complete" };

function meterStream({ wire }: ProviderResponse, upstream: FrameStream, hold: Hold, needs: MeterNeeds): MeteredResponse {
  const { promise: settled, resolve } = Promise.withResolvers<Settled>();
  const stream = new MeteredStream(upstream, wire, heldOf(hold), needs, (settlement, ending) => resolve({ settlement, ending }));
  return mint({ wire, body: { kind: "stream", stream }, settled });
}

/** Counting tokens uses none. */
const COUNTED: Outcome = {
  status: "completed",
  usage: { tokens: NO_TOKENS, source: "reported" },
  modelServed: null,
  firstTokenMs: null,
};

function settleNow(
  { wire, body }: ProviderResponse,
  hold: Hold,
  { settler }: MeterNeeds,
  outcomeOf: (held: Held) => Outcome,
): Promise<MeteredResponse> {
  return new Promise((resolve, reject) => {
    const held = heldOf(hold);
    const settlement = settler.settle(held, outcomeOf(held), (fault) => {
      if (fault === null) resolve(mint({ wire, body, settled: Promise.resolve({ settlement, ending: COMPLETE }) }));
      else reject(overloaded(fault));
    });
  });
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
