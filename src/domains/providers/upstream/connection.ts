import type { Socket } from "node:net";
import { MalformedUpstream } from "../dialects/wire.ts";
import type { Deadlines, Expiring } from "./deadlines.ts";
import { type CancelOpening, ConnectionLost, type Endpoint } from "./endpoint.ts";
import type { ResponseHead } from "./header-block.ts";
import { ResponseReader, type ResponseSink } from "./response-reader.ts";

/** The one that a connection works for, from its request to the end of the response. */
export interface ConnectionUser extends Expiring {
  /** The request's first byte goes to the socket when this returns. Throws where it must not. */
  onSent(): void;
  onHead(head: ResponseHead): void;
  /** A slice of what was read; never empty. */
  onBody(bytes: Buffer): void;
  /** What one read of the socket held has been said. */
  onRead(): void;
  /** The response is whole. The connection is the user's no longer. */
  onEnd(): void;
  /** No whole response will come: MalformedUpstream, ConnectionLost, or what the socket said. The connection is the user's no longer. */
  onLost(error: Error): void;
}

/** One request, as bytes. */
export interface Message {
  /** Request line and headers, up to the digits of the content-length. */
  readonly head: Buffer;
  readonly body: Buffer;
}

/** What a connection belongs to. */
export interface ConnectionPool {
  readonly deadlines: Deadlines;
  now(): number;
  /** It may carry another request, until then. */
  onIdle(connection: Connection): void;
  onClosed(connection: Connection): void;
  /** It ended before a byte of the request was sent: the request may go by another. */
  onUnsent(user: ConnectionUser, message: Message): void;
  /** Calls `proceed` when the event loop has looked at its sockets once more. */
  afterLook(connection: Connection): void;
}

type State = "connecting" | "checking" | "busy" | "idle" | "closed";

/**
 * One socket to an upstream. It carries one request at a time, and another only after a response that was whole, by the
 * book, and followed by nothing.
 */
export class Connection implements Expiring, ResponseSink {
  readonly #pool: ConnectionPool;
  readonly #reader = new ResponseReader(this);
  #state: State = "connecting";
  #socket: Socket | null = null;
  #cancelOpening: CancelOpening | null = null;
  #user: ConnectionUser | null = null;
  #message: Message | null = null;
  /** What of a long body was not handed to the socket yet. */
  #unsent: Buffer | null = null;
  #idleUntil = 0;
  #isPaused = false;

  constructor(pool: ConnectionPool) {
    this.#pool = pool;
    pool.deadlines.watch(this);
  }

