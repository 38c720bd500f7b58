import type { Clock } from "../../../kernel/clock.ts";
import { type KeyId, PLATFORM_TENANT, type TenantId } from "../../../kernel/ids.ts";
import { Problem } from "../../../kernel/problem.ts";
import { BOOTSTRAP, hashKey, principalOfKey } from "../authenticate.ts";
import type { KeyRecord, Principal } from "../model.ts";
import { admit, type Origin } from "../origin.ts";
import { sameText, type SessionSubject } from "./sessions.ts";

export interface RecalledKeysNeeds {
  readonly pepper: Buffer;
  readonly bootstrapKey: string | null;
  readonly clock: Clock;
  /** From the snapshot. */
  readonly knownKey: (tenant: TenantId, id: KeyId) => KeyRecord | undefined;
}

/** Keys that a session was begun with: what is kept of one names it, and does not open anything. */
export interface RecalledKeys {
  /** Null for a principal that is no administrator's key. */
  subjectOf(principal: Principal): SessionSubject | null;
  /** The key as it stands now. Throws Problem where it would not be taken any more, or not from there. */
  principalOf(tenant: TenantId, subject: SessionSubject, from: Origin): Principal;
}

export function createRecalledKeys({ pepper, bootstrapKey, clock, knownKey }: RecalledKeysNeeds): RecalledKeys {
  // Another value of the variable is another key, so a session of the one before ends with it.
  const bootstrapMark = bootstrapKey === null ? null : hashKey(pepper, `console session of ${bootstrapKey}`).toString("base64url");
  return {
    subjectOf(principal) {
      if (principal === BOOTSTRAP) return bootstrapMark === null ? null : { kind: "bootstrap", id: bootstrapMark };
      const { key, member, project } = principal;
      return key === null || member !== null || project !== null ? null : { kind: "key", id: key.id };
    },

    principalOf(tenant, { kind, id }, from) {
      if (kind === "bootstrap") {
        if (tenant !== PLATFORM_TENANT || bootstrapMark === null || !sameText(bootstrapMark, id)) throw new Problem("invalid_api_key");
        return BOOTSTRAP;
      }
      const record = knownKey(tenant, id as KeyId);
      if (record === undefined) throw new Problem("invalid_api_key");
      admit(record, from);
      if (record.expiresAt !== null && clock.now() >= record.expiresAt) throw new Problem("expired_api_key");
      return principalOfKey(record);
    },
  };
}
