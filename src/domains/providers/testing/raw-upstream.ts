import { createServer, type AddressInfo, type Socket } from "node:net";

/** One request that a raw upstream read, and the socket to answer it on, in bytes. */
export interface RawExchange {
  readonly head: string;
  readonly body: Buffer;
  /** The connection's number, counted from 0. */
  readonly connection: number;
  /** Requests read from this connection before. */
  readonly before: number;
  readonly socket: Socket;
}

export interface RawUpstream {
  /** Includes `/v1`. */
  readonly baseUrl: string;
  readonly port: number;
  readonly exchanges: readonly RawExchange[];
  readonly sockets: readonly Socket[];
  close(): Promise<void>;
}

/** Scripted, for tests: a TCP server on loopback that reads whole requests and answers with whatever bytes the script writes. */
export async function rawUpstream(script: (exchange: RawExchange) => void): Promise<RawUpstream> {
  const exchanges: RawExchange[] = [];
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    const connection = sockets.push(socket) - 1;
    let pending: Buffer = Buffer.alloc(0);
    let before = 0;
    socket.setNoDelay(true).on("error", () => undefined);
    socket.on("data", (chunk) => {
      pending = Buffer.concat([pending, chunk]);
      for (;;) {
        const headEnd = pending.indexOf("\r\n\r\n");
        const head = pending.toString("latin1", 0, headEnd);
        const end = headEnd + 4 + Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
        if (headEnd === -1 || pending.length < end) return;
        const exchange = { head, body: Buffer.from(pending.subarray(headEnd + 4, end)), connection, before: before++, socket };
        pending = pending.subarray(end);
        exchanges.push(exchange);
        script(exchange);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    baseUrl: `http://127.0.0.1:${port}/v1`,
    port,
    exchanges,
    sockets,
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

/** A response of HTTP/1.1 with a JSON body and its length. */
export function jsonResponse(body: string, headers = ""): string {
  return `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n${headers}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}
