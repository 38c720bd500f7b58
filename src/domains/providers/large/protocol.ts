import { Problem, type ProblemCode } from "../../../kernel/problem.ts";
import type { Attribution, ModelRequest } from "../../../kernel/request.ts";
import type { RequestBound } from "../../../kernel/tokens.ts";
import type { Deployment, Model } from "../../catalog/index.ts";
import type { RenderValues } from "../contract.ts";
import type { ParserName } from "./parsers.ts";

/** A body and all that its parser needs. Every order carries it, so that a thread that never saw the request can answer too. */
export interface LargeBody {
  /** Of the request, in this process. */
  readonly key: number;
  readonly parser: ParserName;
  /** The body, shared: neither side copies it. */
  readonly memory: SharedArrayBuffer;
  /** What attribution headers said. */
  readonly attribution: Attribution;
}

/** What the reading thread is asked: to parse, or for one of the pure verbs of a provider. */
export type Question =
  | { readonly verb: "parse" }
  | { readonly verb: "accept"; readonly provider: string; readonly deployment: Deployment }
  | { readonly verb: "bound"; readonly provider: string; readonly model: Model }
  | { readonly verb: "render"; readonly provider: string; readonly deployment: Deployment; readonly values: RenderValues };

/** The answer to each question. */
export interface Answers {
  readonly parse: RequestHead;
  readonly accept: null;
  readonly bound: RequestBound;
  /** A provider's own rendering. */
  readonly render: unknown;
}

/** So much of a parsed request as crosses threads: small, however long the body. */
export type RequestHead = Pick<ModelRequest, "kind" | "dialect" | "model" | "stream" | "includeUsage" | "attribution">;

export interface Order {
  readonly body: LargeBody;
  readonly question: Question;
}

/** Problems cross in parts: cloning an Error keeps its message alone. A `bug` is a stack. */
export type Reply = { readonly answer: unknown } | { readonly problem: ProblemParts } | { readonly bug: string };

type ProblemParts = Pick<Problem, "code" | "message" | "param" | "retryAfterSeconds" | "headers">;

export function replyOf(thrown: unknown): Reply {
  if (!(thrown instanceof Problem)) return { bug: thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown) };
  const { code, message, param, retryAfterSeconds, headers } = thrown;
  return { problem: { code, message, param, retryAfterSeconds, headers } };
}

/** What the other thread threw. */
export function thrownBy(reply: Exclude<Reply, { readonly answer: unknown }>): Error {
  if ("bug" in reply) return new Error(`the reading thread failed: ${reply.bug}`);
  const { code, retryAfterSeconds, ...parts } = reply.problem;
  return new Problem(code satisfies ProblemCode, { ...parts, ...(retryAfterSeconds === null ? {} : { retryAfterSeconds }) });
}
