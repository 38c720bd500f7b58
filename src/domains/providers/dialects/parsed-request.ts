import { z } from "zod";
import { BOUNDS } from "../../../kernel/bounds.ts";
import type { ChatRequest } from "../../../kernel/chat.ts";
import type { Dialect } from "../../../kernel/frame.ts";
import { Problem } from "../../../kernel/problem.ts";
import type { Attribution, JsonObject, ModelRequest } from "../../../kernel/request.ts";
import { topLevelMembers, type Member } from "./splice.ts";

/** What a dialect's parser found in a checked body. */
export interface ParsedBody {
  readonly kind: ModelRequest["kind"];
  readonly dialect: Dialect;
  readonly model: string;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly body: Buffer;
  readonly fields: JsonObject;
  readonly attribution: Attribution;
  readonly toChat: (fields: JsonObject, body: Buffer) => ChatRequest;
}

/** A request of any dialect, once its body is checked. What is costly to find is found on first use and remembered. */
export class ParsedRequest implements ModelRequest {
  readonly kind: ModelRequest["kind"];
  readonly dialect: Dialect;
  readonly model: string;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly body: Buffer;
  readonly fields: JsonObject;
  readonly attribution: Attribution;
  readonly #toChat: ParsedBody["toChat"];
  #chat: ChatRequest | null = null;
  #members: Member[] | null = null;

  constructor(parsed: ParsedBody) {
    this.kind = parsed.kind;
    this.dialect = parsed.dialect;
    this.model = parsed.model;
    this.stream = parsed.stream;
    this.includeUsage = parsed.includeUsage;
    this.body = parsed.body;
    this.fields = parsed.fields;
    this.attribution = parsed.attribution;
    this.#toChat = parsed.toChat;
  }

  chat(): ChatRequest {
    return (this.#chat ??= this.#toChat(this.fields, this.body));
  }

  members(): readonly Member[] {
    return (this.#members ??= topLevelMembers(this.body));
  }
}

/** The members of the request's body, scanned once however often it is dispatched. */
export function membersOf(request: ModelRequest): readonly Member[] {
  return request instanceof ParsedRequest ? request.members() : topLevelMembers(request.body);
}

/** What zod found first, as a Problem with the caller's path; `wanted` says what a body as a whole must be. */
export function invalid(found: z.core.$ZodIssue | undefined, wanted: string): Problem {
  const issue = found === undefined ? undefined : innermost(found);
  const param = (issue?.path ?? [])
    .map((step, index) => (typeof step === "number" ? `[${step}]` : index === 0 ? String(step) : `.${String(step)}`))
    .join("");
  if (param === "") return new Problem("invalid_request", { message: `The body must be ${wanted}.` });
  return new Problem("invalid_request", { param, message: `'${param}' is not valid: ${issue?.message ?? "unexpected value"}.` });
}

/** Of a value that fits no branch of a union: what is wrong deepest inside it, in the branch that came furthest. */
function innermost(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== "invalid_union") return issue;
  let best: z.core.$ZodIssue | null = null;
  for (const [first] of issue.errors) {
    if (first === undefined || first.path.length === 0) continue;
    const inner = innermost({ ...first, path: [...issue.path, ...first.path] });
    if (best === null || inner.path.length > best.path.length) best = inner;
  }
  return best ?? issue;
}

/** Who a call is for: what headers said beats the body's `metadata`, which beats the dialect's own field for the end user. */
export function attribute(headers: Attribution, metadata: Readonly<Record<string, string>>, user: string | null): Attribution {
  const { feature, user: named, session, ...tags } = metadata;
  return {
    feature: headers.feature ?? feature ?? null,
    user: headers.user ?? named ?? user,
    session: headers.session ?? session ?? null,
    tags: { ...tags, ...headers.tags },
  };
}

export const NO_ATTRIBUTION: Attribution = { feature: null, user: null, session: null, tags: {} };

/** Pairs of `metadata`. */
const MAX_TAGS = 16;
const MAX_TAG_NAME = 64;

/** A tag's value, or an end user's identifier. */
export const TAG = z.string().max(BOUNDS.tagLength);

const FEW_TAGS = `at most ${MAX_TAGS} pairs, names of at most ${MAX_TAG_NAME} characters`;

/** Tags as a body carries them. */
export const METADATA = tagsOf(z.record(z.string(), TAG));

/** Few tags, whose values are looked at only when they are few. */
export function tagsOf<Values extends z.ZodType<object, Record<string, unknown>>>(values: Values): z.ZodType<z.output<Values>> {
  return z.looseObject({}).refine(hasFewTags, FEW_TAGS).pipe(values) as unknown as z.ZodType<z.output<Values>>;
}

/**
 * A list, of which the first element at fault is told and no later one looked at. zod's own gathers a problem for each: 1 MiB of `{}`
 * stopped the event loop for 2 s, and 12 MiB took more than 4 GB.
 */
export function listOf<Element extends z.ZodType>(
  element: Element,
  length: { readonly atLeast?: number; readonly atMost?: number } = {},
): z.ZodType<z.output<Element>[]> {
  const firstFault = (values: readonly unknown[], context: z.RefinementCtx): void => {
    for (const [index, value] of values.entries()) {
      const issue = element.safeParse(value).error?.issues[0];
      if (issue !== undefined) return context.addIssue({ ...issue, path: [index, ...issue.path] } as z.core.$ZodSuperRefineIssue);
    }
  };
  const { atLeast = 0, atMost = Number.MAX_SAFE_INTEGER } = length;
  return z.array(z.unknown()).min(atLeast).max(atMost).superRefine(firstFault) as unknown as z.ZodType<z.output<Element>[]>;
}

function hasFewTags(metadata: object): boolean {
  const names = Object.keys(metadata);
  return names.length <= MAX_TAGS && names.every((name) => name.length <= MAX_TAG_NAME);
}

/** What clients that mean "no limit" send at most. Times the choices it is still a number that every record and column can hold. */
export const MAX_TOKENS = 2 ** 31 - 1;
