import type { AddressClass } from "./address.ts";

/** Why a URL is not called: by what it says, by where it leads, or by where it is redirected to. */
export type EgressReason =
  | "not_a_url"
  | "too_long"
  | "scheme"
  | "user_information"
  | "notation"
  | "port"
  | "plain_http"
  | "special_name"
  | Exclude<AddressClass, "public">
  | "unreadable_address"
  | "too_many_redirects"
  | "downgrade"
  | "body_to_another_origin";

/** The guard's no. Its message is for logs: `publicReason` is what a tenant may be told. */
export class EgressRefused extends Error {
  override readonly name = "EgressRefused";
  readonly reason: EgressReason;

  constructor(reason: EgressReason) {
    super(`the URL is not called: ${reason}`);
    this.reason = reason;
  }

  /** Says what to write instead where the URL itself is at fault; of an address, nothing that tells private networks apart. */
  get publicReason(): string {
    return PUBLIC_REASONS[this.reason] ?? NOT_PUBLIC;
  }
}

export type EgressFailure =
  | "name_unknown"
  | "unreachable"
  | "tls"
  | "timeout"
  | "aborted"
  | "response_too_large"
  | "bad_response"
  | "bad_request";

/** The URL may be called, and it did not answer as it should. */
export class EgressFailed extends Error {
  override readonly name = "EgressFailed";
  readonly reason: EgressFailure;

  constructor(reason: EgressFailure, cause?: unknown) {
    super(`the request failed: ${reason}`, { cause });
    this.reason = reason;
  }
}

/** The same for a name without an address: whether a private one exists is nobody's business. */
export const NOT_PUBLIC = "Its host has no public address. An administrator can name networks of your own in ATRIUM_EGRESS_ALLOW.";

const PUBLIC_REASONS: Partial<Record<EgressReason, string>> = {
  not_a_url: "It must be an absolute URL of printable characters, without a backslash or a space.",
  too_long: "It is longer than is taken.",
  scheme: "It must begin with https://.",
  user_information: "It must not hold a user or a password.",
  notation: "Write the host as a name, as a.b.c.d or as [IPv6], without a dot at its end.",
  port: "Its port must be 443, or above 1023.",
  plain_http: "It must begin with https://.",
};
