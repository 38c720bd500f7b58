import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls, createSecureContext, type SecureContext } from "node:tls";
import type { Transport } from "../../catalog/index.ts";
import { ResponseReader } from "./response-reader.ts";

/** No connection, or it ended before its response did. Holds no bytes of either side. */
export class ConnectionLost extends Error {
  override readonly name = "ConnectionLost";
}

export interface OpeningOutcome {
  /** Connected, its TLS handshake done and verified: the next byte is HTTP of the origin (or of a proxy that speaks for it). */
  opened(socket: Socket): void;
  failed(error: Error): void;
}

/** Ends an opening, or does nothing once it had its outcome. */
export type CancelOpening = () => void;

/**
 * Where an origin's connections go, and through what. Proxy variables of the environment are never read. With a `ca` of
 * its own an endpoint trusts those certificates and no others.
 */
export class Endpoint {
  /** For the `host` header. */
  readonly authority: string;
  /** In front of the path on the request line: the origin, where a proxy must be told it. */
  readonly targetPrefix: string;
  /** For a proxy that reads the request itself; null elsewhere. */
  readonly proxyAuthorization: string | null;
  readonly #host: string;
  readonly #port: number;
  readonly #isSecure: boolean;
  readonly #transport: Transport | null;
  readonly #proxy: (Address & { readonly authorization: string | null }) | null;
  #context: SecureContext | null = null;
  /** Of the last verified handshake, for the next. */
  #session: Buffer | null = null;

