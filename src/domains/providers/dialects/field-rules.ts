import { Problem } from "../../../kernel/problem.ts";
import type { JsonObject } from "../../../kernel/request.ts";

/**
 * What becomes of a field of a request's body. `ours`: set, namespaced or refused by policy, never taken from the caller.
 * `priced`: has a term in the worst case (the dialect's bound.ts). `plain`: forwarded as it came.
 */
export type FieldRule =
  | { readonly class: "plain" }
  | { readonly class: "priced"; /** The term. */ readonly why: string }
  | { readonly class: "ours"; readonly policy: OursPolicy; readonly why: string };

/**
 * `set`: we write the value. `consume`: we read it and do not send it on. `namespace`: sent on as an HMAC under a key of the tenant's
 * (vendors), or not at all (engines). `salt`: replaced by the tenant's cache salt (engines), else dropped.
 * `refuse`: a value other than null and other than those listed as `harmless`, is refused by name; harmless ones are dropped.
 */
export type OursPolicy =
  | { readonly kind: "set" | "consume" | "namespace" | "salt" }
  | { readonly kind: "refuse"; readonly harmless: readonly (string | boolean)[] };

export const plain: FieldRule = { class: "plain" };

export function priced(why: string): FieldRule {
  return { class: "priced", why };
}

export function ours(kind: "set" | "consume" | "namespace" | "salt", why: string): FieldRule {
  return { class: "ours", policy: { kind }, why };
}

export function refused(why: string, harmless: readonly (string | boolean)[] = []): FieldRule {
  return { class: "ours", policy: { kind: "refuse", harmless }, why };
}

/** Refuses, by name, the first field whose rule says so: Problem `unsupported_field`. */
export function refuseByPolicy(fields: JsonObject, rules: ReadonlyMap<string, FieldRule>): void {
  for (const key of Object.keys(fields)) {
    const rule = rules.get(key);
    if (rule?.class !== "ours" || rule.policy.kind !== "refuse") continue;
    const value = fields[key];
    if (value === null || rule.policy.harmless.some((harmless) => harmless === value)) continue;
    throw new Problem("unsupported_field", { param: key, message: `'${key}' cannot be honoured here; leave it out. ${rule.why}` });
  }
}
