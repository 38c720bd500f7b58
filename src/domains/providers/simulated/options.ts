import { z } from "zod";
import { textOf, type ChatRequest } from "../../../kernel/chat.ts";
import { Problem } from "../../../kernel/problem.ts";

const milliseconds = z.int().min(0).max(600_000);
const tokens = z.int().min(0).max(100_000);

/** What a deployment of `simulated` may be told under `options`. */
export const simulatedOptions = z.strictObject({
  /** From dispatch to the first token. */
  first_token_ms: milliseconds.default(0),
  /** Between two tokens. */
  per_token_ms: milliseconds.default(0),
  /** How long an answer is, unless the caller's maximum is less. Unset: 24 to 96, by seed. */
  output_tokens: tokens.min(1).optional(),
  /** Whether `[[simulate: …]]` in the last user message may override these options for one call. */
  directives: z.boolean().default(true),
  fault: z
    .strictObject({
      /** `error`: an error status, or a failure inside the stream. `cut`: the connection breaks. `hang`: nothing more comes. `connect`: no connection. `malformed`: not this wire. */
      kind: z.enum(["error", "cut", "hang", "connect", "malformed"]),
      status: z.int().min(400).max(599).default(503),
      /** Output tokens that still come before the fault; 0: none, not even the first. */
      after_tokens: tokens.default(0),
      /** Share of attempts that meet the fault. */
      rate: z.number().min(0).max(1).default(1),
      retry_after_seconds: z.int().min(0).max(3600).optional(),
    })
    .optional(),
});

/** The options of one call. */
export interface SimulatedOptions extends z.infer<typeof simulatedOptions> {
  /** Whether the directive asks for a tool call. */
  readonly tool: boolean;
}

/**
 * The options of one call: the deployment's, overridden by a directive in the last user message such as
 * `[[simulate: error=503 after=3]]`. Words: `error=STATUS`, `cut`, `hang`, `connect`, `malformed`, `after=TOKENS`, `tokens=N`,
 * `first_token_ms=N`, `per_token_ms=N`, `tool`. Throws `invalid_request` for another word.
 */
export function optionsFor(chat: ChatRequest, deployment: Readonly<Record<string, unknown>>): SimulatedOptions {
  const base = simulatedOptions.parse(deployment);
  const said = base.directives ? DIRECTIVE.exec(lastUserText(chat)) : null;
  if (said === null) return { ...base, tool: false };
  const words = wordsOf(said[1] ?? "");
  const kind = FAULTS.find((fault) => words.has(fault));
  const fault = kind === undefined ? base.fault : { kind, after_tokens: numberOf(words, "after"), status: numberOf(words, "error") };
  const parsed = simulatedOptions.safeParse({
    ...base,
    first_token_ms: numberOf(words, "first_token_ms") ?? base.first_token_ms,
    per_token_ms: numberOf(words, "per_token_ms") ?? base.per_token_ms,
    output_tokens: numberOf(words, "tokens") ?? base.output_tokens,
    fault,
  });
  const unknown = [...words.keys()].find((word) => !WORDS.has(word));
  if (!parsed.success || unknown !== undefined)
    throw new Problem("invalid_request", {
      param: "messages",
      message: `'${said[0]}' is not a directive that 'simulated' understands. Words: ${[...WORDS].join(", ")}.`,
    });
  return { ...parsed.data, tool: words.has("tool") };
}

export function lastUserText(chat: ChatRequest): string {
  return textOf(chat.messages.findLast((message) => message.role === "user")?.content ?? []);
}

const DIRECTIVE = /\[\[simulate:([^\]]{0,500})\]\]/;
const FAULTS = ["error", "cut", "hang", "connect", "malformed"] as const;
const WORDS: ReadonlySet<string> = new Set([...FAULTS, "after", "tokens", "first_token_ms", "per_token_ms", "tool"]);

/** Each word with what follows its `=`; undefined where nothing does. */
function wordsOf(text: string): Map<string, string | undefined> {
  const words = text.split(/\s+/).filter((word) => word !== "");
  return new Map(words.map((word) => [word.split("=", 1)[0] ?? "", word.includes("=") ? word.slice(word.indexOf("=") + 1) : undefined]));
}

function numberOf(words: ReadonlyMap<string, string | undefined>, word: string): number | undefined {
  const value = words.get(word);
  return value === undefined ? undefined : Number(value);
}
