import { isIP, type Socket, connect as connectTcp } from "node:net";
import { connect as connectTls } from "node:tls";
import { EgressFailed } from "./refusal.ts";
import { portOf, type Vetted } from "./vet.ts";

/**
 * A socket to the first vetted address that takes it, with TLS where the URL says so. Every address is a literal: there is no
 * look-up left that could answer otherwise. Throws EgressFailed.
 */
export async function connectVetted({ url, addresses }: Vetted, ca: string | undefined, signal: AbortSignal): Promise<Socket> {
  let failure: unknown;
  for (const address of addresses.slice(0, MAX_TRIES)) {
    try {
      const socket = await connected(connectTcp({ host: address, port: portOf(url) }), "connect", CONNECT_MS, signal);
      return url.protocol === "https:" ? await secured(socket, url, ca, signal) : socket;
    } catch (error) {
      if (signal.aborted || error instanceof EgressFailed) throw error;
      failure = error;
    }
  }
  throw new EgressFailed("unreachable", failure);
}

async function secured(socket: Socket, url: URL, ca: string | undefined, signal: AbortSignal): Promise<Socket> {
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const secure = connectTls({
    socket,
    // The certificate is checked for this name; TLS sends names only, never an address.
    host,
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ALPNProtocols: ["http/1.1"],
    minVersion: "TLSv1.2",
    // NODE_TLS_REJECT_UNAUTHORIZED does not reach this far.
    rejectUnauthorized: true,
    ...(ca === undefined ? {} : { ca }),
  });
  try {
    return await connected(secure, "secureConnect", HANDSHAKE_MS, signal);
  } catch (error) {
    socket.destroy();
    throw signal.aborted ? error : new EgressFailed("tls", error);
  }
}

function connected<S extends Socket>(socket: S, event: "connect" | "secureConnect", timeoutMs: number, signal: AbortSignal): Promise<S> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => settle(new Error("no answer in time")), timeoutMs);
    const onAbort = (): void => settle(new EgressFailed("aborted"));
    const settle = (error: Error | null): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      if (error === null) return resolve(socket);
      // What it still has to say comes after everybody has stopped listening.
      socket.on("error", () => {});
      socket.destroy();
      reject(error);
    };
    socket.once(event, () => settle(null));
    socket.once("error", settle);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
}

/** Addresses that are tried, one after the other. */
const MAX_TRIES = 3;
const CONNECT_MS = 3_000;
const HANDSHAKE_MS = 5_000;
