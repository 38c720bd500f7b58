import { createHmac } from "node:crypto";
import type { TenantKeyring } from "../../storage/secrets/index.ts";
import type { Principal, Session } from "./model.ts";

/**
 * The session of this principal and the id it names, under its tenant's secret: no other tenant, and no other principal,
 * comes to the same one whatever it names. The one place that mints a session.
 */
export function openSession(principal: Principal, callerSession: string | null, keyring: Pick<TenantKeyring, "secret">): Session {
  return new DerivedSession(principal, callerSession, keyring) as unknown as Session;
}

/** The HMAC costs 16 µs, its key another 30, and most calls have no history to load by it, so it is made when it is first asked for. */
class DerivedSession {
  readonly #principal: Principal;
  readonly #named: string;
  readonly #keyring: Pick<TenantKeyring, "secret">;
  #id: string | null = null;

  constructor(principal: Principal, callerSession: string | null, keyring: Pick<TenantKeyring, "secret">) {
    this.#principal = principal;
    this.#named = callerSession === null ? "0" : `1${callerSession}`;
    this.#keyring = keyring;
  }

  get id(): string {
    const { id } = this.#principal;
    return (this.#id ??= createHmac("sha256", this.#keyring.secret("session"))
      .update(`session/${id.length}/${id}/${this.#named}`)
      .digest("base64url"));
  }
}
