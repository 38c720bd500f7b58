import type { IncomingHttpHeaders } from "node:http";
import { Pool, type Dispatcher } from "undici";
import { BOUNDS } from "../../kernel/bounds.ts";
import type { Clock } from "../../kernel/clock.ts";
import type { Frame, ResponseBody } from "../../kernel/frame.ts";
import { Problem } from "../../kernel/problem.ts";
import { DispatchError, type DispatchFailure } from "./contract.ts";
import { MalformedUpstream, UpstreamFault, type StreamDecoder, type Wire } from "./dialects/wire.ts";
import { causeOfTransport, failureOfFault, failureOfStatus, failureOfTransport } from "./failure.ts";
import { FramePipe, type FrameSource } from "./frames.ts";

/** One request to an upstream. */
interface UpstreamRequest {
  readonly origin: string;
  /** Path and query. */
  readonly path: string;
  /** Names and values in turn, as undici takes them. */
  readonly headers: string[];
  readonly body: Buffer;
  readonly stream: boolean;
  readonly wire: Wire;
  /** Cut out of whatever the upstream says. */
  readonly secret: string | null;
  readonly timeouts: UpstreamTimeouts;
  readonly signal: AbortSignal;
  readonly onSent: () => void;
}

/** Milliseconds; the meaning of each is DeploymentOptions'. */
interface UpstreamTimeouts {
  readonly connectTimeoutMs: number;
  readonly firstTokenTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly totalTimeoutMs: number;
}

interface UpstreamAnswer {
  readonly upstreamRequestId: string | null;
  readonly body: ResponseBody;
}

export interface UpstreamClient {
  /** Resolves at the first frame or whole body. Rejects with DispatchError; nothing in it tells a secret. */
  request(request: UpstreamRequest): Promise<UpstreamAnswer>;
  /** Cuts what is in flight and closes every connection. */
  close(): Promise<void>;
}

/**
 * The client of every HTTP upstream: one pool of keep-alive connections per origin, raw handlers, no promise per frame.
 * Redirects are never followed, proxy variables never read, bodies never decompressed.
 */
export function createUpstreamClient(needs: { readonly clock: Clock }): UpstreamClient {
  const pools = new Map<string, CountedPool>();
  return {
    request: (request) => {
      if (request.signal.aborted) return Promise.reject(new DispatchError({ kind: "aborted" }));
      const pool = poolFor(pools, request);
      if (pool === null) return Promise.reject(new DispatchError({ kind: "unavailable" }));
      return new Promise((resolve, reject) => new Exchange(request, pool, needs.clock, resolve, reject).start());
    },
    close: async () => {
      const closing = [...pools.values()].map((counted) => counted.pool.destroy());
      pools.clear();
      await Promise.all(closing);
    },
  };
}

/** Origins with live connections; the pool that was used longest ago and is idle makes room for a new one. */
const MAX_POOLS = 256;
/** Connections, and so dispatches, per origin. The pool queues nothing: waiting is the fair queue's. */
const MAX_CONNECTIONS_PER_ORIGIN = 1024;

interface CountedPool {
  readonly pool: Pool;
  inFlight: number;
}

/** A pool has one connect timeout, so origins with different ones have a pool each; null when every place is taken. */
function poolFor(pools: Map<string, CountedPool>, request: UpstreamRequest): CountedPool | null {
  const key = `${request.timeouts.connectTimeoutMs} ${request.origin}`;
  const known = pools.get(key);
  if (known !== undefined) {
    pools.delete(key);
    pools.set(key, known);
    return known.inFlight < MAX_CONNECTIONS_PER_ORIGIN ? known : null;
  }
  if (pools.size >= MAX_POOLS && !evictIdle(pools)) return null;
  const pool = new Pool(request.origin, {
    connections: MAX_CONNECTIONS_PER_ORIGIN,
    pipelining: 1,
    allowH2: false,
    connect: { timeout: request.timeouts.connectTimeoutMs },
    headersTimeout: 0,
    bodyTimeout: 0,
  });
  const made = { pool, inFlight: 0 };
  pools.set(key, made);
  return made;
}

function evictIdle(pools: Map<string, CountedPool>): boolean {
  for (const [key, counted] of pools) {
    if (counted.inFlight > 0) continue;
    pools.delete(key);
    void counted.pool.close();
    return true;
  }
  return false;
}

type Phase = "connecting" | "waiting" | "whole" | "fault" | "streaming" | "draining" | "over";

/** One dispatch from its first byte to its last. */
class Exchange implements Dispatcher.DispatchHandler, FrameSource {
  readonly #request: UpstreamRequest;
  readonly #pool: CountedPool;
  readonly #clock: Clock;
  readonly #resolve: (answer: UpstreamAnswer) => void;
  readonly #reject: (error: DispatchError) => void;
  readonly #startedAt: number;
  #phase: Phase = "connecting";
  #controller: Dispatcher.DispatchController | null = null;
  #timer: NodeJS.Timeout | null = null;
  #pipe: FramePipe | null = null;
  #decoder: StreamDecoder | null = null;
  #status = 0;
  #headers: IncomingHttpHeaders = {};
  #chunks: Buffer[] = [];
  #bytes = 0;
  #lastChunkAt = 0;
  #paused = false;
  #released = false;

