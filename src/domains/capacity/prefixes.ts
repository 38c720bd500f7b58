import { createHmac } from "node:crypto";
import type { ModelRequest } from "../../kernel/request.ts";
import type { Level, Settled } from "./level.ts";
import { TICKS_PER_MINUTE } from "./level.ts";
import type { Rule } from "./model.ts";
import { BYTES_PER_TOKEN } from "./tokens.ts";

/** A prompt cut where a provider's prefix cache can end: after what comes before the messages, and after each message. */
export interface Prefix {
  /** Of everything up to here, under the tenant's secret. */
  readonly digest: string;
  /** Of this piece alone. */
  readonly tokens: number;
}

/** The request's prefixes, shortest first. Each digest takes in the one before it, so equal digests mean equal prompts up to there. */
export function prefixesOf(request: ModelRequest, secret: Buffer): Prefix[] {
  const { model, fields } = request;
  const messages = Array.isArray(fields["messages"]) ? fields["messages"] : [];
  const asked = Object.entries(fields).filter(([name]) => !NOT_OF_THE_PROMPT.has(name));
  const head = [request.dialect, model, asked];
  const pieces = [head, ...messages.slice(0, MAX_PREFIXES), ...(messages.length > MAX_PREFIXES ? [messages.slice(MAX_PREFIXES)] : [])];
  let before = "";
  return pieces.map((piece) => {
    const text = JSON.stringify(piece);
    before = createHmac("sha256", secret).update(before).update(text).digest("base64").slice(0, DIGEST_LENGTH);
    return { digest: before, tokens: Math.ceil(Buffer.byteLength(text) / BYTES_PER_TOKEN) };
  });
}

/** Fields that no template writes into the prompt. Every other one may stand before the messages, and so makes the prefix another. */
const NOT_OF_THE_PROMPT: ReadonlySet<string> = new Set([
  "messages",
  "model",
  "stream",
  "stream_options",
  "max_tokens",
  "max_completion_tokens",
  "metadata",
  "user",
  "safety_identifier",
  "temperature",
  "top_p",
  "top_k",
  "seed",
  "n",
  "stop",
  "stop_sequences",
  "frequency_penalty",
  "presence_penalty",
  "logit_bias",
  "logprobs",
  "top_logprobs",
]);

/** Prefixes that are told apart in one request; what follows them is one more. */
const MAX_PREFIXES = 1_000;
/** 132 bits. */
const DIGEST_LENGTH = 22;

/** A rate of new prefixes, and those that are not new. */
export class PrefixLevel implements Level {
  readonly #rate: Level;
  /** Digest → the tick until which it is known, earliest first. */
  readonly #known = new Map<string, number>();
  #knownUntil = 0;

  constructor(rate: Level) {
    this.#rate = rate;
  }

  /** Tokens of the request behind its longest prefix that was seen within `KNOWN_TICKS`. */
  newTokens(prefixes: readonly Prefix[], tick: number): number {
    let tokens = 0;
    for (const prefix of prefixes) if (tokens > 0 || (this.#known.get(prefix.digest) ?? 0) <= tick) tokens += prefix.tokens;
    return tokens;
  }

  remember(prefixes: readonly Prefix[], tick: number): void {
    this.#knownUntil = tick + KNOWN_TICKS;
    for (const { digest } of prefixes) {
      this.#known.delete(digest);
      this.#known.set(digest, this.#knownUntil);
    }
    for (const [digest, until] of this.#known) {
      if (until > tick && this.#known.size <= MAX_KNOWN) break;
      this.#known.delete(digest);
    }
  }

  wait(charge: number, rule: Rule, tick: number): number {
    return this.#rate.wait(charge, rule, tick);
  }

  take(charge: number, rule: Rule, tick: number): number {
    return this.#rate.take(charge, rule, tick);
  }

  settle(settled: Settled, rule: Rule, tick: number): void {
    this.#rate.settle(settled, rule, tick);
  }

  remaining(rule: Rule, tick: number): number {
    return this.#rate.remaining(rule, tick);
  }

  reset(rule: Rule, tick: number): number {
    return this.#rate.reset(rule, tick);
  }

  isFresh(rule: Rule, tick: number): boolean {
    return this.#rate.isFresh(rule, tick) && this.#knownUntil <= tick;
  }
}

/** Providers keep a prefix for five minutes after its last use, some for ten. */
const KNOWN_TICKS = 10 * TICKS_PER_MINUTE;
/** Of one limit and subject. One that is forgotten is charged again as new. */
const MAX_KNOWN = 10_000;
