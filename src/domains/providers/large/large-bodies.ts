import { setImmediate } from "node:timers/promises";
import type { Attribution, ModelRequest } from "../../../kernel/request.ts";
import type { Deployment, Model } from "../../catalog/index.ts";
import { LargeRequest } from "./large-request.ts";
import type { ParserName } from "./parsers.ts";
import type { Answers, LargeBody, Question } from "./protocol.ts";
import { READING_BOUNDS, ReadingThread, type ReadingBounds } from "./reading-thread.ts";

/** Bodies longer than this are read off the event loop, bytes: on it, 20 MiB in 200,000 messages stop it for most of a second. */
export const LARGE_BODY_BYTES = 1024 * 1024;

/**
 * Values that are read on the event loop at most: it is they that take time, more than bytes do. 1 MiB of `{}` or of texts of one letter stopped
 * the loop for 40 to 300 ms.
 */
export const MANY_VALUES = 16_384;

/**
 * Whether a body, in chunks of `size` bytes, is to be read off the event loop. Commas and opening brackets stand for values; those inside texts count
 * too, which sends some long texts to the thread and needs no reading of strings.
 */
export function isLarge(chunks: readonly Buffer[], size: number): boolean {
  if (size > LARGE_BODY_BYTES) return true;
  if (size <= MANY_VALUES) return false;
  let values = 0;
  for (const chunk of chunks) for (let at = 0; at < chunk.length; at++) if (STARTS_VALUE[chunk[at] as number] === 1) values++;
  return values > MANY_VALUES;
}

const STARTS_VALUE = new Uint8Array(256);
for (const character of "[{,") STARTS_VALUE[character.charCodeAt(0)] = 1;

/** Bytes copied in one turn of the event loop: less than a millisecond. */
const COPIED_AT_ONCE = 512 * 1024;

/** Requests too large to be parsed on the event loop, and the questions that the pipeline has about them. */
export class LargeBodies {
  readonly #thread: ReadingThread;
  #keys = 0;

  constructor(bounds: ReadingBounds = READING_BOUNDS) {
    this.#thread = new ReadingThread(bounds);
  }

  /**
   * Parses a body given in chunks, which are taken out of their list as they are copied. Rejects with the parser's Problems, with `overloaded` where too much waits, and with
   * `request_too_large` for a body that takes more memory or time to read than one may.
   */
  async parse(parser: ParserName, chunks: Buffer[], attribution: Attribution, signal: AbortSignal): Promise<ModelRequest> {
    const body: LargeBody = { key: this.#keys++, parser, memory: await sharedCopy(chunks), attribution };
    return new LargeRequest(body, await this.#ask(body, { verb: "parse" }, signal));
  }

  /** The provider's `accept`, `bound` or `render`. Rejects with what that throws, and as `parse` does. */
  ask<Verb extends "accept" | "bound" | "render">(
    { source }: LargeRequest,
    question: Extract<Question, { readonly verb: Verb }>,
  ): Promise<Answers[Verb]> {
    return this.#ask<Verb>(source, question, null);
  }

  close(): Promise<void> {
    return this.#thread.close();
  }

  async #ask<Verb extends Question["verb"]>(
    body: LargeBody,
    question: Extract<Question, { readonly verb: Verb }>,
    signal: AbortSignal | null,
  ): Promise<Answers[Verb]> {
    return (await this.#thread.ask({ body, question }, signal)) as Answers[Verb];
  }
}

/** A deployment without its account and the rest of the catalog that hangs on it: the pure verbs of a provider read neither. */
export function bare(deployment: Deployment): Deployment {
  return { ...deployment, credential: null, prices: [], model: bareModel(deployment.model) };
}

export function bareModel(model: Model): Model {
  return { ...model, deployments: [] };
}

/** A rendering as it was before it crossed threads: what left as a Buffer came as plain bytes. */
export function withBuffers(rendered: unknown): unknown {
  if (typeof rendered !== "object" || rendered === null) return rendered;
  return Object.fromEntries(
    Object.entries(rendered).map(([name, value]: [string, unknown]) => [
      name,
      value instanceof Uint8Array ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : value,
    ]),
  );
}

async function sharedCopy(chunks: Buffer[]): Promise<SharedArrayBuffer> {
  const memory = new SharedArrayBuffer(chunks.reduce((size, chunk) => size + chunk.length, 0));
  const target = new Uint8Array(memory);
  let filled = 0;
  let copiedNow = 0;
  for (let chunk = chunks.shift(); chunk !== undefined; chunk = chunks.shift()) {
    for (let from = 0; from < chunk.length; from += COPIED_AT_ONCE) {
      const piece = chunk.subarray(from, from + COPIED_AT_ONCE);
      target.set(piece, filled);
      filled += piece.length;
      copiedNow += piece.length;
      if (copiedNow < COPIED_AT_ONCE) continue;
      copiedNow = 0;
      await setImmediate();
    }
  }
  return memory;
}
