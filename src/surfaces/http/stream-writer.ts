import type { ServerResponse } from "node:http";
import type { ModelEvent } from "../../kernel/events.ts";
import type { Ending, Frame, FrameStream } from "../../kernel/frame.ts";
import { asProblem, Problem } from "../../kernel/problem.ts";
import type { Delivery } from "../../pipeline/caller.ts";
import { CLIENT_LEFT, finish } from "./finish.ts";

/** What turns one response's frames into the caller's bytes. */
export interface FrameRendering {
  /** Whether the frames' own bytes are already in the caller's wire. */
  readonly forward: boolean;
  /** Of frames that are forwarded: whether one that carries nothing but usage is left out. */
  readonly dropUsageOnly: boolean;
  /** @throws Problem for what cannot be told: the stream is then cut. */
  readonly render: (events: readonly ModelEvent[]) => Buffer;
  readonly renderError: (problem: Problem) => Buffer;
  /** Why the platform stopped the call, where it did. */
  readonly stopped: () => Problem | null;
}

/** Server-sent events to one client: comments in silence, back-pressure to the upstream, and never a clean end for a failure. */
export class StreamWriter {
  readonly #response: ServerResponse;
  readonly #headers: () => Readonly<Record<string, string>>;
  readonly #silence: NodeJS.Timeout;

  /** `headers` are asked for when the head is written; those known only once the upstream answered are given to `pipe`. After `silenceMs` without a frame a comment is sent. */
  constructor(response: ServerResponse, headers: () => Readonly<Record<string, string>>, silenceMs: number) {
    this.#response = response;
    this.#headers = headers;
    this.#silence = setTimeout(() => this.#comment(), silenceMs);
    response.once("close", () => this.hush());
  }

  get begun(): boolean {
    return this.#response.headersSent;
  }

  /** No more comments: something else ends the response. A write after its end would be an error that nobody handles. */
  hush(): void {
    clearTimeout(this.#silence);
  }

  /** Writes the stream to its end. Resolves when the last byte was handed to the socket or the client is gone. */
  pipe(stream: FrameStream, headers: Readonly<Record<string, string>>, rendering: FrameRendering): Promise<Delivery> {
    const response = this.#response;
    let broken: Problem | null = null;
    return new Promise((resolve) => {
      response.once("close", () => resolve(CLIENT_LEFT));
      response.on("drain", () => stream.resume());
      stream.pipe({
        frames: (frames) => {
          if (response.destroyed || broken !== null) return;
          this.#begin(headers);
          const pieces: Buffer[] = [];
          broken = gather(frames, rendering, pieces);
          const isReady = this.#write(pieces);
          if (broken !== null) stream.abort();
          else if (!isReady) stream.pause();
        },
        end: (ending) => this.#end(broken === null ? ending : { kind: "truncated", problem: broken }, rendering, resolve),
      });
    });
  }

  /** Ends a stream that has begun, with the dialect's error event and without a clean end. */
  fail(bytes: Buffer, done?: () => void): void {
    const response = this.#response;
    this.hush();
    response.write(bytes, () => {
      done?.();
      response.destroy();
    });
  }

  #begin(headers: Readonly<Record<string, string>>): void {
    this.#silence.refresh();
    if (!this.#response.headersSent) this.#response.writeHead(200, { ...this.#headers(), ...headers, ...SSE_HEADERS });
  }

  /** A client that has not read what was written does not need to hear that there is nothing more. */
  #comment(): void {
    this.#begin({});
    if (!this.#response.writableNeedDrain) this.#response.write(COMMENT);
  }

  /**
   * One write per upstream chunk: its frames lie side by side in it, so they are one slice, and nothing is copied. A write
   * per frame costs three small buffers of chunked encoding each, and with them a third of a stream's CPU. False when the
   * client is slower than the upstream.
   */
  #write(pieces: readonly Buffer[]): boolean {
    if (pieces.length === 0) return true;
    return this.#response.write(pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces));
  }

  #end(ending: Ending, rendering: FrameRendering, resolve: (delivery: Delivery) => void): void {
    const response = this.#response;
    if (response.destroyed) return resolve(CLIENT_LEFT);
    switch (ending.kind) {
      case "complete":
        this.#begin({});
        this.hush();
        finish(response, resolve);
        return;
      case "truncated":
        this.#begin({});
        this.fail(rendering.renderError(ending.problem), () => resolve({ kind: "truncated", problem: ending.problem }));
        return;
      case "aborted":
        this.#end(
          {
            kind: "truncated",
            problem:
              rendering.stopped() ??
              new Problem("overloaded", { message: "The server stopped this response. Send the request again.", retryAfterSeconds: 1 }),
          },
          rendering,
          resolve,
        );
        return;
      default:
        ending satisfies never;
    }
  }
}

const SSE_HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
} as const;
const COMMENT = Buffer.from(": waiting\n\n");

/** Adds the frames' bytes in the caller's wire; the problem of the first that has none, if there is one. */
function gather(frames: readonly Frame[], { forward, dropUsageOnly, render }: FrameRendering, pieces: Buffer[]): Problem | null {
  for (const frame of frames) {
    if (forward && dropUsageOnly && frame.notable && isUsageOnly(frame.events())) continue;
    try {
      append(pieces, forward ? frame.bytes : render(frame.events()));
    } catch (thrown) {
      return asProblem(thrown);
    }
  }
  return null;
}

/** Adds the bytes, to the last piece where they follow it in memory. */
function append(pieces: Buffer[], bytes: Buffer): void {
  if (bytes.length === 0) return;
  const last = pieces.at(-1);
  if (last !== undefined && last.buffer === bytes.buffer && last.byteOffset + last.length === bytes.byteOffset) {
    pieces[pieces.length - 1] = Buffer.from(bytes.buffer, last.byteOffset, last.length + bytes.length);
  } else pieces.push(bytes);
}

function isUsageOnly(events: readonly ModelEvent[]): boolean {
  return (
    events.some((event) => event.type === "usage") && events.every((event) => event.type === "usage" || event.type === "response-start")
  );
}
