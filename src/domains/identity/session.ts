import { createHmac } from "node:crypto";
import type { Principal, Session } from "./model.ts";

/**
 * The session of this principal and the id it names, under its tenant's secret: no other tenant, and no other principal,
 * comes to the same one whatever it names. The one place that mints a session.
 */
export function openSession(principal: Principal, callerSession: string | null, tenantSecret: Buffer): Session {
  return new DerivedSession(principal, callerSession, tenantSecret) as unknown as Session;
}

/** The HMAC costs 16 µs and most calls have no history to load by it, so it is made when it is first asked for. */
class DerivedSession {
  readonly #principal: Principal;
  readonly #named: string;
  readonly #tenantSecret: Buffer;
  #id: string | null = null;

  constructor(principal: Principal, callerSession: string | null, tenantSecret: Buffer) {
    this.#principal = principal;
    this.#named = callerSession === null ? "0" : `1${callerSession}`;
    this.#tenantSecret = tenantSecret;
  }

  get id(): string {
    const { id } = this.#principal;
    return (this.#id ??= createHmac("sha256", this.#tenantSecret).update(`session/${id.length}/${id}/${this.#named}`).digest("base64url"));
  }
}
