import { connect, type Socket } from "node:net";

/** A response read off a socket, byte for byte what the server said. */
export interface RawResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** The body as JSON; throws where it is none. */
  json<T>(): T;
}

/** One connection, written to and read from by hand, so that a test can say what no HTTP client would. */
export interface RawConnection {
  readonly socket: Socket;
  send(bytes: string | Buffer): void;
  /** The next whole response. Rejects when the connection closes first. */
  response(): Promise<RawResponse>;
  /** Everything that was read and not yet taken by `response`. */
  rest(): string;
  /** Resolves once the server has closed or reset the connection. */
  readonly closed: Promise<void>;
}

export async function openConnection(url: string): Promise<RawConnection> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  await new Promise<void>((resolve, reject) => socket.once("connect", resolve).once("error", reject));
  let read = Buffer.alloc(0);
  let over = false;
  let wake = (): void => {};
  socket.on("data", (data: Buffer) => {
    read = Buffer.concat([read, data]);
    wake();
  });
  socket.on("error", () => undefined);
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  void closed.then(() => {
    over = true;
    wake();
  });
  return {
    socket,
    send: (bytes) => void socket.write(bytes),
    async response() {
      for (;;) {
        const found = parseResponse(read, over);
        if (found !== null) {
          read = read.subarray(found.length);
          return found.response;
        }
        if (over) throw new Error(`the connection closed before a whole response had come: ${read.toString("latin1")}`);
        await new Promise<void>((resolve) => (wake = resolve));
      }
    },
    rest: () => read.toString("utf8"),
    closed,
  };
}

/** A POST of a chat completion as text. `headers` are added after the usual ones; `body` is sent as it is. */
export function postOf(key: string, body: string, headers: Readonly<Record<string, string>> = {}, path = "/v1/chat/completions"): string {
  const all = {
    host: "atrium",
    authorization: `Bearer ${key}`,
    "content-type": "application/json",
    "content-length": String(Buffer.byteLength(body)),
    ...headers,
  };
  return `${headOf("POST", path, all)}${body}`;
}

export function headOf(method: string, path: string, headers: Readonly<Record<string, string>>): string {
  return `${method} ${path} HTTP/1.1\r\n${Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("")}\r\n`;
}

function parseResponse(bytes: Buffer, over: boolean): { response: RawResponse; length: number } | null {
  const end = bytes.indexOf("\r\n\r\n");
  if (end === -1) return null;
  const [statusLine = "", ...lines] = bytes.toString("latin1", 0, end).split("\r\n");
  const headers = Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
  );
  const found = bodyOf(bytes.subarray(end + 4), headers, over);
  if (found === null) return null;
  const body = found.bytes.toString("utf8");
  const status = Number(statusLine.split(" ")[1]);
  return { response: { status, headers, body, json: <T>() => JSON.parse(body) as T }, length: end + 4 + found.length };
}

function bodyOf(bytes: Buffer, headers: Readonly<Record<string, string>>, over: boolean): { bytes: Buffer; length: number } | null {
  if (headers["transfer-encoding"] === "chunked") return chunkedBody(bytes);
  const length = headers["content-length"];
  if (length === undefined) return over ? { bytes, length: bytes.length } : null;
  return bytes.length < Number(length) ? null : { bytes: bytes.subarray(0, Number(length)), length: Number(length) };
}

function chunkedBody(bytes: Buffer): { bytes: Buffer; length: number } | null {
  const parts: Buffer[] = [];
  for (let at = 0; ;) {
    const lineEnd = bytes.indexOf("\r\n", at);
    if (lineEnd === -1) return null;
    const size = Number.parseInt(bytes.toString("latin1", at, lineEnd), 16);
    const next = lineEnd + 2 + size + 2;
    if (bytes.length < next) return null;
    if (size === 0) return { bytes: Buffer.concat(parts), length: next };
    parts.push(bytes.subarray(lineEnd + 2, lineEnd + 2 + size));
    at = next;
  }
}
