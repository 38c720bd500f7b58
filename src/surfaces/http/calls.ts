import type { FastifyInstance } from "fastify";
import type { Providers } from "../../domains/providers/index.ts";
import type { Clock } from "../../kernel/clock.ts";
import type { CallId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";
import type { CallContext, Caller } from "../../pipeline/caller.ts";
import type { BodyReader } from "./body.ts";
import type { Drain } from "./drain.ts";
import { Exchange, PACE, type Pace } from "./exchange.ts";
import type { SurfaceWire } from "./wire.ts";

export interface CallNeeds {
  readonly clock: Clock;
  readonly takeBody: BodyReader;
  readonly parseLarge: Providers["parseLarge"];
  readonly drain: Drain;
  readonly pace?: Pace;
  readonly serve: (received: { readonly call: CallContext; readonly caller: Caller }) => Promise<unknown>;
}

/** W3C trace context: an id of zeros is not one. */
const TRACEPARENT = /^00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;
const MAX_CALLER_REQUEST_ID = 200;

/**
 * Mounts one model endpoint: the pipeline reads and answers the raw request itself, so nothing is buffered for strangers.
 * It takes over in the route's first hook: between that and a handler Fastify has body parsers and rounds of hooks, 5 µs a call.
 */
export function mountCall(app: FastifyInstance, path: string, wire: SurfaceWire, needs: CallNeeds): void {
  app.route({
    method: "POST",
    url: path,
    onRequest(request, reply) {
      reply.hijack();
      const id = request.id as CallId;
      const { traceparent, "x-request-id": callerRequestId } = request.headers;
      const call: CallContext = {
        id,
        endpoint: wire.endpoint,
        startedAt: needs.clock.now(),
        startedMonotonic: needs.clock.monotonic(),
        trace: (typeof traceparent === "string" ? TRACEPARENT.exec(traceparent)?.[1] : undefined) ?? id.replaceAll("-", ""),
        origin: { family: wire.family, address: request.remoteAddress },
        callerRequestId: typeof callerRequestId === "string" ? callerRequestId.slice(0, MAX_CALLER_REQUEST_ID) : null,
        hops: [],
      };
      const caller = new Exchange({
        request: request.raw,
        response: reply.raw,
        call,
        wire,
        clock: needs.clock,
        takeBody: needs.takeBody,
        parseLarge: needs.parseLarge,
        drain: needs.drain,
        pace: needs.pace ?? PACE,
      });
      if (needs.drain.draining)
        caller.refuse(new Problem("overloaded", { message: "The server is stopping. Send the request again.", retryAfterSeconds: 1 }));
      else needs.drain.track(needs.serve({ call, caller }));
    },
    handler: neverReached,
  });
}

function neverReached(): never {
  throw new Error("a hijacked request went on to its handler");
}
