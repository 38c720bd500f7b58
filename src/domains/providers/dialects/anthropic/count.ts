import type { ResponseBody } from "../../../../kernel/frame.ts";
import { MalformedUpstream, parseObject, UpstreamFault, type Wire } from "../wire.ts";
import { findFault } from "./events.ts";
import { anthropicWire } from "./wire.ts";

/** The wire of `/v1/messages/count_tokens`: one whole body, `MessageTokensCount` of the SDK's messages.d.ts. */
export const countWire: Wire = {
  ...anthropicWire,
  whole(bytes) {
    tokensIn(bytes);
    return { bytes, events: () => [] };
  },
};

/** The count in a body that countWire has read. */
export function countIn(body: ResponseBody): ResponseBody {
  if (body.kind !== "whole") throw new Error("a count that is not a whole body");
  return { kind: "count", count: { tokens: tokensIn(body.whole.bytes), exact: true } };
}

function tokensIn(bytes: Buffer): number {
  const body = parseObject(bytes);
  if (body === null) throw new MalformedUpstream("the body is not a JSON object");
  const fault = findFault(body);
  if (fault !== null) throw new UpstreamFault(fault);
  const tokens = body["input_tokens"];
  if (typeof tokens !== "number" || !Number.isSafeInteger(tokens) || tokens < 0) throw new MalformedUpstream("the body is not a count");
  return tokens;
}
