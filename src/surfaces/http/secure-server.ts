import https from "node:https";
import type { TLSSocket } from "node:tls";
import { createHttp2, type Http2Needs } from "./http2.ts";
import type { Certificate, KeyPair } from "./tls.ts";

/** An HTTPS server that speaks HTTP/2 with those who offer it. */
export interface SecureServer {
  readonly server: https.Server;
  /** Asks HTTP/2 clients to go, and closes what is left of their connections. */
  closeHttp2(): Promise<void>;
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
  const [speakHttp1] = server.listeners("secureConnection") as ((socket: TLSSocket) => void)[];
  server.removeAllListeners("secureConnection");
  server.on("secureConnection", (socket) => {
    if (socket.alpnProtocol === "h2") http2.accept(socket);
    else speakHttp1?.call(server, socket);
  });
  // Node leaves one whose handshake took too long open, and what was written to it waiting for the handshake's end.
  server.on("tlsClientError", (_error, socket) => socket.destroy());
  certificate.onRenewal((pair) => server.setSecureContext(tlsOptions(pair)));
  return { server, closeHttp2: http2.close };
}

/** The whole of it each time: what is left out of a new context falls back to Node's default. */
function tlsOptions(pair: KeyPair) {
  return { ...pair, minVersion: "TLSv1.2", ALPNProtocols: ["h2", "http/1.1"] } as const;
}