  constructor(
    request: UpstreamRequest,
    pool: CountedPool,
    clock: Clock,
    resolve: (answer: UpstreamAnswer) => void,
    reject: (error: DispatchError) => void,
  ) {
    this.#request = request;
    this.#pool = pool;
    this.#clock = clock;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#startedAt = clock.monotonic();
  }

  start(): void {
    const { path, headers, body, signal } = this.#request;
    this.#pool.inFlight++;
    signal.addEventListener("abort", this.#onAbort);
    this.#arm();
    this.#pool.pool.dispatch({ path, method: "POST", headers, body }, this);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#phase !== "connecting") return controller.abort(STOPPED);
    this.#enter("waiting");
    this.#request.onSent();
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    if (status < 200 || this.#phase !== "waiting") return;
    this.#status = status;
    this.#headers = headers;
    if (status >= 300) return this.#enter("fault");
    const encoding = headers["content-encoding"];
    if (encoding !== undefined && encoding !== "identity")
      return this.#fail({ kind: "malformed" }, new MalformedUpstream("a compressed body"));
    const type = (headers["content-type"] ?? "").toLowerCase();
    if (this.#request.stream) {
      if (!type.startsWith(this.#request.wire.streamContentType))
        return this.#fail({ kind: "malformed" }, new MalformedUpstream("not a stream"));
      this.#decoder = this.#request.wire.decoder();
      return;
    }
    if (!type.includes("json")) return this.#fail({ kind: "malformed" }, new MalformedUpstream("not JSON"));
    if (Number(headers["content-length"] ?? 0) > BOUNDS.responseBytes)
      return this.#fail({ kind: "malformed" }, new MalformedUpstream("the body is too large"));
    this.#enter("whole");
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    switch (this.#phase) {
      case "waiting":
      case "streaming":
        this.#lastChunkAt = this.#clock.monotonic();
        this.#decode((decoder, frames) => decoder.push(chunk, frames));
        return;
      case "whole":
        this.#collect(chunk, BOUNDS.responseBytes);
        return;
      case "fault":
        this.#collect(chunk, MAX_FAULT_BYTES);
        return;
      case "draining":
        this.#bytes += chunk.length;
        if (this.#bytes > MAX_DRAIN_BYTES) this.#cut();
        return;
      case "connecting":
      case "over":
        return;
      default:
        this.#phase satisfies never;
    }
  }

  onResponseEnd(): void {
    this.#release();
    switch (this.#phase) {
      case "waiting":
      case "streaming":
        if (this.#decoder !== null) this.#decode((decoder, frames) => decoder.end(frames));
        if (this.#isOpen()) this.#fail({ kind: "malformed" }, new MalformedUpstream("the stream ended before its end was said"));
        return;
      case "whole":
        this.#finishWhole();
        return;
      case "fault":
        this.#finishFault();
        return;
      case "connecting":
      case "draining":
      case "over":
        this.#settle();
        return;
      default:
        this.#phase satisfies never;
    }
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: Error): void {
    this.#release();
    if (this.#phase === "fault") return this.#finishFault();
    if (this.#phase === "draining") return this.#settle();
    if (this.#phase !== "over") this.#fail(failureOfTransport(error, this.#status !== 0), causeOfTransport(error));
  }

  pause(): void {
    this.#paused = true;
    this.#controller?.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#lastChunkAt = this.#clock.monotonic();
    this.#controller?.resume();
  }

  stop(): void {
    this.#cut();
  }

  readonly #onAbort = (): void => {
    if (this.#pipe !== null) this.#pipe.abort();
    else this.#fail({ kind: "aborted" });
  };

  #isOpen(): boolean {
    return this.#phase === "waiting" || this.#phase === "streaming";
  }

  #decode(read: (decoder: StreamDecoder, frames: Frame[]) => "more" | "done"): void {
    const decoder = this.#decoder;
    if (decoder === null) return;
    const frames: Frame[] = [];
    let state: "more" | "done" = "more";
    let fault: unknown = null;
    try {
      state = read(decoder, frames);
    } catch (thrown) {
      fault = thrown;
    }
    if (frames.length > 0) this.#deliver(frames);
    if (!this.#isOpen()) return;
    if (fault !== null) this.#failDecoding(fault);
    else if (state === "done") this.#finishStream();
  }

  #deliver(frames: Frame[]): void {
    if (this.#pipe === null) {
      this.#pipe = new FramePipe(this);
      this.#enter("streaming");
      this.#pipe.push(frames);
      this.#resolve({ upstreamRequestId: requestIdOf(this.#headers), body: { kind: "stream", stream: this.#pipe } });
      return;
    }
    this.#pipe.push(frames);
  }

  /** The end was said: the response is complete. What the upstream still sends is read for a moment, so that the connection can be kept. */
  #finishStream(): void {
    this.#bytes = 0;
    this.#enter(this.#released ? "over" : "draining");
    this.#request.signal.removeEventListener("abort", this.#onAbort);
    if (this.#released) this.#settle();
    else if (this.#paused) this.resume();
    this.#pipe?.end({ kind: "complete" });
  }

  #collect(chunk: Buffer, maxBytes: number): void {
    this.#bytes += chunk.length;
    if (this.#bytes <= maxBytes) {
      this.#chunks.push(chunk);
      return;
    }
    if (this.#phase !== "fault") return this.#fail({ kind: "malformed" }, new MalformedUpstream("the body is too large"));
    this.#chunks = [];
    this.#finishFault();
  }

  #finishWhole(): void {
    try {
      const whole = this.#request.wire.whole(joined(this.#chunks));
      this.#settle();
      this.#resolve({ upstreamRequestId: requestIdOf(this.#headers), body: { kind: "whole", whole } });
    } catch (thrown) {
      this.#failDecoding(thrown);
    }
  }

  #finishFault(): void {
    const fault = this.#request.wire.fault(joined(this.#chunks));
    this.#fail(failureOfStatus(this.#status, this.#headers, fault, this.#request.secret, this.#clock.now()));
  }

  #failDecoding(thrown: unknown): void {
    if (thrown instanceof UpstreamFault)
      return this.#fail(failureOfFault(thrown.fault, this.#headers, this.#request.secret, this.#clock.now()), thrown);
    this.#fail({ kind: "malformed" }, thrown);
  }

  /** Before the first frame the dispatch fails; after it the stream is truncated. Either way the upstream is cut. */
  #fail(failure: DispatchFailure, cause?: unknown): void {
    const pipe = this.#pipe;
    this.#cut();
    if (pipe === null) this.#reject(new DispatchError(failure, { cause }));
    else
      pipe.end({
        kind: "truncated",
        problem: new Problem(failure.kind === "timeout" ? "upstream_timeout" : "upstream_error", { cause: cause ?? failure }),
      });
  }

  #cut(): void {
    this.#settle();
    if (!this.#released) this.#controller?.abort(STOPPED);
  }

  #settle(): void {
    this.#phase = "over";
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#chunks = [];
    this.#request.signal.removeEventListener("abort", this.#onAbort);
  }

  /** undici is done with the connection. */
  #release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#pool.inFlight--;
  }

  #enter(phase: Phase): void {
    this.#phase = phase;
    if (phase === "draining") this.#lastChunkAt = this.#clock.monotonic();
    this.#arm();
  }

  /** One timer for the nearest deadline; when it fires early, because chunks have come since, it is set again. */
  #arm(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = this.#phase === "over" ? null : setTimeout(onTimer, Math.max(1, this.#deadline() - this.#clock.monotonic()), this);
  }

  #deadline(): number {
    const { connectTimeoutMs, firstTokenTimeoutMs, idleTimeoutMs, totalTimeoutMs } = this.#request.timeouts;
    const total = this.#startedAt + totalTimeoutMs;
    if (this.#phase === "connecting") return Math.min(total, this.#startedAt + connectTimeoutMs);
    if (this.#phase === "draining") return this.#lastChunkAt + DRAIN_MS;
    if (this.#phase !== "streaming") return Math.min(total, this.#startedAt + firstTokenTimeoutMs);
    return Math.min(total, (this.#paused ? this.#clock.monotonic() : this.#lastChunkAt) + idleTimeoutMs);
  }

  onTimer(): void {
    const now = this.#clock.monotonic();
    if (now < this.#deadline()) return this.#arm();
    if (this.#phase === "draining") return this.#cut();
    if (this.#phase === "fault") return this.#finishFault();
    const isTotal = now >= this.#startedAt + this.#request.timeouts.totalTimeoutMs;
    this.#fail({ kind: "timeout", phase: isTotal ? "total" : this.#phase === "connecting" ? "connect" : "first_token" });
  }
}

function onTimer(exchange: Exchange): void {
  exchange.onTimer();
}

function joined(chunks: readonly Buffer[]): Buffer {
  const [only] = chunks;
  return only !== undefined && chunks.length === 1 ? only : Buffer.concat(chunks);
}

/** The upstream's id of the request, if it is a plain short word. */
function requestIdOf(headers: IncomingHttpHeaders): string | null {
  const id = headers["x-request-id"] ?? headers["request-id"];
  return typeof id === "string" && /^[\x21-\x7e]{1,200}$/.test(id) ? id : null;
}

/** Of an error response, as much as is read, bytes. */
const MAX_FAULT_BYTES = 64 * 1024;
/** What may follow the end of a stream before the connection is cut rather than kept: bytes, and ms. */
const MAX_DRAIN_BYTES = 64 * 1024;
const DRAIN_MS = 1000;
const STOPPED = new Error("stopped by us");
