import { parentPort } from "node:worker_threads";
import { systemClock } from "../../../kernel/clock.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { ModelRequest } from "../../../kernel/request.ts";
import type { Provider } from "../contract.ts";
import { createLocalProvider } from "../local/local.ts";
import { TABLE } from "../table.ts";
import { PARSERS } from "./parsers.ts";
import { holdsMoreValues } from "./value-count.ts";
import { replyOf, type LargeBody, type Order, type Question, type RequestHead } from "./protocol.ts";

if (parentPort !== null) serve(parentPort);

/** Answers one order after the other. */
function serve(port: NonNullable<typeof parentPort>): void {
  port.on("message", ({ body, question }: Order) => {
    try {
      const answer = answerTo(question, requestOf(body));
      // What was rendered is sent: another attempt parses again.
      if (question.verb === "render") kept.delete(body.key);
      port.postMessage({ answer }, ownBuffers(answer));
    } catch (thrown) {
      kept.delete(body.key);
      port.postMessage(replyOf(thrown));
    }
  });
}

function answerTo(question: Question, request: ModelRequest): unknown {
  switch (question.verb) {
    case "parse":
      return headOf(request);
    case "accept":
      providerOf(question).accept(request, question.deployment);
      return null;
    case "bound":
      return providerOf(question).bound(request, question.model);
    case "render":
      return providerOf(question).render(request, question.deployment, question.values);
    default:
      return question satisfies never;
  }
}

function headOf({ kind, dialect, model, stream, includeUsage, attribution }: ModelRequest): RequestHead {
  return { kind, dialect, model, stream, includeUsage, attribution };
}

/** Parsed requests between two questions about them, in order of last use. */
const kept = new Map<number, ModelRequest>();
const KEPT_REQUESTS = 8;
const KEPT_BYTES = 32 * 1024 * 1024;

function requestOf({ key, parser, memory, attribution }: LargeBody): ModelRequest {
  const known = kept.get(key);
  kept.delete(key);
  let room = KEPT_BYTES - memory.byteLength;
  for (const [other, { body }] of [...kept].toReversed()) {
    room -= body.byteLength;
    if (room < 0 || kept.size >= KEPT_REQUESTS) kept.delete(other);
  }
  const request = known ?? parse(parser, Buffer.from(memory), attribution);
  kept.set(key, request);
  return request;
}

function parse(parser: LargeBody["parser"], body: Buffer, attribution: LargeBody["attribution"]): ModelRequest {
  if (holdsMoreValues(body, VALUES_AT_MOST))
    throw new Problem("request_too_large", { message: `The body holds more than ${VALUES_AT_MOST} values. Send fewer, longer ones.` });
  return PARSERS[parser](body, attribution);
}

/** 200,000 messages have 600,000. No body that is parsed on the event loop has room for as many. */
const VALUES_AT_MOST = 2_000_000;

/** The pure halves of every provider; nothing is dispatched from here. */
const PROVIDERS: ReadonlyMap<string, Provider> = new Map(
  [
    ...TABLE.map((make) => make({ clock: systemClock, upstream: { request: refuse, close: async () => undefined }, countTokens: refuse })),
    createLocalProvider({ modelsDirectory: null, clock: systemClock, log: { info: ignore, warn: ignore } }),
  ].map((provider) => [provider.id, provider]),
);

function providerOf({ provider: id }: { readonly provider: string }): Provider {
  const provider = PROVIDERS.get(id);
  if (provider === undefined) throw new Error(`a provider that the reading thread does not know: ${id}`);
  return provider;
}

async function refuse(): Promise<never> {
  throw new Error("the reading thread sends nothing");
}

function ignore(): void {}

/** The memory of the answer's Buffers, to be handed over instead of copied; that of Node's pool, or shared, stays. */
function ownBuffers(answer: unknown): ArrayBuffer[] {
  if (typeof answer !== "object" || answer === null) return [];
  return Object.values(answer).flatMap((value: unknown) =>
    value instanceof Uint8Array && value.buffer instanceof ArrayBuffer && value.byteLength > Buffer.poolSize ? [value.buffer] : [],
  );
}
