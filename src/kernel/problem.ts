/**
 * The closed catalogue of problems a caller can meet. A problem is expected and typed; anything else that is thrown is a
 * bug and leaves as `internal_error`. Every surface maps the whole catalogue, so a new line here fails to compile until
 * each surface answers. `message` is the default public text: it says what to do next and nothing internal.
 */
export const PROBLEMS = {
  invalid_api_key: {
    status: 401,
    type: "authentication_error",
    message: "No valid API key was presented. Send one of your project's keys as 'Authorization: Bearer <key>'.",
  },
  expired_api_key: {
    status: 401,
    type: "authentication_error",
    message: "This API key has expired. Ask your administrator for a new one, or rotate it.",
  },
  permission_denied: { status: 403, type: "permission_error", message: "This key does not have the permission that this route asks for." },
  tenant_suspended: { status: 403, type: "permission_error", message: "This organization is suspended. Ask the platform's administrator." },
  model_not_found: {
    status: 404,
    type: "invalid_request_error",
    message: "The model does not exist or this key may not use it. GET /v1/models lists the models it may use.",
  },
  not_found: { status: 404, type: "not_found_error", message: "There is nothing at this address that this key can see." },
  unknown_route: { status: 404, type: "invalid_request_error", message: "Unknown route." },
  method_not_allowed: {
    status: 405,
    type: "invalid_request_error",
    message: "This route does not take this method; the 'allow' header lists those it takes.",
  },
  invalid_request: { status: 400, type: "invalid_request_error", message: "The request is not valid." },
  invalid_json: { status: 400, type: "invalid_request_error", message: "The body is not valid JSON." },
  duplicate_key: { status: 400, type: "invalid_request_error", message: "An object in the body names a key twice; name it once." },
  unsupported_field: { status: 400, type: "invalid_request_error", message: "A field of the body cannot be honoured here; leave it out." },
  unsupported_media_type: { status: 415, type: "invalid_request_error", message: "Send the body as application/json." },
  request_too_large: { status: 413, type: "invalid_request_error", message: "The body is larger than this server accepts." },
  headers_too_large: {
    status: 431,
    type: "invalid_request_error",
    message: "The request's headers are larger than this server accepts. Send fewer or shorter ones.",
  },
  request_timeout: { status: 408, type: "invalid_request_error", message: "The body did not arrive in time. Send it again." },
  conflict: { status: 409, type: "invalid_request_error", message: "The request conflicts with the present state." },
  idempotency_mismatch: {
    status: 409,
    type: "invalid_request_error",
    message: "This Idempotency-Key was used with another body. Use a new key for a new request.",
  },
  revision_mismatch: {
    status: 412,
    type: "invalid_request_error",
    message: "The resource has changed since the revision in 'If-Match'. Read it again, then repeat the change.",
  },
  context_length_exceeded: {
    status: 400,
    type: "invalid_request_error",
    message: "The request is longer than the model's context window. Shorten it.",
  },
  upstream_rejected: { status: 400, type: "invalid_request_error", message: "The model's provider refused the request." },
  request_exceeds_limit: {
    status: 429,
    type: "rate_limit_error",
    message: "The request is larger than its rate limit lets pass at once. Make it smaller.",
  },
  rate_limit_exceeded: {
    status: 429,
    type: "rate_limit_error",
    message: "The rate limit is reached. Retry after the time in 'retry-after'.",
  },
  budget_exceeded: {
    status: 429,
    type: "insufficient_quota",
    message: "A budget that this call would be charged to cannot pay for it. Ask your administrator.",
  },
  capacity_exceeded: {
    status: 429,
    type: "rate_limit_error",
    message: "No capacity is free for this model. Retry after the time in 'retry-after'.",
  },
  upstream_error: { status: 502, type: "upstream_error", message: "The model's provider failed. Retrying may help." },
  upstream_timeout: { status: 504, type: "upstream_timeout", message: "The model's provider did not answer in time. Retrying may help." },
  overloaded: {
    status: 503,
    type: "overloaded_error",
    message: "The server cannot take this request now. Retry after the time in 'retry-after'.",
  },
  internal_error: { status: 500, type: "internal_error", message: "The server failed. Give the x-request-id to your administrator." },
} as const satisfies Record<string, { readonly status: number; readonly type: string; readonly message: string }>;

export type ProblemCode = keyof typeof PROBLEMS;

export interface ProblemDetails {
  /** Public text that replaces the catalogue's. Says what to do next; nothing internal. */
  readonly message?: string | null;
  /** The field of the caller's request that is at fault. */
  readonly param?: string | null;
  readonly retryAfterSeconds?: number;
  /** More response headers, lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  /** What really happened: for logs, never for the caller. */
  readonly cause?: unknown;
}

export class Problem extends Error {
  readonly code: ProblemCode;
  readonly status: number;
  readonly type: string;
  readonly param: string | null;
  readonly retryAfterSeconds: number | null;
  readonly headers: Readonly<Record<string, string>>;

  constructor(code: ProblemCode, details: ProblemDetails = {}) {
    super(details.message ?? PROBLEMS[code].message, { cause: details.cause });
    this.name = "Problem";
    this.code = code;
    this.status = PROBLEMS[code].status;
    this.type = PROBLEMS[code].type;
    this.param = details.param ?? null;
    this.retryAfterSeconds = details.retryAfterSeconds ?? null;
    this.headers = details.headers ?? NO_HEADERS;
  }
}

const NO_HEADERS: Readonly<Record<string, string>> = {};

/** Anything thrown, as a problem: problems as they are, all else `internal_error` with its cause kept for the log. */
export function asProblem(thrown: unknown): Problem {
  return thrown instanceof Problem ? thrown : new Problem("internal_error", { cause: thrown });
}
