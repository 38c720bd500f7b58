import type { Uuid } from "../../kernel/ids.ts";

/** One management action. */
export interface AuditRow {
  readonly id: Uuid;
  /** The id of the key or of the member, `bootstrap`, or what was run on the machine. */
  readonly actor: string;
  readonly actorKind: "key" | "bootstrap" | "user" | "service_account" | "machine";
  readonly action: string;
  /** The id of what was acted on. */
  readonly target: string;
  /** Secrets masked. */
  readonly before: unknown;
  readonly after: unknown;
  /** Null for what was done on the machine itself. */
  readonly requestId: string | null;
  readonly remoteAddress: string | null;
  readonly status: number;
  /** ms since the epoch. */
  readonly at: number;
}

/** As the API shows it. */
export interface AuditView {
  readonly id: string;
  /** Its place in the trail: 1, 2, 3 … without gaps. */
  readonly sequence: number;
  readonly actor: string;
  readonly actor_kind: string;
  readonly action: string;
  readonly target: string;
  readonly before: unknown;
  readonly after: unknown;
  readonly request_id: string | null;
  readonly remote_address: string | null;
  readonly status: number;
  /** How many times: more than one where refusals of one minute are one row. */
  readonly count: number;
  /** Unix seconds. */
  readonly at: number;
  /** SHA-256 over the row and the hash of the row before it, hexadecimal. */
  readonly hash: string;
}
