import type { Problem } from "../../kernel/problem.ts";

/** OpenAI's error envelope, which its SDKs turn into typed exceptions. */
export interface OpenAIError {
  readonly error: { readonly message: string; readonly type: string; readonly param: string | null; readonly code: string };
}

export function openaiEnvelope(problem: Problem): OpenAIError {
  return { error: { message: problem.message, type: problem.type, param: problem.param, code: problem.code } };
}
