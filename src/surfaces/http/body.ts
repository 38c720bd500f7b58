import type { IncomingMessage } from "node:http";
import type { Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { BOUNDS } from "../../kernel/bounds.ts";
import type { TenantId } from "../../kernel/ids.ts";
import { Problem } from "../../kernel/problem.ts";

/** A body, and its place under the bounds on bodies in flight. */
export interface TakenBody {
  /** As they came: joining those of a large body would stop the event loop. Who copies them may take them out. */
  readonly chunks: Buffer[];
  /** Bytes of all of them. */
  readonly size: number;
  /** Gives the place back, when the call is over. */
  release(): void;
}

/** Bytes are counted after inflation. */
export interface BodyBounds {
  readonly bodyBytes: number;
  readonly bodiesInFlightBytes: number;
  readonly bodiesInFlightBytesPerTenant: number;
  readonly bodyArrivalMs: number;
}

export type BodyReader = (request: IncomingMessage, tenant: TenantId) => Promise<TakenBody>;

/**
 * Reads request bodies, plain or gzip, within bounds per body, per tenant and per process. The promise rejects with the
 * problems request_too_large, request_timeout, unsupported_media_type, invalid_request and overloaded; what of a refused
 * body is still to come is thrown away, so that the client reads our answer and keeps its connection.
 */
export function createBodyReader(bounds: BodyBounds = BOUNDS): BodyReader {
  const room = new Room(bounds);
  return (request, tenant) => {
    const problem = refusedByHead(request, bounds);
    if (problem !== null) {
      discardBody(request);
      return Promise.reject(problem);
    }
    const body = arrived(request, tenant, room, bounds);
    return body === null ? collect(request, tenant, room, bounds) : Promise.resolve(body);
  };
}

/** The body in one piece. */
export function joined({ chunks, size }: TakenBody): Buffer {
  return chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks, size);
}

/** Reads what is left of a body and throws it away; cuts the connection of a client that sends more than is worth reading. */
export function discardBody(request: IncomingMessage): void {
  if (request.complete) return;
  let discarded = 0;
  request.on("data", (chunk: Buffer) => {
    discarded += chunk.length;
    if (discarded > DISCARDED_BYTES) request.destroy();
  });
  request.resume();
}

/** The time that a discarded body may take is the server's `requestTimeout`. */
const DISCARDED_BYTES = 4 * BOUNDS.bodyBytes;

/** Bytes of all bodies being read or held. */
class Room {
  readonly #bounds: BodyBounds;
  readonly #byTenant = new Map<TenantId, number>();
  #all = 0;

  constructor(bounds: BodyBounds) {
    this.#bounds = bounds;
  }

  /** Takes the bytes; false when that is more than there is room for, until they are given back. */
  take(tenant: TenantId, bytes: number): boolean {
    const own = (this.#byTenant.get(tenant) ?? 0) + bytes;
    this.#byTenant.set(tenant, own);
    this.#all += bytes;
    return own <= this.#bounds.bodiesInFlightBytesPerTenant && this.#all <= this.#bounds.bodiesInFlightBytes;
  }

  give(tenant: TenantId, bytes: number): void {
    const own = (this.#byTenant.get(tenant) ?? 0) - bytes;
    if (own > 0) this.#byTenant.set(tenant, own);
    else this.#byTenant.delete(tenant);
    this.#all -= bytes;
  }
}

function refusedByHead({ headers }: IncomingMessage, bounds: BodyBounds): Problem | null {
  const type = headers["content-type"];
  if (type !== undefined && type !== "application/json" && !/^application\/(?:[\w.-]+\+)?json\s*(?:;|$)/i.test(type))
    return new Problem("unsupported_media_type");
  const encoding = headers["content-encoding"] ?? "identity";
  if (encoding !== "identity" && encoding !== "gzip")
    return new Problem("unsupported_media_type", { message: "Send the body uncompressed or as 'content-encoding: gzip'." });
  return Number(headers["content-length"] ?? 0) > bounds.bodyBytes ? tooLarge(bounds) : null;
}

/** The body of a request that has arrived whole, as most have once their caller is known: no listeners and no timer. Null for any other. */
function arrived(request: IncomingMessage, tenant: TenantId, room: Room, bounds: BodyBounds): TakenBody | null {
  const { headers, readableLength: size } = request;
  const isWhole = request.complete || Number(headers["content-length"] ?? Number.NaN) === size;
  if (!isWhole || request.destroyed || request.readableFlowing !== null || headers["content-encoding"] === "gzip") return null;
  if (size > bounds.bodyBytes) return null;
  if (!room.take(tenant, size)) {
    room.give(tenant, size);
    return null;
  }
  const bytes = (request.read() as Buffer | null) ?? EMPTY;
  // Node tells a request that ended from one that was cut off by whether its end was read.
  request.resume();
  return { chunks: [bytes], size, release: () => room.give(tenant, size) };
}

const EMPTY = Buffer.alloc(0);

function collect(request: IncomingMessage, tenant: TenantId, room: Room, bounds: BodyBounds): Promise<TakenBody> {
  return new Promise((resolve, reject) => {
    const source: Readable = request.headers["content-encoding"] === "gzip" ? request.pipe(createGunzip()) : request;
    const chunks: Buffer[] = [];
    let size = 0;
    const timer = setTimeout(() => fail(new Problem("request_timeout")), bounds.bodyArrivalMs);
    const stop = (): void => {
      clearTimeout(timer);
      source.off("data", onData).off("end", onEnd);
      request.off("close", onClose);
    };
    const fail = (problem: Problem): void => {
      stop();
      room.give(tenant, size);
      size = 0;
      request.unpipe();
      if (source !== request) source.destroy();
      discardBody(request);
      reject(problem);
    };
    const onData = (chunk: Buffer): void => {
      size += chunk.length;
      chunks.push(chunk);
      const fits = room.take(tenant, chunk.length);
      if (size > bounds.bodyBytes) fail(tooLarge(bounds));
      else if (!fits)
        fail(new Problem("overloaded", { message: "Too many large requests are in flight. Retry shortly.", retryAfterSeconds: 1 }));
    };
    const onEnd = (): void => {
      stop();
      const release = (): void => {
        room.give(tenant, size);
        size = 0;
      };
      resolve({ chunks, size, release });
    };
    // A request closes after its last byte too, and then its inflation may still be under way.
    const onClose = (): void => {
      if (!request.complete) fail(new Problem("request_timeout", { message: "The connection closed before the body had arrived." }));
    };
    source.on("data", onData).on("end", onEnd);
    if (source !== request)
      source.on("error", (cause) => fail(new Problem("invalid_request", { message: "The body is not valid gzip.", cause })));
    request.on("close", onClose);
  });
}

function tooLarge({ bodyBytes }: BodyBounds): Problem {
  return new Problem("request_too_large", { message: `The body is larger than ${bodyBytes} bytes. Send less, or refer to files by URL.` });
}
