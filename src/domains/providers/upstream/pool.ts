import type { Clock } from "../../../kernel/clock.ts";
import { Connection, type ConnectionPool, type ConnectionUser, type Message } from "./connection.ts";
import type { Deadlines } from "./deadlines.ts";
import { ConnectionLost, type Endpoint } from "./endpoint.ts";

export interface PooledUser extends ConnectionUser {
  /** What works for the user from now on; said again where a kept connection had closed before it could be used. */
  onConnection(connection: Connection): void;
}

/** What the pools of a client share. */
export interface PoolNeeds {
  readonly clock: Clock;
  readonly deadlines: Deadlines;
  readonly afterLook: ConnectionPool["afterLook"];
}

/** The connections to one endpoint, for one credential. Nothing waits here: waiting is the fair queue's. */
export class Pool implements ConnectionPool {
  readonly deadlines: Deadlines;
  readonly afterLook: ConnectionPool["afterLook"];
  readonly #endpoint: Pick<Endpoint, "open">;
  readonly #clock: Clock;
  readonly #all = new Set<Connection>();
  /** The one used last is used next, so that the others can end. */
  readonly #idle: Connection[] = [];
  /** Monotonic ms. */
  usedAt = 0;
  isClosed = false;

  constructor(endpoint: Pick<Endpoint, "open">, { clock, deadlines, afterLook }: PoolNeeds) {
    this.#endpoint = endpoint;
    this.#clock = clock;
    this.deadlines = deadlines;
    this.afterLook = afterLook;
  }

  get isIdle(): boolean {
    return this.#all.size === this.#idle.length;
  }

  /** False where every connection is taken: nothing was tried. */
  request(user: PooledUser, message: Message): boolean {
    if (this.isClosed || this.#all.size - this.#idle.length >= MAX_CONNECTIONS) return false;
    this.usedAt = this.now();
    const kept = this.#takeIdle();
    if (kept !== null) {
      user.onConnection(kept);
      kept.reuse(user, message);
      return true;
    }
    const connection = new Connection(this);
    this.#all.add(connection);
    user.onConnection(connection);
    connection.open(this.#endpoint, user, message);
    return true;
  }

  /** Cuts what is in flight. */
  close(): void {
    this.isClosed = true;
    for (const connection of this.#all) connection.end(CLOSED);
  }

  now(): number {
    return this.#clock.monotonic();
  }

  onIdle(connection: Connection): void {
    this.#idle.push(connection);
  }

  onClosed(connection: Connection): void {
    this.#all.delete(connection);
    const at = this.#idle.lastIndexOf(connection);
    if (at !== -1) this.#idle.splice(at, 1);
  }

  onUnsent(user: ConnectionUser, message: Message): void {
    if (!this.request(user as PooledUser, message)) user.onLost(CLOSED);
  }

  #takeIdle(): Connection | null {
    const now = this.now();
    for (let connection = this.#idle.pop(); connection !== undefined; connection = this.#idle.pop()) {
      if (connection.isUsable(now)) return connection;
      connection.destroy();
    }
    return null;
  }
}

/** Connections, and so requests in flight. */
const MAX_CONNECTIONS = 1024;

/** Why a request of a client that was closed has no response. */
export const CLOSED = new ConnectionLost("the client was closed");

/**
 * Lets the event loop look at every socket, once for all connections that wait for it. One `setImmediate` comes before the
 * next look where the caller is itself an event of a socket: bytes that lay there for 20 ms were missed. The second comes after it.
 */
export function createLook(): ConnectionPool["afterLook"] {
  let waiting: Connection[] = [];
  const beforeLook = (): void => {
    const due = waiting;
    waiting = [];
    setImmediate(proceed, due);
  };
  return (connection) => {
    if (waiting.push(connection) === 1) setImmediate(beforeLook);
  };
}

function proceed(due: readonly Connection[]): void {
  for (const connection of due) connection.proceed();
}
