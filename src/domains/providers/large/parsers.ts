import { parseCountTokens, parseMessages } from "../dialects/anthropic/request.ts";
import { parseChatCompletion } from "../dialects/openai/request.ts";

/** What makes a request of a body, by name: a thread is told names, not functions. Each throws a Problem with `param` set. */
export const PARSERS = { chatCompletion: parseChatCompletion, messages: parseMessages, countTokens: parseCountTokens } as const;

export type ParserName = keyof typeof PARSERS;