  /** `origin`: scheme, host and port. Throws where it, or a proxy, is no URL. */
  constructor(origin: string, transport: Transport | null) {
    const url = new URL(origin);
    this.#isSecure = url.protocol === "https:";
    const { host, port } = addressOf(url);
    this.#host = host;
    this.#port = port;
    this.authority = url.host;
    this.#transport = transport;
    this.#proxy = transport?.proxy == null ? null : proxyOf(new URL(transport.proxy));
    const speaksForOrigin = this.#proxy !== null && !this.#isSecure;
    this.targetPrefix = speaksForOrigin ? url.origin : "";
    this.proxyAuthorization = speaksForOrigin ? (this.#proxy?.authorization ?? null) : null;
  }

  open(outcome: OpeningOutcome): CancelOpening {
    if (!this.#isSecure) return waitFor(dial(this.#proxy ?? { host: this.#host, port: this.#port }), "connect", outcome);
    if (this.#proxy === null) return this.#secure(null, outcome);
    let cancel = openTunnel(this.#proxy, `${bracketed(this.#host)}:${this.#port}`, {
      failed: outcome.failed,
      opened: (tunnel) => (cancel = this.#secure(tunnel, outcome)),
    });
    return () => cancel();
  }

  #secure(tunnel: Socket | null, outcome: OpeningOutcome): CancelOpening {
    this.#context ??= secureContextOf(this.#transport);
    if (this.#context === null) {
      tunnel?.destroy();
      outcome.failed(new ConnectionLost("TLS refuses the certificates"));
      return ignore;
    }
    const socket = connectTls({
      host: this.#host,
      port: this.#port,
      servername: isIP(this.#host) === 0 ? this.#host : "",
      secureContext: this.#context,
      ALPNProtocols: ["http/1.1"],
      // Said, so that NODE_TLS_REJECT_UNAUTHORIZED cannot say otherwise for the whole process.
      rejectUnauthorized: true,
      ...(this.#session === null ? {} : { session: this.#session }),
      ...(tunnel === null ? {} : { socket: tunnel }),
    });
    socket.on("session", (session) => (this.#session = session));
    return waitFor(socket, "secureConnect", outcome);
  }
}

/** Null where TLS refuses the certificates: too weak a key, which only it knows of. */
function secureContextOf(transport: Transport | null): SecureContext | null {
  const { ca = null, clientCertificate = null } = transport ?? {};
  try {
    return createSecureContext({ ...(ca === null ? {} : { ca }), ...clientCertificate });
  } catch {
    return null;
  }
}

interface Address {
  readonly host: string;
  readonly port: number;
}

function addressOf(url: URL): Address {
  return { host: url.hostname.replace(/^\[|\]$/g, ""), port: Number(url.port) || (url.protocol === "https:" ? 443 : 80) };
}

function proxyOf(url: URL): Address & { readonly authorization: string | null } {
  const user = decodeURIComponent(url.username);
  const password = decodeURIComponent(url.password);
  const basic = Buffer.from(`${user}:${password}`).toString("base64");
  return { ...addressOf(url), authorization: url.username === "" && url.password === "" ? null : `Basic ${basic}` };
}

/** A proxy's password as it is, as a URL has it and as the header does. */
export function secretsOfProxy(proxy: string): string[] {
  const url = new URL(proxy);
  const { authorization } = proxyOf(url);
  return authorization === null ? [] : [decodeURIComponent(url.password), url.password, authorization.slice("Basic ".length)];
}

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

function dial(address: Address): Socket {
  return connectTcp({ host: address.host, port: address.port });
}

function waitFor(socket: Socket, event: "connect" | "secureConnect", outcome: OpeningOutcome): CancelOpening {
  const forget = (): void => {
    socket.off(event, onOpen).off("error", onError).off("close", onClose);
  };
  const onOpen = (): void => {
    forget();
    socket.setNoDelay(true).setKeepAlive(true, KEEP_ALIVE_PROBE_MS);
    outcome.opened(socket);
  };
  const onError = (error: Error): void => {
    forget();
    socket.on("error", ignore).destroy();
    outcome.failed(error);
  };
  const onClose = (): void => onError(new ConnectionLost("closed while connecting"));
  socket.on(event, onOpen).on("error", onError).on("close", onClose);
  return () => {
    forget();
    socket.on("error", ignore).destroy();
  };
}

/** A TCP connection through a proxy that was asked to `CONNECT`, before the first byte of TLS. */
function openTunnel(proxy: Address & { readonly authorization: string | null }, target: string, outcome: OpeningOutcome): CancelOpening {
  let cancel = waitFor(dial(proxy), "connect", {
    failed: outcome.failed,
    opened: (socket) => {
      const authorization = proxy.authorization === null ? "" : `proxy-authorization: ${proxy.authorization}\r\n`;
      cancel = readTunnelAnswer(socket, outcome);
      socket.write(`CONNECT ${target} HTTP/1.1\r\nhost: ${target}\r\n${authorization}\r\n`, "latin1");
    },
  });
  return () => cancel();
}

function readTunnelAnswer(socket: Socket, outcome: OpeningOutcome): CancelOpening {
  let status = 0;
  let saidMore = false;
  const reader = new ResponseReader({
    onHead: (head) => (status = head.status),
    // A TLS server never speaks first, so what follows the head is not the tunnel's.
    onBody: () => (saidMore = true),
    onEnd: () => undefined,
  });
  const leave = (): void => {
    socket.off("data", onData).off("error", onLost).off("close", onLost);
  };
  const onLost = (): void => {
    leave();
    socket.on("error", ignore).destroy();
    outcome.failed(new ConnectionLost(status === 0 ? "the proxy closed the connection" : `the proxy answered ${status}`));
  };
  const onData = (chunk: Buffer): void => {
    try {
      reader.push(chunk);
    } catch {
      saidMore = true;
    }
    if (saidMore || status >= 300) return onLost();
    if (status === 0) return;
    leave();
    outcome.opened(socket);
  };
  socket.on("data", onData).on("error", onLost).on("close", onLost);
  return () => {
    leave();
    socket.on("error", ignore).destroy();
  };
}

/** Between two probes of an idle TCP connection, ms. */
const KEEP_ALIVE_PROBE_MS = 60_000;

function ignore(): void {}
