import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type OpenAI from "openai";

/** One request that a scripted upstream received, and the means to answer it. */
export interface Exchange {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** Status and headers. */
  head(status: number, headers?: Record<string, string>): void;
  write(bytes: string | Buffer): void;
  end(bytes?: string | Buffer): void;
  /** Bytes outside HTTP. */
  raw(bytes: string): void;
  /** A TCP reset. */
  reset(): void;
  wait(ms: number): Promise<void>;
  /** Resolves when the other side has closed the connection, with `performance.now()` of that moment. */
  readonly closed: Promise<number>;
}

export interface ScriptedUpstream {
  /** Includes `/v1`. */
  readonly baseUrl: string;
  readonly exchanges: readonly Exchange[];
  /** Resolves with the n-th exchange, counted from 0, once it has arrived. */
  arrived(index: number): Promise<Exchange>;
  /** TCP connections accepted so far. */
  connections(): number;
  close(): Promise<void>;
}

/** A real HTTP server on loopback that answers every request by the script. Requests arrive whole before it runs. */
export async function scriptedUpstream(script: (exchange: Exchange) => void | Promise<void>): Promise<ScriptedUpstream> {
  const exchanges: Exchange[] = [];
  const waiting: (() => void)[] = [];
  let connections = 0;
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("error", () => undefined);
    response.on("error", () => undefined);
    request.on("end", () => {
      const exchange = exchangeOf(request.url ?? "", request.headers, Buffer.concat(parts), response, request.socket);
      exchanges.push(exchange);
      for (const wake of waiting.splice(0)) wake();
      void script(exchange);
    });
  });
  server.on("connection", (socket) => {
    connections++;
    socket.setMaxListeners(0);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    baseUrl: `http://127.0.0.1:${port}/v1`,
    exchanges,
    arrived: async (index) => {
      for (;;) {
        const exchange = exchanges[index];
        if (exchange !== undefined) return exchange;
        await new Promise<void>((resolve) => waiting.push(resolve));
      }
    },
    connections: () => connections,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

function exchangeOf(path: string, headers: IncomingHttpHeaders, body: Buffer, response: ServerResponse, socket: Socket): Exchange {
  return {
    path,
    headers,
    body,
    head: (status, extra = {}) => response.writeHead(status, extra).flushHeaders(),
    write: (bytes) => void response.write(bytes),
    end: (bytes) => void response.end(bytes),
    raw: (bytes) => void socket.write(bytes),
    reset: () => void socket.resetAndDestroy(),
    wait: (ms) => sleep(ms),
    closed: new Promise((resolve) => socket.once("close", () => resolve(performance.now()))),
  };
}

export const SSE_HEADERS = { "content-type": "text/event-stream; charset=utf-8" };
export const JSON_HEADERS = { "content-type": "application/json" };
export const DONE = "data: [DONE]\n\n";

// Everything below is written from the official SDK's own types, not from our parser.

export function sse(chunk: OpenAI.ChatCompletionChunk): string {
  return `data: ${JSON.stringify(chunk)}\n\n`;
}

export function chunkOf(choices: OpenAI.ChatCompletionChunk.Choice[], usage?: OpenAI.CompletionUsage | null): OpenAI.ChatCompletionChunk {
  return {
    id: "chatcmpl-1",
    object: "chat.completion.chunk",
    created: 1_700_000_000,
    model: "upstream-model",
    choices,
    ...(usage === undefined ? {} : { usage }),
  };
}

export function textChunk(content: string): OpenAI.ChatCompletionChunk {
  return chunkOf([{ index: 0, delta: { content }, finish_reason: null }]);
}

export const STOP_CHUNK: OpenAI.ChatCompletionChunk = chunkOf([{ index: 0, delta: {}, finish_reason: "stop" }]);

export const USAGE: OpenAI.CompletionUsage = { prompt_tokens: 9, completion_tokens: 3, total_tokens: 12 };

/** A complete stream that says the texts, with usage. */
export function streamOf(texts: readonly string[]): string {
  const opening = chunkOf([{ index: 0, delta: { role: "assistant", content: "" }, finish_reason: null }]);
  return [opening, ...texts.map(textChunk), STOP_CHUNK, chunkOf([], USAGE)].map(sse).join("") + DONE;
}

export function completionOf(content: string): OpenAI.ChatCompletion {
  return {
    id: "chatcmpl-1",
    object: "chat.completion",
    created: 1_700_000_000,
    model: "upstream-model",
    choices: [{ index: 0, finish_reason: "stop", logprobs: null, message: { role: "assistant", content, refusal: null } }],
    usage: USAGE,
  };
}
