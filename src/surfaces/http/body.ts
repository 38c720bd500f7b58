import type { IncomingMessage } from "node:http";
import { BOUNDS } from "../../kernel/bounds.ts";
import type { TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";

/** How much of a body that is refused is still read and thrown away, so that the client reads our answer and keeps its connection. */
const DISCARDED_BYTES = 4 * BOUNDS.bodyBytes;

/** A body, and its place under the bounds on bodies in flight. */
export interface TakenBody {
  readonly bytes: Buffer;
  /** Gives the place back; once, when the call is over. */
  release(): void;
}

/** Reads request bodies within named bounds: per body, per tenant and per process. */
export function createBodyReader() {
  let inFlight = 0;
  const byTenant = new Map<TenantId, number>();

  /** @throws Problem request_too_large, request_timeout, unsupported_media_type, overloaded */
  return function take(request: IncomingMessage, tenant: TenantId): Promise<TakenBody> {
    const problem = refusedByHead(request);
    if (problem !== null) {
      discard(request);
      return Promise.reject(problem);
    }
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      let size = 0;
      let over = false;
      const timer = setTimeout(() => fail(new Problem("request_timeout")), BOUNDS.bodyArrivalMs);
      const reserve = (bytes: number): void => {
        inFlight += bytes;
        const own = (byTenant.get(tenant) ?? 0) + bytes;
        if (own === 0) byTenant.delete(tenant);
        else byTenant.set(tenant, own);
      };
      const stop = (): void => {
        over = true;
        clearTimeout(timer);
        request.off("data", onData).off("end", onEnd).off("close", onClose);
      };
      const fail = (problem: Problem): void => {
        if (over) return;
        stop();
        reserve(-size);
        discard(request);
        reject(problem);
      };
      const onData = (chunk: Buffer): void => {
        size += chunk.length;
        reserve(chunk.length);
        chunks.push(chunk);
        if (size > BOUNDS.bodyBytes) fail(tooLarge());
        else if (inFlight > BOUNDS.bodiesInFlightBytes || (byTenant.get(tenant) as number) > BOUNDS.bodiesInFlightBytesPerTenant) fail(new Problem("overloaded", { message: "Too many large requests are in flight. Retry shortly.", retryAfterSeconds: 1 }));
      };
      const onEnd = (): void => {
        stop();
        const release = (): void => {
          reserve(-size);
          size = 0;
        };
        resolve({ bytes: chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks, size), release });
      };
      const onClose = (): void => fail(new Problem("request_timeout", { message: "The connection closed before the body had arrived." }));
      request.on("data", onData).on("end", onEnd).on("close", onClose);
    });
  };
}

export type BodyReader = ReturnType<typeof createBodyReader>;

function refusedByHead({ headers }: IncomingMessage): Problem | null {
  const type = headers["content-type"];
  if (type !== undefined && !/^application\/(?:[\w.-]+\+)?json\s*(?:;|$)/i.test(type)) return new Problem("unsupported_media_type");
  const encoding = headers["content-encoding"];
  if (encoding !== undefined && encoding !== "identity") return new Problem("unsupported_media_type", { message: "Send the body without content-encoding." });
  return Number(headers["content-length"] ?? 0) > BOUNDS.bodyBytes ? tooLarge() : null;
}

function tooLarge(): Problem {
  return new Problem("request_too_large", { message: `The body is larger than ${BOUNDS.bodyBytes} bytes. Send less, or refer to files by URL.` });
}

function discard(request: IncomingMessage): void {
  let discarded = 0;
  request.on("data", (chunk: Buffer) => {
    discarded += chunk.length;
    if (discarded > DISCARDED_BYTES) request.destroy();
  });
  request.resume();
}
