import type { Settlement } from "../domains/metering/index.ts";
import type { Problem } from "../kernel/problem.ts";

/** How a call ended. Every call has exactly one; it is carried to `record`. */
export type Outcome =
  | { readonly kind: "answered"; readonly settlement: Settlement }
  /** Something failed after the first byte had left. */
  | { readonly kind: "truncated"; readonly settlement: Settlement; readonly problem: Problem }
  /** With a settlement where a response had begun. */
  | { readonly kind: "client_left"; readonly settlement?: Settlement }
  | { readonly kind: "problem"; readonly problem: Problem };
