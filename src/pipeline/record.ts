import { formatUsd } from "../kernel/money.ts";
import { inputTokens, outputTokens } from "../kernel/tokens.ts";
import type { CallEvent } from "../telemetry/index.ts";
import type { Compiled, Dispatched, Limited, Received } from "./evidence.ts";
import { type Outcome, settlementOf } from "./outcome.ts";
import type { Platform } from "./platform.ts";

/** One wide event per call, with whatever evidence the call got to. Metadata only, never content. */
export function record(platform: Platform, received: Received & Partial<Compiled & Limited>, outcome: Outcome): void {
  const { call, principal, tenant, request, refusal } = received;
  const hop = call.hops.at(-1) as Partial<Dispatched> | undefined;
  const deployment = hop?.slot?.deployment;
  const settlement = settlementOf(call.hops, outcome);
  platform.emit({
    call: call.id,
    trace: call.trace,
    endpoint: call.endpoint,
    outcome: outcome.kind,
    status: statusOf(outcome),
    problem: "problem" in outcome ? outcome.problem.code : null,
    cause: "problem" in outcome ? outcome.problem.cause : undefined,
    limit: refusal?.limit.id ?? null,
    limitDimension: refusal?.limit.dimension ?? null,
    tenant: principal?.tenant ?? null,
    project: tenant?.project?.id ?? null,
    principal: principal?.id ?? null,
    remoteAddress: call.origin.address,
    callerRequestId: call.callerRequestId,
    stream: request?.stream ?? null,
    model: hop?.route?.model.name ?? null,
    modelServed: settlement?.modelServed ?? null,
    provider: deployment?.provider ?? null,
    deployment: deployment?.name ?? null,
    attempt: hop?.hold?.facts.attempt ?? null,
    upstreamRequestId: hop?.response?.upstreamRequestId ?? null,
    unknownFields: hop?.response?.unknownFields ?? [],
    inputTokens: settlement === null ? null : inputTokens(settlement.usage.tokens),
    outputTokens: settlement === null ? null : outputTokens(settlement.usage.tokens),
    costUsd: settlement === null ? null : formatUsd(settlement.cost),
    chargeUsd: settlement === null ? null : formatUsd(settlement.charge),
    estimated: settlement?.estimated ?? null,
    firstTokenMs: settlement?.firstTokenMs ?? null,
    durationMs: Math.round((platform.clock.monotonic() - call.startedMonotonic) * 10) / 10,
  } satisfies CallEvent);
}

/** As HTTP would say it: a stream that broke off had sent 200, but it is no success. */
function statusOf(outcome: Outcome): number {
  switch (outcome.kind) {
    case "answered":
      return 200;
    case "client_left":
      return CLIENT_CLOSED_REQUEST;
    case "problem":
    case "truncated":
      return outcome.problem.status;
    default:
      return outcome satisfies never;
  }
}

/** nginx's number, which log tools know. */
const CLIENT_CLOSED_REQUEST = 499;
