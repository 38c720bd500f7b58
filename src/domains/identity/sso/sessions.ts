import { createHmac, createSecretKey, timingSafeEqual } from "node:crypto";
import { z } from "zod";
import type { Clock } from "../../../kernel/clock.ts";
import { isUuid, type TenantId, type Uuid } from "../../../kernel/ids.ts";
import type { RandomBytes } from "../../../kernel/random.ts";
import type { Database, TenantTransaction } from "../../../storage/database/index.ts";
import type { TenantKeyring } from "../../../storage/secrets/index.ts";
import type { ProviderId } from "./model.ts";
import { deleteSession, findSession, insertSession, type SessionRow, touchSession, trimSessions } from "./store.ts";

/** A browser that is signed in. */
export interface ConsoleSession {
  readonly id: Uuid;
  readonly tenant: TenantId;
  readonly subject: SessionSubject;
  /** What forms and the console's own calls must bring beside the cookie. */
  readonly csrfToken: string;
  /** Where the person came from; null for a key. */
  readonly provider: SessionProvider | null;
  /** For the provider, when the person signs out. */
  readonly idToken: string | null;
  /** ms since the epoch. */
  readonly expiresAt: number;
}

/** Who signed in: never the key itself. */
export interface SessionSubject {
  readonly kind: "member" | "key" | "bootstrap";
  readonly id: string;
}

/** Who vouched: the session does not outlive it. */
export interface SessionProvider {
  readonly id: ProviderId;
  readonly issuer: string;
}

export interface NewSession {
  readonly tenant: TenantId;
  readonly subject: SessionSubject;
  readonly provider: SessionProvider | null;
  readonly idToken: string | null;
}

export interface SessionsNeeds {
  readonly database: Pick<Database, "forTenant">;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly makeId: <Id extends Uuid>() => Id;
  /** HMAC key of cookies, 32 bytes. */
  readonly cookieSecret: Buffer;
  /** Undefined for a tenant that the snapshot does not hold. */
  readonly keyring: (tenant: TenantId) => TenantKeyring | undefined;
}

export interface Sessions {
  /** In the tenant's transaction. Returns the cookie's value, which nothing here keeps. Ends the subject's oldest beyond the bound. */
  open(tx: TenantTransaction, session: NewSession): Promise<string>;
  /** Null: none, ended, or idle for too long. A use moves the idle end, at most once a minute. */
  find(cookie: string): Promise<ConsoleSession | null>;
  /** Whether it was still there. */
  close(tx: TenantTransaction, id: Uuid): Promise<boolean>;
}

/**
 * A cookie is `<tenant>.<secret>.<tag>`: the tenant says where to look, and the HMAC of the whole is what is looked for, so that naming
 * another's tenant finds nothing. By the tag it is known as one of this installation's, so that what strangers make up is not looked for.
 */
export function createSessions(needs: SessionsNeeds): Sessions {
  const secret = createSecretKey(needs.cookieSecret);
  const hashOf = (cookie: string): Buffer => createHmac("sha256", secret).update(cookie).digest();
  const tagged = (place: string): string => `${place}.${hashOf(`tag of ${place}`).toString("base64url").slice(0, TAG_LENGTH)}`;
  return {
    async open(tx, { tenant, subject, provider, idToken }) {
      const keyring = needs.keyring(tenant);
      if (keyring === undefined) throw new Error("a session for a tenant that the snapshot does not hold");
      const now = needs.clock.now();
      const id = needs.makeId<Uuid>();
      const cookie = tagged(`${tenant}.${newSecret(needs.random)}`);
      const from = provider === null ? null : { id: provider.id, issuer: provider.issuer };
      const content: Content = { csrf: newSecret(needs.random), provider: from, idToken: withinBound(idToken) };
      await insertSession(tx, {
        id,
        cookie_hash: hashOf(cookie),
        subject_kind: subject.kind,
        subject: subject.id,
        content_sealed: keyring.seal(JSON.stringify(content), contentOf(id)),
        created_at: new Date(now),
        idle_at: new Date(now + IDLE_MS),
        expires_at: new Date(now + LIFE_MS),
      });
      await trimSessions(tx, subject.id, new Date(now), MAX_SESSIONS_PER_SUBJECT);
      return cookie;
    },

    async find(cookie) {
      const [, place = "", tenant = ""] = COOKIE.exec(cookie) ?? [];
      if (!isUuid(tenant) || !sameText(tagged(place), cookie)) return null;
      const keyring = needs.keyring(tenant as TenantId);
      if (keyring === undefined) return null;
      return needs.database.forTenant(tenant as TenantId, async (tx) => {
        const row = await findSession(tx, hashOf(cookie));
        return row === undefined ? null : used(needs, tx, keyring, row);
      });
    },

    close: (tx, id) => deleteSession(tx, id),
  };
}

/** Compares without telling how much of it was right. */
export function sameText(one: string, other: string): boolean {
  const [left, right] = [Buffer.from(one), Buffer.from(other)];
  return left.length === right.length && timingSafeEqual(left, right);
}

async function used(needs: SessionsNeeds, tx: TenantTransaction, keyring: TenantKeyring, row: SessionRow): Promise<ConsoleSession | null> {
  const now = needs.clock.now();
  if (now >= row.expires_at.getTime() || now >= row.idle_at.getTime()) {
    await deleteSession(tx, row.id);
    return null;
  }
  if (row.idle_at.getTime() - now < IDLE_MS - TOUCH_MS) await touchSession(tx, row.id, new Date(now + IDLE_MS));
  const { csrf, provider, idToken } = storedContent.parse(JSON.parse(keyring.open(row.content_sealed, contentOf(row.id)).toString()));
  return {
    id: row.id,
    tenant: row.tenant_id,
    subject: { kind: row.subject_kind, id: row.subject },
    csrfToken: csrf,
    provider,
    idToken,
    expiresAt: row.expires_at.getTime(),
  };
}

const storedProvider = z.object({ id: z.string().transform((id) => id as ProviderId), issuer: z.string() });
const storedContent = z.object({ csrf: z.string(), provider: storedProvider.nullable(), idToken: z.string().nullable() });
type Content = z.infer<typeof storedContent>;

function contentOf(id: Uuid) {
  return { table: "console_sessions", column: "content_sealed", row: id };
}

/** 256 bits. */
function newSecret(random: RandomBytes): string {
  return Buffer.from(random(new Uint8Array(32))).toString("base64url");
}

/** It only serves as a hint when the person signs out, so that one that is too long to go into a URL is not kept. */
function withinBound(idToken: string | null): string | null {
  return idToken !== null && idToken.length <= MAX_ID_TOKEN_LENGTH ? idToken : null;
}

const COOKIE = /^(([0-9a-f-]{36})\.[A-Za-z0-9_-]{43})\.[A-Za-z0-9_-]{22}$/;
/** 132 bits. */
const TAG_LENGTH = 22;
/** Without a use, ms. */
const IDLE_MS = 60 * 60_000;
/** With uses, ms: a working day. */
const LIFE_MS = 12 * 60 * 60_000;
const TOUCH_MS = 60_000;
const MAX_SESSIONS_PER_SUBJECT = 20;
const MAX_ID_TOKEN_LENGTH = 4_000;
