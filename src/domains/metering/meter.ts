import type { Dialect, Ending, FrameStream, ResponseBody, WholeBody } from "../../kernel/frame.ts";
import { NO_TOKENS } from "../../kernel/tokens.ts";
import type { ProviderResponse } from "../providers/index.ts";
import { countUsage } from "./decide.ts";
import { type Held, heldOf, overloaded } from "./hold.ts";
import { countWithin, Lanes, type PromptCounter } from "./kept.ts";
import type { Hold, MeteredResponse } from "./model.ts";
import { Tally } from "./passed.ts";
import type { Outcome } from "./settle.ts";
import { type MeterNeeds, MeteredStream } from "./stream.ts";

/**
 * Puts a provider's response behind its meter: the only place a MeteredResponse is minted. A stream is metered as it flows; a
 * whole body, or a count, is handed on once its SETTLE is durable, and the promise rejects with the problem `overloaded` when the journal cannot keep it.
 */
export function meter(
  response: ProviderResponse,
  hold: Hold,
  needs: MeterNeeds,
  prompt: PromptCounter = uncounted,
): Promise<MeteredResponse> {
  const { body } = response;
  switch (body.kind) {
    case "stream":
      return Promise.resolve(meterStream(response, body.stream, hold, needs, prompt));
    case "whole":
      return meterWhole(response, body.whole, heldOf(hold), needs, prompt);
    case "count":
      return settleNow(response, heldOf(hold), COUNTED, needs);
    default:
      return body satisfies never;
  }
}

function mint(response: { wire: Dialect | null; body: ResponseBody; settled: Promise<Settled> }): MeteredResponse {
  return response as MeteredResponse;
}

type Settled = Awaited<MeteredResponse["settled"]>;
const COMPLETE: Ending = { kind: "complete" };

function meterStream(
  { wire }: ProviderResponse,
  upstream: FrameStream,
  hold: Hold,
  needs: MeterNeeds,
  prompt: PromptCounter,
): MeteredResponse {
  const { promise: settled, resolve } = Promise.withResolvers<Settled>();
  const stream = new MeteredStream({ stream: upstream, wire }, heldOf(hold), needs, prompt, (settlement, ending) =>
    resolve({ settlement, ending }),
  );
  return mint({ wire, body: { kind: "stream", stream }, settled });
}

function meterWhole(
  response: ProviderResponse,
  whole: WholeBody,
  held: Held,
  needs: MeterNeeds,
  prompt: PromptCounter,
): Promise<MeteredResponse> {
  const { usage, ...outcome } = wholeOutcome(whole, Math.round(needs.clock.monotonic() - held.heldAt));
  const used = usage ?? countWhole(whole, held, needs, prompt);
  if (used instanceof Promise) return used.then((counted) => settleNow(response, held, { ...outcome, usage: counted }, needs));
  return settleNow(response, held, { ...outcome, usage: used }, needs);
}

/** Counting tokens uses none. */
const COUNTED: Outcome = {
  status: "completed",
  usage: { tokens: NO_TOKENS, source: "reported" },
  modelServed: null,
  firstTokenMs: null,
};

function settleNow({ wire, body }: ProviderResponse, held: Held, outcome: Outcome, { settler }: MeterNeeds): Promise<MeteredResponse> {
  return new Promise((resolve, reject) => {
    const settlement = settler.settle(held, outcome, (fault) => {
      if (fault === null) resolve(mint({ wire, body, settled: Promise.resolve({ settlement, ending: COMPLETE }) }));
      else reject(overloaded(fault));
    });
  });
}

/** What one piece says of itself. Its first token came with its last. */
function wholeOutcome(whole: WholeBody, firstTokenMs: number): Omit<Outcome, "usage"> & { readonly usage: Outcome["usage"] | null } {
  let usage: Outcome["usage"] | null = null;
  let modelServed: string | null = null;
  for (const event of whole.events()) {
    if (event.type === "usage") usage = event.usage;
    else if (event.type === "response-start") modelServed = event.model;
  }
  return { status: "completed", usage, modelServed, firstTokenMs };
}

function countWhole(
  whole: WholeBody,
  { facts }: Held,
  { counter }: MeterNeeds,
  prompt: PromptCounter,
): Outcome["usage"] | Promise<Outcome["usage"]> {
  const lanes = new Lanes();
  const tally = new Tally(lanes);
  tally.addEvents(whole.events());
  const passed = { outputFrames: 0, outputBytes: tally.outputBytes };
  const encoding = counter?.encodingOf(facts.upstreamModel) ?? null;
  if (counter === undefined || encoding === null) return countUsage(passed, facts.bound);
  const { texts, factor } = lanes.texts();
  const counting = countWithin({ input: prompt(), output: counter.count(encoding, texts) }, factor);
  return counting.then((by) => countUsage(passed, facts.bound, by));
}

const uncounted: PromptCounter = () => null;
