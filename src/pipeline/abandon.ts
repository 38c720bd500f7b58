import { DispatchError, type DispatchFailure } from "../domains/providers/index.ts";
import { Problem, asProblem } from "../kernel/problem.ts";
import { advance, type Held, type Received } from "./evidence.ts";
import type { Outcome } from "./outcome.ts";
import type { Platform } from "./platform.ts";

/** A dispatch without a response: its hold is settled, and what went wrong becomes the caller's problem. */
export async function abandonHop(platform: Platform, held: Held, thrown: unknown): Promise<never> {
  const failure: DispatchFailure = thrown instanceof DispatchError ? thrown.failure : { kind: "aborted" };
  advance(held, { settlement: await platform.settleFailed(held.hold, failure) });
  throw thrown instanceof DispatchError ? problemOf(failure, held.slot.deployment.name, thrown) : thrown;
}

/** A call that ended without a response. */
export function abandon({ caller }: Received, thrown: unknown): Outcome {
  const stopped = caller.stopped();
  if (caller.signal.aborted && stopped === null) return { kind: "client_left" };
  const problem = stopped ?? asProblem(thrown);
  caller.refuse(problem);
  return { kind: "problem", problem };
}

function problemOf(failure: DispatchFailure, deployment: string, cause: unknown): Problem {
  switch (failure.kind) {
    case "connect":
      return new Problem("upstream_error", { message: `The deployment '${deployment}' could not be reached. Retrying may help.`, cause });
    case "timeout":
      return new Problem("upstream_timeout", {
        message: `The deployment '${deployment}' did not answer in time. Retrying may help.`,
        cause,
      });
    case "malformed":
      return new Problem("upstream_error", { message: `The deployment '${deployment}' gave an answer that is not of its dialect.`, cause });
    case "unavailable":
      return new Problem("upstream_error", { message: `The deployment '${deployment}' is not available now. Retrying may help.`, cause });
    case "aborted":
      return new Problem("overloaded", { message: "The call was stopped. Send the request again.", retryAfterSeconds: 1, cause });
    case "status":
      return statusProblem(failure, deployment, cause);
    default:
      return failure satisfies never;
  }
}

/** Statuses that are the caller's own fault: the upstream's words are passed on, since only the caller can mend it. */
const CALLERS_FAULT = new Set([400, 413, 422]);

function statusProblem(failure: DispatchFailure & { kind: "status" }, deployment: string, cause: unknown): Problem {
  if (failure.status === 429) {
    return new Problem("capacity_exceeded", {
      message: `The deployment '${deployment}' is at its provider's rate limit. Retry after the time in 'retry-after'.`,
      retryAfterSeconds: failure.retryAfterSeconds ?? 1,
      cause,
    });
  }
  if (!CALLERS_FAULT.has(failure.status))
    return new Problem("upstream_error", { message: `The deployment '${deployment}' failed. Retrying may help.`, cause });
  const code = failure.code === "context_length_exceeded" ? "context_length_exceeded" : "upstream_rejected";
  return new Problem(code, { message: failure.message, param: failure.param, cause });
}
