import type { Dialect } from "../../../kernel/frame.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { ModelRequest } from "../../../kernel/request.ts";
import { renderMessages } from "./anthropic/render-request.ts";
import { parseMessages } from "./anthropic/request.ts";
import { renderChatCompletion, type Extensions } from "./openai/render-request.ts";
import { parseChatCompletion } from "./openai/request.ts";

/**
 * The request in an upstream's dialect: itself where it is of that dialect, else rendered in it and parsed again, so that a translated
 * request meets the very code that a native one does. Made once per request and remembered; `takes` (for `openai`) is
 * compared by identity. What cannot be said is refused by the caller's own name: Problem `unsupported_field`.
 */
export function requestIn(dialect: Dialect, request: ModelRequest, takes: Extensions = NO_EXTENSIONS): ModelRequest {
  if (request.dialect === dialect) return request;
  const key = dialect === "openai" ? takes : dialect;
  const known = translations.get(request) ?? new Map<Extensions | Dialect, ModelRequest>();
  const translated = known.get(key) ?? translate(dialect, request, takes);
  translations.set(request, known.set(key, translated));
  return translated;
}

/** Vendors and engines of which nothing more is known. */
export const NO_EXTENSIONS: Extensions = { earlierReasoning: null, cacheBreakpoints: null, topK: false };

/** One entry per kind of upstream that a request was tried on: providers and their extensions are constants. */
const translations = new WeakMap<ModelRequest, Map<Extensions | Dialect, ModelRequest>>();

function translate(dialect: Dialect, request: ModelRequest, takes: Extensions): ModelRequest {
  switch (dialect) {
    case "openai": {
      const body = renderChatCompletion(request, takes);
      return reparsed(() => parseChatCompletion(body, request.attribution));
    }
    case "anthropic": {
      const body = renderMessages(request);
      return reparsed(() => parseMessages(body, request.attribution));
    }
    default:
      return dialect satisfies never;
  }
}

/** A bound (depth, lengths) that is met in the other dialect and was not in the caller's: the fields are not the caller's, so none is named. */
function reparsed(parse: () => ModelRequest): ModelRequest {
  try {
    return parse();
  } catch (thrown) {
    if (!(thrown instanceof Problem)) throw thrown;
    throw new Problem("invalid_request", {
      message: `In the dialect of this model's provider the request breaks a bound. ${thrown.message}`,
    });
  }
}
