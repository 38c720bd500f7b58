import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import http2, { Http2ServerRequest, Http2ServerResponse, type Http2Session, type OutgoingHttpHeaders } from "node:http2";
import type { TLSSocket } from "node:tls";
import type { Log } from "../../telemetry/index.ts";

/** HTTP/2 on connections that somebody else accepted. */
export interface Http2Side {
  accept(socket: TLSSocket): void;
  /** Lets streams under way end for a moment, and then cuts. */
  close(): Promise<void>;
}

export interface Http2Needs {
  readonly handler: RequestListener;
  readonly log: Log;
  readonly maxHeaderBytes: number;
  /** How long a connection without a request is kept, ms. */
  readonly keepAliveMs: number;
  /** How long a request's body may take to arrive, ms. */
  readonly requestArrivalMs: number;
  /** How long a client may take nothing of an answer that has begun, where its route says nothing of its own, ms. */
  readonly stallMs: number;
}

/** Calls at once on one connection. */
const MAX_STREAMS = 128;
/** What may be under way to us and unread: per request, and per connection however many requests share it, bytes. */
const STREAM_WINDOW_BYTES = 256 * 1024;
const SESSION_WINDOW_BYTES = 1024 * 1024;
/** Requests that a client may take back: a burst, and then so many a second. More is a rapid-reset attack: the connection ends. */
const RESETS = { streamResetBurst: 2 * MAX_STREAMS, streamResetRate: 33 } as const;
/** Frames that break the protocol, and streams beyond the bound, before the connection ends. */
const MAX_INVALID_FRAMES = 100;
/** What may wait on one connection for a client that does not read, MB: two of the largest answers. Beyond it new requests are refused. */
const SESSION_MEMORY_MB = 128;
/** How long the last answers have to leave, and a client to close its side, after the end of all calls, ms. */
const LAST_ANSWERS_MS = 1_000;

/** Pings and settings are bounded by nghttp2 itself: 1,000 answers that the peer does not take in end the connection. */
export function createHttp2(needs: Http2Needs): Http2Side {
  const { handler, log, stallMs } = needs;
  /** Node ends its own side of a connection and waits for the client's end: the sockets of those that never end it are cut. */
  const sessions = new Map<Http2Session, TLSSocket>();
  let closing = false;
  const server = http2.createServer({
    settings: {
      enablePush: false,
      maxConcurrentStreams: MAX_STREAMS,
      maxHeaderListSize: needs.maxHeaderBytes,
      initialWindowSize: STREAM_WINDOW_BYTES,
    },
    ...RESETS,
    maxSessionMemory: SESSION_MEMORY_MB,
    maxSessionInvalidFrames: MAX_INVALID_FRAMES,
    maxSessionRejectedStreams: MAX_INVALID_FRAMES,
    Http2ServerRequest: Request,
    Http2ServerResponse: class extends Response {
      override readonly stallMs = stallMs;
    },
  });
  const begin = (session: Http2Session, socket: TLSSocket): void => {
    if (closing) return session.destroy();
    sessions.set(session, socket);
    session.setLocalWindowSize(SESSION_WINDOW_BYTES);
    session.once("close", () => sessions.delete(session));
    closeWhenIdle(session, socket, needs.keepAliveMs);
  };
  server.on("sessionError", (error) => log.debug({ err: error }, "an HTTP/2 connection broke"));
  server.on("request", (request, response) => {
    if (!request.stream.endAfterHeaders) expectBody(request, needs.requestArrivalMs);
    // The house reads requests and writes responses as HTTP/1.1 does; the two classes below make up for what differs.
    handler(request as unknown as IncomingMessage, response as unknown as ServerResponse & { req: IncomingMessage });
  });
  return {
    accept(socket) {
      const adopt = (session: Http2Session): void => begin(session, socket);
      server.once("session", adopt);
      server.emit("connection", socket);
      // There is no session for a socket that is already gone.
      server.off("session", adopt);
    },
    async close() {
      closing = true;
      for (const session of sessions.keys()) session.close();
      const closed = [...sessions.keys()].map((session) => new Promise<void>((resolve) => session.once("close", resolve)));
      await withinMs(Promise.all(closed), LAST_ANSWERS_MS);
      for (const [session, socket] of sessions) {
        session.destroy();
        socket.destroy();
      }
    },
  };
}

