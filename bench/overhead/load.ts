import { connect } from "node:net";

export interface Load {
  readonly port: number;
  readonly path: string;
  /** One set for all requests, or several that take turns. */
  readonly headers: Headers | readonly Headers[];
  readonly body: string;
  readonly connections: number;
  readonly durationMs: number;
}

type Headers = Readonly<Record<string, string>>;

export interface LoadResult {
  readonly requests: number;
  readonly errors: number;
  readonly seconds: number;
  /** ms, sorted. */
  readonly latencies: readonly number[];
}

/** Closed loop: each connection sends its next request when the last answer is whole. Plain sockets, so that the generator costs little. */
export async function drive(load: Load): Promise<LoadResult> {
  const requests = [load.headers].flat().map((headers) => requestText(load.path, headers, load.body));
  let next = 0;
  const latencies: number[] = [];
  let errors = 0;
  const started = performance.now();
  const until = started + load.durationMs;
  await Promise.all(Array.from({ length: load.connections }, () => loop()));
  return { requests: latencies.length, errors, seconds: (performance.now() - started) / 1000, latencies: latencies.sort((a, b) => a - b) };

  function loop(): Promise<void> {
    return new Promise((resolve) => {
      const socket = connect({ port: load.port, host: "127.0.0.1", noDelay: true });
      let received = "";
      let sentAt = 0;
      const send = () => {
        received = "";
        sentAt = performance.now();
        socket.write(requests[next++ % requests.length] as string);
      };
      socket.on("connect", send);
      socket.on("data", (data) => {
        received += data.toString("latin1");
        if (!isWhole(received)) return;
        if (received.startsWith("HTTP/1.1 200")) latencies.push(performance.now() - sentAt);
        else errors += 1;
        if (performance.now() < until) send();
        else socket.end(() => resolve());
      });
      socket.on("error", () => {
        errors += 1;
        resolve();
      });
      socket.on("close", () => resolve());
    });
  }
}

export function requestText(path: string, headers: Headers, body: string): string {
  const head = Object.entries({
    host: "127.0.0.1",
    "content-type": "application/json",
    "content-length": String(Buffer.byteLength(body)),
    ...headers,
  });
  return `POST ${path} HTTP/1.1\r\n${head.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n${body}`;
}

export function isWhole(answer: string): boolean {
  const headEnd = answer.indexOf("\r\n\r\n");
  if (headEnd === -1) return false;
  const length = /content-length: (\d+)/i.exec(answer.slice(0, headEnd))?.[1];
  return length === undefined ? answer.endsWith("0\r\n\r\n") : answer.length >= headEnd + 4 + Number(length);
}
