import { createHash } from "node:crypto";
import { BOUNDS } from "../../kernel/bounds.ts";
import type { Clock } from "../../kernel/clock.ts";
import type { Frame, ResponseBody } from "../../kernel/frame.ts";
import { Problem } from "../../kernel/problem.ts";
import type { Transport } from "../catalog/index.ts";
import { DispatchError, type DispatchFailure } from "./contract.ts";
import { MalformedUpstream, UpstreamFault, type StreamDecoder, type Wire } from "./dialects/wire.ts";
import { causeOfTransport, failureOfFault, failureOfStatus, failureOfTransport } from "./failure.ts";
import { FramePipe, type FrameSource } from "./frames.ts";
import type { Connection } from "./upstream/connection.ts";
import { Deadlines } from "./upstream/deadlines.ts";
import { Endpoint, secretsOfProxy } from "./upstream/endpoint.ts";
import type { ResponseHead, ResponseHeaders } from "./upstream/header-block.ts";
import { createLook, Pool, type PooledUser, type PoolNeeds } from "./upstream/pool.ts";
import { requestHead } from "./upstream/request-head.ts";

/** One request to an upstream. */
interface UpstreamRequest {
  readonly origin: string;
  /** Path and query. */
  readonly path: string;
  /** Names and values in turn. The same array for every request of a deployment: what is made of it is kept by it. */
  readonly headers: readonly string[];
  readonly body: Buffer;
  readonly stream: boolean;
  readonly wire: Wire;
  /** Cut out of whatever the upstream says, as the proxy's password is. */
  readonly secret: string | null;
  /** Null: straight to the origin, with the system's authorities. */
  readonly transport: Transport | null;
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
 * The client of every HTTP upstream: HTTP/1.1 over plain sockets, kept-alive connections per origin and credential, one
 * write a request, no promise per frame. Redirects are never followed, proxy variables never read, bodies never
 * decompressed, requests never pipelined and never sent twice.
 */
export function createUpstreamClient({ clock }: { readonly clock: Clock }): UpstreamClient {
  const pools = new Pools({ clock, deadlines: new Deadlines(clock), afterLook: createLook() });
  return {
    request: (request) => {
      if (request.signal.aborted) return Promise.reject(new DispatchError({ kind: "aborted" }));
      const way = pools.wayOf(request);
      if (way === null) return Promise.reject(new DispatchError({ kind: "unavailable" }));
      return new Promise((resolve, reject) => new Exchange(request, way, clock, resolve, reject).start());
    },
    close: async () => pools.close(),
  };
}

/** Endpoints with live connections; the pool that was used longest ago and is idle makes room for a new one. */
const MAX_POOLS = 256;
/** Kept for one array of headers. */
const MAX_PATHS = 8;

/** What a deployment's requests to one path have in common. */
interface Way {
  readonly origin: string;
  readonly pool: Pool;
  readonly head: Buffer;
  readonly deadlines: Deadlines;
}

class Pools {
  readonly #needs: PoolNeeds;
  readonly #pools = new Map<string, Pool>();
  /** By the headers that a deployment's requests share, then by path. */
  readonly #ways = new WeakMap<readonly string[], Map<string, Way>>();
  #isClosed = false;

  constructor(needs: PoolNeeds) {
    this.#needs = needs;
  }

  /** Null when every place is taken, the client is closed, or the request is none that HTTP can carry. */
  wayOf(request: UpstreamRequest): Way | null {
    const { origin, path, headers } = request;
    const ways = this.#ways.get(headers);
    const known = ways?.get(path);
    if (known?.pool.isClosed === false && known.origin === origin) return known;
    const made = this.#isClosed ? null : this.#makeWay(request);
    if (made === null) return null;
    if (ways === undefined || ways.size >= MAX_PATHS) this.#ways.set(headers, new Map([[path, made]]));
    else ways.set(path, made);
    return made;
  }

  #makeWay({ origin, path, transport, secret, headers }: UpstreamRequest): Way | null {
    const endpoint = new Endpoint(origin, transport);
    const head = requestHead(endpoint, path, headers);
    const pool = head === null ? null : this.#poolFor(poolKey(origin, transport, secret), endpoint);
    return head === null || pool === null ? null : { origin, pool, head, deadlines: this.#needs.deadlines };
  }