/** A body announced by HTTP/2's framing alone is announced to readers of the head as HTTP/1.1 would. */
function expectBody(request: Http2ServerRequest, arrivalMs: number): void {
  if (request.headers["content-length"] === undefined) request.headers["transfer-encoding"] = "chunked";
  const { stream } = request;
  const timer = setTimeout(() => stream.close(http2.constants.NGHTTP2_CANCEL), arrivalMs);
  const arrived = (): void => clearTimeout(timer);
  stream.once("end", arrived).once("close", arrived);
}

/** A connection without streams is closed after the time that HTTP/1.1 keeps one. */
function closeWhenIdle(session: Http2Session, socket: TLSSocket, keepAliveMs: number): void {
  let open = 0;
  const end = (): void => {
    session.close();
    timer = setTimeout(() => socket.destroy(), LAST_ANSWERS_MS);
  };
  const begin = (): NodeJS.Timeout => setTimeout(end, keepAliveMs);
  let timer = begin();
  session.on("stream", (stream) => {
    open += 1;
    clearTimeout(timer);
    stream.once("close", () => {
      open -= 1;
      if (open === 0 && !socket.destroyed) timer = begin();
    });
  });
  session.once("close", () => clearTimeout(timer));
}

/** Node's own says of a request that was taken back that all of it came, and ends it as if it had. */
class Request extends Http2ServerRequest {
  #arrived = false;

  static {
    Object.defineProperty(this.prototype, "complete", {
      get(this: Request) {
        return this.#arrived;
      },
    });
  }

  /** Null is the end. */
  override push(chunk: unknown): boolean {
    if (chunk === null && !this.#arrived) {
      if (this.aborted || this.stream.rstCode !== http2.constants.NGHTTP2_NO_ERROR) return false;
      this.#arrived = true;
    }
    return super.push(chunk);
  }

  /** Node's own fails an assertion where a closed one is read. */
  override _read(bytes: number): void {
    if (!this.stream.closed) super._read(bytes);
  }
}

/** Node's own lacks what the house asks of a response in HTTP/1.1. */
class Response extends Http2ServerResponse<Request> {
  readonly stallMs: number = 0;
  #closed = false;
  #isTimed = false;

  static {
    Object.defineProperties(this.prototype, {
      closed: {
        get(this: Response) {
          return this.#closed;
        },
      },
      destroyed: {
        get(this: Response) {
          return this.#closed || this.stream.destroyed;
        },
      },
      // A stream that the client takes back is ended by Node, and so counts as finished there.
      writableFinished: {
        get(this: Response) {
          return this.writableEnded && this.stream.writableFinished && this.stream.rstCode === http2.constants.NGHTTP2_NO_ERROR;
        },
      },
    });
  }

  constructor(...given: ConstructorParameters<typeof Http2ServerResponse<Request>>) {
    super(...given);
    this.once("close", () => (this.#closed = true));
  }

  /**
   * `connection: close` is not of HTTP/2: the whole connection is told to begin nothing new. In HTTP/1.1 a short answer that nobody
   * reads lies in the kernel; here it waits in this process for the client's window, which may never open.
   */
  override writeHead(status: number, ...given: readonly (string | OutgoingHttpHeaders | readonly string[] | undefined)[]): this {
    const last = given.at(-1);
    const { connection, ...headers } = (typeof last === "object" ? last : {}) as OutgoingHttpHeaders;
    if (connection === "close") this.stream.session?.close();
    if (!this.#isTimed) this.setTimeout(this.stallMs);
    return super.writeHead(status, headers);
  }

  /** Not a clean end: what was sent so far is not the answer. */
  override destroy(): this {
    this.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
    return this;
  }

  /** Without a listener, as in HTTP/1.1, silence ends it. */
  override setTimeout(ms: number, callback?: () => void): void {
    this.#isTimed = true;
    super.setTimeout(ms, callback ?? (() => this.stream.close(http2.constants.NGHTTP2_CANCEL)));
  }
}

function withinMs(settled: Promise<unknown>, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    const end = (): void => {
      clearTimeout(timer);
      resolve();
    };
    settled.then(end, end);
  });
}
