import type { Problem, ProblemCode } from "../../kernel/problem.ts";

/** Anthropic's error envelope: its SDKs choose the exception's class by the status and show `type`, `message` and `details`. */
export interface AnthropicError {
  readonly type: "error";
  readonly error: {
    readonly type: AnthropicErrorType;
    readonly message: string;
    /** Which problem it is, and the field of the caller's request that is at fault where there is one. */
    readonly details: {
      readonly error_code: ProblemCode | "thread_unsupported_request";
      readonly param?: string;
      readonly unsupported?: readonly string[];
    };
  };
  readonly request_id: string;
}

export function anthropicEnvelope(problem: Problem, requestId: string): AnthropicError {
  const error = { type: ERROR_TYPES[problem.code], message: problem.message, details: detailsOf(problem) };
  return { type: "error", error, request_id: requestId };
}

/** A refused thread in the words by which the SDK's tool runner goes on without one (its lib/internal/threads/ThreadState.mjs). */
function detailsOf({ code, param }: Problem): AnthropicError["error"]["details"] {
  if (param === null) return { error_code: code };
  if (code === "unsupported_field" && param === "thread") return { error_code: "thread_unsupported_request", param, unsupported: [param] };
  return { error_code: code, param };
}

/** Those of `ErrorType` in the SDK's resources/shared.d.ts that a problem of ours can be. */
export type AnthropicErrorType =
  | "invalid_request_error"
  | "authentication_error"
  | "permission_error"
  | "billing_error"
  | "not_found_error"
  | "conflict_error"
  | "rate_limit_error"
  | "timeout_error"
  | "overloaded_error"
  | "api_error";

const ERROR_TYPES: Readonly<Record<ProblemCode, AnthropicErrorType>> = {
  invalid_api_key: "authentication_error",
  expired_api_key: "authentication_error",
  permission_denied: "permission_error",
  tenant_suspended: "permission_error",
  model_not_found: "not_found_error",
  not_found: "not_found_error",
  unknown_route: "not_found_error",
  method_not_allowed: "invalid_request_error",
  invalid_request: "invalid_request_error",
  invalid_json: "invalid_request_error",
  duplicate_key: "invalid_request_error",
  unsupported_field: "invalid_request_error",
  unsupported_media_type: "invalid_request_error",
  request_too_large: "invalid_request_error",
  headers_too_large: "invalid_request_error",
  request_timeout: "timeout_error",
  conflict: "conflict_error",
  idempotency_mismatch: "conflict_error",
  revision_mismatch: "conflict_error",
  context_length_exceeded: "invalid_request_error",
  upstream_rejected: "invalid_request_error",
  rate_limit_exceeded: "rate_limit_error",
  request_exceeds_limit: "rate_limit_error",
  budget_exceeded: "billing_error",
  capacity_exceeded: "rate_limit_error",
  upstream_error: "api_error",
  upstream_timeout: "timeout_error",
  overloaded: "overloaded_error",
  internal_error: "api_error",
};
