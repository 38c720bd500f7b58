/** What a scripted upstream answers, in no dialect: scripted-openai.ts and scripted-anthropic.ts write it in theirs. */
export interface Answer {
  readonly parts: readonly AnswerPart[];
  readonly end: "stop" | "length" | "tools" | "refusal" | { readonly stopSequence: string };
  readonly usage: AnswerUsage;
}

export type AnswerPart =
  | { readonly kind: "text"; readonly text: string }
  /** Only upstreams of Anthropic's dialect, and of OpenAI's with OpenRouter's extensions, say it. */
  | { readonly kind: "thinking"; readonly text: string; readonly signature: string }
  | { readonly kind: "call"; readonly id: string; readonly name: string; readonly arguments: string };

/** Disjoint counts. `cacheWrite1h` is told by Anthropic's dialect alone. */
export interface AnswerUsage {
  readonly input: number;
  readonly cacheRead: number;
  readonly cacheWrite5m: number;
  readonly cacheWrite1h: number;
  readonly output: number;
  readonly reasoning: number;
}

const USED: AnswerUsage = { input: 20, cacheRead: 0, cacheWrite5m: 0, cacheWrite1h: 0, output: 7, reasoning: 0 };
const says = (text: string): AnswerPart => ({ kind: "text", text });

/** By the scenario that the first user message names, as in `[tools] What is the weather?`, and by whether results of tools are in the conversation. */
export function answerFor(conversation: string): Answer {
  const scenario = /\[(\w+)\]/.exec(conversation)?.[1] ?? "plain";
  switch (scenario) {
    case "tools":
      return conversation.includes(RESULTS[0])
        ? { parts: [says("Paris is sunny, Rome is rainy.")], end: "stop", usage: { ...USED, input: 60 } }
        : { parts: [says("Let me look."), ...CALLS], end: "tools", usage: USED };
    case "thinking":
      return conversation.includes("Go on.")
        ? { parts: [says("Forty-two it is.")], end: "stop", usage: USED }
        : {
            parts: [{ kind: "thinking", text: "Six times seven.", signature: "c2lnbmVk" }, says("Forty-two.")],
            end: "stop",
            usage: { ...USED, reasoning: 5 },
          };
    case "json":
      return { parts: [says('{"city":"Paris","days":3}')], end: "stop", usage: USED };
    case "stop":
      return { parts: [says("one two ")], end: { stopSequence: "three" }, usage: USED };
    case "length":
      return { parts: [says("cut off in the")], end: "length", usage: USED };
    case "refusal":
      return { parts: [says("I cannot help with that.")], end: "refusal", usage: USED };
    case "cached":
      return {
        parts: [says("ok")],
        end: "stop",
        usage: { input: 11, cacheRead: 1000, cacheWrite5m: 300, cacheWrite1h: 20, output: 3, reasoning: 0 },
      };
    default:
      return { parts: [says("Hello, "), says("wörld! 👋")], end: "stop", usage: USED };
  }
}

const CALLS = [
  { kind: "call", id: "call_paris", name: "weather", arguments: '{"city":"Paris","days":1}' },
  { kind: "call", id: "call_rome", name: "weather", arguments: '{"city":"Rome","days":2}' },
] as const satisfies readonly AnswerPart[];
export const RESULTS = ["Paris: sunny", "Rome: rain"] as const;

/** A text in the pieces in which it is streamed, cut where a character of several code units is not. */
export function pieces(text: string): string[] {
  return text.match(/.{1,6}/gsu) ?? [];
}