  close(): void {
    this.#isClosed = true;
    for (const pool of this.#pools.values()) pool.close();
    this.#pools.clear();
  }

  #poolFor(key: string, endpoint: Endpoint): Pool | null {
    const known = this.#pools.get(key);
    if (known !== undefined) return known;
    if (this.#pools.size >= MAX_POOLS && !this.#evictIdle()) return null;
    const pool = new Pool(endpoint, this.#needs);
    this.#pools.set(key, pool);
    return pool;
  }

  #evictIdle(): boolean {
    let oldest: [string, Pool] | null = null;
    for (const each of this.#pools) if (each[1].isIdle && each[1].usedAt < (oldest?.[1].usedAt ?? Infinity)) oldest = each;
    if (oldest === null) return false;
    this.#pools.delete(oldest[0]);
    oldest[1].close();
    return true;
  }
}

/** Credentials that differ in anything share no connection: not in their proxy, authorities or certificate, and not in their secret. */
function poolKey(origin: string, transport: Transport | null, secret: string | null): string {
  return createHash("sha256")
    .update(JSON.stringify([origin, transport, secret]))
    .digest("base64");
}

type Phase = "connecting" | "waiting" | "whole" | "fault" | "streaming" | "draining" | "over";

/** One dispatch from its first byte to its last. */
class Exchange implements PooledUser, FrameSource {
  readonly #request: UpstreamRequest;
  readonly #way: Way;
  readonly #clock: Clock;
  readonly #resolve: (answer: UpstreamAnswer) => void;
  readonly #reject: (error: DispatchError) => void;
  readonly #startedAt: number;
  #phase: Phase = "connecting";
  /** Null before the first is found, and once it is no longer this exchange's. */
  #connection: Connection | null = null;
  #pipe: FramePipe | null = null;
  #decoder: StreamDecoder | null = null;
  #status = 0;
  #headers: ResponseHeaders = NO_HEADERS;
  /** Decoded from the read of the socket that goes on. */
  #frames: Frame[] = [];
  #chunks: Buffer[] = [];
  #bytes = 0;
  #lastChunkAt = 0;
  #paused = false;

  constructor(
    request: UpstreamRequest,
    way: Way,
    clock: Clock,
    resolve: (answer: UpstreamAnswer) => void,
    reject: (error: DispatchError) => void,
  ) {
    this.#request = request;
    this.#way = way;
    this.#clock = clock;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#startedAt = clock.monotonic();
  }

  start(): void {
    const { signal, body } = this.#request;
    const { pool, head, deadlines } = this.#way;
    signal.addEventListener("abort", this.#onAbort);
    deadlines.sooner(this.deadline());
    if (!pool.request(this, { head, body })) this.#fail({ kind: "unavailable" });
  }

  onConnection(connection: Connection): void {
    this.#connection = connection;
  }

  onSent(): void {
    this.#enter("waiting");
    this.#request.onSent();
  }

  onHead({ status, headers }: ResponseHead): void {
    this.#status = status;
    this.#headers = headers;
    if (status >= 300) return this.#enter("fault");
    const encoding = headers.get("content-encoding");
    if (encoding !== undefined && encoding !== "identity")
      return this.#fail({ kind: "malformed" }, new MalformedUpstream("a compressed body"));
    const type = (headers.get("content-type") ?? "").toLowerCase();
    if (this.#request.stream) {
      if (!type.startsWith(this.#request.wire.streamContentType))
        return this.#fail({ kind: "malformed" }, new MalformedUpstream("not a stream"));
      this.#decoder = this.#request.wire.decoder();
      return;
    }
    if (!type.includes("json")) return this.#fail({ kind: "malformed" }, new MalformedUpstream("not JSON"));
    if (Number(headers.get("content-length") ?? 0) > BOUNDS.responseBytes)
      return this.#fail({ kind: "malformed" }, new MalformedUpstream("the body is too large"));
    this.#enter("whole");
  }

  onBody(chunk: Buffer): void {
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

  onRead(): void {
    if (this.#frames.length > 0) this.#deliver();
  }

  onEnd(): void {
    this.#connection = null;
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

  onLost(error: Error): void {
    this.#connection = null;
    if (this.#phase === "fault") return this.#finishFault();
    if (this.#phase === "draining") return this.#settle();
    if (this.#phase !== "over") this.#fail(failureOfTransport(error, this.#status !== 0), causeOfTransport(error));
  }

  pause(): void {
    this.#paused = true;
    this.#connection?.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#lastChunkAt = this.#clock.monotonic();
    this.#connection?.resume();
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
    let state: "more" | "done" = "more";
    let fault: unknown = null;
    try {
      state = read(decoder, this.#frames);
    } catch (thrown) {
      fault = thrown;
    }
    if (fault === null && state === "more") return;
    if (this.#frames.length > 0) this.#deliver();
    if (!this.#isOpen()) return;
    if (fault !== null) this.#failDecoding(fault);
    else this.#finishStream();
  }

  #deliver(): void {
    const frames = this.#frames;
    this.#frames = [];
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
    this.#request.signal.removeEventListener("abort", this.#onAbort);
    if (this.#connection === null) this.#settle();
    else this.#enter("draining");
    if (this.#paused) this.resume();
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
    this.#fail(failureOfStatus(this.#status, this.#headers, fault, secretsOf(this.#request), this.#clock.now()));
  }

  #failDecoding(thrown: unknown): void {
    if (thrown instanceof UpstreamFault)
      return this.#fail(failureOfFault(thrown.fault, this.#headers, secretsOf(this.#request), this.#clock.now()), thrown);
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
    const connection = this.#connection;
    this.#connection = null;
    this.#settle();
    connection?.destroy();
  }

  #settle(): void {
    this.#phase = "over";
    this.#chunks = [];
    this.#frames = [];
    this.#request.signal.removeEventListener("abort", this.#onAbort);
  }

  #enter(phase: Phase): void {
    this.#phase = phase;
    if (phase === "draining") this.#lastChunkAt = this.#clock.monotonic();
    this.#way.deadlines.sooner(this.deadline());
  }

  deadline(): number {
    const { connectTimeoutMs, firstTokenTimeoutMs, idleTimeoutMs, totalTimeoutMs } = this.#request.timeouts;
    const total = this.#startedAt + totalTimeoutMs;
    if (this.#phase === "connecting") return Math.min(total, this.#startedAt + connectTimeoutMs);
    if (this.#phase === "draining") return this.#lastChunkAt + DRAIN_MS;
    if (this.#phase !== "streaming") return Math.min(total, this.#startedAt + firstTokenTimeoutMs);
    return Math.min(total, (this.#paused ? this.#clock.monotonic() : this.#lastChunkAt) + idleTimeoutMs);
  }

  expire(now: number): void {
    if (this.#phase === "draining") return this.#cut();
    if (this.#phase === "fault") return this.#finishFault();
    const isTotal = now >= this.#startedAt + this.#request.timeouts.totalTimeoutMs;
    this.#fail({ kind: "timeout", phase: isTotal ? "total" : this.#phase === "connecting" ? "connect" : "first_token" });
  }
}

/** What an answer could repeat of what it was told. */
function secretsOf({ secret, transport }: UpstreamRequest): string[] {
  return [...(secret === null ? [] : [secret]), ...(transport?.proxy == null ? [] : secretsOfProxy(transport.proxy))];
}

function joined(chunks: readonly Buffer[]): Buffer {
  const [only] = chunks;
  return only !== undefined && chunks.length === 1 ? only : Buffer.concat(chunks);
}

/** The upstream's id of the request, if it is a plain short word. */
function requestIdOf(headers: ResponseHeaders): string | null {
  const id = headers.get("x-request-id") ?? headers.get("request-id");
  return id !== undefined && /^[\x21-\x7e]{1,200}$/.test(id) ? id : null;
}

/** Of an error response, as much as is read, bytes. */
const MAX_FAULT_BYTES = 64 * 1024;
/** What may follow the end of a stream before the connection is cut rather than kept: bytes, and ms. */
const MAX_DRAIN_BYTES = 64 * 1024;
const DRAIN_MS = 1000;
const NO_HEADERS: ResponseHeaders = new Map();
