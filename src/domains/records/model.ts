import type { Uuid } from "../../kernel/ids.ts";

/** One management action. */
export interface AuditRow {
  readonly id: Uuid;
  /** The key's id, `bootstrap`, or what was run on the machine. */
  readonly actor: string;
  readonly actorKind: "key" | "bootstrap" | "machine";
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
  readonly actor: string;
  readonly actor_kind: string;
  readonly action: string;
  readonly target: string;
  readonly before: unknown;
  readonly after: unknown;
  readonly request_id: string | null;
  readonly remote_address: string | null;
  readonly status: number;
  /** Unix seconds. */
  readonly at: number;
}
