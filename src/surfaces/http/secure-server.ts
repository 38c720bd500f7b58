import https from "node:https";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { createHttp2, type Http2Needs } from "./http2.ts";
import type { Certificate, KeyPair } from "./tls.ts";

/** An HTTPS server that speaks HTTP/2 with those who offer it. */
export interface SecureServer {
  readonly server: https.Server;
  /** Asks HTTP/2 clients to go, and closes what is left of their connections and of those that have not become TLS. */
  close(): Promise<void>;
}

export interface SecureNeeds extends Http2Needs {
  readonly certificate: Certificate;
  /** Bounds of HTTP/1.1. */
  readonly http1: https.ServerOptions;
  /** How long a connection may take to become TLS, ms. */
  readonly handshakeMs: number;
}

/**
 * One TLS server for both protocols: HTTP/1.1 is Node's own HTTPS server, with every bound of the plain one; a connection that
 * agreed on `h2` is handed to HTTP/2 instead.
 */
export function createSecureServer(needs: SecureNeeds): SecureServer {
  const { certificate, handler, http1, handshakeMs } = needs;
  const http2 = createHttp2(needs);
  const server = https.createServer({ ...http1, ...tlsOptions(certificate.current), handshakeTimeout: handshakeMs }, handler);
  const handshakes = createHandshakes();
  server.on("connection", handshakes.begin);
  const [speakHttp1] = server.listeners("secureConnection") as ((socket: TLSSocket) => void)[];
  server.removeAllListeners("secureConnection");
  server.on("secureConnection", (socket) => {
    handshakes.end(socket);
    if (socket.alpnProtocol === "h2") http2.accept(socket);
    else speakHttp1?.call(server, socket);
  });
  // Node leaves one whose handshake took too long open, and what was written to it waiting for the handshake's end.
  server.on("tlsClientError", (_error, socket) => socket.destroy());
  certificate.onRenewal((pair) => server.setSecureContext(tlsOptions(pair)));
  return {
    server,
    async close() {
      await http2.close();
      handshakes.close();
    },
  };
}

/** Connections that are not TLS yet. To a server that closes they count as open, and none of its protocols knows them. */
function createHandshakes() {
  const underWay = new Map<string, Socket>();
  let closed = false;
  return {
    begin(socket: Socket): void {
      if (closed) return void socket.destroy();
      const peer = peerOf(socket);
      underWay.set(peer, socket);
      socket.once("close", () => {
        if (underWay.get(peer) === socket) underWay.delete(peer);
      });
    },
    end: (socket: TLSSocket): void => void underWay.delete(peerOf(socket)),
    close(): void {
      closed = true;
      for (const socket of underWay.values()) socket.destroy();
    },
  };
}

/** The same of a TLS socket as of the socket that it was made of. */
function peerOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

/** The whole of it each time: what is left out of a new context falls back to Node's default. */
function tlsOptions(pair: KeyPair) {
  return { ...pair, minVersion: "TLSv1.2", ALPNProtocols: ["h2", "http/1.1"] } as const;
}