  /** The first request: it is sent once the connection stands. */
  open(endpoint: Pick<Endpoint, "open">, user: ConnectionUser, message: Message): void {
    this.#user = user;
    this.#message = message;
    this.#cancelOpening = endpoint.open({
      opened: (socket) => {
        this.#cancelOpening = null;
        this.#socket = socket;
        socket.on("data", (chunk: Buffer) => this.#onData(chunk));
        socket.on("drain", () => this.#sendMore());
        socket.on("end", () => this.#onClose(null));
        socket.on("error", (error) => this.#onClose(error));
        socket.on("close", () => this.#onClose(null));
        this.#send();
      },
      failed: (error) => {
        this.#cancelOpening = null;
        this.#lose(error);
      },
    });
  }

  /**
   * A later request. It is sent after a look at the socket: a close, or bytes that nobody asked for, may lie there unread,
   * and would otherwise be the answer (undici's GHSA-35p6-xmwp-9g52).
   */
  reuse(user: ConnectionUser, message: Message): void {
    this.#user = user;
    this.#message = message;
    this.#state = "checking";
    this.#pool.afterLook(this);
  }

  proceed(): void {
    if (this.#state === "checking") this.#send();
  }

  pause(): void {
    this.#isPaused = true;
    this.#socket?.pause();
  }

  resume(): void {
    this.#isPaused = false;
    this.#socket?.resume();
  }

  /** Closes it at once, and tells its user nothing. */
  destroy(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#user = null;
    this.#message = null;
    this.#unsent = null;
    this.#reader.stop();
    this.#cancelOpening?.();
    this.#cancelOpening = null;
    this.#socket?.destroy();
    this.#pool.deadlines.forget(this);
    this.#pool.onClosed(this);
  }

  /** Closes it, and tells its user why. */
  end(reason: Error): void {
    this.#lose(reason);
  }

  isUsable(now: number): boolean {
    return this.#state === "idle" && now < this.#idleUntil;
  }

  deadline(): number {
    return this.#user === null ? this.#idleUntil : this.#user.deadline();
  }

  expire(now: number): void {
    if (this.#user === null) this.destroy();
    else this.#user.expire(now);
  }

  onHead(head: ResponseHead): void {
    this.#user?.onHead(head);
  }

  onBody(bytes: Buffer): void {
    this.#user?.onBody(bytes);
  }

  /** The user hears of the end once the whole read has been looked at: what follows decides about the connection. */
  onEnd(): void {}

  #send(): void {
    const user = this.#user;
    const message = this.#message;
    const socket = this.#socket;
    if (user === null || message === null || socket === null) return;
    this.#state = "busy";
    this.#message = null;
    this.#reader.reset();
    try {
      user.onSent();
    } catch (thrown) {
      return this.#lose(errorOf(thrown));
    }
    if (this.#user === user) this.#goOn(socket, write(socket, message));
  }

  #sendMore(): void {
    const rest = this.#unsent;
    const socket = this.#socket;
    if (rest === null || socket === null) return;
    socket.write(rest.subarray(0, SLICE_BYTES));
    this.#goOn(socket, rest.subarray(SLICE_BYTES));
  }

  /** The rest follows on `drain`; where the kernel took everything at once there is none, and it follows in the loop's next turn. */
  #goOn(socket: Socket, rest: Buffer): void {
    this.#unsent = rest.length === 0 ? null : rest;
    if (this.#unsent !== null && !socket.writableNeedDrain) setImmediate(() => this.#sendMore());
  }

  #onData(chunk: Buffer): void {
    if (this.#state !== "busy") return this.#onClose(new MalformedUpstream("bytes that nobody asked for"));
    const user = this.#user;
    try {
      this.#read(chunk);
    } catch (thrown) {
      this.destroy();
      user?.onLost(errorOf(thrown));
    }
  }

  /** What was whole before a malformation is said all the same. */
  #read(chunk: Buffer): void {
    try {
      this.#reader.push(chunk);
    } finally {
      this.#user?.onRead();
    }
    if (this.#user !== null && this.#reader.isOver) this.#release();
  }

  #onClose(error: Error | null): void {
    if (this.#state === "closed") return;
    if (this.#state === "checking" && this.#user !== null && this.#message !== null) {
      const [user, message] = [this.#user, this.#message];
      this.destroy();
      return this.#pool.onUnsent(user, message);
    }
    if (this.#state !== "busy") return this.destroy();
    if (error !== null) return this.#lose(error);
    const outcome = this.#reader.close();
    if (outcome === "whole") return this.#release();
    this.#lose(outcome === "cut" ? new MalformedUpstream("the response was cut") : new ConnectionLost("closed before a response"));
  }

  #lose(error: Error): void {
    const user = this.#user;
    this.destroy();
    user?.onLost(error);
  }

  /** Its response is whole: kept where it may be, and the user goes on without it. */
  #release(): void {
    const user = this.#user;
    const seconds = this.#reader.keepAliveSeconds;
    const idleMs = seconds === null ? IDLE_MS : Math.min(seconds * 1000 - IDLE_MARGIN_MS, MAX_IDLE_MS);
    if (!this.#reader.mayReuse || idleMs <= 0 || this.#unsent !== null || this.#socket?.writableLength !== 0) this.destroy();
    else {
      this.#user = null;
      this.#state = "idle";
      this.#idleUntil = this.#pool.now() + idleMs;
      // A reader's pause is not the next one's: unread, neither a close nor an answer would be seen.
      if (this.#isPaused) this.resume();
      this.#pool.onIdle(this);
      this.#pool.deadlines.sooner(this.#idleUntil);
    }
    user?.onEnd();
  }
}

function errorOf(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error("something that is no error was thrown", { cause: thrown });
}

/** One write to the kernel: small bodies are copied behind their head, large ones go beside it. Returns what of a long body is left. */
function write(socket: Socket, { head, body }: Message): Buffer {
  const length = `${body.length}\r\n\r\n`;
  const headBytes = head.length + length.length;
  const isSmall = body.length <= MAX_COPIED_BYTES;
  const bytes = Buffer.allocUnsafe(isSmall ? headBytes + body.length : headBytes);
  bytes.set(head, 0);
  bytes.write(length, head.length, "latin1");
  if (isSmall) {
    bytes.set(body, headBytes);
    socket.write(bytes);
    return NOTHING;
  }
  socket.cork();
  socket.write(bytes);
  socket.write(body.subarray(0, SLICE_BYTES));
  socket.uncork();
  return body.subarray(SLICE_BYTES);
}

const MAX_COPIED_BYTES = 16 * 1024;
/**
 * A long body goes to the socket in pieces, each after the one before was taken: 20 MiB in one write stop the event loop for 35 ms of
 * TLS (75 ms in all), in pieces for less than 4 ms (25 ms in all).
 */
const SLICE_BYTES = 256 * 1024;
const NOTHING = Buffer.alloc(0);

/** How long an idle connection is kept where the upstream says nothing, ms: under the 5 s that uvicorn and Node close after. */
const IDLE_MS = 4_000;
/** An upstream's word is taken less the time that bytes are on their way, and up to a bound. */
const IDLE_MARGIN_MS = 2_000;
const MAX_IDLE_MS = 600_000;
